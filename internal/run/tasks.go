package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// ListedTask is a task of a list, from its file to its result.
type ListedTask struct {
	Name string // in messages
	Task *config.Task
	Err  error // a mistake of its line or file; nil: Task is complete

	run    *Run
	from   *train.State
	unlock func() error
}

// LoadTasks reads a list or a folder of tasks, and their files. set are settings for all of them; those of
// a line come after. A task with a mistake has it in Err, as has a task that writes to the prompt or the
// folder of an earlier one.
func LoadTasks(path string, set []string) ([]*ListedTask, error) {
	entries, err := config.ReadList(path)
	if err != nil {
		return nil, failure.Usage(err)
	}
	tasks := make([]*ListedTask, len(entries))
	writers := map[string]string{} // name of the task that writes to a path
	for i, e := range entries {
		t := &ListedTask{Name: e.Name, Err: e.Err}
		if tasks[i] = t; t.Err == nil {
			t.Task, t.Err = config.Load(e.Path, slices.Concat(set, e.Set))
		}
		if t.Err == nil {
			t.Err = t.checkPaths(writers)
		}
		t.Err = failure.Usage(t.Err)
	}
	return tasks, nil
}

// checkPaths returns why the task cannot be one of several. It adds what the task writes to writers.
func (t *ListedTask) checkPaths(writers map[string]string) error {
	for key, path := range dataFiles(t.Task) {
		if path == data.Stdin {
			return fmt.Errorf("%s: %s of a task in a list cannot be standard input", t.Task.Place(key), key)
		}
	}
	paths := [][2]string{{"output.prompt", t.Task.Output.Prompt}, {"output.dir", outputDir(t.Task)}}
	for _, p := range paths {
		key, path := p[0], p[1]
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		if other, ok := writers[path]; ok {
			return fmt.Errorf("%s: %s %s is also that of %s: give each task its own output.prompt and output.dir",
				t.Task.Place(key), key, p[1], other)
		}
	}
	for _, p := range paths {
		if abs, err := filepath.Abs(p[1]); err == nil {
			writers[abs] = t.Name
		}
	}
	return nil
}

// RowCache has the rows of the last task that was opened on a base. Tasks that differ in other things share
// them.
type RowCache struct {
	key  string
	rows *Rows
}

// load returns the rows of a task as LoadRows does.
func (c *RowCache) load(ctx context.Context, task *config.Task, b *base.Base) (*Rows, error) {
	var key strings.Builder
	values := task.Values()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(name, "data.") || name == "prompt.tokens" { // which limits the rows' length
			fmt.Fprintf(&key, "%q %q\n", name, values[name])
		}
	}
	for path := range dataFiles(task) { // a file may change while tasks are trained
		info, err := os.Stat(path)
		if err != nil {
			c.rows = nil
			break
		}
		fmt.Fprintf(&key, "%q %d %v\n", path, info.Size(), info.ModTime())
	}
	if c.rows == nil || c.key != key.String() {
		rows, err := loadAllRows(ctx, task, b)
		if err != nil {
			return nil, err
		}
		c.key, c.rows = key.String(), rows
	}
	return c.rows.sampled(task.Train.EvalRows, task.Train.Seed), nil
}

// Open opens the task on its base, locks its folder and finds what earlier attempts left there. If the
// training has ended, it returns the result, and nothing is written, made or locked.
func (t *ListedTask) Open(ctx context.Context, b *base.Base, cache *RowCache, version string) (done *Result,
	warnings []string, err error) {
	t.Task.Output.Dir = outputDir(t.Task)
	began := time.Now()
	rows, err := cache.load(ctx, t.Task, b)
	if err != nil {
		return nil, nil, failure.Usage(err)
	}
	if t.run, err = openWith(t.Task, b, rows, identity(t.Task, b, rows), version); err != nil {
		return nil, nil, err
	}
	t.run.began = began
	if done := t.run.ended(); done != nil {
		return done, nil, nil
	}
	if err := MakeFolders(t.Task); err != nil {
		return nil, nil, err
	}
	if t.unlock, err = Lock(t.Task.Output.Dir); err != nil {
		return nil, nil, err
	}
	done, warnings, err = t.find()
	if err != nil || done != nil {
		t.Close()
	}
	return done, warnings, err
}

