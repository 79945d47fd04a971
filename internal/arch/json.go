package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/files"
)

// readJSON reads a JSON object of a model's directory into the fields of a struct.
func readJSON(dir fs.FS, name string, into any) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("%s is larger than %d MB", name, maxConfig>>20)
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// decode reads a JSON object into the fields of a struct that into points to. It accepts what Python writes
// and reads: NaN and Infinity, 512.0 for a whole number, numbers in quotes. In fields of raw JSON, false is
// null. Keys without a field are not looked at. The error lists every key whose value has another form.
func decode(data []byte, into any) error {
	var object map[string]json.RawMessage
	if err := files.ParseJSON(quoteConstants(data), &object); err != nil {
		return err
	}
	v := reflect.ValueOf(into).Elem()
	var errs []error
	for _, field := range reflect.VisibleFields(v.Type()) {
		key := field.Tag.Get("json")
		raw, ok := object[key]
		if !ok || key == "" {
			continue
		}
		if err := decodeValue(raw, v.FieldByIndex(field.Index)); err != nil {
			errs = append(errs, fmt.Errorf("%s is %s, want %w", key, shorten(raw), err))
		}
	}
	return errors.Join(errs...)
}

// decodeValue reads a value. Its error says what form the value should have.
func decodeValue(raw json.RawMessage, v reflect.Value) error {
	null := string(raw) == "null"
	switch v.Interface().(type) {
	case json.RawMessage:
		if string(raw) != "false" {
			v.SetBytes(raw)
		}
		return nil
	case ids:
		if raw[0] != '[' && !null {
			raw = slices.Concat([]byte{'['}, raw, []byte{']'})
		}
		var list []int32
		if decodeValue(raw, reflect.ValueOf(&list).Elem()) != nil {
			return errors.New("a whole number or a list of them")
		}
		v.Set(reflect.ValueOf(ids(list)))
		return nil
	case int, int32:
		n, err := number(raw)
		if null {
			return nil
		}
		if err != nil || n != math.Trunc(n) || math.Abs(n) > math.MaxInt32 {
			return errors.New("a whole number below 2³¹") // no size or id is larger
		}
		v.SetInt(int64(n))
		return nil
	case float64:
		if null {
			return nil
		}
		n, err := number(raw)
		if err != nil {
			return errors.New("a number")
		}
		v.SetFloat(n)
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if null {
			v.SetZero()
			return nil
		}
		p := reflect.New(v.Type().Elem())
		err := decodeValue(raw, p.Elem())
		v.Set(p)
		return err
	case reflect.Slice:
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return errors.New("a list")
		}
		all := reflect.MakeSlice(v.Type(), len(list), len(list))
		for i, raw := range list {
			if err := decodeValue(raw, all.Index(i)); err != nil {
				return fmt.Errorf("a list of values that are each %w", err)
			}
		}
		v.Set(all)
		return nil
	}
	if json.Unmarshal(raw, v.Addr().Interface()) != nil {
		return errors.New(map[reflect.Kind]string{reflect.Bool: "true or false", reflect.String: "a text"}[v.Kind()])
	}
	return nil
}

// number reads a finite number, which may be in quotes.
func number(raw json.RawMessage) (float64, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
		err = errors.New("not finite")
	}
	return n, err
}

// constants are the numbers that Python's json module writes and JSON does not have.
var constants = []string{"NaN", "Infinity", "-Infinity"}

// quoteConstants returns JSON with these numbers as texts.
func quoteConstants(data []byte) []byte {
	if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
		return data
	}
	var out []byte
	inString := false
next:
	for i := 0; i < len(data); i++ {
		if !inString {
			for _, c := range constants {
				if bytes.HasPrefix(data[i:], []byte(c)) {
					out = append(out, strconv.Quote(c)...)
					i += len(c) - 1
					continue next
				}
			}
		}
		switch c := data[i]; {
		case c == '"':
			inString = !inString
		case c == '\\' && inString && i+1 < len(data):
			out = append(out, c)
			i++
		}
		out = append(out, data[i])
	}
	return out
}

// shorten returns a value for an error.
func shorten(raw json.RawMessage) string {
	if len(raw) > 60 {
		return strings.ToValidUTF8(string(raw[:60]), "") + "…"
	}
	return string(raw)
}
