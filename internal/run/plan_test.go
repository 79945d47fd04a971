package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/model"
)

func TestARunRecomputesIfMemoryIsShortAndIsRefusedIfThereIsTooLittle(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := strings.Repeat("It was worth every minute. ", 60)
	rows := write("rows.jsonl", strings.Repeat(`{"text": "`+text+`", "mood": "good"}`+"\n", 8))
	path := write("task.yaml", `model: ptune:demo
prompt: {tokens: 4, init: vocab}
data: {train: `+rows+`, input: "{text}", target: " {mood}"}
train: {steps: 2, batch_size: 8}
output: {prompt: p.st}
`)
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	plan := func(recompute string, memory float64) (Plan, error) {
		task, err := config.Load(path, []string{"train.recompute=" + recompute})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.Context(), task, b, "test")
		if err != nil {
			t.Fatal(err)
		}
		r.available = func() float64 { return memory }
		p, err := r.Plan(false)
		if b.PartRows != 0 || b.Recompute != (model.Recompute{}) {
			t.Errorf("Plan leaves the base with part %d and %+v", b.PartRows, b.Recompute)
		}
		return p, err
	}
	usual, err := plan(config.Auto, 1e12)
	if err != nil || usual.Recompute != 2 {
		t.Fatalf("with memory for all: %d layers recomputed, %v; want 2 of 6", usual.Recompute, err)
	}
	if usual.Tokens <= keptTokens {
		t.Fatalf("a text of %d rows is short", usual.Tokens)
	}
	enough := float64(usual.MemoryBytes) / 0.9
	if p, err := plan(config.Auto, enough+1); err != nil || p.Recompute != 2 {
		t.Errorf("with just enough memory: %d layers recomputed, %v; want 2 of 6", p.Recompute, err)
	}
	lean, err := plan(config.Auto, enough-1e3)
	if err != nil || lean.Recompute != 6 || lean.MemoryBytes >= usual.MemoryBytes {
		t.Errorf("with a little less: %d layers recomputed, %d bytes, %v; want all 6 and less "+
			"than %d bytes",
			lean.Recompute, lean.MemoryBytes, err, usual.MemoryBytes)
	}
	if p, err := plan(config.Off, enough-1e3); err != nil || p.Recompute != 0 {
		t.Errorf("with a little less, and train.recompute off: %d layers recomputed, %v; want none",
			p.Recompute, err)
	}
	beside := float64(lean.MemoryBytes - lean.WeightBytes)
	if _, err := plan(config.Auto, beside); err != nil {
		t.Errorf("with memory for all but the mapped file: %v", err)
	}
	half := fmt.Sprintf("train.micro_batch_tokens: %d takes about half", usual.Tokens/2)
	_, err = plan(config.Auto, beside-1)
	if hint := failure.HintOf(err); !failure.IsUsage(err) || !strings.Contains(hint, half) {
		t.Errorf("with one byte less: %v, hint %q; want a refusal that says what to set", err, hint)
	}
}
