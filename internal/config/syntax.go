package config

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// syntax gives the library's error its place in the file: where what is wrong begins, which may be lines before the one that made
// it impossible to go on.
func syntax(path string, text []byte, err error) error {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: not YAML: %w", path, err)
	}
	lines := strings.Split(string(text), "\n")
	at, says := e.Mark, e.Message
	if e.ContextMark.Line > 0 && e.ContextMsg != "while parsing a block mapping" && e.ContextMsg != "while scanning a plain scalar" {
		at = e.ContextMark
	}
	for i := range min(at.Line, len(lines)) {
		line := lines[i]
		if strings.Count(line, `"`)%2 == 1 && !strings.Contains(line, "'") && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			at.Line, at.Column, says = i+1, strings.LastIndex(line, `"`)+1, "a quotation mark that has no end in its line"
			break
		}
	}
	if says == "mapping values are not allowed in this context" && at.Line > 1 && at.Line <= len(lines) {
		for i := at.Line - 1; i >= max(0, at.Line-2); i-- { // a line that sets nothing goes on in the next
			before, _, _ := strings.Cut(lines[i], " #")
			if trimmed := strings.TrimSpace(before); trimmed != "" && !strings.Contains(before+" ", ": ") && !strings.HasSuffix(trimmed, ":") && !strings.HasPrefix(trimmed, "#") && !strings.HasPrefix(trimmed, "- ") {
				at.Line, at.Column, says = i+1, strings.Index(lines[i], trimmed)+1, "a key without a colon and a blank behind it"
				break
			}
		}
	}
	return fmt.Errorf("%s:%d:%d: not YAML: %s", path, max(1, at.Line), max(1, at.Column), says)
}
