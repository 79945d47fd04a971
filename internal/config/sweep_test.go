package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sweepOf reads a sweep file.
func sweepOf(t *testing.T, text, dir string) (*Sweep, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSweep(path, dir)
	if s != nil && s.Dir == strings.TrimSuffix(path, ".yaml") {
		s.Dir = "beside the file"
	}
	return s, err
}

func TestASweepFileIsRead(t *testing.T) {
	for text, want := range map[string]Sweep{
		"task: t.yaml\ngrid: {train.seed: [0, 1], train.betas: [[0.9, 0.99]]}\nhalving: 2\nrungs: 3\noutput: runs\n": {
			Task: "t.yaml", Grid: []Axis{{"train.seed", []string{"0", "1"}},
				{"train.betas", []string{"[0.9, 0.99]"}}},
			Halving: 2, Rungs: 3, Dir: "runs",
		},
		"task: t.yaml\npreset: rates\nhalving: 0\nrungs: 1\n": {
			Task: "t.yaml", Preset: "rates", Grid: Presets()["rates"], Rungs: 1, Dir: "beside the file",
		},
		"task: t.yaml\npreset: inits\nhalving: 64\n": {
			Task: "t.yaml", Preset: "inits", Grid: Presets()["inits"], Halving: 64, Rungs: 2, Dir: "beside the file",
		},
	} {
		got, err := sweepOf(t, text, "")
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s\nis %+v (%v)\nwant %+v", text, got, err, want)
		}
		if got, err := sweepOf(t, text, "elsewhere"); err != nil || got.Dir != "elsewhere" {
			t.Errorf("%s\nwith another folder: %+v (%v)", text, got, err)
		}
	}
}

func TestEveryMistakeOfASweepFileIsReported(t *testing.T) {
	const grid = "task: t.yaml\ngrid: {train.seed: [0]}\n"
	for text, want := range map[string][]string{
		"grid: {train.seed: [0]}\n": {"s.yaml:1:1: task is missing"},
		"task: t.yaml\n":            {"want either grid (keys with lists of values) or preset"},
		grid + "preset: inits\n":    {"want either grid (keys with lists of values) or preset"},
		grid + "task: u.yaml\n":     {`s.yaml:3:1: duplicate key "task"`},
		grid + "halving: 1\n":       {"halving is 1, which keeps all runs"},
		grid + "halving: -1\nrungs: 0\noutput: ~\n": {
			`s.yaml:3:10: halving must be a whole number from 0 to 64, not "-1"`,
			`s.yaml:4:8: rungs must be a whole number from 1 to 64, not "0"`,
			"s.yaml:5:9: output must be text, not empty",
		},
		grid + "halving: 65\nrungs: 1.5\nseeds: 3\n": {
			`not "65"`, `not "1.5"`, `s.yaml:5:1: unknown key "seeds"; want task, grid or preset`,
		},
		"task: \"-\"\npreset: sizes\n": {`s.yaml:2:9: preset is "sizes", want lengths, inits or rates`,
			`task is "-"`},
		"task: [a]\npreset: inits\n": {"s.yaml:1:7: task must be text, not a list"},
		"task: t\ngrid: []\n":        {"s.yaml:2:7: grid must be a mapping of task file keys to lists of values"},
		"task: t\ngrid: {}\n":        {"s.yaml:2:7: grid must be a mapping of task file keys to lists of values"},
		"task: t\ngrid:\n  data.train: [a]\n  train.seed: 1\n  train.steps: []\n  prompt.tokens: [1]\n  prompt.tokens: [2]\n": {
			`s.yaml:3:3: grid has "data.train"; only keys of prompt and train can vary`,
			`s.yaml:4:15: train.seed must be a list of values, not "1"`,
			`s.yaml:5:16: train.steps must be a list of values`, "s.yaml:7:3: duplicate key prompt.tokens in grid",
		},
		"- a\n": {"want a mapping of keys to values"},
	} {
		_, err := sweepOf(t, text, "")
		if err == nil {
			t.Errorf("%s\nis accepted", text)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		for i, w := range want {
			if len(lines) != len(want) || !strings.Contains(lines[i], w) {
				t.Errorf("%s\nerror is\n%v\nwant\n%s", text, err, strings.Join(want, "\n"))
				break
			}
		}
	}
}

func TestASweepFromStandardInputNeedsAnOutput(t *testing.T) {
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	for _, c := range []struct{ output, dir, want string }{
		{"", "", "output is missing"}, {"", "out", ""}, {"output: out\n", "", ""},
	} {
		path := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(path, []byte("task: t.yaml\npreset: inits\n"+c.output), 0o644); err != nil {
			t.Fatal(err)
		}
		var err error
		if os.Stdin, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSweep("-", c.dir)
		os.Stdin.Close()
		if c.want == "" && (err != nil || s.Dir != "out") ||
			c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "standard input:1:1: "+c.want)) {
			t.Errorf("%+v: %+v, error %v", c, s, err)
		}
	}
}

func TestTheLastAxisOfAGridVariesFastest(t *testing.T) {
	got, err := (&Sweep{Grid: []Axis{{"a", []string{"1", "2"}}, {"b", []string{"3", "4"}}}}).Runs()
	want := [][]string{{"a=1", "b=3"}, {"a=1", "b=4"}, {"a=2", "b=3"}, {"a=2", "b=4"}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("runs are %v (%v), want %v", got, err, want)
	}
	axis := Axis{"a", make([]string, 64)}
	if got, err := (&Sweep{Grid: []Axis{axis, axis}}).Runs(); err != nil || len(got) != 4096 {
		t.Errorf("64 times 64 combinations: %d runs (%v)", len(got), err)
	}
	if _, err := (&Sweep{Grid: []Axis{axis, {"b", make([]string, 65)}}}).Runs(); err == nil {
		t.Error("64 times 65 combinations are accepted")
	}
}
