// Package failure marks errors with what their reader can do about them. The package that knows marks
// the error; only main knows exit codes and how errors are printed.
package failure

import (
	"errors"
	"fmt"
)

// usage is an error that the user's input caused.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// Usage marks err as a mistake in the command line, the task file or the data. It returns nil for nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usage{err}
}

// IsUsage reports whether Usage has marked err or an error that it wraps.
func IsUsage(err error) bool { return errors.As(err, new(usage)) }

// hinted is an error with a hint.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint adds to err what to do next. It returns nil for nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// HintOf returns the outermost hint of err, or "" if it has none.
func HintOf(err error) string {
	if h := (*hinted)(nil); errors.As(err, &h) {
		return h.hint
	}
	return ""
}
