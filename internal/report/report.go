// Package report has the events of a run and the writers that show them: text, a progress bar, JSON
// lines, TensorBoard files, charts and an HTML page. It does not know who emits the events.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"
)

// Event is an event of a run: a Start, Step, Eval, Stuck or End, which are recorded, or a Progress or
// Note.
type Event interface{ kind() string }

// Func receives events in order.
type Func func(Event)

// Start is the beginning of a run.
type Start struct {
	Model         string  `json:"model"`
	Rows          int     `json:"rows"`
	Steps         int     `json:"steps"`
	BatchSize     int     `json:"batch_size"`
	VirtualTokens int     `json:"virtual_tokens"`
	Parameters    int     `json:"parameters"` // number of trained values
	LearningRate  float64 `json:"learning_rate"`
	Optimizer     string  `json:"optimizer"`
	Seed          uint64  `json:"seed"`

	// Prompt and Train are the paths of the prompt file and of the training rows. If not absolute, they are
	// relative to the folder of the events.
	Prompt  string            `json:"prompt,omitempty"`
	Train   string            `json:"train,omitempty"`
	Machine string            `json:"machine,omitempty"`
	Task    map[string]string `json:"task,omitempty"` // all keys of the task file

	EvalEvery int `json:"-"` // steps between evaluations; 0: there are none
}

// Step is one optimizer step.
type Step struct {
	Step         int      `json:"step"`
	Of           int      `json:"of"`
	Epoch        int      `json:"epoch"`
	Loss         Number   `json:"loss"` // mean over the batch's target tokens, before the step
	LearningRate float64  `json:"learning_rate"`
	GradNorm     Number   `json:"grad_norm"` // before clipping
	PromptNorm   Number   `json:"prompt_norm"`
	UpdateRatio  Number   `json:"update_ratio"`     // norm of the update / norm of the prompt before it
	Drift        Number   `json:"drift"`            // distance from the initial prompt
	TokenNorms   []Number `json:"token_grad_norms"` // of each virtual token, before clipping
	TargetTokens int      `json:"target_tokens"`
	Tokens       int      `json:"tokens"` // of all rows; a shared prefix counts for each row
	Seconds      float64  `json:"seconds"`
}

// Eval is an evaluation of one set.
type Eval struct {
	Step     int      `json:"step"`
	Set      string   `json:"set"`
	Loss     Number   `json:"loss"`
	Accuracy *float64 `json:"accuracy,omitempty"`
	MacroF1  *float64 `json:"macro_f1,omitempty"`
	Best     bool     `json:"best"`              // so far, by BestBy
	BestBy   string   `json:"best_by,omitempty"` // the metric; empty: loss
	// ExactMatch is the share of rows whose target is generated; nil if it was not measured.
	ExactMatch *float64 `json:"exact_match,omitempty"`
	Seconds    float64  `json:"seconds"`
}

// Scores are the metrics of an evaluation.
type Scores struct {
	Loss       Number   `json:"loss"`
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	ExactMatch *float64 `json:"exact_match,omitempty"`
}

// Scores returns the metrics that were measured.
func (e Eval) Scores() Scores { return Scores{e.Loss, e.Accuracy, e.MacroF1, e.ExactMatch} }

// Stuck warns that a run has stopped learning: its gradient has vanished while its loss is above that
// of a guess from the labels' shares.
type Stuck struct {
	Step            int    `json:"step"`
	Loss            Number `json:"loss"`       // running mean
	GuessLoss       Number `json:"guess_loss"` // of the guess
	GradNorm        Number `json:"grad_norm"`  // running mean
	LargestGradNorm Number `json:"largest_grad_norm"`
}

// String says what was seen and what to change.
func (s Stuck) String() string {
	return fmt.Sprintf("the run is stuck: its gradient norm fell from %.3g to %.2g, but its loss, %.3g, "+
		"is above the %.3g of a guess from the labels' shares; "+
		"stop it and try train.max_decrease: 1, train.warmup: 0.2 or another train.seed",
		float64(s.LargestGradNorm), float64(s.GradNorm), float64(s.Loss), float64(s.GuessLoss))
}

// End is the end of a run.
type End struct {
	Steps           int     `json:"steps"`
	BestStep        int     `json:"best_step"`
	StopReason      string  `json:"stop_reason"`
	Seconds         float64 `json:"seconds"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"`
}

// Progress is how far an evaluation is. It is shown, not recorded.
type Progress struct {
	What     string // the set of rows
	Done, Of int    // rows
}

// Note is a sentence about how a run evaluates. It is shown, not recorded.
type Note string

