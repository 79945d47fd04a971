package run

import (
	"math"
	"slices"
	"testing"
)

func TestARunThatDivergedAtOnceIsNeverTheBestOfASweep(t *testing.T) {
	losses := []float64{math.NaN(), 2, math.Inf(1), 1, math.NaN()}
	slices.SortFunc(losses, compareLoss)
	if losses[0] != 1 || losses[1] != 2 || !math.IsInf(losses[2], 1) || !math.IsNaN(losses[3]) {
		t.Errorf("losses are ordered %v, want 1, 2, +Inf and then NaN", losses)
	}
}
