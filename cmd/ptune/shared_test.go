package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/tensorfile"
)

// shared returns the folder of real models and data that are not part of the project: PTUNE_SHARED,
// or ../shared beside the checkout. If it is missing, the tests of this file do nothing, and make
// test says so.
func shared(t *testing.T) (string, bool) {
	t.Helper()
	dir := os.Getenv("PTUNE_SHARED")
	if dir == "" {
		dir = "../../../shared"
	}
	if _, err := os.Stat(filepath.Join(dir, "models/stories260K/golden.json")); err != nil {
		t.Logf("there are no real models in %s, the test is not run", dir)
		return "", false
	}
	return dir, true
}

func TestRealModelsEqualTransformers(t *testing.T) {
	dir, ok := shared(t)
	if !ok {
		return
	}
	for _, name := range []string{"stories260K", "cappgpt"} {
		b, err := openBase(t.Context(), filepath.Join(dir, "models", name),
			computeOptions{threads: 2, compute: "f32", trusted: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var golden struct {
			Cases []struct {
				Prompt  string
				IDs     []int32
				MeanNLL float64      `json:"mean_nll"`
				Top     [][2]float64 `json:"last_top5"`
				Greedy  []int32      `json:"greedy40"`
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, "models", name, "golden.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &golden); err != nil {
			t.Fatal(err)
		}
		for _, c := range golden.Cases {
			ids, err := b.Tokenizer.EncodeInput(c.Prompt)
			if err != nil || !slices.Equal(ids, c.IDs) {
				t.Errorf("%s: token ids of %q are %v (%v), want %v", name, c.Prompt, ids, err, c.IDs)
			}
			nll, err := b.NLL(nil, batch.Pack(nil, []batch.Example{{IDs: c.IDs, From: 1}}))
			if err != nil {
				t.Fatal(err)
			}
			mean := 0.0
			for _, v := range nll {
				mean += float64(v) / float64(len(nll))
			}
			if math.Abs(mean-c.MeanNLL) > 1e-4 {
				t.Errorf("%s: %q: mean −log p is %g, want %g", name, c.Prompt, mean, c.MeanNLL)
			}
			logits, err := b.Logits(nil, batch.Pack(nil,
				[]batch.Example{{IDs: append(slices.Clone(c.IDs), 0), From: len(c.IDs)}}))
			if err != nil {
				t.Fatal(err)
			}
			for _, top := range c.Top {
				if got := float64(logits.Row(0)[int(top[0])]); math.Abs(got-top[1]) > 1e-4 {
					t.Errorf("%s: %q: logit of token %g is %g, want %g", name, c.Prompt, top[0],
						got, top[1])
				}
			}
			out, err := exec.Command("ptune", "generate", "--json", "--max-tokens", "40",
				"--model", filepath.Join(dir, "models", name), c.Prompt).Output()
			if err != nil {
				t.Fatal(err)
			}
			var got generated
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			want := c.Greedy
			if i := slices.Index(want, b.EOS[0]); i >= 0 {
				want = want[:i]
			}
			if !slices.Equal(got.IDs, want) {
				t.Errorf("%s: %q continues with %v, want %v", name, c.Prompt, got.IDs, want)
			}
		}
	}
}

func TestAPromptLearnsSpamOnARealModel(t *testing.T) {
	dir, ok := shared(t)
	if !ok {
		return
	}
	work := t.TempDir()
	f, err := os.Open(filepath.Join(dir, "data/sms_spam/sms.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []string
	for in := bufio.NewScanner(f); in.Scan(); {
		label, text, ok := strings.Cut(in.Text(), "\t")
		if !ok {
			t.Fatalf("line %q has no tab", in.Text())
		}
		row, err := json.Marshal(map[string]string{"label": label, "text": text})
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, string(row))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(rows),
		func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for name, part := range map[string][]string{
		"test":  rows[:1000],
		"valid": rows[1000:1200],
		"train": rows[1200:],
	} {
		text := []byte(strings.Join(part, "\n"))
		if err := os.WriteFile(filepath.Join(work, name+".jsonl"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := stat(t, dir)
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	task := fmt.Sprintf(`model: %s/models/stories260K
prompt: {tokens: 20, init: vocab}
data:
  train: train.jsonl
  valid: valid.jsonl
  input: "{text}\n"
  target: "{label}"
  labels: {ham: a, spam: b}
  max_tokens: 120
  on_too_long: cut_input
train: {steps: 600, batch_size: 16, eval_every: 100}
output: {prompt: sms.st}
`, abs)
	if err := os.WriteFile(filepath.Join(work, "task.yaml"), []byte(task), 0o644); err != nil {
		t.Fatal(err)
	}
	shell(t, work, "ptune train --config task.yaml --quiet")
	var got struct {
		Accuracy float64
		Baseline struct{ Accuracy float64 }
	}
	out := shell(t, work, "ptune eval --prompt sms.st --data test.jsonl --json")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("accuracy on 1,000 held-out messages: %.3f, %.3f without the prompt", got.Accuracy,
		got.Baseline.Accuracy)
	if got.Accuracy < 0.93 {
		t.Errorf("accuracy is %.3f, want at least 0.93", got.Accuracy)
	}
	if stat(t, dir) != before {
		t.Error("the file of the base model has changed")
	}
}

// stat returns the size and the modification time of the model file.
func stat(t *testing.T, dir string) string {
	t.Helper()
	f, err := tensorfile.Open(filepath.Join(dir, "models/stories260K/model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Size(), info.ModTime())
}
