package train

import (
	"context"
	"math"
	"slices"
	"testing"
)

// TestOptimizersEqualTorch compares with torch 2.15.0's optimizers with lr 0.1, weight decay 0.2 and,
// for AdamW, betas (0.8, 0.95).
func TestOptimizersEqualTorch(t *testing.T) {
	grads := [][]float32{{1, -2, 0.5, 0}, {0.3, 0.1, -4, 1e-3}, {-1, 0, 0, 2}}
	for name, want := range map[string][][]float64{
		"adamw": {
			{0.39000002, -0.88, 1.86000001, 0},
			{0.29852021, -0.80278254, 1.89210868, -0.07757802},
			{0.2984409, -0.74306726, 1.90502334, -0.14527276},
		},
		"sgd": {{0.38999999, -0.77999997, 1.90999997, 0}, {0.35219997, -0.7744, 2.27180004, -0.0001}},
	} {
		values := []float32{0.5, -1, 2, 0}
		c := OptimizerConfig{Name: name, Betas: [2]float64{0.8, 0.95}, WeightDecay: 0.2}
		o, err := NewOptimizer(c, 1, len(values))
		if err != nil {
			t.Fatal(err)
		}
		for s, w := range want {
			o.Step(values, grads[s], 0.1)
			for i := range w {
				if !(math.Abs(float64(values[i])-w[i]) <= 2e-7) {
					t.Errorf("%s: step %d: value %d is %.8f, torch has %.8f", name, s+1, i,
						values[i], w[i])
				}
			}
		}
	}
	if _, err := NewOptimizer(OptimizerConfig{Name: "adam"}, 1, 1); err == nil {
		t.Error("an unknown optimizer was accepted")
	}
}

// TestAdafactorEqualsTransformers compares with transformers 5.23.0's Adafactor with lr 0.3,
// decay_rate −0.8, no momentum and no scaling. Its weight decay is multiplied by the rate. T5X's,
// which is 0.01 here, is not.
func TestAdafactorEqualsTransformers(t *testing.T) {
	grads := [][]float32{{1, -2, 0.5, 0}, {0.3, 0.1, -4, 1e-3}, {-1, 0, 0, 2}}
	for factored, want := range map[bool][][]float64{
		false: {
			{0.19499999, -0.69, 1.68000007, 0},
			{0.06278504, -0.70605266, 2.0567801, -0.39585242},
			{0.42217585, -0.69899213, 2.03621221, -0.8574475},
		},
		true: {
			{0.2721656, -0.74086356, 1.48172712, 0},
			{0.20346129, -0.78606176, 1.89350367, -0.00025509},
			{0.47749025, -0.77820116, 1.87456858, -0.40968415},
		},
	} {
		values := []float32{0.5, -1, 2, 0}
		o := NewAdafactor(2, 2, 0.01, factored)
		for s, w := range want {
			o.Step(values, grads[s], 0.3)
			for i := range w {
				if !(math.Abs(float64(values[i])-w[i]) <= 5e-7) {
					t.Errorf("factored %v: step %d: value %d is %.8f, transformers has %.8f",
						factored, s+1, i, values[i], w[i])
				}
			}
		}
	}
	for _, c := range []struct {
		rows, cols int
		factored   bool
	}{{127, 500, false}, {128, 128, true}, {150, 127, false}} {
		o, err := NewOptimizer(OptimizerConfig{Name: "adafactor"}, c.rows, c.cols)
		if err != nil || o.(*Adafactor).factored != c.factored {
			t.Errorf("%d × %d: factored is %v (%v)", c.rows, c.cols, !c.factored, err)
		}
	}
}

// The squares of this gradient are products of a row's and a column's value. So their factors give back
// each of them, and the first update is 1 in the direction of the gradient.
func TestFactoredMomentsOfARankOneGradientAreExact(t *testing.T) {
	for _, shape := range [][2]int{{3, 2}, {2, 3}, {4, 1}} {
		rows, cols := shape[0], shape[1]
		values, grad := make([]float32, rows*cols), make([]float32, rows*cols)
		for i := range grad {
			grad[i] = float32(i/cols+1) * []float32{-2, 3, 0.5}[i%cols]
		}
		NewAdafactor(rows, cols, 0, true).Step(values, grad, 1)
		for i, v := range values {
			if want := -math.Copysign(1, float64(grad[i])); !(math.Abs(float64(v)-want) <= 1e-6) {
				t.Errorf("%d × %d: value %d is %g after a step, want %g", rows, cols, i, v, want)
			}
		}
	}
}

