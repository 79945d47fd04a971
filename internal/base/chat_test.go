package base

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"ptune/internal/chat"
	"ptune/internal/demo"
)

// countedFS counts the files that are opened.
type countedFS struct {
	fs.FS
	opened atomic.Int64
}

func (c *countedFS) Open(name string) (fs.File, error) {
	c.opened.Add(1)
	return c.FS.Open(name)
}

// Handlers of a server call Chat at the same time.
func TestTheChatTemplateIsReadOnceEvenIfThereIsNone(t *testing.T) {
	b, err := Open(demo.Name, Options{Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	files := &countedFS{FS: fstest.MapFS{"tokenizer_config.json": {Data: []byte("{}")}}}
	b.files = files
	if _, err := b.Chat(); !errors.Is(err, chat.ErrNone) {
		t.Fatalf("error is %v, want ErrNone", err)
	}
	first := files.opened.Load()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := b.Chat(); !errors.Is(err, chat.ErrNone) {
				t.Errorf("error is %v, want ErrNone", err)
			}
		})
	}
	all.Wait()
	if n := files.opened.Load(); n != first {
		t.Errorf("%d files were opened again", n-first)
	}
}
