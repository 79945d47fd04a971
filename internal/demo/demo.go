// Package demo is the base model and the rows that the program carries: a small llama this project trained on English made
// from a grammar, with the scripts that made both (make/). The rows are reviews with their sentiment and topic; no sentence
// of the test rows is in the others.
package demo

import (
	"embed"
	"io/fs"
)

// Name is how a task file asks for the embedded base.
const Name = "ptune:demo"

//go:embed base data
var files embed.FS

// Base is the base's model directory.
func Base() fs.FS { return sub("base") }

// Data is the folder of train.jsonl, valid.jsonl and test.jsonl.
func Data() fs.FS { return sub("data") }

func sub(name string) fs.FS {
	f, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // a constant name
	}
	return f
}
