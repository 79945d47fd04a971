// Package eval measures a soft prompt, or a base model alone, on rows: loss and perplexity of the
// targets and, with labels, accuracy and F1 by each label's likelihood. It does not know how
// likelihoods and logits are computed.
package eval

import (
	"context"
	"errors"
	"math"
	"slices"

	"ptune/internal/infer"
)

// Scorer computes −log p of a forest's targets after soft prompts.
type Scorer = infer.Scorer

// Row is an example to measure.
type Row struct {
	Text          string  // the input as text, for AsWords
	Input, Target []int32 // the target with its end token
	Label         int     // the true one of Options.Labels
}

// Options are what is measured and how much at a time.
type Options struct {
	Labels     [][]int32 // each label's target tokens; none: no accuracy
	Names      []string  // of the labels
	MeanScores bool      // a label's score is the mean of −log p over its tokens, not the sum
	EOS        int32
	MaxTokens  int   // tokens of text computed at a time
	PromptRows []int // rows of the soft prompt, or of each member of an ensemble; none: the base alone

	// Trees, if not nil, searches the likeliest of many labels instead of scoring all of them. Then
	// Result has Probabilities and CalibrationError only if Probabilities asks for the other scores.
	Trees         func() infer.Trees
	Probabilities bool
	Tell          func(done, of int) // called with the number of rows measured so far; nil: not called
}

// Result is what was measured.
type Result struct {
	Rows       int      `json:"rows"`
	Loss       float64  `json:"loss"`       // mean −log p of the target tokens
	Perplexity float64  `json:"perplexity"` // e^loss
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	Details
	Members []Member `json:"members,omitempty"` // of an ensemble; Loss is the mean of theirs

	// Predicted is the likeliest label of each row, in an ensemble the one with most votes.
	Predicted     []int       `json:"-"`
	Probabilities [][]float64 `json:"-"` // of the labels of each row; nil: see Options.Probabilities
	// Losses is −log p of each row's target, the sum over its tokens; of an ensemble, the mean.
	Losses []float64 `json:"-"`
}

// Details are measured if there are labels with Options.Names.
type Details struct {
	MCC              *float64            `json:"mcc,omitempty"`
	CalibrationError *float64            `json:"calibration_error,omitempty"`
	Intervals        map[string]Interval `json:"intervals,omitempty"` // by metric
	Classes          []Class             `json:"classes,omitempty"`
	Confusion        [][]int             `json:"confusion,omitempty"` // [true label, predicted label]
}

// Member is what one prompt of an ensemble achieves by itself.
type Member struct {
	Loss     float64  `json:"loss"`
	Accuracy *float64 `json:"accuracy,omitempty"`
}

// Run measures rows after a soft prompt of [PromptRows, D] values. The values of several prompts follow
// each other and make an ensemble (Lester et al. 2021, section 6): in one pass each prompt votes for the
// label it finds likeliest. The label with most votes is predicted, of equals the one that is likelier
// to all members together.
//
// A label's score is the likelihood of its tokens or, with Options.MeanScores, the mean of −log p over them.
// The end token counts as well if one label begins
// like another, because then only the end token tells them apart.
func Run(ctx context.Context, s Scorer, prompt []float32, rows []Row, o Options) (*Result, error) {
	if len(rows) == 0 {
		return nil, errors.New("no rows to evaluate")
	}
	e := newEvaluation(s, prompt, o)
	if err := e.measure(ctx, rows); err != nil {
		return nil, err
	}
	return e.result(rows), nil
}

func newEvaluation(s Scorer, prompt []float32, o Options) *evaluation {
	return &evaluation{
		scorer: s, prompt: prompt, options: o, labels: infer.LabelEnds(o.Labels, o.EOS),
		members: make([]member, max(1, len(o.PromptRows))),
	}
}

// measure scores the labels of rows and their targets.
func (e *evaluation) measure(ctx context.Context, rows []Row) error {
	measure := e.whole
	if tree := infer.NewLabelTree(e.labels); e.options.Trees != nil && !tree.Small() && haveInputs(rows) {
		measure = func(ctx context.Context, rows []Row) error { return e.search(ctx, rows, tree) }
	}
	e.tell(0, len(rows))
	err := measure(ctx, rows)
	if err != nil && ctx.Err() != nil { // it ended a pass
		err = context.Cause(ctx)
	}
	return err
}

