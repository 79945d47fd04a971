// Package chat renders conversations with the chat template of a model, as transformers'
// apply_chat_template does: Jinja with trimmed blocks, break and continue, {% generation %} and
// raise_exception. A template is untrusted code. It cannot read or include files, and its size,
// loops, macro depth, memory and time are limited. It gets no tools, no documents and no current
// date.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
	Name    string `json:"name,omitempty"` // of who speaks; few templates show it
}

// Tokens are the texts of special tokens by the names that templates use: bos_token, eos_token, ….
type Tokens map[string]string

// Template is a chat template. It renders one conversation at a time; others wait.
type Template struct {
	one      sync.Mutex // conversation
	name     string     // for errors
	sum      string     // SHA-256 of the source
	tokens   Tokens
	template *exec.Template
	depth    atomic.Int32 // how deep macro calls are nested now
}

// Limits of a template and of one rendering.
const (
	maxSource = 256 << 10 // bytes of the template
	maxText   = 16 << 20  // bytes of the rendered text
	maxMemory = 512 << 20 // bytes by which the heap may grow
	maxTime   = 5 * time.Second
	maxDepth  = 50      // nested macro calls
	maxRange  = 100_000 // numbers of one range()
)

// Parse parses a template. name is the model's, for errors.
func Parse(name, source string, tokens Tokens) (*Template, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%s: the chat template has %d bytes, want at most %d",
			name, len(source), maxSource)
	}
	sum := sha256.Sum256([]byte(source))
	t := &Template{name: name, sum: hex.EncodeToString(sum[:]), tokens: tokens}
	const root = "/chat_template"
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	err := t.bounded(func() (err error) {
		loader := loaders.MustNewMemoryLoader(map[string]string{root: source})
		t.template, err = exec.NewTemplate(root, c, loader, t.environment())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: cannot parse the chat template: %w", name, short(err))
	}
	return t, nil
}

// Sum returns the SHA-256 of the template's source, in hexadecimal.
func (t *Template) Sum() string { return t.sum }

// Render returns the text of a conversation. With begin, the text ends where the assistant's next
// turn begins. It is an error if the template leaves out the content of a message.
func (t *Template) Render(messages []Message, begin bool) (string, error) {
	turns := make(list, len(messages))
	for i, m := range messages {
		turn := map[string]any{"role": m.Role, "content": m.Content}
		if m.Name != "" {
			turn["name"] = m.Name
		}
		turns[i] = turn
	}
	values := map[string]any{
		"messages": turns, "add_generation_prompt": begin, "tools": nil, "documents": nil,
	}
	for name, text := range t.tokens {
		values[name] = text
	}
	out := &text{}
	err := t.bounded(func() error { return t.template.Execute(out, exec.NewContext(values)) })
	if err != nil {
		return "", fmt.Errorf("%s: cannot render the conversation with the chat template: %w",
			t.name, short(err))
	}
	for _, m := range messages {
		content := m.Content
		// Templates leave out the reasoning of earlier answers.
		if i := strings.LastIndex(content, "</think>"); i >= 0 && m.Role == "assistant" {
			content = content[i+len("</think>"):]
		}
		content = strings.TrimSpace(content)
		if !strings.Contains(out.String(), content) && !strings.Contains(out.String(), quoted(content)) {
			return "", fmt.Errorf(
				"%s: the chat template leaves out the content of a turn of the %s: %.40q",
				t.name, m.Role, content)
		}
	}
	return out.String(), nil
}

// text is the rendered text, at most maxText bytes.
type text struct{ strings.Builder }

func (o *text) Write(b []byte) (int, error) { return o.WriteString(string(b)) }

func (o *text) WriteString(s string) (int, error) {
	if o.Len()+len(s) > maxText {
		return 0, fmt.Errorf("it renders more than %d MB of text", maxText>>20)
	}
	return o.Builder.WriteString(s)
}

// bounded calls f in a goroutine and returns its error. A panic is an error, and so is exceeding
// maxTime or maxMemory. In those two cases f keeps running, so the program should end soon after.
func (t *Template) bounded(f func() error) error {
	t.one.Lock()
	defer t.one.Unlock()
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
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	before := heap()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("it takes more than %v", maxTime)
		case <-tick.C:
			if heap() > before+maxMemory {
				return fmt.Errorf("it takes more than %d MB", maxMemory>>20)
			}
		}
	}
}

// heap returns the size in bytes of all objects on the heap.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// noise is what the library's errors add to the cause: the whole template, and places in its own
// code.
var noise = regexp.MustCompile(`(?s)^unable to execute template: |` +
	`^failed to parse template '.*': |` +
	`Unable to (?:parse|execute) controlStructure (?:"\w+"|at line \d+): ` +
	`(?:\w+\((Line=\d+) Col=\d+\): |generation: )?`)

// short returns an error of the library on one line of at most 400 bytes.
func short(err error) error {
	s := noise.ReplaceAllString(err.Error(), "")
	if i := strings.Index(s, raised); i >= 0 { // the message of raise_exception
		s = s[i:]
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 { // the cause is at the end
		s = strings.ToValidUTF8(s[:120], "") + " … " + strings.ToValidUTF8(s[len(s)-250:], "")
	}
	return errors.New(s)
}
