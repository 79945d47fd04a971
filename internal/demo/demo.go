// Package demo embeds a base model and rows: a small llama that this project trained on English
// text from a grammar. The scripts in make/ made both. The rows are reviews with their sentiment
// and topic. No sentence of the test rows is in other rows.
package demo

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ptune/internal/failure"
	"ptune/internal/files"
)

// Name is the name of the embedded base model in a task file.
const Name = "ptune:demo"

//go:embed base data
var embedded embed.FS

// Base returns the directory of the base model.
func Base() fs.FS { return sub("base") }

// Data returns the folder of train.jsonl, valid.jsonl and test.jsonl.
func Data() fs.FS { return sub("data") }

func sub(name string) fs.FS {
	f, err := fs.Sub(embedded, name)
	if err != nil {
		panic(err) // a constant name
	}
	return f
}

// WriteData writes the files of Data into a folder and returns the paths of two of them. It overwrites
// other files of these names only if force is set.
func WriteData(dir string, force bool) (train, valid string, err error) {
	entries, err := fs.ReadDir(Data(), ".")
	if err != nil {
		return "", "", err
	}
	for _, f := range entries {
		rows, err := fs.ReadFile(Data(), f.Name())
		if err != nil {
			return "", "", err
		}
		path := filepath.Join(dir, f.Name())
		old, err := os.ReadFile(path)
		if err == nil && string(old) != string(rows) && !force {
			return "", "", failure.Usage(failure.Hint(fmt.Errorf("%s exists already", path),
				"give another folder with --output, or --force to overwrite it"))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		if err := files.WriteBytes(path, rows); err != nil {
			return "", "", err
		}
	}
	return filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "valid.jsonl"), nil
}
