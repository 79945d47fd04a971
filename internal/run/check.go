package run

import (
	"errors"
	"math"
	"strings"

	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
)

// CheckRows returns the mistakes of a task's rows that can be found without the model.
func CheckRows(task *config.Task) error {
	f, err := task.Data.Format()
	if err != nil {
		return err
	}
	if task.Data.Messages != "" {
		if _, err := f.UseChat(bytewise{}, bytewise{}, []int32{-1}); err != nil {
			return err
		}
	}
	files := []string{task.Data.Train}
	for _, v := range task.Data.Valid {
		files = append(files, v.Path)
	}
	var errs []error
	for _, file := range files {
		_, err := data.Load("", Source(task, file), f, bytewise{},
			data.Options{MaxTokens: math.MaxInt32})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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

func (bytewise) Encode(text string) ([]int32, error) { return make([]int32, len(text)), nil }
