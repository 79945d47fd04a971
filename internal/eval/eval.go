// Package eval measures a soft prompt, or a base alone, on rows: loss and perplexity of the targets and, with labels,
// accuracy and F1 by each label's log-likelihood. It does not know how likelihoods are made.
package eval

import (
	"context"
	"errors"
	"math"
	"slices"

	"ptune/internal/batch"
)

// Scorer computes −log p of a forest's targets behind soft prompts.
type Scorer interface {
	NLL(prompts []float32, f *batch.Forest) ([]float32, error)
}

// Row is an example to measure.
type Row struct {
	Input, Target []int32 // the target with its end token
	Label         int     // the true one of Options.Labels
}

// Options are what is measured and how much at a time.
type Options struct {
	Labels     [][]int32 // each label's target tokens; none: no accuracy
	Names      []string  // of the labels
	EOS        int32
	MaxTokens  int   // tokens of text computed at a time
	PromptRows []int // rows of the soft prompt, or of each member of an ensemble; none: the base alone
}

// Result is what was measured.
type Result struct {
	Rows       int      `json:"rows"`
	Loss       float64  `json:"loss"`       // mean −log p of the target tokens
	Perplexity float64  `json:"perplexity"` // e^loss
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	Details
	Members       []Member    `json:"members,omitempty"` // of an ensemble; Loss is the mean of theirs
	Predicted     []int       `json:"-"`                 // the likeliest label of each row, in an ensemble the one with most votes
	Probabilities [][]float64 `json:"-"`                 // of the labels of each row
	Losses        []float64   `json:"-"`                 // −log p of each row's target, summed over its tokens; of an ensemble, the mean
}

// Details is what else labels tell; Run leaves it empty without Options.Names.
type Details struct {
	MCC              *float64            `json:"mcc,omitempty"`
	CalibrationError *float64            `json:"calibration_error,omitempty"`
	Intervals        map[string]Interval `json:"intervals,omitempty"` // by metric
	Classes          []Class             `json:"classes,omitempty"`
	Confusion        [][]int             `json:"confusion,omitempty"` // rows by true label, then by the one predicted
}

// Member is what one prompt of an ensemble gets by itself.
type Member struct {
	Loss     float64  `json:"loss"`
	Accuracy *float64 `json:"accuracy,omitempty"`
}

// Run measures rows behind a prompt of [PromptRows, D] values. Several prompts, one behind the other, are an ensemble: each gives
// every row, in the same pass, the label it finds likeliest, and most votes win (Lester et al. 2021, section 6); where they
// are equal, the label that is likelier to all members together.
//
// A label's score is the log-likelihood of its tokens; the end token counts as well where one label begins like another,
// for only it tells them apart.
func Run(ctx context.Context, s Scorer, prompt []float32, rows []Row, o Options) (*Result, error) {
	if len(rows) == 0 {
		return nil, errors.New("there is no row to evaluate")
	}
	e := &evaluation{scorer: s, prompt: prompt, options: o, ends: ambiguous(o.Labels), members: make([]member, max(1, len(o.PromptRows)))}
	for i, r := range rows {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e.add(r)
		if i == len(rows)-1 || e.tokens+e.cost(rows[i+1]) > o.MaxTokens {
			if err := e.flush(); err != nil {
				return nil, err
			}
		}
	}
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
	res := &Result{Rows: len(rows), Predicted: e.predicted, Probabilities: e.probabilities, Losses: e.losses, Accuracy: accuracy(e.predicted)}
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
	return res, nil
}

type evaluation struct {
	scorer    Scorer
	prompt    []float32
	options   Options
	ends      bool // labels are scored with their end token
	examples  []batch.Example
	pending   []Row
	tokens    int
	targets   int
	predicted []int
	members   []member

	probabilities [][]float64
	losses        []float64
}

// details is what the predictions tell beside accuracy and F1.
func (e *evaluation) details(truth []int) Details {
	var d Details
	d.Confusion = Confusion(truth, e.predicted, len(e.options.Labels))
	d.Classes = Classes(d.Confusion, e.options.Names)
	mcc := MCC(d.Confusion)
	right, sure := make([]bool, len(truth)), make([]float64, len(truth))
	for i, t := range truth {
		right[i], sure[i] = e.predicted[i] == t, e.probabilities[i][e.predicted[i]]
	}
	ece := CalibrationError(right, sure)
	d.MCC, d.CalibrationError = &mcc, &ece
	accuracy, f1 := intervals(truth, e.predicted, len(e.options.Labels))
	d.Intervals = map[string]Interval{"accuracy": accuracy, "macro_f1": f1}
	return d
}