func (Progress) kind() string { return "" }
func (Note) kind() string     { return "" }

func (Start) kind() string { return "start" }
func (Step) kind() string  { return "step" }
func (Eval) kind() string  { return "eval" }
func (Stuck) kind() string { return "stuck" }
func (End) kind() string   { return "end" }

// Number is a float whose JSON is null for NaN and infinities.
type Number float64

// MarshalJSON writes n.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// All returns a Func that passes each event to all of fs.
func All(fs ...Func) Func {
	return func(e Event) {
		for _, f := range fs {
			f(e)
		}
	}
}

// JSONL returns a Func that writes each event as a line of JSON, with its kind as "event". It calls
// fail with each error.
func JSONL(w io.Writer, fail func(error)) Func {
	return func(e Event) {
		if e.kind() == "" {
			return
		}
		body, err := json.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(w, "{\"event\":%q,%s\n", e.kind(), body[1:])
		}
		if err != nil {
			fail(err)
		}
	}
}

// Text returns a Func that writes lines for people: the start, evaluations, the end, and a step at
// most every so often.
func Text(w io.Writer, every time.Duration) Func {
	var last time.Time
	var measured pace
	return func(e Event) {
		switch e := e.(type) {
		case Progress:
			if line := measured.line(e); time.Since(last) >= every && time.Since(measured.begin) >= every {
				last = time.Now()
				fmt.Fprintln(w, line)
			}
		case Note:
			fmt.Fprintln(w, string(e))
		case Start:
			fmt.Fprintf(w, "training %d virtual tokens (%d values) for %s: "+
				"%d rows, %d steps of %d, %s at %.3g, seed %d\n",
				e.VirtualTokens, e.Parameters, e.Model,
				e.Rows, e.Steps, e.BatchSize, e.Optimizer, e.LearningRate, e.Seed)
			last = time.Now()
		case Step:
			if time.Since(last) < every && e.Step != e.Of {
				return
			}
			last = time.Now()
			fmt.Fprintf(w, "step %d/%d  loss %.4f  learning rate %.3g  gradient norm %.3g",
				e.Step, e.Of, float64(e.Loss), e.LearningRate, float64(e.GradNorm))
			if e.TokenNorms != nil { // a prompt, not parameters of the model
				fmt.Fprintf(w, "  prompt norm %.3g", float64(e.PromptNorm))
			}
			fmt.Fprintf(w, "  %.2f s/step\n", e.Seconds)
		case Eval:
			fmt.Fprintf(w, "step %d  %s: loss %.4f", e.Step, e.Set, float64(e.Loss))
			if e.Accuracy != nil {
				fmt.Fprintf(w, "  accuracy %.4f  macro-F1 %.4f", *e.Accuracy, *e.MacroF1)
			}
			if e.ExactMatch != nil {
				fmt.Fprintf(w, "  exact match %.4f", *e.ExactMatch)
			}
			switch {
			case e.Best && e.BestBy != "":
				fmt.Fprintf(w, "  (best %s so far)", e.BestBy)
			case e.Best:
				fmt.Fprint(w, "  (best so far)")
			}
			fmt.Fprintln(w)
		case Stuck:
			fmt.Fprintf(w, "step %d  warning: %v\n", e.Step, e)
		case End:
			fmt.Fprintf(w, "done after %d steps (%s), best at step %d, %.1f s, peak memory %d MB\n",
				e.Steps, e.StopReason, e.BestStep, e.Seconds, e.PeakMemoryBytes>>20)
		}
	}
}

// SweepText returns a Func that writes the progress of a sweep at most every so often.
func SweepText(w io.Writer, runs int, every time.Duration) Func {
	last, lowest := time.Now(), math.Inf(1)
	var measured pace
	return func(e Event) {
		switch e := e.(type) {
		case Progress:
			if line := measured.line(e); time.Since(last) >= every {
				last = time.Now()
				fmt.Fprintln(w, line)
			}
		case Eval:
			lowest = min(lowest, float64(e.Loss))
		case Step:
			if time.Since(last) >= every {
				last = time.Now()
				line := fmt.Sprintf("step %d/%d", e.Step, e.Of)
				if runs > 1 {
					line += fmt.Sprintf(" of %d runs", runs)
				}
				line += fmt.Sprintf("  %.2f s/step", e.Seconds)
				if !math.IsInf(lowest, 1) {
					line += fmt.Sprintf("  lowest validation loss %.4f", lowest)
				}
				fmt.Fprintln(w, line)
			}
		}
	}
}
