package data

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const maxLine = 16 << 20 // bytes

var errNotUTF8 = errors.New(
	"the line is not valid UTF-8; set data.encoding, for example to windows-1252")

// readJSON reads JSON objects, one a line or all in one array.
func readJSON(r *reader) error {
	if err := r.decode(false); err != nil {
		return err
	}
	if strings.HasPrefix(strings.TrimLeft(r.text, " \t\r\n"), "[") {
		return readArray(r)
	}
	return Lines(strings.NewReader(r.text), r.name, func(n int, line string) error {
		x := record{line: n, object: line}
		if x.err = r.checkText(line); x.err == nil {
			x.fields, x.err = ParseObject([]byte(line))
		}
		if x.err != nil && r.rows == 0 && strings.Contains(r.text, "\n") {
			if _, err := ParseObject([]byte(r.text)); err == nil {
				return fmt.Errorf("%s: the file is one JSON object; want a list of objects, "+
					"or one object a line", r.name)
			}
		}
		return r.add(x)
	})
}

// readArray reads a JSON array of objects. The line of a row is the one on which its object begins.
func readArray(r *reader) error {
	dec := json.NewDecoder(strings.NewReader(r.text))
	line, at := 1, 0
	advance := func(to int) int {
		line, at = line+strings.Count(r.text[at:to], "\n"), to
		return line
	}
	broken := func(err error) error {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("the file ends before the array does")
		}
		return fmt.Errorf("%s:%d: the file begins with [, but it is not a JSON array: %w",
			r.name, advance(int(dec.InputOffset())), err)
	}
	if _, err := dec.Token(); err != nil {
		return broken(err)
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return broken(err)
		}
		x := record{line: advance(int(dec.InputOffset()) - len(raw)), object: string(raw)}
		if x.err = r.checkText(x.object); x.err == nil {
			x.fields, x.err = ParseObject(raw)
		}
		if err := r.add(x); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return broken(err)
	}
	if rest := strings.TrimSpace(r.text[dec.InputOffset():]); rest != "" {
		return broken(errors.New("there is text after it"))
	}
	return nil
}

// Lines is AllLines without the blank lines.
func Lines(r io.Reader, name string, f func(n int, line string) error) error {
	return AllLines(r, name, func(n int, line string) error {
		if strings.TrimSpace(line) == "" {
			return nil
		}
		return f(n, line)
	})
}

// AllLines calls f with each line of a text and its number. It removes a byte order mark and the
// carriage returns of CRLF. name is for errors.
func AllLines(r io.Reader, name string, f func(n int, line string) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	n := 0
	for in.Scan() {
		n++
		line := strings.TrimSuffix(in.Text(), "\r")
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
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

// maxDepth is the largest number of objects inside each other whose fields are read. Each is parsed
// once for each object around it.
const maxDepth = 8

// ParseObject reads the fields of a JSON object: strings unquoted, numbers and booleans as written,
// fields of an object a as a.b. Lists, null and objects themselves are no texts.
func ParseObject(line []byte) (Fields, error) {
	if !utf8.Valid(line) {
		return nil, errNotUTF8
	}
	fields := Fields{}
	if err := fields.parse(line, "", 1); err != nil {
		return nil, err
	}
	return fields, nil
}

// parse adds the fields of a JSON object with prefix before their names.
func (f Fields) parse(object []byte, prefix string, depth int) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		switch {
		case err == nil:
			err = fmt.Errorf("it is %s, want an object {…}", kind(object))
		case err == io.EOF:
			err = errors.New("want an object {…}")
		}
		return fmt.Errorf("not a JSON object: %w", plain(err))
	}
	seen := map[string]bool{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", plain(err))
		}
		key := k.(string)
		if seen[key] {
			return fmt.Errorf("duplicate field %q", prefix+key)
		}
		seen[key] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("not JSON: %w", plain(err))
		}
		var value Field
		switch raw[0] {
		case '"':
			if err := json.Unmarshal(raw, &value.Text); err != nil {
				return fmt.Errorf("not JSON: %w", plain(err))
			}
		case '[':
			value = Field{Not: kind(raw), list: raw}
		case '{':
			value.Not = kind(raw)
			if depth < maxDepth {
				if err := f.parse(raw, prefix+key+".", depth+1); err != nil {
					return err
				}
				value.Not += "; {" + prefix + key + ".name} is its field \"name\""
			}
		case 'n':
			value.Not = kind(raw)
		default:
			value.Text = string(raw)
		}
		f.put(prefix+key, value)
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", plain(err))
	}
	if rest := strings.TrimSpace(string(object[dec.InputOffset():])); rest != "" {
		c, _ := utf8.DecodeRuneInString(rest)
		return fmt.Errorf("text after the object; it begins with %q", c)
	}
	if half := loneSurrogate(object); depth == 1 && half != "" {
		return fmt.Errorf("a string has %s, which is half of a surrogate pair and no character", half)
	}
	return nil
}

// kind returns what a JSON value is, for messages.
func kind(value []byte) string {
	value = bytes.TrimLeft(value, " \t\r\n")
	if len(value) == 0 {
		return "nothing"
	}
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// loneSurrogate returns the first \u escape in valid JSON that is half of a surrogate pair; empty if
// there is none. The JSON library replaces it by U+FFFD.
func loneSurrogate(object []byte) string {
	code := func(at int) rune {
		if object[at] != '\\' || object[at+1] != 'u' { // valid JSON has more bytes after an escape
			return 0
		}
		n, _ := strconv.ParseUint(string(object[at+2:at+6]), 16, 32)
		return rune(n)
	}
	for i := 0; i < len(object); i++ {
		if object[i] != '\\' {
			continue
		}
		c := code(i)
		switch {
		case !utf16.IsSurrogate(c):
			i++ // the escaped character
		case utf16.DecodeRune(c, code(i+6)) != utf8.RuneError:
			i += 11
		default:
			return string(object[i : i+6])
		}
	}
	return ""
}

// plain explains the JSON library's EOF errors.
func plain(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the line ends before the object does")
	}
	return err
}
