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
	EOS        int32
	MaxTokens  int // tokens of text computed at a time
	PromptRows int // rows of the soft prompt; 0: the base alone
}

// Result is what was measured.
type Result struct {
	Rows       int      `json:"rows"`
	Loss       float64  `json:"loss"`       // mean −log p of the target tokens
	Perplexity float64  `json:"perplexity"` // e^loss
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	Predicted  []int    `json:"-"` // the likeliest label of each row
}

// Run measures rows behind a prompt of [PromptRows, D] values.
//
// A label's score is the log-likelihood of its tokens; the end token counts as well where one label begins like another,
// for only it tells them apart.
func Run(ctx context.Context, s Scorer, prompt []float32, rows []Row, o Options) (*Result, error) {
	if len(rows) == 0 {
		return nil, errors.New("there is no row to evaluate")
	}
	e := &evaluation{scorer: s, prompt: prompt, options: o, ends: ambiguous(o.Labels)}
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
	res := &Result{Rows: len(rows), Loss: e.nll / float64(e.targets), Predicted: e.predicted}
	res.Perplexity = math.Exp(res.Loss)
	if len(o.Labels) > 0 {
		truth := make([]int, len(rows))
		for i, r := range rows {
			truth[i] = r.Label
		}
		accuracy, f1 := Accuracy(truth, e.predicted), MacroF1(truth, e.predicted, len(o.Labels))
		res.Accuracy, res.MacroF1 = &accuracy, &f1
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
	nll       float64
	targets   int
	predicted []int
}

func (e *evaluation) cost(r Row) int {
	n := len(r.Input) + len(r.Target)
	for _, l := range e.options.Labels {
		n += len(l) + 1
	}
	return n
}

// add puts a row's target and each label behind its input; they share it in the forest.
func (e *evaluation) add(r Row) {
	example := func(end []int32) {
		e.examples = append(e.examples, batch.Example{IDs: slices.Concat(r.Input, end), From: len(r.Input)})
	}
	example(r.Target)
	for _, l := range e.options.Labels {
		if e.ends {
			l = append(slices.Clone(l), e.options.EOS)
		}
		example(l)
	}
	e.tokens += e.cost(r)
	e.pending = append(e.pending, r)
}

// flush scores what was added.
func (e *evaluation) flush() error {
	var prompts []int
	if e.options.PromptRows > 0 {
		prompts = []int{e.options.PromptRows}
	}
	f := batch.Pack(prompts, e.examples)
	nll, err := e.scorer.NLL(e.prompt, f)
	if err != nil {
		return err
	}
	sums, counts := make([]float64, len(e.examples)), make([]int, len(e.examples))
	for i, t := range f.Targets {
		sums[t.Of] += float64(nll[i])
		counts[t.Of]++
	}
	each := 1 + len(e.options.Labels)
	for i := range e.pending {
		e.nll += sums[i*each]
		e.targets += counts[i*each]
		if scores := sums[i*each+1 : (i+1)*each]; len(scores) > 0 {
			e.predicted = append(e.predicted, lowest(scores))
		}
	}
	e.examples, e.pending, e.tokens = nil, nil, 0
	return nil
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
