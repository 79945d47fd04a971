package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/process"
	"ptune/internal/report"
	"ptune/internal/run"
	"ptune/internal/train"
)

// tasksOptions are the flags of train for many tasks.
type tasksOptions struct {
	list   string
	shard  string
	shards int
}

// tasksFlags adds the flags for many tasks to train, whose task file then is left out.
func tasksFlags(cmd *cobra.Command, o *tasksOptions) {
	f := cmd.Flags()
	f.StringVar(&o.list, "tasks", "",
		"train many tasks: a file with a task in each line (task.yaml --set KEY=VALUE …), or a folder of task "+
			"files. Finished tasks stay as they are, interrupted ones continue")
	f.StringVar(&o.shard, "shard", "",
		"train only part I of N of the tasks, as in 0/8: each N-th task from the I-th, from 0 (default: all, or "+
			"in a Slurm job array the part of its array task)")
	f.IntVar(&o.shards, "shards", 0,
		"number of parts; the part is SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, which start at 0")
	for _, other := range []string{"config", "output", "resume", "force", "dry-run"} {
		cmd.MarkFlagsMutuallyExclusive("tasks", other)
	}
	cmd.MarkFlagsMutuallyExclusive("shard", "shards")
	oneTask := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.list != "" && len(args) > 0:
			return fmt.Errorf("--tasks has the task files, so %s cannot be one, too", args[0])
		case o.list != "":
			return nil
		case cmd.Flags().Changed("shard") || cmd.Flags().Changed("shards"):
			return errors.New("--shard and --shards are for --tasks")
		}
		return oneTask(cmd, args)
	}
}

// shard is a part of a list: each of-th task from number at.
type shard struct{ at, of int }

// part returns the shard that the flags or the scheduler ask for.
func (o tasksOptions) part(env func(string) string) (shard, error) {
	number := func(name string) (n int, ok bool, err error) {
		text := env(name)
		if text == "" {
			return 0, false, nil
		}
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return 0, false, fmt.Errorf("%s is %q, want a whole number from 0", name, text)
		}
		return n, true, nil
	}
	const id = "SLURM_ARRAY_TASK_ID"
	switch {
	case o.shard != "":
		at, of, _ := strings.Cut(o.shard, "/")
		i, err1 := strconv.Atoi(at)
		n, err2 := strconv.Atoi(of)
		if err1 != nil || err2 != nil || i < 0 || i >= n {
			return shard{}, fmt.Errorf("--shard is %q, want I/N with I from 0 to N-1, as in 0/8", o.shard)
		}
		return shard{i, n}, nil
	case o.shards < 0:
		return shard{}, fmt.Errorf("--shards is %d, want at least 1", o.shards)
	case o.shards > 0:
		for _, name := range []string{id, "JOB_COMPLETION_INDEX"} {
			i, ok, err := number(name)
			switch {
			case err != nil:
				return shard{}, err
			case ok && i >= o.shards:
				return shard{}, fmt.Errorf("%s is %d, but --shards is %d: the parts are 0 to %d", name, i, o.shards,
					o.shards-1)
			case ok:
				return shard{i, o.shards}, nil
			}
		}
		return shard{}, failure.Hint(errors.New("--shards needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, "+
			"and neither is set"), "--shard I/N names the part")
	}
	i, ok, err := number(id)
	if err != nil {
		return shard{}, err
	}
	if !ok {
		return shard{0, 1}, nil
	}
	var array [3]int
	for k, name := range []string{"SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT"} {
		if array[k], _, err = number(name); err != nil {
			return shard{}, err
		}
	}
	if least, most, n := array[0], array[1], array[2]; n < 1 || most-least+1 != n || i < least || i > most {
		return shard{}, failure.Hint(fmt.Errorf("the Slurm array has %d tasks from %d to %d, this one is %d: "+
			"they cannot be counted", n, least, most, i), "give the number of parts with --shards")
	}
	return shard{i - array[0], array[2]}, nil
}