func TestMomentsOfAnotherSizeAreRefused(t *testing.T) {
	for name, want := range map[string][]int{"adamw": {6, 6}, "adafactor": {6}, "sgd": nil} { // sizes of 2 × 3
		o, err := NewOptimizer(OptimizerConfig{Name: name}, 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		vectors := func(sizes ...int) (m []moments) {
			for _, n := range sizes {
				m = append(m, make(moments, n))
			}
			return m
		}
		if err := o.restore(1, vectors(want...)); err != nil {
			t.Errorf("%s: moments of %v: %v", name, want, err)
		}
		for _, sizes := range [][]int{{6, 5}, {5, 6}, {5}, {6, 6, 6}} {
			if err := o.restore(1, vectors(sizes...)); err == nil {
				t.Errorf("%s: moments of %v are accepted", name, sizes)
			}
		}
	}
}

// A gradient of zero, whose mean square is zero, changes nothing but by the decay.
func TestAdafactorTakesAGradientOfZero(t *testing.T) {
	for _, factored := range []bool{false, true} {
		values := []float32{0.5, -1, 2, 0}
		o := NewAdafactor(2, 2, 0.5, factored)
		for range 2 {
			o.Step(values, make([]float32, 4), 0.3)
		}
		if want := []float32{0.125, -0.25, 0.5, 0}; !slices.Equal(values, want) {
			t.Errorf("factored %v: values are %v, want %v", factored, values, want)
		}
	}
}

func TestAGradientAboveClipNormIsClipped(t *testing.T) {
	for clip, want := range map[float64]float64{1: 0.1, 1000: 0.1 * 2 * 5, 0: 0.1 * 2 * 5} {
		c := config()
		c.Steps, c.Optimizer.Name, c.Schedule, c.Warmup, c.ClipNorm = 1, "sgd", "constant", 0, clip
		x := []float32{1 + 3, 1 + 4} // a gradient with a norm of 10
		job := Job{Config: c, Values: x, Examples: examples(4), Tell: (&events{}).tell}
		r, err := Run(context.Background(), &bowl{}, job)
		if err != nil {
			t.Fatal(err)
		}
		x = r.Best
		if moved := math.Hypot(float64(x[0])-4, float64(x[1])-5); !(math.Abs(moved-want) <= 1e-5) {
			t.Errorf("clip_norm %g: the step has a norm of %g, want %g", clip, moved, want)
		}
	}
}

// As torch's clip_grad_norm_: min(1, limit / (norm + 1e-6)).
func TestTheFactorOfALongGradientIsTorchs(t *testing.T) {
	for _, c := range []struct{ limit, norm, want float64 }{
		{0, 10, 1}, {1, 0, 1}, {1, 0.5, 1}, {1, 1, 1 / 1.000001}, {1, 10, 1 / 10.000001}, {4, 8, 4 / 8.000001},
	} {
		if got := (Config{ClipNorm: c.limit}).clip(c.norm); !(math.Abs(got-c.want) <= 1e-12) {
			t.Errorf("norm %g, at most %g: factor %.9g, want %.9g", c.norm, c.limit, got, c.want)
		}
	}
}

// TestAStepPredictsADecreaseOfAtMostMaxDecrease also checks that a shortened step keeps its direction.
// In a bowl the loss of x is |x − 1|² and its gradient 2 (x − 1).
func TestAStepPredictsADecreaseOfAtMostMaxDecrease(t *testing.T) {
	start := []float32{3, -2, 0.5, 1, -1, 4}
	const loss = 4 + 9 + 0.25 + 0 + 4 + 9
	step := func(c Config) (moved []float64, decrease float64) {
		c.Steps, c.Schedule, c.Warmup, c.Width = 1, "constant", 0, 3
		job := Job{Config: c, Values: start, Examples: examples(4), Tell: (&events{}).tell}
		r, err := Run(context.Background(), &bowl{}, job)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range start {
			moved = append(moved, float64(v-r.Best[i]))
			decrease += 2 * float64(v-1) * moved[i]
			if c.AnchorAt != nil {
				decrease += 2 * c.Anchor / float64(c.VirtualTokens) * float64(v-c.AnchorAt[i]) * moved[i]
			}
		}
		return moved, decrease
	}
	check := func(name string, c Config, want, tolerance float64) {
		t.Helper()
		c.MaxDecrease = 0
		free, decrease := step(c)
		if decrease < 2*want {
			t.Fatalf("%s: without a limit the step predicts a decrease of %g", name, decrease)
		}
		c.MaxDecrease = 1000
		if got, _ := step(c); !slices.Equal(got, free) {
			t.Errorf("%s: a limit that is not reached gives the step %v, want %v", name, got, free)
		}
		c.MaxDecrease = 0.1
		short, decrease := step(c)
		if !(math.Abs(decrease/want-1) <= tolerance) {
			t.Errorf("%s: the step predicts a decrease of %g, want %g", name, decrease, want)
		}
		for i, v := range free {
			if !(math.Abs(short[i]*free[0]-v*short[0]) <= tolerance*math.Abs(free[0])) {
				t.Errorf("%s: the shortened step is %v, the free one %v", name, short, free)
				break
			}
		}
	}
	for _, optimizer := range Optimizers() {
		for _, reparametrise := range Reparametrisations() {
			c := config()
			c.Optimizer.Name, c.Reparametrise, c.LearningRate = optimizer, reparametrise, 5
			tolerance := 1e-5
			if reparametrise != direct { // the prompt is not linear in the parameters
				tolerance = 0.5
			}
			check(optimizer+", reparametrise "+reparametrise, c, 0.1*loss, tolerance)
		}
	}
	c := config()
	c.LearningRate, c.Anchor, c.AnchorAt = 5, 0.5, make([]float32, len(start))
	for _, c.VirtualTokens = range []int{1, 3} {
		check("with an anchor", c, 0.1*(loss+0.5/float64(c.VirtualTokens)*(9+4+0.25+1+1+16)), 1e-5)
	}
}
