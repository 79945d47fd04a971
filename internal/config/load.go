package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v4"
)

const maxFile = 1 << 20 // bytes; far above any file that people write

// Stdin is the path that means standard input.
const Stdin = "-"

// stdinName names standard input in errors.
const stdinName = "standard input"

// Load reads a task file and applies the settings, given as a.b=c. Its error has one line for each
// mistake, which begins with file:line:column. With an error, the task has the keys that were read; it is
// nil if the file is not YAML.
func Load(path string, settings []string) (*Task, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, text, settings)
}

// Parse reads the text of the task file at path as Load does.
func Parse(path string, text []byte) (*Task, error) { return parse(path, text, nil) }

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f := os.Stdin
	if path != Stdin {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("read task: %w", err)
		}
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read task %q: the file is larger than %d KB", path, maxFile>>10)
	}
	return text, nil
}

func parse(path string, text []byte, settings []string) (*Task, error) {
	if path == Stdin {
		path = stdinName
	}
	root, err := parseYAML(path, text)
	if err != nil {
		return nil, err
	}
	t := Default()
	t.file = path
	d := &decoder{file: path, places: map[string]string{}}
	d.task(root, t)
	for _, s := range settings {
		d.set(s, t)
	}
	t.places = d.places
	// After an error, keys that could not be read have defaults. Check only those that were read.
	setOnly := len(d.errs) > 0
	return t, errors.Join(append(d.errs, t.check(setOnly))...)
}

// maxDepth is the deepest nesting of lists and mappings. The YAML library has no limit, so it is
// checked before.
const maxDepth = 32

// parseYAML reads a file that is one document, a mapping. path is for errors.
func parseYAML(path string, text []byte) (*yaml.Node, error) {
	root, second, err := documents(text)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: the file is empty; ptune help train lists its keys", path)
	case err != nil:
		return nil, syntax(path, text, err)
	case second != nil:
		return nil, fmt.Errorf("%s:%d: a second YAML document begins; want only one",
			path, max(1, second.Line))
	case root.Kind != yaml.MappingNode:
		return nil, fmt.Errorf("%s: want a mapping of keys to values, for example model: ptune:demo",
			path)
	}
	return root, nil
}

// parseValue reads the value of a setting. Empty text is null.
func parseValue(text string) (*yaml.Node, error) {
	value, second, err := documents([]byte(text))
	switch {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
	case err == nil && second != nil:
		err = errors.New("a second YAML document begins")
	}
	return value, err
}

// documents reads the first document and, if the text has another, that one too.
func documents(text []byte) (first, second *yaml.Node, err error) {
	depth := 0
	for _, c := range text { // an upper bound: counts brackets in strings too
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > maxDepth {
			return nil, nil, errors.New("nested too deeply")
		}
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, nil, err
	}
	if len(doc.Content) != 1 {
		return nil, nil, io.EOF
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		second = &next
	}
	return doc.Content[0], second, nil
}
