package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const good = `model: m
prompt:
  tokens: 8
  text: "Hi:"
data:
  train: t.jsonl
  input: "{a}"
  target: " {b}"
output:
  prompt: x.st
`

func TestMissingKeysHaveTheirDefaults(t *testing.T) {
	got, err := parse("task.yaml", []byte(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Model, want.Prompt.Tokens, want.Prompt.Text = "m", 8, "Hi:"
	want.Data.Train, want.Data.Input, want.Data.Target = "t.jsonl", "{a}", " {b}"
	want.Output.Prompt = "x.st"
	want.file, want.places = got.file, got.places
	if !reflect.DeepEqual(got, want) {
		t.Errorf("task is %+v, want %+v", got, want)
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	got, err := parse("task.yaml", []byte(good+`train:
  epochs: 1_000
  learning_rate: 1e-3
  betas: [0.8, 0.99]
  shuffle: false
  seed: 18446744073709551615
  warmup: 1e-1
`), []string{"data.labels={0: no, 1: yes}", "data.valid={dev: d.jsonl, test: e.jsonl}",
		"train.weight_decay=1", "train.learning_rate=.5", "prompt.text=a: b"})
	if err != nil {
		t.Fatal(err)
	}
	tr := got.Train
	if tr.Epochs != 1000 || tr.LearningRate != (Rate{Value: 0.5}) ||
		tr.Betas != [2]float64{0.8, 0.99} || tr.Shuffle || tr.Seed != 1<<64-1 || tr.Warmup != 0.1 ||
		tr.WeightDecay != 1 {
		t.Errorf("train is %+v", tr)
	}
	labels := Labels{{Value: "0", Name: "no"}, {Value: "1", Name: "yes"}}
	if !reflect.DeepEqual(got.Data.Labels, labels) {
		t.Errorf("labels are %v, want %v", got.Data.Labels, labels)
	}
	valid := Sets{{"dev", "d.jsonl"}, {"test", "e.jsonl"}}
	if !reflect.DeepEqual(got.Data.Valid, valid) {
		t.Errorf("valid is %v, want %v", got.Data.Valid, valid)
	}
	if got.Prompt.Text != "a: b" {
		t.Errorf("prompt.text is %q", got.Prompt.Text)
	}
	list, err := parse("t", []byte(good), []string{"data.labels=[no, yes, 012]", "data.valid=v.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	labels = Labels{{Value: "no", Name: "no"}, {Value: "yes", Name: "yes"}, {Value: "012", Name: "012"}}
	if !reflect.DeepEqual(list.Data.Labels, labels) ||
		list.Data.Valid[0] != (Set{"valid", "v.jsonl"}) {
		t.Errorf("labels are %v, valid is %v", list.Data.Labels, list.Data.Valid)
	}
}

func TestEveryMistakeIsReportedAtOnceWithItsPlace(t *testing.T) {
	_, err := parse("task.yaml", []byte(`model: m
promt:
  tokens: 8
data:
  train: [a]
  labels: 7
  input: "{a}"
  input: "{a}"
train:
  stpes: 10
  epochs: 1.5
  shuffle: maybe
  betas: [0.9]
  warmup: .nan
  tokens: 3
output:
`), []string{"train.lr=3", "data.max_tokens", "train.seed=-1"})
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{
		`task.yaml:2:1: unknown key "promt"; did you mean "prompt"?`,
		`task.yaml:5:10: data.train must be text, not a list`,
		`task.yaml:6:11: data.labels must be a list of names or a mapping of values to names, not "7"`,
		`task.yaml:8:3: duplicate key "input" under "data"`,
		`task.yaml:10:3: unknown key "stpes" under "train"; did you mean "steps"?`,
		`task.yaml:11:11: train.epochs must be a whole number, not "1.5"`,
		`task.yaml:12:12: train.shuffle must be true or false, not "maybe"`,
		`task.yaml:13:10: train.betas must be two numbers, for example [0.9, 0.999], not a list`,
		`task.yaml:14:11: train.warmup must be a number, not ".nan"`,
		`task.yaml:15:3: unknown key "tokens" under "train"; did you mean "prompt.tokens"?`,
		`output must be a mapping of keys to values, not empty`,
		`--set train.lr=3: unknown key "train.lr"`,
		`--set data.max_tokens: want key=value`,
		`--set train.seed=-1: train.seed must be a whole number, not "-1"`,
	}
	for i, w := range want {
		if i >= len(lines) || !strings.Contains(lines[i], w) {
			t.Errorf("line %d is %q, want %q", i+1, lines[min(i, len(lines)-1)], w)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%s", len(lines), len(want), err)
	}
}

func TestNamesThatYAMLReadsAsNothingAreRefused(t *testing.T) {
	const good = `model: m
prompt: {tokens: 2, init: vocab}
data: {train: d.jsonl, input: "{a}", target: "{b}", labels: %s}
output: {prompt: p.st}
`
	for labels, want := range map[string]string{
		"[~, yes]":            "task.yaml:3:62: data.labels must hold names, not ~, which is empty unless it is quoted",
		"[yes, null]":         "task.yaml:3:67: data.labels must hold names, not null, which is empty",
		"[yes, no, ]":         "",
		"[yes, !!null '']":    "task.yaml:3:67: data.labels must hold names, not empty",
		"[\"~\", 'null', a]":  "",
		"{~: no, 1: yes}":     "task.yaml:3:62: data.labels must be a list of names or a mapping of values to names, but a key is ~",
		"{[a]: no, 1: yes}":   "but a key is a list",
		"{0: ~, 1: yes}":      "data.labels.0 must be text, not empty",
		"{\"~\": no, 1: yes}": "",
	} {
		_, err := parse("task.yaml", []byte(fmt.Sprintf(good, labels)), nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("labels: %s: error is %v, want %q", labels, err, want)
		}
	}
}

func TestInvalidValuesAreRefusedWithTheirPlace(t *testing.T) {
	for setting, want := range map[string]string{
		"model=":                                 "model is missing",
		"prompt.tokens=0":                        "prompt.tokens is 0, want at least 1",
		"prompt.tokens=5000":                     "at most 4096",
		"prompt.init=txt":                        `prompt.init is "txt", want text, vocab`,
		"prompt.text=":                           "prompt.text is missing",
		"prompt.init=file":                       "prompt.file is missing",
		"prompt.init=labels":                     "data.labels is missing",
		"data.target={x":                         "data.target: template",
		"data.on_too_long=cut":                   "data.on_too_long",
		"train.batch_size=0":                     "at least 1",
		"train.optimizer=adam":                   "want adamw, adafactor, sgd",
		"train.learning_rate=0":                  "want auto or a number above 0",
		"train.learning_rate=.inf":               "want auto or a number above 0",
		"train.betas=[1, 0.9]":                   "below 1",
		"train.optimizer=sgd":                    "sgd needs a number",
		"train.schedule=step":                    "want constant, linear, cosine",
		"train.warmup=1.5":                       "want 0 to 1",
		"train.clip_norm=-1":                     "want at least 0",
		"train.max_decrease=-1":                  "want at least 0",
		"train.patience=-1":                      "at least 0",
		"output.prompt=":                         "output.prompt is missing",
		"data.labels=[a]":                        "at least two",
		"data.columns=[a, ~]":                    "data.columns must hold names, not ~",
		"data.columns=[a, [b]]":                  "data.columns must hold names, not a list",
		"data.valid_fraction=0.91":               "want 0 to 0.9",
		"prompt.tokens=4097":                     "at most 4096",
		"train.betas=[-0.1, 0.9]":                "has -0.1",
		"train.best=accuracy":                    `train.best is "accuracy", which needs data.labels`,
		"train.best=macro_f1":                    `train.best is "macro_f1", which needs data.labels`,
		"prompt.anchor_text=Hi":                  "prompt.anchor is 0, so it has no effect",
		"train.steps=" + strings.Repeat("x", 60): `not "` + strings.Repeat("x", 60) + `"`,
		"train.steps=" + strings.Repeat("x", 61): `not "` + strings.Repeat("x", 60) + `"…`,
	} {
		_, err := parse("task.yaml", []byte(good), []string{setting})
		if err == nil || !strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), "--set "+setting) &&
				!strings.HasPrefix(err.Error(), "task.yaml") {
			t.Errorf("%s: error is %v, want one with its place and %q", setting, err, want)
		}
	}
}

func TestValuesAtTheirLimitsAreTaken(t *testing.T) {
	for _, settings := range [][]string{
		{"prompt.tokens=1"}, {"prompt.tokens=4096"}, {"data.valid_fraction=0.9"}, {"data.max_tokens=2"},
		{"train.betas=[0, 0]"}, {"train.warmup=0"}, {"train.warmup=1"}, {"train.clip_norm=0"},
		{"train.learning_rate=1e-30"}, {"data.columns=[a, b]"}, {"data.train=-"},
		{"prompt.anchor_text=Hi", "prompt.anchor=0.1"}, {"train.best=accuracy", "data.labels=[a, b]"},
	} {
		if _, err := parse("task.yaml", []byte(good), settings); err != nil {
			t.Error(err)
		}
	}
}

func TestTheTaskFileAndItsRowsCannotBothBeStandardInput(t *testing.T) {
	if _, err := parse("-", []byte(good), nil); err != nil {
		t.Error(err)
	}
	_, err := parse("-", []byte(good), []string{"data.train=-"})
	if err == nil || !strings.Contains(err.Error(), `data.train is "-", but standard input has the task file`) {
		t.Errorf("both: error is %v", err)
	}
}

func TestTheNearestKeyIsSuggested(t *testing.T) {
	for key, want := range map[string]string{
		// A third of the letters and one more may differ: 3 of 7.
		"train.seedxyz": "seed", "train.seedwxyz": "",
		"train.seeds": "seed", "train.stes": "steps", // both are two changes from the other one
		"train.tsesp": "steps",
	} {
		_, err := parse("task.yaml", []byte(good), []string{key + "=1"})
		wanted := fmt.Sprintf("unknown key %q", key)
		if want != "" {
			wanted += fmt.Sprintf("; did you mean %q?", want)
		}
		if err == nil || !strings.HasSuffix(err.Error(), wanted) {
			t.Errorf("error is %v, want %s", err, wanted)
		}
	}
}

func TestDistanceCountsChangesAndSwapsOfNeighbours(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3},
		{"ab", "ba", 1}, {"abcd", "acbd", 1}, {"abcdef", "badcfe", 3}, {"abab", "cdcd", 4}, {"ab", "bc", 2},
		{"xab", "aby", 2}, {"aab", "aba", 1}, {"abc", "cab", 2},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q: %d changes, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTheLargestAndDeepestTaskFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "task.yaml")
	for _, c := range []struct {
		size int
		want string
	}{{1 << 20, ""}, {1<<20 + 1, "larger than 1024 KB"}} {
		text := good + "#"
		text += strings.Repeat(" ", c.size-len(text))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d bytes: error is %v, want %q", c.size, err, c.want)
		}
	}
	for brackets, ok := range map[string]bool{
		strings.Repeat("[", 32) + strings.Repeat("]", 32): true, strings.Repeat("[", 33): false,
		strings.Repeat("[]{}", 50): true,
	} {
		_, err := parse("task.yaml", []byte(good+"# "+brackets), nil)
		if (err == nil) != ok {
			t.Errorf("%s: error is %v, want one: %v", brackets, err, !ok)
		}
	}
}

func TestAMistakeOfSyntaxIsFoundWhereItIs(t *testing.T) {
	for text, want := range map[string]string{
		"model: \"m\nprompt: \"x\"\n":          "task.yaml:1:8: not YAML: quotation mark without an end on its line",
		"a: 1\nmodel: x\" # y\nb: \"c\"\nd: [": "task.yaml:2:9: not YAML: quotation mark without an end on its line",
		"model: m\nprompt\ntrain: 1\n":         "task.yaml:2:1: not YAML: could not find expected ':'",
		"a: 1\nb:\n  c: 1\n  model m":          "task.yaml:4:3: not YAML: could not find expected ':'",
		"a: 1\n  model m\nb: c: d":             "task.yaml:2:3: not YAML: want a colon and a space after the key",
		// Words two lines above the mistake belong to a text.
		"a:\n  words of a text\nb: 1\nc: d: e": "task.yaml:4:5: not YAML: mapping values are not allowed in this context",
		// Comments and blank lines do not count.
		"prompt x # hi\n# note\n\n  tokens: 8\n": "task.yaml:1:1: not YAML: want a colon and a space after the key",
	} {
		_, err := parse("task.yaml", []byte(text), nil)
		if err == nil || err.Error() != want {
			t.Errorf("%q:\nerror is %v\nwant     %s", text, err, want)
		}
	}
}

func TestFilesThatAreNotTaskFilesAreRefused(t *testing.T) {
	for name, c := range map[string][2]string{
		"empty":           {"", "the file is empty"},
		"only a comment":  {"# hi\n", "empty"},
		"a list":          {"- a\n", "want a mapping of keys to values"},
		"two documents":   {good + "---\nmodel: n\n", "a second YAML document begins"},
		"an alias":        {"model: &a m\nprompt:\n  text: *a\n", "anchor or alias"},
		"tabs":            {"model: m\n\tprompt: 3\n", "not YAML"},
		"a bomb of lists": {strings.Repeat("[", 200000), "nested too deeply"},
	} {
		if _, err := parse("task.yaml", []byte(c[0]), nil); err == nil ||
			!strings.Contains(err.Error(), c[1]) || !strings.HasPrefix(err.Error(), "task.yaml") {
			t.Errorf("%s: error is %v, want one with %q", name, err, c[1])
		}
	}
}

func TestAMisspelledKeyIsRefusedAndTheKeySuggested(t *testing.T) {
	hit, all := 0, 0
	for _, key := range Keys() {
		last := key[strings.LastIndexByte(key, '.')+1:]
		for i := range last {
			slips := []string{last[:i] + last[i+1:], last[:i] + "x" + last[i:]}
			if i > 0 {
				slips = append(slips, last[:i-1]+last[i:i+1]+last[i-1:i]+last[i+1:])
			}
			for _, s := range slips {
				wrong := strings.TrimSuffix(key, last) + s
				if s == "" || s == last || contains(Keys(), wrong) {
					continue
				}
				_, err := parse("task.yaml", []byte(good), []string{wrong + "=1"})
				if err == nil || !strings.Contains(err.Error(), "unknown key") {
					t.Errorf("%s was accepted (%v)", wrong, err)
					continue
				}
				all++
				if strings.Contains(err.Error(), fmt.Sprintf("did you mean %q", last)) {
					hit++
				}
			}
		}
	}
	if float64(hit) < 0.95*float64(all) {
		t.Errorf("%d of %d misspelled keys had the right suggestion, want at least 95 %%", hit, all)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func TestTheTaskFilesInConfigsAreValid(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../../configs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.Contains(path, "configs/ci/") {
			return nil // workflows
		}
		found++
		command := "ptune train configs/"
		if d.Name() == "sweep.yaml" {
			command = "ptune sweep configs/"
			_, err = LoadSweep(path, "")
		} else {
			_, err = Load(path, nil)
		}
		if err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), command+d.Name()) {
			t.Errorf("%s does not start with the command that runs it", path)
		}
		return err
	})
	if err != nil || found != 3 {
		t.Errorf("found %d task files (%v), want 3", found, err)
	}
}

func FuzzATaskFileIsReadOrRefused(f *testing.F) {
	f.Add([]byte(good), "train.steps=3")
	f.Add([]byte("a: {b: [1, 2]}"), "data.labels={a: b}")
	f.Fuzz(func(t *testing.T, text []byte, setting string) {
		if _, err := parse("task.yaml", text, []string{setting}); err != nil && err.Error() == "" {
			t.Fatal("the error has no text")
		}
	})
}

func TestTheReferenceHasEveryKeyWithItsDefault(t *testing.T) {
	got, err := parse("reference.yaml", []byte(Reference), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Model, want.Prompt.Text, want.Output.Prompt = got.Model, got.Prompt.Text, got.Output.Prompt
	want.file, want.places = got.file, got.places
	want.Data.Train, want.Data.Input, want.Data.Target = got.Data.Train, got.Data.Input, got.Data.Target
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the reference has %+v, want the defaults %+v", got, want)
	}
	for _, key := range Keys() {
		if last := key[strings.LastIndexByte(key, '.')+1:]; !strings.Contains(Reference, last+":") {
			t.Errorf("the reference has no %s", key)
		}
	}
}
