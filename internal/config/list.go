package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Entry is a task of a list: a task file and settings for it.
type Entry struct {
	Name string // of the task in messages: its place in the list and the file
	Path string
	Set  []string
	Err  error // why the line cannot be read; nil: it can
}

// ReadList returns the tasks of a list or a folder, at least one. Each line of a list is the path of a task
// file and settings for it, in words as a shell has them: task.yaml --set train.seed=1. Empty lines and
// lines that begin with # are left out. The tasks of a folder are its files that end in .yaml or .yml, in
// the order of their names.
func ReadList(path string) ([]Entry, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	var entries []Entry
	if info.IsDir() {
		files, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("read tasks: %w", err)
		}
		for _, f := range files {
			if slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(f.Name())) && !f.IsDir() {
				file := filepath.Join(path, f.Name())
				entries = append(entries, Entry{Name: file, Path: file})
			}
		}
		if entries == nil {
			return nil, fmt.Errorf("read tasks: %s has no files that end in .yaml or .yml", path)
		}
		return entries, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		e, err := parseEntry(line)
		e.Name = fmt.Sprintf("%s:%d", path, number)
		if e.Path != "" {
			e.Name += ": " + e.Path
		}
		if err != nil {
			e.Err = fmt.Errorf("%w; want a line such as task.yaml --set train.seed=1", err)
		}
		entries = append(entries, e)
	}
	if entries == nil {
		return nil, fmt.Errorf("read tasks: %s has no lines with tasks", path)
	}
	return entries, nil
}

// parseEntry reads a line of a list.
func parseEntry(line string) (Entry, error) {
	words, err := splitWords(line)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: words[0]}
	if e.Path == Stdin {
		return e, errors.New("a task of a list cannot be standard input")
	}
	if strings.HasPrefix(e.Path, "-") {
		return e, fmt.Errorf("the line begins with %q", e.Path)
	}
	for rest := words[1:]; len(rest) > 0; {
		setting, joined := strings.CutPrefix(rest[0], "--set=")
		switch {
		case joined:
			rest = rest[1:]
		case rest[0] == "--set" && len(rest) > 1:
			setting, rest = rest[1], rest[2:]
		case rest[0] == "--set":
			return e, errors.New("--set has no KEY=VALUE")
		default:
			return e, fmt.Errorf("%q is neither --set nor its KEY=VALUE", rest[0])
		}
		e.Set = append(e.Set, setting)
	}
	return e, nil
}

// splitWords splits a line at blanks as a POSIX shell does: between quotes, and after a backslash, a
// character stands for itself. Nothing is expanded.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		next := rune(-1)
		if i+1 < len(runes) {
			next = runes[i+1]
		}
		switch {
		case c == quote:
			quote = 0
		case quote == '\'':
			word.WriteRune(c)
		case c == '\\' && next < 0:
			return nil, errors.New("the line ends in a backslash")
		case c == '\\' && (quote == 0 || strings.ContainsRune("$`\"\\", next)):
			word.WriteRune(next)
			inWord, i = true, i+1
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			inWord, quote = true, c
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
