package run

import (
	"strings"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/files"
)

// WriteStarter writes a task file and returns its rows, which it reads to find out that the file
// works. If rows are too long, the file cuts their inputs.
func WriteStarter(starter config.Starter, b *base.Base) (*Rows, error) {
	text := starter.Text()
	rows, err := writeTask(starter.File, text, b)
	if err != nil && strings.Contains(err.Error(), "data.on_too_long") {
		rows, err = writeTask(starter.File, config.CutInput(text), b)
	}
	return rows, err
}

func writeTask(path, text string, b *base.Base) (*Rows, error) {
	if err := files.WriteBytes(path, []byte(text)); err != nil {
		return nil, err
	}
	task, err := config.Load(path, nil)
	if err != nil {
		return nil, err
	}
	return LoadRows(task, b)
}
