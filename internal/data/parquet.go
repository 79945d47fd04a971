//go:build parquet

package data

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// maxColumns is the largest number of columns of a Parquet file.
const maxColumns = 10_000

// readParquet reads a Parquet file: texts as they are, numbers and booleans as JSON writes them.
// Columns of other types are left out, so a template that uses one fails. The line of a row is its
// number.
func readParquet(s Source) (records []record, err error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	defer f.Close()
	defer func() {
		if r := recover(); r != nil { // the library panics on some broken files
			records, err = nil, fmt.Errorf("%s: cannot read the Parquet file: %v", s.Path, r)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	file, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: not a Parquet file: %w", s.Path, err)
	}
	names := file.Schema().Columns()
	if len(names) > maxColumns {
		return nil, fmt.Errorf("%s: the file has %d columns, want at most %d",
			s.Path, len(names), maxColumns)
	}
	reader := parquet.NewReader(file)
	defer reader.Close()
	rows := make([]parquet.Row, 64)
	for {
		n, err := reader.ReadRows(rows)
		for _, row := range rows[:n] {
			r := record{line: len(records) + 1, values: map[string]string{}}
			for _, v := range row {
				if path := names[v.Column()]; len(path) == 1 && !v.IsNull() {
					if text, ok := cell(v); ok {
						r.values[path[0]] = text
					}
				}
			}
			records = append(records, r)
		}
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: row %d: %w", s.Path, len(records)+1, err)
		}
	}
}

// cell returns a value as text; ok is false for types that are not read.
func cell(v parquet.Value) (text string, ok bool) {
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean()), true
	case parquet.Int32:
		return strconv.FormatInt(int64(v.Int32()), 10), true
	case parquet.Int64:
		return strconv.FormatInt(v.Int64(), 10), true
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'g', -1, 32), true
	case parquet.Double:
		return strconv.FormatFloat(v.Double(), 'g', -1, 64), true
	case parquet.ByteArray:
		return string(v.ByteArray()), true
	}
	return "", false
}
