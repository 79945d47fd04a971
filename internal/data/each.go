package data

import "io"

// Each calls f with the line and the fields of each row of the file, or with the error in the row. It
// returns what was found out about the file and may surprise. If in is not nil, it is read instead of
// the file.
func (s Source) Each(in io.Reader, f func(line int, fields Fields, err error)) (
	notes []string, err error) {
	var text string
	if in == nil {
		text, err = s.content()
	} else {
		text, err = s.waitFor(func() (string, error) { return s.readAll(in, 0) })
	}
	if err != nil {
		return nil, err
	}
	r, err := s.recordsIn(text, func(x record) { f(x.line, x.fields, x.err) })
	if err != nil {
		return nil, err
	}
	return r.notes, nil
}