// What became of a task.
const (
	taskTrained  = "trained"
	taskDone     = "already_done"
	taskWrong    = "wrong" // the same again would fail again
	taskDiverged = "diverged"
	taskAgain    = "try_again"
)

// taskOutcome is what --json prints for each task.
type taskOutcome struct {
	Task   string      `json:"task"`
	Status string      `json:"status"`
	Prompt string      `json:"prompt,omitempty"`
	Error  string      `json:"error,omitempty"`
	Result *run.Result `json:"result,omitempty"`
}

// tasksFailed is the error of tasks that were not all trained.
type tasksFailed struct {
	wrong, again, all int
	cause             error // of an interruption, or why there is no list
}

func (f tasksFailed) Error() string {
	var parts []string
	if f.cause != nil {
		parts = append(parts, f.cause.Error())
	}
	if f.wrong > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d tasks are wrong", f.wrong, f.all))
	}
	if f.again > 0 && f.all > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d tasks are not finished", f.again, f.all))
	}
	return strings.Join(parts, ", ")
}

// tryAgain reports whether the same command may end better another time. It is not so after a mistake of
// the user or a training that diverged, unless the system's answer was the cause: a file that is missing may
// be on a volume that is not mounted yet.
func tryAgain(err error) bool {
	system := errors.As(err, new(syscall.Errno)) || errors.Is(err, fs.ErrNotExist)
	return system || !failure.IsUsage(err) && !errors.Is(err, train.ErrDiverged)
}

// manyTasks is the work on a list of tasks.
type manyTasks struct {
	trainOptions
	streams
	failed tasksFailed
	counts map[string]int // of tasks, by what became of them
}

// trainTasks trains the tasks of a list, or a part of them, those of one base after another. One that fails
// does not end the others.
func trainTasks(ctx context.Context, o trainOptions, s streams) error {
	part, err := o.many.part(os.Getenv)
	if err != nil {
		return failure.Usage(err)
	}
	all, err := until(ctx, func() ([]*run.ListedTask, error) { return run.LoadTasks(o.many.list, o.set) })
	if err != nil {
		if errors.As(err, new(syscall.Errno)) {
			return tasksFailed{again: 1, cause: err}
		}
		return err
	}
	w := &manyTasks{trainOptions: o, streams: s, counts: map[string]int{}}
	var tasks []*run.ListedTask
	for i := part.at; i < len(all); i += part.of {
		tasks = append(tasks, all[i])
	}
	if !o.quiet {
		s.tell("%s: %d of %d tasks, part %d of 0 to %d", o.many.list, len(tasks), len(all), part.at, part.of-1)
	}
	w.failed.all = len(tasks)
	var models []string // in the order of the list
	byModel := map[string][]*run.ListedTask{}
	for _, t := range tasks {
		if t.Err != nil {
			if err := w.ended(t, "", nil, t.Err); err != nil {
				return err
			}
			continue
		}
		if byModel[t.Task.Model] == nil {
			models = append(models, t.Task.Model)
		}
		byModel[t.Task.Model] = append(byModel[t.Task.Model], t)
	}
	for _, model := range models {
		if err := w.trainOn(ctx, model, byModel[model]); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		w.failed.cause = context.Cause(ctx)
	}
	if !o.quiet {
		s.tell("%d trained, %d already done, %d wrong, %d diverged, %d not finished", w.counts[taskTrained],
			w.counts[taskDone], w.counts[taskWrong], w.counts[taskDiverged], w.failed.again)
	}
	if w.failed.wrong+w.failed.again == 0 {
		return nil
	}
	hint := "mend the tasks that are wrong; the same command leaves finished tasks as they are"
	if w.failed.again > 0 {
		hint = "the same command continues"
	}
	return failure.Hint(w.failed, "%s", hint)
}

