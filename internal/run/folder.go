package run

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Lock keeps other runs out of a folder until it is unlocked or the process ends.
func Lock(dir string) (unlock func() error, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the output folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, failure.Hint(fmt.Errorf("another run writes to %s", dir),
				"wait for it, or give this run its own output.dir")
		}
		return nil, fmt.Errorf("lock the output folder: %w", err)
	}
	return lock.Close, nil
}

// EventsPath returns the events file of the run in a folder.
func EventsPath(dir string) string { return filepath.Join(dir, "events.jsonl") }

// statePath returns the checkpoint of the run in a folder.
func statePath(dir string) string { return filepath.Join(dir, "state.safetensors") }

// addedKeys are keys of the task file that earlier versions of ptune did not have, with the value that
// those versions behave as. With this value a key is not part of an identity, so that states and sweeps
// of earlier versions can be continued.
var addedKeys = map[string]string{
	"train.max_decrease": "0", "train.best": train.BestLoss, "data.label_scores": data.ScoreSum,
}

// CheckAbsent returns a usage error if a file exists that a command would replace. A device is no loss.
func CheckAbsent(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return failure.Usage(failure.Hint(fmt.Errorf("%s exists already", path),
		"give another name with -o, or --force to overwrite it"))
}

// CheckNew returns a usage error if a new run of a task would replace a finished prompt, or discard the
// state of a run that has not finished.
func CheckNew(task *config.Task) error {
	if err := CheckAbsent(task.Output.Prompt); err != nil {
		return err
	}
	dir := outputDir(task)
	state, _, err := train.LoadState(statePath(dir))
	if err != nil || ended(dir) { // a state that cannot be read is no loss
		return nil
	}
	return failure.Usage(failure.Hint(
		fmt.Errorf("%s has the state of a run that has not finished (step %d)", dir, state.Step),
		"--resume continues that run, --force begins anew and discards its state"))
}

// ended reports whether the events of the run in a folder say that it needs no more steps.
func ended(dir string) bool {
	f, err := os.Open(EventsPath(dir))
	if err != nil {
		return false
	}
	defer f.Close()
	log, err := report.Read(f)
	return err == nil && log.End != nil && slices.Contains(
		[]string{train.StopSteps, train.StopPatience, train.StopDiverged}, log.End.StopReason)
}

