package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

// served is a model that clients can name: a prompt's file, or the base alone. It does not change.
type served struct {
	id      string
	created time.Time
	meta    *prompt.Meta  // empty for the base alone and for an adapter of PEFT
	rows    int           // virtual tokens
	task    *infer.Task   // how inputs become tokens
	choices []data.Choice // the labels; none: the model writes text
	engine  *engineModel
	alone   bool // the base without a prompt
}

// registry is the models by name. It follows the files that they come from.
type registry struct {
	s *Server

	mu     sync.RWMutex
	models map[string]*served

	scanning sync.Mutex
	seen     map[source]version // that was read, or refused
	full     map[source]version // for which there was no memory
	taken    map[source]bool    // the model of the id is from this file
}

// source is a file, or a directory of PEFT, that is served under an id. The same file may have several.
type source struct{ id, path string }

// version tells one state of a file from others. A directory has one for each of its files.
type version []fs.FileInfo

// look returns the version of a file or of a directory's files.
func look(path string) (version, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return version{info}, err
	}
	v := version{info}
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		// A file that is replaced at this moment has another version at the next look.
		if info, err := os.Stat(filepath.Join(path, e.Name())); err == nil && info.Mode().IsRegular() {
			v = append(v, info)
		}
	}
	return v, err
}

