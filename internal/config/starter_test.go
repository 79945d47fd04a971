package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/config"
	"ptune/internal/data"
)

// starter returns the task that a starter's text is read as.
func starter(t *testing.T, settings ...string) *config.Task {
	t.Helper()
	path := filepath.Join(t.TempDir(), "task.yaml")
	text := config.Starter{
		File: path, Model: "m", Rows: "rows.csv", Set: settings, ValidFraction: 0.05, EvalEvery: 200,
		Guess: &data.Guess{
			Reading: data.Reading{Separator: "\t", Quotes: "backslash", Encoding: "windows-1252"},
			Texts:   []string{"a", "b"}, Target: "c",
			Labels: []data.Label{{Value: "0", Name: "no"}, {Value: "1", Name: "yes"}},
		},
	}.Text()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	task, err := config.Load(path, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return task
}

func TestAStarterSaysWhatWasFoundOut(t *testing.T) {
	task := starter(t)
	for key, want := range map[string]string{
		"data.separator": "\t", "data.quotes": "backslash", "data.encoding": "windows-1252",
		"data.input": "{a}\n{b}\nAnswer:", "data.target": " {c}", "data.labels": "[{0 no} {1 yes}]",
		"data.valid_fraction": "0.05", "train.eval_every": "200",
	} {
		if got := task.Values()[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestAStarterHasOnlyTheKeysItNeeds(t *testing.T) {
	s := config.Starter{File: "task.yaml", Model: "m", Rows: "rows.csv", ValidFraction: 0.1, EvalEvery: 5,
		Guess: &data.Guess{Texts: []string{"a"}, Target: "c"}}
	for _, key := range []string{"\n  labels:", "\n  columns:", "\n  eval_rows:"} {
		if text := s.Text(); strings.Contains(text, key) {
			t.Errorf("%q is in the starter of a table without any:\n%s", key, text)
		}
	}
	s.Columns, s.EvalRows, s.Labels = []string{"a", "c"}, 9, []data.Label{{Value: "0", Name: "no"}}
	for _, line := range []string{"\n  labels:", "\n    \"0\": \"no\"", "\n  columns: [\"a\", \"c\"] ",
		"\n  eval_rows: 9 "} {
		if text := s.Text(); !strings.Contains(text, line) {
			t.Errorf("the starter has no %q:\n%s", line, text)
		}
	}
}

func TestSettingsChangeAStarter(t *testing.T) {
	task := starter(t, "model=org/name", "train.steps=7", "train.epochs=2", "prompt.text=Say: \"x\"",
		"data.labels={0: good, 1: bad}", "data.max_tokens=99", "output.tensorboard=true", "data.on_too_long=drop")
	for key, want := range map[string]string{
		"model": "org/name", "train.steps": "7", "train.epochs": "2", "train.batch_size": "16",
		"prompt.text": `Say: "x"`, "data.labels": "[{0 good} {1 bad}]", "data.max_tokens": "99",
		"data.on_too_long": "drop", "output.tensorboard": "true", "data.target": " {c}",
	} {
		if got := task.Values()[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if _, err := config.Settings([]string{"train.stepz=7", "train.steps=many"}); err == nil ||
		err.Error() != "--set train.stepz=7: unknown key \"train.stepz\"; did you mean \"steps\"?\n"+
			"--set train.steps=many: train.steps must be a whole number, not \"many\"" {
		t.Errorf("mistakes in settings: error is %v", err)
	}
}
