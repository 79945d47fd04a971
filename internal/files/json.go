package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// cutOff ends the error about a file that lacks its end.
const cutOff = "the file is cut off: download or copy it again"

// ParseJSON reads the content of a JSON file into a value. Its error continues the file's name: it says what
// is in the file instead, or where it is wrong and what is wanted there.
func ParseJSON(data []byte, into any) error {
	if err := Wrong(data); err != nil {
		return err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("the file is empty: download or copy it again")
	}
	err := json.Unmarshal(data, into)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) && syntax.Offset >= int64(len(data)) && strings.Contains(err.Error(), "end of JSON"):
		return fmt.Errorf("it ends in the middle of a JSON value, in line %d: %s", 1+bytes.Count(data, []byte("\n")),
			cutOff)
	case errors.As(err, &syntax):
		before := data[:max(0, syntax.Offset-1)]
		c, _ := utf8.DecodeRune(data[len(before):])
		return fmt.Errorf("it is not JSON: line %d, column %d has an unexpected %q",
			1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n'), c)
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Errorf("it is %s, want %s", valueKind(kind.Value), wanted(kind.Type))
	case errors.As(err, &kind):
		return fmt.Errorf("%s is %s, want %s", strings.TrimPrefix(kind.Field, "."), valueKind(kind.Value),
			wanted(kind.Type))
	}
	return err
}

// valueKind returns what a JSON value is, by the JSON library's name.
func valueKind(value string) string {
	word, rest, _ := strings.Cut(value, " ")
	name := map[string]string{
		"array": "a list", "object": "an object", "string": "a text", "number": "a number", "bool": "true or false",
	}[word]
	if name == "" {
		return value
	}
	return strings.TrimSpace(name + " " + rest)
}

// wanted returns the JSON value that is read into a type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
