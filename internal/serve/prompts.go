package serve

import (
	"cmp"
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
	seen     map[string]fs.FileInfo // of each path that was read, or refused
	full     map[string]fs.FileInfo // of each path for which there was no memory
	ids      map[string]string      // the id of each path
}

// newRegistry reads all prompts. A file that was named must be right; one of the folder that is not is
// logged and left out.
func newRegistry(s *Server) (*registry, error) {
	g := &registry{s: s, models: map[string]*served{}, seen: map[string]fs.FileInfo{},
		full: map[string]fs.FileInfo{}, ids: map[string]string{}}
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
		path := s.Files[id]
		if id == b.Name {
			return nil, fmt.Errorf("prompt %s: the base model has the name %q, too", path, id)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read prompt: %w", err)
		}
		if err := g.take(id, path, info); err != nil {
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
func (g *registry) take(id, path string, info fs.FileInfo) error {
	g.seen[path], g.ids[path] = info, id
	m, err := g.read(id, path, info)
	if err == nil {
		err = g.s.loop.call(func() error { return g.s.loop.register(m.engine) })
	}
	if err != nil {
		return err
	}
	g.mu.Lock()
	old := g.models[id]
	g.models[id] = m
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
func (g *registry) read(id, path string, info fs.FileInfo) (*served, error) {
	b := g.s.base
	p, err := base.LoadPrompt(path)
	if err == nil {
		err = b.Fits(p)
	}
	if err != nil {
		return nil, err
	}
	m := &served{
		id: id, created: info.ModTime(), meta: &p.Meta, rows: p.Rows,
		engine: &engineModel{id: id, values: p.Values, rows: p.Rows},
	}
	if m.task, err = infer.NewTask(m.meta, b, b.Tokenizer); err == nil && len(m.meta.Labels) > 0 {
		_, m.choices, err = m.task.Format()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// scan takes up the files that are new or have changed, and forgets those that are gone. A file that
// is refused is logged once, and the model that was read from it before stays. One for which there is no
// memory now is tried again by the next scan.
func (g *registry) scan() {
	g.scanning.Lock()
	defer g.scanning.Unlock()
	paths := slices.Collect(maps.Values(g.s.Files))
	if g.s.Folder != "" {
		names, err := base.PromptFiles(g.s.Folder)
		if err != nil {
			g.s.Log.Error("the folder of prompts cannot be read; its models stay", "error", err)
			return
		}
		for _, name := range names {
			paths = append(paths, filepath.Join(g.s.Folder, name))
		}
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil { // gone since the folder was read
			continue
		}
		if old := g.seen[path]; old != nil && same(old, info) {
			continue
		}
		id := cmp.Or(g.ids[path], strings.TrimSuffix(filepath.Base(path), ".st"))
		if err = g.free(id, path); err == nil {
			err = g.take(id, path, info)
		}
		if errors.Is(err, infer.ErrFull) {
			delete(g.seen, path)
			level := slog.LevelWarn
			if old := g.full[path]; old != nil && same(old, info) {
				level = slog.LevelDebug
			}
			g.full[path] = info
			g.s.Log.Log(context.Background(), level, "prompt not loaded yet: it is tried again", "file", path, "model", id,
				"error", err)
			continue
		}
		delete(g.full, path)
		if err != nil {
			g.seen[path] = info
			g.s.metrics.reloads.WithLabelValues("refused").Inc()
			g.s.Log.Error("prompt refused", "file", path, "model", id, "error", err)
			continue
		}
		g.s.metrics.reloads.WithLabelValues("loaded").Inc()
		g.s.Log.Info("prompt loaded", "file", path, "model", id)
	}
	for path, id := range g.ids {
		if _, named := g.s.Files[id]; named || slices.Contains(paths, path) {
			continue
		}
		g.mu.Lock()
		old := g.models[id]
		delete(g.models, id)
		g.mu.Unlock()
		g.drop(old)
		delete(g.ids, path)
		delete(g.full, path)
		delete(g.seen, path)
		g.s.metrics.reloads.WithLabelValues("removed").Inc()
		g.s.Log.Info("prompt removed", "file", path, "model", id)
	}
}

// free returns an error if the id of a file of the folder is another model's.
func (g *registry) free(id, path string) error {
	if id == g.s.base.Name {
		return errors.New("the base model has the same name")
	}
	if other, ok := g.s.Files[id]; ok && other != path {
		return fmt.Errorf("--prompt has given the name to %s", other)
	}
	return nil
}

// same reports whether a file is unchanged.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
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
