package train

import (
	"math"
	"testing"

	"ptune/internal/report"
)

func TestAPromptWhoseLossIsNaNIsNeverTheBest(t *testing.T) {
	for _, best := range BestBy() {
		r := &run{result: &Result{}}
		r.Config.Best = best
		r.result.Valid, r.result.Loss = []report.Eval{{}}, 1
		if r.better(math.NaN(), math.Inf(-1)) {
			t.Errorf("with train.best %s a prompt of NaN is better", best)
		}
	}
}