// haveInputs reports whether each row has an input token.
func haveInputs(rows []Row) bool {
	return !slices.ContainsFunc(rows, func(r Row) bool { return len(r.Input) == 0 })
}

// whole measures rows by scoring all labels.
func (e *evaluation) whole(ctx context.Context, rows []Row) error {
	for i, r := range rows {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e.add(r)
		if i == len(rows)-1 || e.tokens+e.cost(rows[i+1]) > e.options.MaxTokens {
			if err := e.flush(); err != nil {
				return err
			}
			e.tell(i+1, len(rows))
		}
	}
	return nil
}

// search measures rows by searching the likeliest label. An ensemble's votes can be equal, and then the
// scores of all labels decide.
func (e *evaluation) search(ctx context.Context, rows []Row, labels *infer.LabelTree) error {
	trees, members := e.options.Trees(), len(e.members)
	defer trees.Close()
	var questions []infer.Asked
	for _, r := range rows {
		for k := range e.members {
			questions = append(questions, infer.Asked{Prompt: k, Input: r.Input, Target: r.Target})
		}
	}
	found, err := infer.Search(ctx, trees, e.prompt, e.options.PromptRows, labels, questions,
		infer.SearchOptions{
			// The best-first search is for sums: a mean can fall as tokens are added.
			All: e.options.Probabilities || members > 1 || e.options.MeanScores, MaxTokens: e.options.MaxTokens,
			Done: func(n int) { e.tell(n/members, len(rows)) },
		})
	if err != nil {
		return err
	}
	if e.options.MeanScores {
		for i := range found {
			found[i].Scores = infer.MeanScores(found[i].Scores, e.labels)
			found[i].Best = infer.Likeliest(found[i].Scores)
		}
	}
	for row := range slices.Chunk(found, members) {
		e.row(row)
	}
	return nil
}

// tell reports the number of rows measured.
func (e *evaluation) tell(done, of int) {
	if e.options.Tell != nil {
		e.options.Tell(done, of)
	}
}

// result sums up what was measured on the rows.
func (e *evaluation) result(rows []Row) *Result {
	o := e.options
	truth := make([]int, len(rows))
	for i, r := range rows {
		truth[i] = r.Label
	}
	accuracy := func(predicted []int) *float64 {
		if len(o.Labels) == 0 {
			return nil
		}
		a := Accuracy(truth, predicted)
		return &a
	}
	res := &Result{
		Rows: len(rows), Predicted: e.predicted, Probabilities: e.probabilities, Losses: e.losses,
		Accuracy: accuracy(e.predicted),
	}
	for _, m := range e.members {
		loss := m.nll / float64(e.targets)
		res.Loss += loss / float64(len(e.members))
		if len(e.members) > 1 {
			res.Members = append(res.Members, Member{Loss: loss, Accuracy: accuracy(m.predicted)})
		}
	}
	res.Perplexity = math.Exp(res.Loss)
	if len(o.Labels) > 0 {
		f1 := MacroF1(truth, e.predicted, len(o.Labels))
		res.MacroF1 = &f1
		if o.Names != nil {
			res.Details = e.details(truth)
		}
	}
	return res
}

// evaluation is a Run in progress.
type evaluation struct {
	scorer    Scorer
	prompt    []float32
	options   Options
	labels    [][]int32 // what is scored of each
	questions []infer.Question
	tokens    int // of the questions' texts
	targets   int // target tokens measured
	predicted []int
	members   []member

	probabilities [][]float64
	losses        []float64
}

// details computes what predictions give beside accuracy and F1.
func (e *evaluation) details(truth []int) Details {
	var d Details
	d.Confusion = Confusion(truth, e.predicted, len(e.options.Labels))
	d.Classes = Classes(d.Confusion, e.options.Names)
	mcc := MCC(d.Confusion)
	d.MCC = &mcc
	if e.probabilities != nil {
		correct, confidence := make([]bool, len(truth)), make([]float64, len(truth))
		for i, t := range truth {
			correct[i], confidence[i] = e.predicted[i] == t, e.probabilities[i][e.predicted[i]]
		}
		ece := CalibrationError(correct, confidence)
		d.CalibrationError = &ece
	}
	accuracy, f1 := intervals(truth, e.predicted, len(e.options.Labels))
	d.Intervals = map[string]Interval{"accuracy": accuracy, "macro_f1": f1}
	return d
}

