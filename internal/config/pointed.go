package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Pointed returns err with each mistake of the file at path followed by the line it is about and a
// mark below the column. These lines begin with "  | ".
func Pointed(err error, path string) error {
	text, readErr := os.ReadFile(path)
	if readErr != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	place := regexp.MustCompile(`^` + regexp.QuoteMeta(path) + `:(\d+):(\d+): `)
	var all []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if m := place.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			column, _ := strconv.Atoi(m[2])
			line += mark(lines[min(n, len(lines))-1], column)
		}
		all = append(all, line)
	}
	return pointedError{strings.Join(all, "\n"), err}
}

// pointedError is an error with another text. It is marked as the error.
type pointedError struct {
	text string
	error
}

func (p pointedError) Error() string { return p.text }

func (p pointedError) Unwrap() error { return p.error }

// mark returns two lines: the text, and a mark below its column, from 1. It is empty for long texts.
func mark(text string, column int) string {
	shown := []rune(text)
	if column > len(shown)+1 || len(shown) >= 200 {
		return ""
	}
	blank := slices.Clone(shown[:column-1])
	for i, r := range blank {
		if r != '\t' {
			blank[i] = ' '
		}
	}
	return fmt.Sprintf("\n  | %s\n  | %s^", string(shown), string(blank))
}