// trainOn opens a base and trains tasks on it. An error ends the work on all tasks.
func (w *manyTasks) trainOn(ctx context.Context, model string, tasks []*run.ListedTask) error {
	b, err := openBase(ctx, model, w.computeOptions)
	if err != nil {
		for _, t := range tasks {
			if err := w.ended(t, "", nil, err); err != nil {
				return err
			}
		}
		return nil
	}
	defer b.Close()
	checked, cache := false, &run.RowCache{}
	for _, t := range tasks {
		if ctx.Err() != nil {
			w.failed.again++
			continue
		}
		status, result, err := w.train(ctx, b, t, cache, &checked)
		t.Close()
		if err := w.ended(t, status, result, err); err != nil {
			return err
		}
	}
	return nil
}

// train trains a task unless that is done. checked says whether the base's weights were checked.
func (w *manyTasks) train(ctx context.Context, b *base.Base, t *run.ListedTask, cache *run.RowCache,
	checked *bool) (status string, result *run.Result, err error) {
	done, warnings, err := t.Open(ctx, b, cache, version)
	w.warnTask(t, warnings)
	if err != nil {
		return "", nil, err
	}
	if done != nil && done.StopReason == train.StopDiverged {
		return "", nil, failure.Hint(fmt.Errorf("an earlier attempt has ended: %w at step %d", train.ErrDiverged,
			done.Steps), "change the task, or remove %s to train it again", t.Task.Output.Dir)
	}
	if done != nil {
		return taskDone, done, nil
	}
	if !*checked {
		if err := b.CheckWeights(); err != nil {
			return "", nil, err
		}
		*checked = true
	}
	w.warnTask(t, t.Notes())
	process.FreeMemory()
	progress := report.SweepText(w.err, 1, 2*time.Second)
	if w.quiet {
		progress = func(report.Event) {}
	}
	result, err = t.Train(ctx, progress)
	return taskTrained, result, err
}

// warnTask prints warnings of a task.
func (w *manyTasks) warnTask(t *run.ListedTask, warnings []string) {
	for _, text := range warnings {
		w.warn("%s: %s", t.Name, text)
	}
}

// ended prints what became of a task and counts it. The error is one of printing.
func (w *manyTasks) ended(t *run.ListedTask, status string, result *run.Result, err error) error {
	o := taskOutcome{Task: t.Name, Status: status, Result: result}
	switch {
	case err == nil:
		o.Prompt = t.Task.Output.Prompt
	case tryAgain(err):
		o.Status = taskAgain
		w.failed.again++
	case errors.Is(err, train.ErrDiverged):
		o.Status = taskDiverged
		w.failed.wrong++
	default:
		o.Status = taskWrong
		w.failed.wrong++
	}
	w.counts[o.Status]++
	if err != nil {
		o.Error = err.Error()
		lines := strings.Split(o.Error, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, markLine) {
				lines[i] = t.Name + ": " + line
			}
		}
		w.printError(failure.Hint(errors.New(strings.Join(lines, "\n")), "%s", failure.HintOf(err)))
	} else if !w.quiet {
		w.tell("%s: %s", t.Name, outcomeText(status, result))
	}
	if w.json {
		return json.NewEncoder(w.out).Encode(o)
	}
	if err != nil {
		return nil
	}
	return w.wrote(o.Prompt)
}

// outcomeText returns a result in a line.
func outcomeText(status string, r *run.Result) string {
	text := fmt.Sprintf("%s after %d steps (%s), best at step %d", strings.ReplaceAll(status, "_", " "), r.Steps,
		r.StopReason, r.BestStep)
	if len(r.Valid) > 0 {
		text += fmt.Sprintf(", validation loss %.4f", float64(r.Loss))
	}
	if r.Accuracy != nil {
		text += fmt.Sprintf(", accuracy %.4f", *r.Accuracy)
	}
	return text + fmt.Sprintf(", %.1f s", r.Seconds)
}