// member is what one prompt has been measured at so far.
type member struct {
	nll       float64
	predicted []int
}

// cost is the number of tokens a row adds.
func (e *evaluation) cost(r Row) int {
	n := len(r.Input) + len(r.Target)
	for _, l := range e.options.Labels {
		n += len(l) + 1
	}
	return n * len(e.members)
}

// add asks for the likelihoods of a row's target and of each label, after each prompt.
func (e *evaluation) add(r Row) {
	ends := e.labels
	if r.Target != nil {
		ends = append([][]int32{r.Target}, ends...)
	}
	for prompt := range e.members {
		e.questions = append(e.questions, infer.Question{Prompt: prompt, Input: r.Input, Ends: ends})
	}
	e.tokens += e.cost(r)
}

// flush computes the likelihoods asked for.
func (e *evaluation) flush() error {
	scores, err := infer.Score(e.scorer, e.prompt, e.options.PromptRows, e.questions)
	if err != nil {
		return err
	}
	for row := range slices.Chunk(scores, len(e.members)) {
		e.row(answers(row, len(e.labels), e.options.MeanScores))
	}
	e.questions, e.tokens = nil, 0
	return nil
}

// answers returns what each member finds of a row, from the likelihoods of its target, if it has one, and
// of its labels.
func answers(scores [][]infer.Likelihood, labels int, mean bool) []infer.Found {
	all := make([]infer.Found, len(scores))
	for k, s := range scores {
		a := &all[k]
		if len(s) > labels {
			a.Target, s = s[0], s[1:]
		}
		for _, l := range s {
			if mean { // without an input, a label's first token has no likelihood
				l.NLL /= float64(max(1, l.Tokens))
			}
			a.Scores = append(a.Scores, l.NLL)
		}
		a.Best = infer.Likeliest(a.Scores)
	}
	return all
}

// row counts what each member finds of a row.
func (e *evaluation) row(found []infer.Found) {
	e.targets += found[0].Target.Tokens
	loss := 0.0
	for k, a := range found {
		m := &e.members[k]
		m.nll += a.Target.NLL
		loss += a.Target.NLL / float64(len(e.members))
		m.predicted = append(m.predicted, a.Best)
	}
	e.losses = append(e.losses, loss)
	labels := len(e.options.Labels)
	if labels == 0 {
		return
	}
	if found[0].Scores == nil { // there is one member
		e.predicted = append(e.predicted, found[0].Best)
		return
	}
	votes, sums := make([]int, labels), make([]float64, labels)
	for _, a := range found {
		votes[a.Best]++
		for l, nll := range a.Scores {
			sums[l] += nll
		}
	}
	e.predicted = append(e.predicted, elected(votes, sums))
	for l := range sums {
		sums[l] /= float64(len(e.members))
	}
	e.probabilities = append(e.probabilities, infer.Probabilities(sums))
}

// elected returns the label with most votes, of equals the one with the lowest score.
func elected(votes []int, scores []float64) int {
	best := 0
	for l := range votes {
		if votes[l] > votes[best] || votes[l] == votes[best] && scores[l] < scores[best] {
			best = l
		}
	}
	return best
}

// Accuracy returns the share of rows whose label was predicted.
func Accuracy(truth, predicted []int) float64 {
	correct := 0
	for i, t := range truth {
		if predicted[i] == t {
			correct++
		}
	}
	return float64(correct) / float64(len(truth))
}

// MacroF1 returns the mean over the classes of 2·TP / (2·TP + FP + FN), 0 for a class with none of
// these, as scikit-learn's f1_score(average="macro", labels=all classes, zero_division=0).
func MacroF1(truth, predicted []int, classes int) float64 {
	tp, wrong := make([]int, classes), make([]int, classes)
	for i, t := range truth {
		if p := predicted[i]; p == t {
			tp[t]++
		} else {
			wrong[t]++
			wrong[p]++
		}
	}
	sum := 0.0
	for c := range classes {
		if tp[c] > 0 {
			sum += 2 * float64(tp[c]) / float64(2*tp[c]+wrong[c])
		}
	}
	return sum / float64(classes)
}
