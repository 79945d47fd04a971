package run

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"ptune/internal/base"
	"ptune/internal/config"
)

func TestTasksOfTheSameRowsShareThem(t *testing.T) {
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"a":"warm","b":"good"}` + "\n" + `{"a":"cold","b":"bad"}`)
	cache := &RowCache{}
	load := func(change func(*config.Task)) *Rows {
		t.Helper()
		task := config.Default()
		task.Data.Train, task.Data.Valid, task.Data.Input, task.Data.Target =
			path, config.Sets{{Name: "valid", Path: path}}, "{a}", " {b}"
		change(task)
		rows, err := cache.load(context.Background(), task, b)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	first := load(func(*config.Task) {})
	if few := load(func(task *config.Task) { task.Train.Seed, task.Train.EvalRows = 1, 1 }); few.Train != first.Train ||
		len(few.Valid[0].Rows) != 1 {
		t.Errorf("a task of another seed and fewer validation rows has %d of these, and the same training rows: %v",
			len(few.Valid[0].Rows), few.Train == first.Train)
	}
	again := load(func(*config.Task) {})
	if again.Train != first.Train || len(again.Valid[0].Rows) != 2 {
		t.Errorf("the first task again has %d validation rows, want all 2 of the shared ones", len(again.Valid[0].Rows))
	}
	if other := load(func(task *config.Task) { task.Data.Input = "A {a}" }); other.Train.Rows[0].Text != "A warm" {
		t.Errorf("with another template the input is %q", other.Train.Rows[0].Text)
	}
	if other := load(func(task *config.Task) { task.Prompt.Tokens = 3 }); other.Train == first.Train {
		t.Error("a prompt of another length has the same rows, though it limits them")
	}
	write(`{"a":"warm","b":"good"}`)
	if other := load(func(task *config.Task) { task.Prompt.Tokens = 3 }); len(other.Train.Rows) != 1 {
		t.Errorf("after the file has changed there are %d rows, want 1", len(other.Train.Rows))
	}
}
