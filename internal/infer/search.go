package infer

import (
	"cmp"
	"context"
	"math"
	"slices"

	"ptune/internal/batch"
)

// Trees computes −log p along trees of continuations, as model.Decoder does.
type Trees interface {
	TextTrees
	AddPrompt(values []float32) (int, error)
	RemovePrompt(prompt int)
	Close()
}

// TextTrees are Trees after soft prompts that are registered.
type TextTrees interface {
	// NewTree begins a tree after a soft prompt or batch.NoPrompt, or after the last row of another
	// tree, the stem; 0: none.
	NewTree(prompt, stem int) (int, error)
	// Extend adds rows to trees and returns −log p of the tokens that they ask for. The result is valid
	// until the next call. A row's numbers do not depend on the other rows of the call.
	Extend(rows []batch.Row) ([]float32, error)
	RemoveTree(tree int)
}

// LabelTree is the tokens to score of each label (LabelEnds) as a prefix tree.
type LabelTree struct {
	nodes  []labelNode // parents before their children; the first is the empty prefix
	labels int
	rows   int // of the tree after an input: its inner nodes but the root
}

// labelNode is a prefix of labels. The tokens that can follow it are its edges.
type labelNode struct {
	parent int
	id     int32 // its last token
	ids    []int32
	to     []int // the node of each edge; 0: no label continues
	label  []int // the label that ends with each edge; -1: none does
}

// NewLabelTree returns the prefix tree of labels, none of them equal.
func NewLabelTree(labels [][]int32) *LabelTree {
	t := &LabelTree{nodes: make([]labelNode, 1), labels: len(labels)}
	for l, ids := range labels {
		at := 0
		for i, id := range ids {
			n := &t.nodes[at]
			e := slices.Index(n.ids, id)
			if e < 0 {
				e = len(n.ids)
				n.ids, n.to, n.label = append(n.ids, id), append(n.to, 0), append(n.label, -1)
			}
			if i == len(ids)-1 {
				n.label[e] = l
				break
			}
			if n.to[e] == 0 {
				n.to[e] = len(t.nodes)
				t.nodes = append(t.nodes, labelNode{parent: at, id: id})
			}
			at = t.nodes[at].to[e]
		}
	}
	t.rows = len(t.nodes) - 1
	return t
}

// wholeRows is the largest tree of labels, in rows, that is computed whole together with its input:
// searching a small one takes more passes over the weights than the rows it saves are worth.
const wholeRows = 16

// Small reports whether computing the whole tree takes less time than searching it.
func (t *LabelTree) Small() bool { return t.rows <= wholeRows }

// Rows returns the number of prefixes that the whole tree computes after an input.
func (t *LabelTree) Rows() int { return t.rows }

// Found is what Search finds of a question.
type Found struct {
	Target Likelihood // of the question's target
	Best   int        // the likeliest label; of equals the first
	NLL    float64    // −log p of that label
	Scores []float64  // −log p of each label; nil unless all were asked for
	Rows   int        // computed for the question
}

// Asked is an input whose likeliest label is searched.
type Asked struct {
	Prompt int     // the number of its soft prompt; ignored without any
	Input  []int32 // at least one token
	Target []int32 // its likelihood is asked for, too; may be empty
}

// SearchOptions are how a search works.
type SearchOptions struct {
	All       bool        // score all labels, not only as many as it takes to find the likeliest
	MaxTokens int         // tokens computed or kept at a time, at least about those of one question
	Done      func(n int) // called after each pass with the number of questions answered; nil: not called
}

// Search finds the likeliest label of each question. A label's −log p only grows with each of its
// tokens, so the search takes the likeliest prefix first and stops at a label that is as likely as every
// prefix that is left (best-first search, Dijkstra 1959). The result is to the bit that with All, which
// scores all labels. The rows of a question do not depend on other questions: many share each pass.
func Search(ctx context.Context, d Trees, prompts []float32, rows []int, labels *LabelTree,
	questions []Asked, o SearchOptions) ([]Found, error) {
	s := &searcher{d: d, labels: labels, options: o, answers: make([]Found, len(questions))}
	defer s.close()
	if err := s.begin(prompts, rows, questions); err != nil {
		return nil, err
	}
	next := 0
	for next < len(questions) || len(s.open) > 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		pass := s.pass[:0]
		for _, q := range s.open {
			pass = q.expand(pass)
		}
		for next < len(questions) && s.fits(&questions[next]) {
			q, err := s.start(next, &questions[next])
			if err != nil {
				return nil, err
			}
			pass = q.first(pass)
			next++
		}
		s.pass = pass
		nll, err := d.Extend(pass)
		if err != nil {
			return nil, err
		}
		for _, q := range s.open {
			nll = q.receive(nll)
		}
		s.finish()
		if o.Done != nil {
			o.Done(next - len(s.open))
		}
	}
	return s.answers, nil
}

