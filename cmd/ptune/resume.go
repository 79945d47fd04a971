package main

import (
	"bytes"
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
	"strings"
	"syscall"

	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/files"
	"ptune/internal/train"
)

// runFolder is output.dir while a run writes to it.
type runFolder struct {
	dir      string
	unlock   func() error
	identity map[string]string
	from     *train.State // where to go on; nil: at the beginning
}

// openRunFolder takes the folder for this run, so that no other writes there, and with resume finds the state to go on from.
func openRunFolder(task *config.Task, b *base, rows *taskRows, resume bool, s streams) (*runFolder, error) {
	f := &runFolder{dir: task.Output.Dir, identity: runIdentity(task, b, rows)}
	var err error
	if f.unlock, err = lockFolder(f.dir); err != nil {
		return nil, err
	}
	if resume {
		if err := f.findState(s); err != nil {
			f.unlock()
			return nil, err
		}
	}
	return f, nil
}

// lockFolder keeps other runs out of a folder until it is unlocked or the process ends.
func lockFolder(dir string) (unlock func() error, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the output folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, withHint(fmt.Errorf("another run writes to %s", dir), "wait for it, or give this run a folder of its own")
		}
		return nil, fmt.Errorf("lock the output folder: %w", err)
	}
	return lock.Close, nil
}

func (f *runFolder) statePath() string  { return filepath.Join(f.dir, "state.safetensors") }
func (f *runFolder) eventsPath() string { return filepath.Join(f.dir, "events.jsonl") }

// findState reads the state to go on from, and refuses one of another run.
func (f *runFolder) findState(s streams) error {
	state, damage, err := train.LoadState(f.statePath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.warn("%s has no state to go on from; the run begins at the beginning", f.dir)
		return nil
	case err != nil:
		return withHint(fmt.Errorf("go on: %w", err), "without --resume the run begins again")
	case damage != nil:
		s.warn("%v; the run goes on from the state before, step %d", damage, state.Step)
	}
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(f.identity)) {
		was, is := state.Identity[name], f.identity[name]
		switch {
		case was == is:
		case name == "kernels":
			s.warn("the state was made by the kernels %s, these are %s: the numbers will differ in the last digits", was, is)
		default:
			changed = append(changed, fmt.Sprintf("%s was %s, is %s", name, was, is))
		}
	}
	if changed != nil {
		return wrong{withHint(fmt.Errorf("go on from %s: it is of another run: %s", f.statePath(), strings.Join(changed, "; ")),
			"undo the change, or begin again without --resume")}
	}
	f.from = state
	return nil
}

// save keeps a state.
func (f *runFolder) save(state *train.State) error {
	state.Identity = f.identity
	return state.Save(f.statePath())
}

// openEvents opens events.jsonl; where a run goes on, events behind its state are dropped, for they will happen again.
func (f *runFolder) openEvents() (*os.File, error) {
	if f.from == nil {
		return os.Create(f.eventsPath())
	}
	old, err := os.ReadFile(f.eventsPath())
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
			continue // the process died as it wrote
		}
		last := f.from.Step
		if e.Event == "eval" {
			last = f.from.Evaluated
		}
		if e.Event != "end" && e.Step <= last {
			kept.Write(line)
		}
	}
	if kept.Len() != len(old) {
		if err := files.WriteBytes(f.eventsPath(), kept.Bytes()); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(f.eventsPath(), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
}

// runIdentity is all that a run's numbers depend on, each by the name a message gives it.
func runIdentity(task *config.Task, b *base, rows *taskRows) map[string]string {
	id := map[string]string{"the base": b.Fingerprint, "its tokenizer": b.tok.Hash, "kernels": b.pool.Kernels()}
	for key, value := range task.Values() {
		switch {
		case strings.HasPrefix(key, "output.") || strings.HasPrefix(key, "data.valid") || key == "data.train" || key == "model" || key == "train.recompute":
			// where things lie, and what does not change the numbers
		default:
			id[key] = value
		}
	}
	id["data.train's rows"] = hashRows(rows.train)
	for _, set := range rows.valid {
		id[fmt.Sprintf("the rows of validation set %q", set.Name)] = hashRows(set)
	}
	return id
}

// hashRows is a hash of the tokens of rows.
func hashRows(set *data.Set) string {
	h := sha256.New()
	for _, r := range set.Rows {
		binary.Write(h, binary.LittleEndian, []int64{int64(len(r.Input)), int64(len(r.Target)), int64(r.Label)})
		binary.Write(h, binary.LittleEndian, r.Input)
		binary.Write(h, binary.LittleEndian, r.Target)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