// find returns the result of the training if it has ended, else it sets the state to continue from. It
// refuses a folder of another run.
func (t *ListedTask) find() (done *Result, warnings []string, err error) {
	r := t.run
	if done := r.ended(); done != nil { // in another process, before this one had the lock
		return done, nil, nil
	}
	_, _, err = train.LoadState(statePath(r.Task.Output.Dir))
	if !errors.Is(err, fs.ErrNotExist) {
		if t.from, warnings, err = r.Resume(); err != nil {
			return nil, warnings, failure.Hint(err, "undo the change, or give the task another output.prompt and "+
				"output.dir, or remove %s to train it again", r.Task.Output.Dir)
		}
		if end, training := r.Finished(t.from); end != nil { // by a version that wrote no result
			return r.resultOf(training, end), warnings, nil
		}
		return nil, warnings, nil
	}
	earlier, err := ReadResult(r.Task.Output.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, CheckNew(r.Task)
	}
	if err != nil {
		return nil, nil, err
	}
	if changed, _ := r.changes(earlier.Identity); changed != nil {
		return nil, nil, failure.Usage(failure.Hint(fmt.Errorf("%s has the result of another run: %s",
			r.Task.Output.Dir, strings.Join(changed, "; ")), "undo the change, or give the task another "+
			"output.prompt and output.dir, or remove %s to train it again", r.Task.Output.Dir))
	}
	return nil, nil, CheckNew(r.Task)
}

// ended returns the result of the run's training if it has ended and its prompt is in place, else nil.
func (r *Run) ended() *Result {
	dir := r.Task.Output.Dir
	done, err := ReadResult(dir)
	if err != nil {
		return nil
	}
	if changed, _ := r.changes(done.Identity); changed != nil {
		return nil
	}
	p, err := prompt.Load(base.PathAt(filepath.Join(dir, resultFile), done.Prompt))
	if err != nil || p.Meta.Training == nil || p.Meta.Training.Steps != done.Steps ||
		p.Meta.Training.StopReason != done.StopReason {
		return nil
	}
	if done.StopReason != train.StopDiverged {
		if _, err := prompt.Load(r.Task.Output.Prompt); err != nil {
			return nil // the task has another output.prompt now
		}
	}
	return done
}

// resultOf returns the result of a finished training of an earlier version, from its prompt and events.
func (r *Run) resultOf(training *prompt.Training, end *report.End) *Result {
	t := train.Result{
		Steps: training.Steps, BestStep: training.BestStep, StopReason: training.StopReason, Seconds: end.Seconds,
	}
	loss := 0.0
	for set, q := range training.Valid {
		loss += q.Loss / float64(len(training.Valid))
		t.Valid = append(t.Valid, report.Eval{Set: set, Loss: report.Number(q.Loss), Accuracy: q.Accuracy})
	}
	t.Loss = loss
	result := r.result(MethodPrompt, r.Task.Output.Dir, r.Task.Output.Prompt, &t)
	return &result
}

// Close unlocks the task's folder and forgets its rows.
func (t *ListedTask) Close() {
	if t.unlock != nil {
		t.unlock()
	}
	t.run, t.from, t.unlock = nil, nil, nil
}

// Notes returns what the user should know about the task and its rows.
func (t *ListedTask) Notes() []string {
	return slices.Concat(t.Task.Warnings(), t.run.Rows.Notes(), t.run.Unusual())
}

// Train trains the opened task and writes its events, its prompt and its result. progress is told what
// happens. An interrupted training leaves a state that Open continues from.
func (t *ListedTask) Train(ctx context.Context, progress report.Func) (*Result, error) {
	r := t.run
	plan, err := r.Plan(false)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	tell, closeEvents, err := r.Record(t.from)
	if err != nil {
		return nil, err
	}
	defer closeEvents()
	tell = report.All(tell, progress)
	tell(r.Start())
	result, runErr := r.Train(ctx, plan, t.from, tell)
	path := r.Task.Output.Prompt
	if runErr != nil {
		path = filepath.Join(r.Task.Output.Dir, result.StopReason+".st")
	}
	if err := r.Save(path, result); err != nil {
		return nil, errors.Join(runErr, err)
	}
	tell(report.End{
		Steps: result.Steps, BestStep: result.BestStep, StopReason: result.StopReason,
		Seconds: time.Since(begin).Seconds(), PeakMemoryBytes: process.PeakMemory(),
	})
	if err := errors.Join(runErr, closeEvents()); err != nil {
		return nil, err
	}
	res := r.result(MethodPrompt, r.Task.Output.Dir, path, result)
	return &res, nil
}
