// Package demo embeds a base model and rows: a small llama that this project trained on English
// text from a grammar. The scripts in make/ made both. The rows are reviews with their sentiment
// and topic. No sentence of the test rows is in other rows.
package demo

import (
	"embed"
	"io/fs"
)

// Name is the name of the embedded base model in a task file.
const Name = "ptune:demo"

//go:embed base data
var files embed.FS

// Base returns the directory of the base model.
func Base() fs.FS { return sub("base") }

// Data returns the folder of train.jsonl, valid.jsonl and test.jsonl.
func Data() fs.FS { return sub("data") }

func sub(name string) fs.FS {
	f, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // a constant name
	}
	return f
}
