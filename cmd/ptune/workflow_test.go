package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// reviews writes rows of the demo as a CSV file with the columns text and sentiment.
func reviews(t *testing.T, from, to string, n int) {
	t.Helper()
	data, err := os.ReadFile("../../internal/demo/data/" + from)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := csv.NewWriter(f)
	w.Write([]string{"text", "sentiment"})
	for _, line := range strings.Split(string(data), "\n")[:n] {
		var row struct{ Text, Sentiment string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		w.Write([]string{row.Text, row.Sentiment})
	}
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
}

func TestTheWorkflowForGitHubRunsAsCopied(t *testing.T) {
	text, err := os.ReadFile("../../configs/ci/github.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct{ Run string }
		}
	}
	if err := yaml.Unmarshal(text, &workflow); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	reviews(t, "train.jsonl", filepath.Join(dir, "rows.csv"), 400)
	reviews(t, "test.jsonl", filepath.Join(dir, "test.csv"), 100)
	summary := filepath.Join(dir, "summary.md")
	t.Setenv("HF_ENDPOINT", smallHub(t))
	t.Setenv("HF_HUB_CACHE", filepath.Join(dir, "cache"))
	t.Setenv("GITHUB_STEP_SUMMARY", summary)
	t.Setenv("MODEL", "HuggingFaceTB/SmolLM2-135M")
	// What the file's first lines ask for.
	shell(t, dir, `ptune pull "$MODEL" && ptune init "$MODEL" rows.csv`)
	ran := 0
	for _, s := range workflow.Jobs["prompt"].Steps {
		if strings.HasPrefix(s.Run, "ptune ") {
			shell(t, dir, s.Run)
			ran++
		}
	}
	if ran < 5 {
		t.Errorf("%d steps run ptune, want at least 5", ran)
	}
	for _, name := range []string{"prompt.st", "gates.xml", "samples.jsonl", "prompt/report.html", summary} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, want a file that is not empty", name, err)
		}
	}
}