// Resume returns the state in output.dir to continue from, or nil if there is none. It refuses a state
// of another run. The warnings say what the user should know about the state.
func (r *Run) Resume() (from *train.State, warnings []string, err error) {
	warn := func(format string, args ...any) {
		warnings = append(warnings, fmt.Sprintf(format, args...))
	}
	dir := r.Task.Output.Dir
	state, damage, err := train.LoadState(statePath(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		warn("%s has no state to resume from; the run starts from the beginning", dir)
		return nil, warnings, nil
	case err != nil:
		return nil, nil, failure.Hint(fmt.Errorf("resume: %w", err),
			"--force without --resume starts from the beginning")
	case damage != nil:
		warn("%v; the run continues from the previous state, step %d", damage, state.Step)
	}
	changed, others := r.changes(state.Identity)
	if others != "" {
		warn("the state was made with the kernels %s, now they are %s: "+
			"numbers will differ in the last digits", others, r.identity["kernels"])
	}
	if changed != nil {
		err := fmt.Errorf("resume from %s: it belongs to another run: %s",
			statePath(dir), strings.Join(changed, "; "))
		return nil, warnings, failure.Usage(failure.Hint(err,
			"undo the change, or start from the beginning with --force and without --resume"))
	}
	return state, warnings, nil
}

// changes says what differs between an earlier identity and the run's. kernels are those of the earlier
// one if they are others, which is no other run.
func (r *Run) changes(before map[string]string) (changed []string, kernels string) {
	names := slices.Concat(slices.Collect(maps.Keys(r.identity)), slices.Collect(maps.Keys(addedKeys)))
	for name := range before {
		if strings.HasPrefix(name, idValidRows) { // a set may have been removed
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		was := cmp.Or(before[name], addedKeys[name])
		is := cmp.Or(r.identity[name], addedKeys[name])
		switch {
		case was == is:
		case name == "kernels":
			kernels = was
		default:
			changed = append(changed, r.change(name, was, is))
		}
	}
	return changed, kernels
}

// change says how a part of the identity has changed. Of a hash it says only that it has.
func (r *Run) change(name, was, is string) string {
	set, isSet := strings.CutPrefix(name, idValidRows)
	switch {
	case isSet && was == "":
		return fmt.Sprintf("the validation set %s is new", set)
	case isSet && is == "":
		return fmt.Sprintf("the validation set %s is missing", set)
	case isSet:
		return name + " have changed"
	case name == idTrainRows:
		return fmt.Sprintf("the rows of data.train (%s) have changed", r.Rows.Train.File())
	case name == idBase || name == idTokenizer:
		return name + " has changed"
	}
	return fmt.Sprintf("%s was %s, is %s", name, was, is)
}

// Finished returns how the run in output.dir ended, and its prompt's training, if the state is that of a
// finished run whose prompt and events were written. Otherwise it returns nil.
func (r *Run) Finished(from *train.State) (*report.End, *prompt.Training) {
	f, err := os.Open(EventsPath(r.Task.Output.Dir))
	if err != nil || !from.Finished(r.Config) {
		return nil, nil
	}
	defer f.Close()
	log, err := report.Read(f)
	if err != nil || log.End == nil || log.End.Steps != from.Step {
		return nil, nil
	}
	p, err := prompt.Load(r.Task.Output.Prompt)
	if err != nil || p.Meta.Training == nil || p.Meta.Training.Steps != from.Step ||
		p.Meta.Training.StopReason != log.End.StopReason {
		return nil, nil
	}
	if p.Meta.Training.Valid == nil {
		p.Meta.Training.Valid = map[string]prompt.Quality{} // as Qualities returns without validation
	}
	return log.End, p.Meta.Training
}

// OpenEvents opens the events file of the run in dir. It is empty for a new run. For one that
// continues from a state it keeps the events up to that state; the later ones will happen again.
func OpenEvents(dir string, from *train.State) (*os.File, error) {
	path := EventsPath(dir)
	if from == nil {
		return os.Create(path)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var kept bytes.Buffer
	for line := range bytes.Lines(old) {
		var e struct {
			Event string `json:"event"`
			Step  int    `json:"step"`
		}
		if json.Unmarshal(line, &e) != nil {
			continue // the process ended while writing it
		}
		last := from.Step
		if e.Event == "eval" {
			last = from.Evaluated
		}
		if e.Event != "end" && e.Step <= last {
			kept.Write(line)
		}
	}
	if kept.Len() != len(old) {
		if err := files.WriteBytes(path, kept.Bytes()); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
}

// Record opens the files of the run's events in output.dir: events.jsonl, as OpenEvents does, and
// TensorBoard's if the task asks for it. tell writes an event to all of them. close closes them and
// returns the first error of writing.
func (r *Run) Record(from *train.State) (tell report.Func, close func() error, err error) {
	dir := r.Task.Output.Dir
	var failed error
	fail := func(err error) { failed = cmp.Or(failed, fmt.Errorf("write events: %w", err)) }
	events, err := OpenEvents(dir, from)
	if err != nil {
		return nil, nil, fmt.Errorf("write events: %w", err)
	}
	opened := []*os.File{events}
	tell = report.JSONL(events, fail)
	if r.Task.Output.TensorBoard {
		name := fmt.Sprintf("events.out.tfevents.%d.ptune", r.began.Unix())
		board, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			events.Close()
			return nil, nil, fmt.Errorf("write TensorBoard's events: %w", err)
		}
		opened = append(opened, board)
		tell = report.All(tell, report.TensorBoard(board, time.Now, fail))
	}
	return tell, func() error {
		for _, f := range opened {
			if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				fail(err)
			}
		}
		return failed
	}, nil
}

// The parts of an identity that are hashes. A sweep's folders depend on these names.
const (
	idBase      = "the base"
	idTokenizer = "its tokenizer"
	idTrainRows = "data.train's rows"
	idValidRows = "the rows of validation set " // and the quoted name of the set
)

// identity returns everything that a run's numbers depend on, by the name that messages use.
func identity(task *config.Task, b *base.Base, rows *Rows) map[string]string {
	id := map[string]string{
		idBase:      b.Fingerprint,
		idTokenizer: b.Tokenizer.Hash,
		"kernels":   b.Pool.Kernels(),
	}
	for key, value := range task.Values() {
		if unchanged, added := addedKeys[key]; !isPlaceOrSpeed(key) && !(added && value == unchanged) {
			id[key] = value
		}
	}
	id["data.encoding"] = storedReading(task.Data.Reading()).Encoding // as in earlier versions
	id[idTrainRows] = hashRows(rows.Train)
	for _, set := range rows.Valid {
		id[idValidRows+strconv.Quote(set.Name)] = hashRows(set)
	}
	return id
}

// isPlaceOrSpeed reports whether a key says where files are, or changes speed and memory alone. The
// files' contents are part of the identity by their hashes.
func isPlaceOrSpeed(key string) bool {
	return strings.HasPrefix(key, "output.") || strings.HasPrefix(key, "data.valid") ||
		key == "data.train" || key == "model" || key == "train.recompute" || key == "train.eval_rows"
}

// hashRows returns a hash of the tokens of a set's rows.
func hashRows(set *data.Set) string {
	h := sha256.New()
	for _, r := range set.Rows {
		sizes := []int64{int64(len(r.Input)), int64(len(r.Target)), int64(r.Label)}
		binary.Write(h, binary.LittleEndian, sizes)
		binary.Write(h, binary.LittleEndian, r.Input)
		binary.Write(h, binary.LittleEndian, r.Target)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
