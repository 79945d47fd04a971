package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// missingColon are the messages of the YAML library after a key without a colon, depending on what
// the next lines hold.
var missingColon = []string{
	"mapping values are not allowed in this context",
	"did not find expected <document start>",
	"did not find expected key",
}

// syntax adds the place to an error of the YAML library: the line with the mistake, which may be
// some lines before the one where the parser had to stop.
func syntax(path string, text []byte, err error) error {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: not YAML: %w", path, err)
	}
	lines := strings.Split(string(text), "\n")
	at, message := e.Mark, e.Message
	useContext := e.ContextMsg != "while parsing a block mapping" &&
		e.ContextMsg != "while scanning a plain scalar"
	if e.ContextMark.Line > 0 && useContext {
		at = e.ContextMark
	}
	for i := range min(at.Line, len(lines)) {
		if !isComment(lines[i]) && oddQuotes(lines[i]) {
			at.Line, at.Column = i+1, strings.LastIndex(lines[i], `"`)+1
			message = "quotation mark without an end on its line"
			break
		}
	}
	if slices.Contains(missingColon, message) && at.Line <= len(lines) {
		// Look at this line and the one before it; comments do not count.
		for i, seen := at.Line-1, 0; i >= 0 && seen < 2; i-- {
			if isComment(lines[i]) {
				continue
			}
			seen++
			before, _, _ := strings.Cut(lines[i], " #")
			trimmed := strings.TrimSpace(before)
			if !keyWithoutColon(trimmed) {
				continue
			}
			at.Line, at.Column = i+1, strings.Index(lines[i], trimmed)+1
			message = "want a colon and a space after the key"
			break
		}
	}
	return fmt.Errorf("%s:%d:%d: not YAML: %s", path, max(1, at.Line), max(1, at.Column), message)
}

// isComment reports whether a line is blank or only a comment.
func isComment(line string) bool {
	trimmed := strings.TrimSpace(line)
	return trimmed == "" || trimmed[0] == '#'
}

func oddQuotes(line string) bool {
	return strings.Count(line, `"`)%2 == 1 && !strings.Contains(line, "'")
}

// keyWithoutColon reports whether a line, without blanks and comment, begins with a word and has no
// colon.
func keyWithoutColon(line string) bool {
	return !strings.Contains(line+" ", ": ") && word.MatchString(line)
}

var word = regexp.MustCompile(`^\w+( |$)`)
