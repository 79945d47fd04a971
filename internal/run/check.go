package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"strings"

	"ptune/internal/base"
	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/demo"
)

// CheckRows returns the mistakes of a task's rows that can be found without the model.
func CheckRows(ctx context.Context, task *config.Task) error {
	f, err := task.Data.Format()
	if err != nil {
		return err
	}
	if task.Data.Messages != "" {
		if _, err := f.UseChat(bytewise{}, bytewise{}, []int32{-1}); err != nil {
			return err
		}
	}
	var errs []error
	for path, key := range dataFiles(task) {
		_, err := data.Load("", Source(ctx, task, path), f, bytewise{},
			data.Options{MaxTokens: math.MaxInt32})
		errs = append(errs, task.FileError(key, path, err))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

// CheckFiles returns an error for each file or folder that a task with mistakes names and that is missing.
func CheckFiles(task *config.Task) error {
	var errs []error
	if dir, err := base.Dir(task.Model); task.Set("model") && dir != demo.Name {
		if err == nil {
			_, err = os.Stat(dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: read model: %w", task.Place("model"), err))
		}
	}
	for path, key := range dataFiles(task) {
		if _, err := os.Stat(path); path != "" && path != config.Stdin && err != nil {
			errs = append(errs, task.FileError(key, path, fmt.Errorf("read rows: %w", err)))
		}
	}
	return errors.Join(errs...)
}

// dataFiles returns the paths of a task's rows, each with the key that names it.
func dataFiles(task *config.Task) iter.Seq2[string, string] {
	return func(yield func(path, key string) bool) {
		if !yield(task.Data.Train, "data.train") {
			return
		}
		for _, v := range task.Data.Valid {
			if !yield(v.Path, "data.valid") {
				return
			}
		}
	}
}

// bytewise stands in for a tokenizer, with a token for each byte, and for a chat template.
type bytewise struct{}

func (bytewise) Render(conversation []chat.Message, _ bool) (string, error) {
	var text strings.Builder
	for _, m := range conversation {
		text.WriteString(m.Content)
	}
	return text.String(), nil
}

func (bytewise) EncodeInput(text string) ([]int32, error) { return bytewise{}.Encode(text) }

func (bytewise) EncodeAfter(_, text string) ([]int32, error) { return bytewise{}.Encode(text) }

func (bytewise) Encode(text string) ([]int32, error) { return make([]int32, len(text)), nil }
