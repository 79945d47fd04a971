package config

import (
	"os"
	"regexp"
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

func TestTheNamesInTheTableForUsersOfPEFTAreUnderstood(t *testing.T) {
	text, err := os.ReadFile("../../docs/peft.md")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	row := regexp.MustCompile(`(?m)^\| (.*) \| (.*) \|$`)
	name := regexp.MustCompile("`([a-z0-9_]+)(=[^`]*)?`")
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			if m[1] == "set_adapter" { // a method
				continue
			}
			names++
			key := KeyNamed(m[1])
			if OtherWay(m[1]) == "" && (key == "" || !strings.Contains(cells[2], "`"+key)) {
				t.Errorf("%s: a task file with it leads to %q, the table to %s", m[1], key, cells[2])
			}
		}
	}
	if names < 15 {
		t.Errorf("found %d names in the table, want at least 15", names)
	}
}

func TestNamesOfOtherProgramsAreUnderstood(t *testing.T) {
	file := "model: m\nnum_virtual_tokens: 8\ntrain: {lr: 0.3, learningrate: 1}\n"
	_, err := parse("t.yaml", []byte(file), []string{
		"lr=0.1", "prompt.num_virtual_tokens=4", "train.qqqqqq=1", "bf16=true",
		"train.gradient_accumulation_steps=4", "metric_for_best_model=accuracy",
	})
	for _, want := range []string{
		`t.yaml:2:1: unknown key "num_virtual_tokens"; did you mean "prompt.tokens"?`,
		`t.yaml:3:9: unknown key "lr" under "train"; did you mean "train.learning_rate"?`,
		`t.yaml:3:18: unknown key "learningrate" under "train"; did you mean "learning_rate"?`,
		`--set lr=0.1: unknown key "lr"; did you mean "train.learning_rate"?`,
		`--set bf16=true: unknown key "bf16"; the flag --compute bf16 does that`,
		`--set train.gradient_accumulation_steps=4: unknown key "train.gradient_accumulation_steps"; train.batch_size is all`,
		`--set metric_for_best_model=accuracy: unknown key "metric_for_best_model"; did you mean "train.best"?`,
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
