package data

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

// maxColumns is the largest number of columns of a Parquet file.
const maxColumns = 10_000

// readParquet reads a Parquet file: texts as they are, numbers and booleans as JSON writes them, lists
// and groups as lists and objects of JSON. The line of a row is its number.
func readParquet(r *reader) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library panics on some broken files
			err = fmt.Errorf("%s: cannot read the Parquet file: %v", r.name, p)
		}
	}()
	// The library allocates what the end of the file says that its footer has.
	if n := len(r.text); n < 12 || int64(binary.LittleEndian.Uint32([]byte(r.text[n-8:]))) > int64(n-12) {
		return fmt.Errorf("%s: not a Parquet file: its footer is longer than the file", r.name)
	}
	file, err := parquet.OpenFile(strings.NewReader(r.text), int64(len(r.text)))
	if err != nil {
		return fmt.Errorf("%s: not a Parquet file: %w", r.name, err)
	}
	schema := file.Schema()
	if n := len(schema.Columns()); n > maxColumns {
		return fmt.Errorf("%s: the file has %d columns, want at most %d", r.name, n, maxColumns)
	}
	reader := parquet.NewReader(file)
	defer reader.Close()
	rows := make([]parquet.Row, 64)
	for {
		n, err := reader.ReadRows(rows)
		for _, row := range rows[:n] {
			values := map[string]any{}
			if err := schema.Reconstruct(&values, row); err != nil {
				return fmt.Errorf("%s: row %d: %w", r.name, r.rows+1, err)
			}
			x := record{line: r.rows + 1, fields: Fields{}}
			for _, column := range schema.Fields() {
				if x.err = x.fields.putValue(column.Name(), values[column.Name()]); x.err != nil {
					break
				}
			}
			if r.objects && x.err == nil {
				x.object, x.err = objectOf(schema.Fields(), values)
			}
			if err := r.add(x); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: row %d: %w", r.name, r.rows+1, err)
		}
	}
}

// objectOf returns a row as a JSON object with its columns in their order.
func objectOf(columns []parquet.Field, values map[string]any) (string, error) {
	var b strings.Builder
	for i, c := range columns {
		value := values[c.Name()]
		if !isText(value) {
			return "", fmt.Errorf("the field %q is bytes that are not UTF-8, which JSON cannot have", c.Name())
		}
		text, err := jsonOf(value)
		if err != nil {
			return "", fmt.Errorf("the field %q: %w", c.Name(), err)
		}
		name, err := jsonOf(c.Name())
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name + ":" + text)
	}
	return "{" + b.String() + "}", nil
}

// putValue adds a value of a Parquet file as a field.
func (f Fields) putValue(name string, value any) error {
	var field Field
	switch v := value.(type) {
	case nil:
		field.Not = "null"
	case string:
		field.Text = v
	case bool:
		field.Text = strconv.FormatBool(v)
	case int32:
		field.Text = strconv.FormatInt(int64(v), 10)
	case int64:
		field.Text = strconv.FormatInt(v, 10)
	case float32:
		field.Text = strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		field.Text = strconv.FormatFloat(v, 'g', -1, 64)
	case []any:
		field.Not = "a list"
		var err error
		if field.list, err = json.Marshal(v); err != nil {
			return fmt.Errorf("the field %q: %w", name, err)
		}
	case map[string]any:
		field.Not = "an object"
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := f.putValue(name+"."+key, v[key]); err != nil {
				return err
			}
		}
	default:
		field.Not = fmt.Sprintf("of a type that is not read (%T)", v)
	}
	if !isText(value) {
		field = Field{Not: "bytes that are not UTF-8"}
	}
	f.put(name, field)
	return nil
}

// isText reports whether all strings in a value are valid UTF-8.
func isText(value any) bool {
	switch v := value.(type) {
	case string:
		return utf8.ValidString(v)
	case []any:
		return !slices.ContainsFunc(v, func(x any) bool { return !isText(x) })
	case map[string]any:
		return !slices.ContainsFunc(slices.Collect(maps.Values(v)), func(x any) bool { return !isText(x) })
	}
	return true
}
