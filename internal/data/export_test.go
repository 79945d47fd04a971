package data

import "strings"

// OnlyRow is a row as its reader returns it.
type OnlyRow struct {
	Line   int
	Fields Fields
	Err    error
}

// OnlyRead reads the rows of a content that needs no file.
func OnlyRead(s Source, content string) ([]OnlyRow, []string, error) {
	var rows []OnlyRow
	r, err := s.recordsIn(content, func(x record) {
		rows = append(rows, OnlyRow{x.line, x.fields, x.err})
	})
	if err != nil {
		return nil, nil, err
	}
	return rows, r.notes, nil
}

// OnlyUnpack unpacks a content.
func OnlyUnpack(in string) (string, error) {
	return Source{Path: "x"}.readAll(strings.NewReader(in), 0)
}
