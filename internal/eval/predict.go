package eval

import "context"

// Prediction is what is predicted for an input. Labels are indices in Options.Labels.
type Prediction struct {
	Label               int
	Probability         float64
	RunnerUp            int // the likeliest of the other labels
	RunnerUpProbability float64
}

// Predict returns the prediction for each input, of at least two labels. Labels and their probabilities
// are those that Run finds for rows of the same inputs.
func Predict(ctx context.Context, s Scorer, prompt []float32, inputs [][]int32, o Options) (
	[]Prediction, error) {
	e := newEvaluation(s, prompt, o)
	e.options.Probabilities = true
	rows := make([]Row, len(inputs))
	for i, ids := range inputs {
		rows[i].Input = ids
	}
	if err := e.measure(ctx, rows); err != nil {
		return nil, err
	}
	all := make([]Prediction, len(rows))
	for i, label := range e.predicted {
		p := e.probabilities[i]
		second := -1
		for l := range p {
			if l != label && (second < 0 || p[l] > p[second]) {
				second = l
			}
		}
		all[i] = Prediction{label, p[label], second, p[second]}
	}
	return all, nil
}