// member is what one prompt has been measured to do so far.
type member struct {
	nll       float64
	predicted []int
}

func (e *evaluation) cost(r Row) int {
	n := len(r.Input) + len(r.Target)
	for _, l := range e.options.Labels {
		n += len(l) + 1
	}
	return n * len(e.members)
}

// add puts a row's target and each label behind its input, once behind every prompt; they share it in the forest.
func (e *evaluation) add(r Row) {
	for prompt := range e.members {
		example := func(end []int32) {
			e.examples = append(e.examples, batch.Example{Prompt: prompt, IDs: slices.Concat(r.Input, end), From: len(r.Input)})
		}
		example(r.Target)
		for _, l := range e.options.Labels {
			if e.ends {
				l = append(slices.Clone(l), e.options.EOS)
			}
			example(l)
		}
	}
	e.tokens += e.cost(r)
	e.pending = append(e.pending, r)
}

// flush scores what was added.
func (e *evaluation) flush() error {
	f := batch.Pack(e.options.PromptRows, e.examples)
	nll, err := e.scorer.NLL(e.prompt, f)
	if err != nil {
		return err
	}
	sums, counts := make([]float64, len(e.examples)), make([]int, len(e.examples))
	for i, t := range f.Targets {
		sums[t.Of] += float64(nll[i])
		counts[t.Of]++
	}
	labels := len(e.options.Labels)
	each := 1 + labels
	for range e.pending {
		votes, all := make([]int, labels), make([]float64, labels)
		e.targets += counts[0]
		loss := 0.0
		for k := range e.members {
			m := &e.members[k]
			m.nll += sums[0]
			loss += sums[0] / float64(len(e.members))
			if scores := sums[1:each]; labels > 0 {
				m.predicted = append(m.predicted, lowest(scores))
				votes[lowest(scores)]++
				for l, s := range scores {
					all[l] += s
				}
			}
			sums, counts = sums[each:], counts[each:]
		}
		if labels > 0 {
			e.predicted = append(e.predicted, elected(votes, all))
			for l := range all {
				all[l] /= float64(len(e.members))
			}
			e.probabilities = append(e.probabilities, probabilities(all))
		}
		e.losses = append(e.losses, loss)
	}
	e.examples, e.pending, e.tokens = nil, nil, 0
	return nil
}

// elected is the label with most votes, among equals the one of the lowest score.
func elected(votes []int, scores []float64) int {
	best := 0
	for l := range votes {
		if votes[l] > votes[best] || votes[l] == votes[best] && scores[l] < scores[best] {
			best = l
		}
	}
	return best
}

func lowest(x []float64) int {
	best := 0
	for i, v := range x {
		if v < x[best] {
			best = i
		}
	}
	return best
}

// ambiguous tells whether one label's tokens begin another's.
func ambiguous(labels [][]int32) bool {
	for i, a := range labels {
		for j, b := range labels {
			if i != j && len(a) <= len(b) && slices.Equal(a, b[:len(a)]) {
				return true
			}
		}
	}
	return false
}

// Accuracy is the share of rows whose label was predicted.
func Accuracy(truth, predicted []int) float64 {
	right := 0
	for i, t := range truth {
		if predicted[i] == t {
			right++
		}
	}
	return float64(right) / float64(len(truth))
}

// MacroF1 is the mean over the classes of 2·TP / (2·TP + FP + FN), 0 for a class with none of these, as scikit-learn's
// f1_score(average="macro", labels=all classes, zero_division=0).
func MacroF1(truth, predicted []int, classes int) float64 {
	return macroF1(truth, predicted, classes, false)
}

// macroF1 is MacroF1, with present over the classes alone that are there: a sample of the rows may lack one.
func macroF1(truth, predicted []int, classes int, present bool) float64 {
	tp, wrong := make([]int, classes), make([]int, classes)
	for i, t := range truth {
		if p := predicted[i]; p == t {
			tp[t]++
		} else {
			wrong[t]++
			wrong[p]++
		}
	}
	sum, n := 0.0, classes
	for c := range classes {
		switch {
		case tp[c] > 0:
			sum += 2 * float64(tp[c]) / float64(2*tp[c]+wrong[c])
		case present && wrong[c] == 0:
			n--
		}
	}
	return sum / float64(n)
}
