package infer

import (
	"errors"
	"math"
	"slices"

	"ptune/internal/batch"
)

// Scorer computes −log p of a forest's targets after soft prompts, whose values follow each other.
type Scorer interface {
	NLL(prompts []float32, f *batch.Forest) ([]float32, error)
}

// Question is an input and the endings whose likelihood is asked for.
type Question struct {
	Prompt int // the number of its soft prompt; ignored without any
	Input  []int32
	Ends   [][]int32
}

// Tokens is the number of tokens of the input and all endings.
func (q *Question) Tokens() int {
	n := len(q.Input)
	for _, e := range q.Ends {
		n += len(e)
	}
	return n
}

// Likelihood is the sum of −log p over the tokens of an ending. Without a soft prompt and an input
// nothing predicts the first token, so it does not count.
type Likelihood struct {
	NLL    float64
	Tokens int
}

// Score returns the likelihood of each ending of each question after soft prompts of the given
// numbers of rows, or none. Inputs that begin alike and the soft prompts are computed once.
func Score(s Scorer, prompts []float32, rows []int, questions []Question) ([][]Likelihood, error) {
	var examples []batch.Example
	for _, q := range questions {
		for _, end := range q.Ends {
			ids := slices.Concat(q.Input, end)
			examples = append(examples, batch.Example{Prompt: q.Prompt, IDs: ids, From: len(q.Input)})
		}
	}
	f := batch.Pack(rows, examples)
	nll, err := s.NLL(prompts, f)
	if err != nil {
		return nil, err
	}
	all := make([]Likelihood, len(examples))
	for i, t := range f.Targets {
		all[t.Of].NLL += float64(nll[i])
		all[t.Of].Tokens++
	}
	scores := make([][]Likelihood, len(questions))
	for i, q := range questions {
		scores[i], all = all[:len(q.Ends)], all[len(q.Ends):]
	}
	return scores, nil
}

// Forcer computes by how much the logit of each of a forest's targets exceeds that of every other token.
type Forcer interface {
	Margins(prompts []float32, f *batch.Forest) ([]float32, error)
}

// Margins returns the least margin of each question's only ending, over its tokens. Where it is
// positive, the ending is what greedy decoding writes after the input: its first token is the
// likeliest, and so is each later one after those before it.
func Margins(m Forcer, prompts []float32, rows []int, questions []Question) ([]float64, error) {
	var examples []batch.Example
	least := make([]float64, len(questions))
	for i, q := range questions {
		ids := slices.Concat(q.Input, q.Ends[0])
		examples = append(examples, batch.Example{Prompt: q.Prompt, IDs: ids, From: len(q.Input)})
		least[i] = math.Inf(1)
	}
	f := batch.Pack(rows, examples)
	margins, err := m.Margins(prompts, f)
	if err != nil {
		return nil, err
	}
	for i, t := range f.Targets {
		least[t.Of] = min(least[t.Of], float64(margins[i]))
	}
	return least, nil
}

// LabelEnds returns the tokens to score for each label: the label's own, followed by the end token
// if one label begins like another, because then only the end token tells them apart.
func LabelEnds(labels [][]int32, eos int32) [][]int32 {
	for i, a := range labels {
		for j, b := range labels {
			if i != j && len(a) <= len(b) && slices.Equal(a, b[:len(a)]) {
				ends := make([][]int32, len(labels))
				for k, l := range labels {
					ends[k] = append(slices.Clone(l), eos)
				}
				return ends
			}
		}
	}
	return labels
}

// MeanScores returns −log p of labels per token, from the sums over the tokens that are scored of each.
func MeanScores(sums []float64, labels [][]int32) []float64 {
	means := make([]float64, len(sums))
	for l, nll := range sums {
		means[l] = nll / float64(len(labels[l]))
	}
	return means
}

// score answers waiting requests with labels: the first ones that have ScoreTokens tokens together,
// but at least one. It reports whether some wait for memory that texts in work take.
func (e *Engine) score() (full bool) {
	asked := e.firstAsked()
	if asked == nil {
		return false
	}
	err := e.scoreTogether(asked)
	for errors.Is(err, batch.ErrFull) && len(asked) > 1 {
		asked = asked[:len(asked)/2]
		err = e.scoreTogether(asked)
	}
	for _, h := range asked {
		if err != nil && len(asked) > 1 { // find the request that the model cannot score
			h.err = e.scoreTogether([]*Handle{h})
		} else {
			h.err = err
		}
		if errors.Is(h.err, batch.ErrFull) && len(e.running) > 0 {
			h.err, full = nil, true
			continue
		}
		e.leave(h)
	}
	return full
}

// firstAsked returns the waiting requests with labels that are scored together.
func (e *Engine) firstAsked() (asked []*Handle) {
	tokens := 0
	for _, h := range e.waiting {
		if h.Labels == nil {
			continue
		}
		tokens += (&Question{Input: h.IDs, Ends: h.Labels}).Tokens()
		if asked != nil && (tokens > e.ScoreTokens || (h.Prompt == nil) != (asked[0].Prompt == nil) ||
			e.inTree(h) != e.inTree(asked[0])) {
			break
		}
		asked = append(asked, h)
	}
	return asked
}

// inTree reports whether a request's labels are scored by Options.Trees. The first token of a label
// after an empty input has no row of a tree before it.
func (e *Engine) inTree(h *Handle) bool { return e.Trees != nil && len(h.IDs) > 0 }

