package eval

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAGateThatCanOnlyPassOrOnlyMissIsRefused(t *testing.T) {
	earlier := filepath.Join(t.TempDir(), "earlier.json")
	if err := os.WriteFile(earlier, []byte(`{"data":"d","rows":1,"loss":1,"perplexity":2.7}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    GateOptions
		want string // in the error; empty: none
	}{
		{GateOptions{FailUnder: []string{"accuracy=90"}},
			"--fail-under accuracy=90: accuracy is 0 to 1; 90 % is 0.9"},
		{GateOptions{FailUnder: []string{"accuracy=100"}}, "100 % is 1"},
		{GateOptions{FailUnder: []string{"accuracy=1", "mcc=-1", "macro_f1=0"}}, ""},
		{GateOptions{FailUnder: []string{"loss=0.5"}},
			"--fail-under loss=0.5: a lower loss is better; want --fail-over loss=0.5"},
		{GateOptions{FailOver: []string{"accuracy=0.9"}},
			"--fail-over accuracy=0.9: a higher accuracy is better; want --fail-under accuracy=0.9"},
		{GateOptions{FailUnder: []string{"calibration_error=0.1", "perplexity=3"}}, "a lower perplexity is better"},
		{GateOptions{FailOver: []string{"exact_match=0.1"}}, "a higher exact_match is better"},
		{GateOptions{FailUnder: []string{"accuracy=1.001"}}, "accuracy is 0 to 1"},
		{GateOptions{FailUnder: []string{"accuracy=-0.1"}}, "accuracy is 0 to 1"},
		{GateOptions{FailUnder: []string{"accuracy=nan"}}, "accuracy is 0 to 1"},
		{GateOptions{FailUnder: []string{"mcc=-1.5"}}, "mcc is -1 to 1"},
		{GateOptions{FailOver: []string{"calibration_error=5"}}, "calibration_error is 0 to 1; 5 % is 0.05"},
		{GateOptions{FailOver: []string{"loss=-0.5"}}, "loss is at least 0"},
		{GateOptions{FailOver: []string{"perplexity=0.5"}}, "perplexity is at least 1"},
		{GateOptions{FailOver: []string{"perplexity=1e9", "loss=100"}}, ""},
		{GateOptions{MaxDrop: []string{"accuracy=2"}, Compare: earlier}, "accuracy differs by -1 to 1; 2 % is 0.02"},
		{GateOptions{MaxDrop: []string{"mcc=2", "loss=5", "accuracy=-0.01"}, Compare: earlier}, ""},
		{GateOptions{FailUnder: []string{"acuracy=1", "loss"}, FailOver: []string{"loss=x"}},
			"--fail-under \"loss\": want METRIC=NUMBER"},
		{GateOptions{MaxDrop: []string{"accuracy=0.1"}}, "need each other"},
	} {
		_, err := c.o.Gates()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
		if err != nil && strings.Count(err.Error(), "\n") != max(0, len(c.o.FailUnder)+len(c.o.FailOver)-1) {
			t.Errorf("%+v: want one line for each mistake, got %v", c.o, err)
		}
	}
}
