package eval

import (
	"context"
	"slices"
)

// Alone measures the base model without a soft prompt on rows that were measured with o. It returns
// nil if a row has no input token, because the base cannot predict a first token from nothing.
func Alone(ctx context.Context, s Scorer, rows []Row, o Options) (*Result, error) {
	if !haveInputs(rows) {
		return nil, nil
	}
	o.PromptRows, o.Names, o.Probabilities = nil, nil, false
	return Run(ctx, s, nil, rows, o)
}

// AsWords measures the base model on inputs that begin with words, the text that a soft prompt was
// initialised from. It returns nil if a row is then longer than positions; 0: no limit.
func AsWords(ctx context.Context, s Scorer, encode func(string) ([]int32, error), words string,
	rows []Row, o Options, positions int) (*Result, error) {
	rows = slices.Clone(rows)
	for i, r := range rows {
		ids, err := encode(words + "\n" + r.Text)
		if err != nil {
			return nil, err
		}
		if rows[i].Input = ids; positions > 0 && len(ids)+len(r.Target) > positions {
			return nil, nil
		}
	}
	o.PromptRows, o.Names, o.Probabilities = nil, nil, false
	return Run(ctx, s, nil, rows, o)
}
