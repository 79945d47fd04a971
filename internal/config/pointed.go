package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/failure"
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
	var errs []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if m := place.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			column, _ := strconv.Atoi(m[2])
			line += mark(lines[min(n, len(lines))-1], column)
		}
		errs = append(errs, errors.New(line))
	}
	pointed := errors.Join(errs...)
	if hint := failure.HintOf(err); hint != "" {
		return failure.Hint(pointed, "%s", hint)
	}
	return pointed
}

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
