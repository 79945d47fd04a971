package data

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// record is one row: its fields as text, or the error in it.
type record struct {
	line   int
	values map[string]string
	lists  map[string]json.RawMessage
	err    error
}

const maxLine = 16 << 20 // bytes

var errNotUTF8 = errors.New("the line is not valid UTF-8; for Latin-1 set data.encoding: latin-1")

// readJSONL reads a file of JSON objects, one a line.
func readJSONL(s Source) ([]record, error) {
	in, f, err := s.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var records []record
	err = Lines(in, s.Path, func(n int, line string) error {
		values, lists, err := parseObject([]byte(line))
		records = append(records, record{n, values, lists, err})
		return nil
	})
	return records, err
}

// Lines calls f with each line of a text and its number. It skips blank lines and removes a byte
// order mark and the carriage returns of CRLF. name is for errors.
func Lines(r io.Reader, name string, f func(n int, line string) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	n := 0
	for in.Scan() {
		n++
		line := strings.TrimSuffix(in.Text(), "\r")
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		if err := f(n, line); err != nil {
			return err
		}
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: the line is longer than %d MB", name, n+1, maxLine>>20)
	} else if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// ParseObject reads the fields of a JSON object as text: strings unquoted, numbers and booleans as
// written. Fields with lists, objects or null are left out, so a template that uses one fails.
func ParseObject(line []byte) (map[string]string, error) {
	values, _, err := parseObject(line)
	return values, err
}

// parseObject also returns the fields with lists.
func parseObject(line []byte) (map[string]string, map[string]json.RawMessage, error) {
	if !utf8.Valid(line) {
		return nil, nil, errNotUTF8
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		if err == nil || err == io.EOF {
			err = errors.New("want an object {…}")
		}
		return nil, nil, fmt.Errorf("not a JSON object: %w", plain(err))
	}
	values, lists, seen := map[string]string{}, map[string]json.RawMessage{}, map[string]bool{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("not JSON: %w", plain(err))
		}
		key := k.(string)
		if seen[key] {
			return nil, nil, fmt.Errorf("duplicate field %q", key)
		}
		seen[key] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, nil, fmt.Errorf("not JSON: %w", plain(err))
		}
		switch raw[0] {
		case '"':
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, nil, fmt.Errorf("not JSON: %w", plain(err))
			}
			values[key] = s
		case '[':
			lists[key] = raw
		case '{', 'n':
		default:
			values[key] = string(raw)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, fmt.Errorf("not JSON: %w", plain(err))
	}
	if rest := strings.TrimSpace(string(line[dec.InputOffset():])); rest != "" {
		return nil, nil, fmt.Errorf("text after the object: %.40q", rest)
	}
	return values, lists, nil
}

// plain explains the JSON library's EOF errors.
func plain(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the line ends before the object does")
	}
	return err
}