// Likeliest returns the index of the lowest score, of equals the first. NaN is never the lowest; 0 if
// there is no other.
func Likeliest(scores []float64) int {
	best, least := 0, math.Inf(1)
	for l, s := range scores {
		if s < least {
			best, least = l, s
		}
	}
	return best
}

// Probabilities turns −log likelihoods into probabilities, which sum to one (softmax).
func Probabilities(scores []float64) []float64 {
	least := slices.Min(scores)
	p, sum := make([]float64, len(scores)), 0.0
	for i, s := range scores {
		p[i] = math.Exp(least - s)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// mostOpen is the most questions searched at a time: their rows fill a pass, and the keys and values of
// few of them are in memory.
const mostOpen = 48

// searcher is a Search in progress.
type searcher struct {
	d       Trees
	labels  *LabelTree
	options SearchOptions
	answers []Found
	prompts []int // handles of the soft prompts
	shared  int   // tokens that all inputs begin with and stems hold
	stems   []int // tree of each soft prompt with these; nil: none
	open    []*question
	pass    []batch.Row
}

// minStem is the fewest shared tokens that are worth a tree of their own.
const minStem = 4

// begin registers the soft prompts and computes what all inputs begin with.
func (s *searcher) begin(prompts []float32, rows []int, questions []Asked) error {
	values := 0 // of a row
	for _, n := range rows {
		values += n
	}
	if values > 0 {
		values = len(prompts) / values
	}
	for _, n := range rows {
		p, err := s.d.AddPrompt(prompts[:n*values])
		if err != nil {
			return err
		}
		s.prompts, prompts = append(s.prompts, p), prompts[n*values:]
	}
	if len(s.prompts) == 0 {
		s.prompts = []int{batch.NoPrompt}
	}
	shared := questions[0].Input
	for _, q := range questions {
		n := 0
		for n < len(shared) && n < len(q.Input)-1 && shared[n] == q.Input[n] {
			n++
		}
		shared = shared[:n]
	}
	if len(shared) < minStem || len(questions) == 1 {
		return nil
	}
	s.shared = len(shared)
	var pass []batch.Row
	for _, p := range s.prompts {
		if len(pass) > 0 && len(pass)+len(shared) > s.options.MaxTokens {
			if _, err := s.d.Extend(pass); err != nil {
				return err
			}
			pass = pass[:0]
		}
		stem, err := s.d.NewTree(p, 0)
		if err != nil {
			return err
		}
		s.stems = append(s.stems, stem)
		for i, id := range shared {
			pass = append(pass, batch.Row{Tree: stem, Parent: i - 1, ID: id})
		}
		pass[len(pass)-1].Asked = shared[:1] // a pass needs a token to predict
	}
	_, err := s.d.Extend(pass)
	return err
}

// close removes everything from d.
func (s *searcher) close() {
	for _, q := range s.open {
		s.d.RemoveTree(q.tree)
	}
	for _, stem := range s.stems {
		s.d.RemoveTree(stem)
	}
	for _, p := range s.prompts {
		if p != batch.NoPrompt {
			s.d.RemovePrompt(p)
		}
	}
}

// size is about the number of rows that a question computes and keeps.
func (s *searcher) size(q *Asked) int {
	if s.options.All {
		return len(q.Input) + len(q.Target) + s.labels.rows
	}
	return len(q.Input) + len(q.Target) + wholeRows
}

// fits reports whether another question can be searched together with the open ones.
func (s *searcher) fits(q *Asked) bool {
	tokens := s.size(q)
	for _, other := range s.open {
		tokens += s.size(other.Asked)
	}
	return len(s.open) == 0 || len(s.open) < mostOpen && tokens <= s.options.MaxTokens
}

// start opens question n.
func (s *searcher) start(n int, a *Asked) (*question, error) {
	k := 0
	if len(s.prompts) > 1 {
		k = a.Prompt
	}
	stem := 0
	if s.stems != nil {
		stem = s.stems[k]
	}
	tree, err := s.d.NewTree(s.prompts[k], stem)
	if err != nil {
		return nil, err
	}
	q := &question{
		Asked: a, number: n, tree: tree, labels: s.labels, input: a.Input[s.shared:],
		answer: Found{Best: -1, NLL: math.Inf(1)}, at: map[int]int{}, nll: map[int]float64{},
	}
	if s.options.All {
		q.answer.Scores = make([]float64, s.labels.labels)
	}
	s.open = append(s.open, q)
	return q, nil
}

// finish removes the questions that are answered.
func (s *searcher) finish() {
	s.open = slices.DeleteFunc(s.open, func(q *question) bool {
		if len(q.frontier) > 0 {
			return false
		}
		q.answer.Best = max(0, q.answer.Best) // -1: every label's score is NaN
		q.answer.Rows = q.rows
		s.answers[q.number] = q.answer
		s.d.RemoveTree(q.tree)
		return true
	})
}

// question is a question in work.
type question struct {
	*Asked
	number int
	tree   int
	labels *LabelTree
	input  []int32 // without what its stem holds
	rows   int     // added to the tree
	answer Found

	at       map[int]int     // row of each node of the labels' tree that is computed
	nll      map[int]float64 // −log p of each node that is known
	frontier []int           // the nodes that are known, not computed
	asked    []asked         // rows of the running pass that ask for something
}

// asked is a row whose successors' scores are asked for: those of the edges of a node of the labels'
// tree, of the next token of the target, or both.
type asked struct {
	node   int // -1: the target has left the labels' tree
	edges  int // the first numbers are those of the node's edges
	target int // position of the number of the target's next token; -1: none is asked for
}

// add adds a row to the pass and returns its number in the tree.
func (q *question) add(pass []batch.Row, parent int, id int32, ask []int32) ([]batch.Row, int) {
	q.rows++
	return append(pass, batch.Row{Tree: q.tree, Parent: parent, ID: id, Asked: ask}), q.rows - 1
}

// first adds the input, the target and, if all labels are scored, their tree to the pass.
func (q *question) first(pass []batch.Row) []batch.Row {
	row := -1
	for _, id := range q.input {
		pass, row = q.add(pass, row, id, nil)
	}
	node := 0
	for i := 0; i == 0 || i < len(q.Target); i++ {
		if i > 0 {
			pass, row = q.add(pass, row, q.Target[i-1], nil)
		}
		a := asked{node: node, target: -1}
		var ids []int32
		if node >= 0 {
			q.at[node] = row
			ids = q.labels.nodes[node].ids
			a.edges = len(ids)
		}
		node = -1
		if i < len(q.Target) {
			if a.target = slices.Index(ids, q.Target[i]); a.target < 0 {
				a.target, ids = len(ids), append(ids[:len(ids):len(ids)], q.Target[i])
			} else if to := q.labels.nodes[a.node].to[a.target]; to > 0 {
				node = to
			}
		}
		pass[len(pass)-1].Asked = ids
		q.asked = append(q.asked, a)
	}
	if q.answer.Scores != nil {
		for n := range q.labels.nodes {
			if _, computed := q.at[n]; !computed {
				pass = q.compute(pass, n)
			}
		}
	}
	return pass
}

// compute adds the row of a node of the labels' tree to the pass.
func (q *question) compute(pass []batch.Row, node int) []batch.Row {
	n := &q.labels.nodes[node]
	pass, q.at[node] = q.add(pass, q.at[n.parent], n.id, n.ids)
	q.asked = append(q.asked, asked{node: node, edges: len(n.ids), target: -1})
	return pass
}

// width is the most prefixes of a question that a pass computes. With more, a question takes fewer
// passes, but also computes prefixes that a better label would have made unnecessary.
const width = 2

// expand adds the likeliest prefixes to the pass.
func (q *question) expand(pass []batch.Row) []batch.Row {
	n := min(width, len(q.frontier))
	for _, node := range q.frontier[:n] {
		pass = q.compute(pass, node)
	}
	q.frontier = q.frontier[n:]
	return pass
}

// receive takes the question's numbers of a pass and returns those of the questions after it.
func (q *question) receive(nll []float32) []float32 {
	for _, a := range q.asked {
		if a.target >= 0 {
			q.answer.Target.NLL += float64(nll[a.target])
			q.answer.Target.Tokens++
		}
		if a.node >= 0 {
			q.score(a.node, nll[:a.edges])
		}
		nll = nll[max(a.edges, a.target+1):]
	}
	q.asked = q.asked[:0]
	slices.SortStableFunc(q.frontier, func(a, b int) int { return cmp.Compare(q.nll[a], q.nll[b]) })
	// A prefix that is as likely as the best label may lead to an equal label that comes before it.
	q.frontier = slices.DeleteFunc(q.frontier, func(node int) bool {
		return !(q.nll[node] <= q.answer.NLL) // true for NaN
	})
	return nll
}

// score takes the scores of a node's edges.
func (q *question) score(node int, nll []float32) {
	n := &q.labels.nodes[node]
	for e, v := range nll {
		sum := q.nll[node] + float64(v)
		if l := n.label[e]; l >= 0 {
			if q.answer.Scores != nil {
				q.answer.Scores[l] = sum
			}
			if best := &q.answer; sum < best.NLL || sum == best.NLL && l < best.Best {
				best.Best, best.NLL = l, sum
			}
		}
		if to := n.to[e]; to > 0 {
			q.nll[to] = sum
			if _, computed := q.at[to]; !computed {
				q.frontier = append(q.frontier, to)
			}
		}
	}
}
