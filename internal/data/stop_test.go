package data_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/data"
)

var errStop = errors.New("stop")

// stopping encodes as letters do. It ends a context at its third input and counts the inputs.
type stopping struct {
	letters
	stop   context.CancelCauseFunc
	inputs *int
}

func (s stopping) EncodeInput(text string) ([]int32, error) {
	if *s.inputs++; *s.inputs == 3 {
		s.stop(errStop)
	}
	return s.letters.EncodeInput(text)
}

func TestTheEndOfTheContextEndsTheReadingOfRows(t *testing.T) {
	rows := strings.Repeat(`{"text":"a b","label":"c"}`+"\n", 1000)
	for name, text := range map[string]string{
		"rows.jsonl": rows,
		"rows.json":  "[" + strings.TrimSuffix(strings.ReplaceAll(rows, "\n", ",\n"), ",\n") + "]",
		"rows.csv":   "text,label\n" + strings.Repeat("a b,c\n", 1000),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		n := 0
		from := data.Source{Path: path, Context: ctx}
		_, err := data.Load("train", from, format(t, "{text}", "{label}"), stopping{stop: stop, inputs: &n},
			data.Options{MaxTokens: 100})
		if err == nil || !errors.Is(err, errStop) || n != 3 {
			t.Errorf("%s: %d rows were encoded, the error is %v; want 3 and %v", name, n, err, errStop)
		}
		if _, err := data.Look(from, data.Roles{}); !errors.Is(err, errStop) {
			t.Errorf("%s: Look after the end of the context: the error is %v", name, err)
		}
	}
}

// A pipe that nobody writes to is not waited for.
func TestTheEndOfTheContextEndsTheWaitForInput(t *testing.T) {
	for what, read := range map[string]func(from data.Source, in io.Reader) error{
		"Records": func(from data.Source, in io.Reader) error {
			_, err := from.Records(in, []string{"text"})
			return err
		},
		"Each": func(from data.Source, in io.Reader) error {
			_, err := from.Each(in, func(int, data.Fields, error) {})
			return err
		},
	} {
		ctx, stop := context.WithCancelCause(t.Context())
		in, out := io.Pipe()
		defer out.Close()
		go func() {
			out.Write([]byte("text,la"))
			stop(errStop)
		}()
		if err := read(data.Source{Path: data.Stdin, Context: ctx}, in); !errors.Is(err, errStop) {
			t.Errorf("%s: the error is %v, want %v", what, err, errStop)
		}
	}
}
