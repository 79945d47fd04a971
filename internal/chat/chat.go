// Package chat renders conversations by the chat template that comes with a model, as transformers' apply_chat_template does: Jinja with
// trimmed blocks, break and continue, {% generation %}, and raise_exception. A template is code of whoever made the model: it reads no
// file, includes nothing, and its size, its loops, its macros' depth, its memory and its time are bounded. Tools, documents and today's
// date are not there for it.
package chat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user, assistant
	Content string `json:"content"`
}

// Tokens are the texts of special tokens that templates name: bos_token, eos_token and so on.
type Tokens map[string]string

// Template is a chat template. It renders one conversation at a time.
type Template struct {
	name     string // for messages
	sum      string
	tokens   Tokens
	template *exec.Template
	depth    atomic.Int32 // of macros that call macros
}

// Bounds of a template and of one rendering.
const (
	maxSource = 256 << 10
	maxText   = 16 << 20
	maxMemory = 512 << 20 // beyond what the process had
	maxTime   = 5 * time.Second
	maxDepth  = 50
	maxRange  = 100_000
)

// Parse reads a template. name says where it stands, for messages.
func Parse(name, source string, tokens Tokens) (*Template, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%s: the chat template has %d bytes, more than the %d that are read", name, len(source), maxSource)
	}
	sum := sha256.Sum256([]byte(source))
	t := &Template{name: name, sum: hex.EncodeToString(sum[:]), tokens: tokens}
	const root = "/chat_template"
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	err := t.bounded(func() (err error) {
		t.template, err = exec.NewTemplate(root, c, loaders.MustNewMemoryLoader(map[string]string{root: source}), t.environment())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: the chat template cannot be read: %w", name, short(err))
	}
	return t, nil
}

// Sum is the SHA-256 of the template's source.
func (t *Template) Sum() string { return t.sum }

// Render is the text of a conversation; with begin, it goes on to where the assistant's next turn begins.
func (t *Template) Render(messages []Message, begin bool) (string, error) {
	turns := make(list, len(messages))
	for i, m := range messages {
		turns[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	values := map[string]any{"messages": turns, "add_generation_prompt": begin, "tools": nil, "documents": nil}
	for name, text := range t.tokens {
		values[name] = text
	}
	out := &text{}
	err := t.bounded(func() error { return t.template.Execute(out, exec.NewContext(values)) })
	if err != nil {
		return "", fmt.Errorf("%s: the chat template cannot render the conversation: %w", t.name, short(err))
	}
	for _, m := range messages {
		said := m.Content
		if i := strings.LastIndex(said, "</think>"); i >= 0 && m.Role == "assistant" { // templates leave out what was thought before
			said = said[i+len("</think>"):]
		}
		if said = strings.TrimSpace(said); !strings.Contains(out.String(), said) && !strings.Contains(out.String(), quoted(said)) {
			return "", fmt.Errorf("%s: the chat template leaves out what the %s says, %.40q", t.name, m.Role, said)
		}
	}
	return out.String(), nil
}

// text is a rendering, of maxText bytes at most.
type text struct{ strings.Builder }

func (o *text) Write(b []byte) (int, error) { return o.WriteString(string(b)) }

func (o *text) WriteString(s string) (int, error) {
	if o.Len()+len(s) > maxText {
		return 0, fmt.Errorf("it makes more than %d MB of text", maxText>>20)
	}
	return o.Builder.WriteString(s)
}

// bounded calls f, which is over when it returns, panics, or has had all of its time or memory. In the last case it runs on beside: an
// error that the caller is to end with.
func (t *Template) bounded(f func() error) error {
	done := make(chan error, 1)
	t.depth.Store(0)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("%v", r)
			}
		}()
		done <- f()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	had := heap()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("it takes more than %v", maxTime)
		case <-look.C:
			if heap() > had+maxMemory {
				return fmt.Errorf("it takes more than %d MB", maxMemory>>20)
			}
		}
	}
}

// heap is the size of all objects of the process.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// noise is what the library puts around what was wrong: the whole template, and where in its own code it noticed.
var noise = regexp.MustCompile(`(?s)^unable to execute template: |^failed to parse template '.*': |Unable to (?:parse|execute) controlStructure (?:"\w+"|at line \d+): (?:\w+\((Line=\d+) Col=\d+\): |generation: )?`)

// short is an error of the library on one line.
func short(err error) error {
	s := noise.ReplaceAllString(err.Error(), "")
	if i := strings.Index(s, raised); i >= 0 { // the template's own words
		s = s[i:]
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 { // what it began with and what was wrong in the end
		s = strings.ToValidUTF8(s[:120], "") + " … " + strings.ToValidUTF8(s[len(s)-250:], "")
	}
	return errors.New(s)
}
