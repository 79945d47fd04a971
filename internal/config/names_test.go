package config

import (
	"slices"
	"strings"
	"testing"
)

func TestOtherNamesLeadToKeys(t *testing.T) {
	for name, key := range otherNames {
		if !slices.Contains(Keys(), key) {
			t.Errorf("%s leads to %q, which is no key", name, key)
		}
		if slices.Contains(Keys(), name) {
			t.Errorf("%s is a key itself", name)
		}
	}
}

func TestNamesOfOtherProgramsAreUnderstood(t *testing.T) {
	file := "model: m\nnum_virtual_tokens: 8\ntrain: {lr: 0.3, learningrate: 1}\n"
	_, err := parse("t.yaml", []byte(file), []string{"lr=0.1", "prompt.num_virtual_tokens=4", "train.qqqqqq=1"})
	for _, want := range []string{
		`t.yaml:2:1: unknown key "num_virtual_tokens"; did you mean "prompt.tokens"?`,
		`t.yaml:3:9: unknown key "lr" under "train"; did you mean "train.learning_rate"?`,
		`t.yaml:3:18: unknown key "learningrate" under "train"; did you mean "learning_rate"?`,
		`--set lr=0.1: unknown key "lr"; did you mean "train.learning_rate"?`,
		`--set prompt.num_virtual_tokens=4: unknown key "prompt.num_virtual_tokens"; did you mean "prompt.tokens"?`,
		"--set train.qqqqqq=1: unknown key \"train.qqqqqq\"\n",
	} {
		if err == nil || !strings.Contains(err.Error()+"\n", want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for name, want := range map[string]string{
		"lr": "train.learning_rate", "batch-size": "train.batch_size", "seed": "train.seed", "magic": "",
	} {
		if got := KeyNamed(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestATextWithAnEscapeThatWasNotReadIsNoted(t *testing.T) {
	const file = "model: m\nprompt: {text: 'Say\\n'}\n" +
		"data: {train: a.jsonl, input: \"{text}\\nA:\", target: ' {label}', labels: ['a\\tb', 'c\\\\n']}\n" +
		"output: {prompt: x.st}\n"
	task, err := parse("t.yaml", []byte(file), []string{`data.target=\n{label}`})
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, w := range task.Warnings() {
		place, _, _ := strings.Cut(w, " as two characters")
		places = append(places, place)
	}
	want := []string{
		`t.yaml:2:16: prompt.text has \n`, `--set data.target=\n{label}: data.target has \n`,
		`t.yaml:3:73: data.labels has \t`,
	}
	if !slices.Equal(places, want) {
		t.Errorf("got %q, want %q", places, want)
	}
}