// written returns when the last of the files was written.
func (v version) written() (last time.Time) {
	for _, info := range v {
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// same reports whether no file has changed.
func (v version) same(other version) bool {
	return slices.EqualFunc(v, other, func(a, b fs.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// newRegistry reads all prompts. A file that was named must be right; one of the folder that is not is
// logged and left out.
func newRegistry(s *Server) (*registry, error) {
	g := &registry{s: s, models: map[string]*served{}, seen: map[source]version{},
		full: map[source]version{}, taken: map[source]bool{}}
	b := s.base
	if _, err := b.Chat(); err != nil { // read once, so that handlers can share it
		s.Log.Debug("no chat template", "error", err)
	}
	m := &served{id: b.Name, created: time.Now(), meta: &prompt.Meta{}, alone: true, engine: &engineModel{id: b.Name}}
	var err error
	if m.task, err = infer.NewTask(m.meta, b, b.Tokenizer); err != nil {
		return nil, err
	}
	g.models[m.id] = m
	for _, id := range slices.Sorted(maps.Keys(s.Files)) {
		path := filepath.Clean(s.Files[id])
		if id == b.Name {
			return nil, fmt.Errorf("prompt %s: the base model has the name %q, too", path, id)
		}
		v, err := look(path)
		if err != nil {
			return nil, fmt.Errorf("read prompt: %w", err)
		}
		if err := g.take(source{id, path}, v); err != nil {
			return nil, err
		}
	}
	if s.Folder == "" {
		return g, nil
	}
	if _, err := os.ReadDir(s.Folder); err != nil {
		return nil, fmt.Errorf("read the folder of prompts: %w", err)
	}
	g.scan()
	return g, nil
}

// take reads a prompt's file and makes it the model of an id, in place of the one before.
func (g *registry) take(from source, v version) error {
	g.seen[from], g.taken[from] = v, true
	m, err := g.read(from, v)
	if err == nil {
		err = g.s.loop.call(func() error { return g.s.loop.register(m.engine) })
	}
	if err != nil {
		return err
	}
	g.mu.Lock()
	old := g.models[from.id]
	g.models[from.id] = m
	g.mu.Unlock()
	g.drop(old)
	return nil
}

// drop forgets a model that requests no longer find. Those in work end on it.
func (g *registry) drop(old *served) {
	if old != nil {
		g.s.loop.post(func() { g.s.loop.retire(old.engine) })
	}
}

// read returns the model of a prompt's file. It refuses one that does not fit the base.
func (g *registry) read(from source, v version) (*served, error) {
	b := g.s.base
	p, err := base.LoadPrompt(from.path)
	if err == nil {
		err = b.Fits(p)
	}
	if err != nil {
		return nil, err
	}
	m := &served{
		id: from.id, created: v.written(), meta: &p.Meta, rows: p.Rows,
		engine: &engineModel{id: from.id, values: p.Values, rows: p.Rows},
	}
	if m.task, err = infer.NewTask(m.meta, b, b.Tokenizer); err == nil && len(m.meta.Labels) > 0 {
		_, m.choices, err = m.task.Format()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.path, err)
	}
	return m, nil
}

// scan takes up the files that are new or have changed, and forgets those that are gone. A file that
// is refused is logged once, and the model that was read from it before stays. One for which there is no
// memory now is tried again by the next scan.
func (g *registry) scan() {
	g.scanning.Lock()
	defer g.scanning.Unlock()
	var sources []source
	for _, id := range slices.Sorted(maps.Keys(g.s.Files)) {
		sources = append(sources, source{id, filepath.Clean(g.s.Files[id])})
	}
	if g.s.Folder != "" {
		names, err := base.PromptFiles(g.s.Folder)
		if err != nil {
			g.s.Log.Error("the folder of prompts cannot be read; its models stay", "error", err)
			return
		}
		for _, name := range names {
			from := source{strings.TrimSuffix(name, ".st"), filepath.Join(g.s.Folder, name)}
			if !slices.Contains(sources, from) { // --prompt names it so, too
				sources = append(sources, from)
			}
		}
	}
	for _, from := range sources {
		v, err := look(from.path)
		if err != nil { // gone since the folder was read
			continue
		}
		if v.same(g.seen[from]) {
			continue
		}
		if err = g.free(from); err == nil {
			err = g.take(from, v)
		}
		if errors.Is(err, infer.ErrFull) {
			delete(g.seen, from)
			level := slog.LevelWarn
			if v.same(g.full[from]) {
				level = slog.LevelDebug
			}
			g.full[from] = v
			g.s.Log.Log(context.Background(), level, "prompt not loaded yet: it is tried again", "file", from.path,
				"model", from.id, "error", err)
			continue
		}
		delete(g.full, from)
		if err != nil {
			g.seen[from] = v
			g.s.metrics.reloads.WithLabelValues("refused").Inc()
			g.s.Log.Error("prompt refused", "file", from.path, "model", from.id, "error", err)
			continue
		}
		g.s.metrics.reloads.WithLabelValues("loaded").Inc()
		g.s.Log.Info("prompt loaded", "file", from.path, "model", from.id)
	}
	for from := range g.taken {
		if slices.Contains(sources, from) {
			continue
		}
		g.mu.Lock()
		old := g.models[from.id]
		delete(g.models, from.id)
		g.mu.Unlock()
		g.drop(old)
		delete(g.taken, from)
		delete(g.full, from)
		delete(g.seen, from)
		g.s.metrics.reloads.WithLabelValues("removed").Inc()
		g.s.Log.Info("prompt removed", "file", from.path, "model", from.id)
	}
}

// free returns an error if the id of a file of the folder is another model's.
func (g *registry) free(from source) error {
	if from.id == g.s.base.Name {
		return errors.New("the base model has the same name")
	}
	if other, ok := g.s.Files[from.id]; ok && filepath.Clean(other) != from.path {
		return fmt.Errorf("--prompt has given the name to %s", other)
	}
	return nil
}

// watch scans until ctx ends.
func (g *registry) watch(ctx context.Context) {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.scan()
		case <-ctx.Done():
			return
		}
	}
}

// list returns all models, the base first, then by name.
func (g *registry) list() []*served {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.SortedFunc(maps.Values(g.models), func(a, b *served) int {
		if a.alone != b.alone {
			return map[bool]int{true: -1, false: 1}[a.alone]
		}
		return strings.Compare(a.id, b.id)
	})
}

func (g *registry) get(id string) *served {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.models[id]
}

// find returns the model of an id. The files are looked at again before an unknown one is refused.
func (s *Server) find(id string) (*served, error) {
	if id == "" {
		return nil, invalid("model", "model is missing: it is the name of a prompt or of the base "+
			"(GET /v1/models lists them)")
	}
	m := s.models.get(id)
	if m == nil {
		s.models.scan()
		m = s.models.get(id)
	}
	if m == nil {
		return nil, &apiError{status: http.StatusNotFound, Type: typeInvalid, Param: "model",
			Code:    "model_not_found",
			Message: fmt.Sprintf("the model %.200q does not exist (GET /v1/models lists those that do)", id)}
	}
	return m, nil
}