// scoreTogether sets the results of requests with labels.
func (e *Engine) scoreTogether(asked []*Handle) error {
	if e.inTree(asked[0]) {
		return e.scoreTrees(asked)
	}
	var questions []Question
	var prompts []*Prompt
	var values []float32
	var rows []int
	for _, h := range asked {
		q := Question{Input: h.IDs, Ends: h.Labels}
		if h.Prompt != nil {
			if q.Prompt = slices.Index(prompts, h.Prompt); q.Prompt < 0 {
				q.Prompt = len(prompts)
				prompts, values = append(prompts, h.Prompt), append(values, h.Prompt.values...)
				rows = append(rows, h.Prompt.rows)
			}
		}
		questions = append(questions, q)
	}
	scores, err := Score(e.Scorer, values, rows, questions)
	if err != nil {
		return err
	}
	for i, h := range asked {
		h.result = &Result{}
		for _, s := range scores[i] {
			h.result.Scores = append(h.result.Scores, s.NLL)
		}
	}
	return nil
}

// scoreTrees is scoreTogether with trees after each soft prompt. They hold the inputs and the labels, and
// what they begin with once. Requests that ask for different tokens after the same row have trees of their
// own, because the last bits of an answer depend on what else its row is asked for.
func (e *Engine) scoreTrees(asked []*Handle) error {
	var trees []*textTree
	of := map[*Prompt][]*textTree{}
	defer func() {
		for _, t := range trees {
			e.Trees.RemoveTree(t.handle)
		}
	}()
	for _, h := range asked {
		own := newTextTree(0)
		own.add(h)
		at := slices.IndexFunc(of[h.Prompt], func(t *textTree) bool { return t.takes(own) })
		if at < 0 {
			prompt := batch.NoPrompt
			if h.Prompt != nil {
				prompt = h.Prompt.handle
			}
			handle, err := e.Trees.NewTree(prompt, 0)
			if err != nil {
				return err
			}
			t := newTextTree(handle)
			at, of[h.Prompt], trees = len(of[h.Prompt]), append(of[h.Prompt], t), append(trees, t)
		}
		of[h.Prompt][at].add(h)
	}
	var rows []batch.Row
	for _, t := range trees {
		rows = append(rows, t.rows...)
	}
	nll, err := e.Trees.Extend(rows)
	if err != nil {
		return err
	}
	for _, t := range trees {
		nll = t.answer(nll)
	}
	return nil
}

// textTree is texts as rows of a tree of Options.Trees.
type textTree struct {
	handle int
	rows   []batch.Row
	rowOf  map[edge]int // the row after another one's
	asked  []askedLabel
}

func newTextTree(handle int) *textTree { return &textTree{handle: handle, rowOf: map[edge]int{}} }

// edge is a token after a row of a tree; -1: at its beginning.
type edge struct {
	row int
	id  int32
}

// askedLabel is a label of a request as the tokens that rows ask for.
type askedLabel struct {
	of     *Handle
	tokens []place
}

// place is a number of batch.Row.Asked.
type place struct{ row, number int }

// add adds a request's input and labels.
func (t *textTree) add(h *Handle) {
	end := -1
	for _, id := range h.IDs {
		end = t.after(end, id)
	}
	for _, label := range h.Labels {
		a, row := askedLabel{of: h}, end
		for i, id := range label {
			if i > 0 {
				row = t.after(row, label[i-1])
			}
			r := &t.rows[row]
			n := slices.Index(r.Asked, id)
			if n < 0 {
				n, r.Asked = len(r.Asked), append(r.Asked, id)
			}
			a.tokens = append(a.tokens, place{row, n})
		}
		t.asked = append(t.asked, a)
	}
}

// takes reports whether the texts of another tree can be added so that each row is asked for the same
// tokens, in the same order, as in that tree and before.
func (t *textTree) takes(other *textTree) bool {
	at := map[int]int{-1: -1} // the row of each of the other's that both have
	for i, r := range other.rows {
		parent, ok := at[r.Parent]
		if !ok {
			continue
		}
		row, ok := t.rowOf[edge{parent, r.ID}]
		if !ok {
			continue
		}
		at[i] = row
		if has := t.rows[row].Asked; len(has) > 0 && len(r.Asked) > 0 && !slices.Equal(has, r.Asked) {
			return false
		}
	}
	return true
}

// after returns the row of a token after another row.
func (t *textTree) after(row int, id int32) int {
	at, ok := t.rowOf[edge{row, id}]
	if !ok {
		at = len(t.rows)
		t.rows = append(t.rows, batch.Row{Tree: t.handle, Parent: row, ID: id})
		t.rowOf[edge{row, id}] = at
	}
	return at
}

// answer sets the results of the requests from −log p of the tokens asked for, row after row. It returns
// the numbers behind them.
func (t *textTree) answer(nll []float32) []float32 {
	first := make([]int, len(t.rows)) // number of each row's first token
	n := 0
	for i, r := range t.rows {
		first[i] = n
		n += len(r.Asked)
	}
	for _, a := range t.asked {
		if a.of.result == nil {
			a.of.result = &Result{}
		}
		sum := 0.0
		for _, p := range a.tokens {
			sum += float64(nll[first[p.row]+p.number])
		}
		a.of.result.Scores = append(a.of.result.Scores, sum)
	}
	return nll[n:]
}
