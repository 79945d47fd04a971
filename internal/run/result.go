package run

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"ptune/internal/base"
	"ptune/internal/files"
	"ptune/internal/process"
	"ptune/internal/report"
	"ptune/internal/train"
)

// resultFile is the file that holds a training's result, in the folder of its events and states.
const resultFile = "result.json"

// Result is what a training gave. It is written when the training has ended, after the prompt.
type Result struct {
	Settings map[string]string `json:"settings,omitempty"` // of a run of a sweep
	Method   string            `json:"method"`             // what was trained: MethodPrompt or MethodLoRA
	Model    string            `json:"model"`
	// Prompt is the path of the trained file. If not absolute, it is relative to the result's folder.
	Prompt     string                   `json:"prompt"`
	Loss       report.Number            `json:"loss"` // mean over the validation sets; null: none
	Accuracy   *float64                 `json:"accuracy,omitempty"`
	Steps      int                      `json:"steps"`
	BestStep   int                      `json:"best_step"`
	StopReason string                   `json:"stop_reason"`
	Valid      map[string]report.Scores `json:"valid"`   // of each validation set
	Seconds    float64                  `json:"seconds"` // over all attempts, as train.Result has them
	PeakMemory int64                    `json:"peak_memory_bytes"`
	Version    string                   `json:"ptune_version"`
	Identity   map[string]string        `json:"identity"` // everything that the numbers depend on, by name
}

// ReadResult returns the result in a folder. Its error wraps fs.ErrNotExist if there is none.
func ReadResult(dir string) (*Result, error) {
	path := filepath.Join(dir, resultFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read result %q: %w", path, err)
	}
	if r.Prompt == "" {
		return nil, fmt.Errorf("read result %q: it does not name a prompt", path)
	}
	return &r, nil
}

// result returns the result of training a file of the run by a method. dir is where it is written.
func (r *Run) result(method, dir, file string, t *train.Result) Result {
	valid := map[string]report.Scores{}
	for _, e := range t.Valid {
		valid[e.Set] = e.Scores()
	}
	return Result{
		Method: method, Model: r.Base.Name, Prompt: base.PathFrom(filepath.Join(dir, resultFile), file),
		Loss: report.Number(t.Loss), Accuracy: meanAccuracy(t.Valid),
		Steps: t.Steps, BestStep: t.BestStep, StopReason: t.StopReason, Valid: valid,
		Seconds: t.Seconds, PeakMemory: process.PeakMemory(), Version: r.version, Identity: r.identity,
	}
}

// write writes the result to a folder.
func (r Result) write(dir string) error { return files.WriteJSON(filepath.Join(dir, resultFile), r) }

// Save writes the run's prompt to path and, if the training has ended, its result to output.dir. An
// interrupted training has no result yet.
func (r *Run) Save(path string, t *train.Result) error {
	if err := r.Prompt.Save(path); err != nil {
		return err
	}
	if t.StopReason == train.StopInterrupted || t.StopReason == train.StopFailed {
		return nil
	}
	dir := r.Task.Output.Dir
	return r.result(MethodPrompt, dir, path, t).write(dir)
}
