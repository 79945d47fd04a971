package files

import (
	"bytes"
	"fmt"
)

// kind is a kind of file that is often in the place of another.
type kind struct {
	begin string // the first bytes, in any case
	is    string
	rows  string // what to do where rows were wanted; empty: rows can begin so
	model string // what to do where JSON or safetensors were wanted
}

// What to do with some kinds of files.
const (
	pull = "run git lfs pull in its folder, or download the file again"
	page = "download it again, from an address with /resolve/ and not /blob/ if it is on the Hub"
	save = "load it with transformers and save it with save_pretrained, which writes safetensors"
)

var kinds = []kind{
	{"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself", pull, pull},
	{"<!doctype html", "an HTML page, not the file itself", page, page},
	{"<html", "an HTML page, not the file itself", page, page},
	{"<?xml", "an XML file, often the error of a download", "download it again", "download it again"},
	{"PK\x03\x04", "a zip archive, as .xlsx files and those of torch.save are",
		"unpack it, or export the sheet as .csv", save},
	{"\x80\x02", "a pickle, as older versions of torch.save write it", "export its rows as .jsonl", save},
	{"GGUF", "a GGUF file", "", "give the .gguf file's own path as the model, or the directory in Hugging Face's format"},
	{"\x1f\x8b", "compressed with gzip", "", "unpack it"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd", "", "unpack it"},
	{"BZh9", "compressed with bzip2", "unpack it (gzip and zstd are read)", "unpack it"},
	{"\xfd7zXZ\x00", "compressed with xz", "unpack it (gzip and zstd are read)", "unpack it"},
	{"%PDF-", "a PDF document", "give a file of rows", "download it again"},
	{"SQLite format 3\x00", "an SQLite database", "export its table as .csv", "download it again"},
}

// kindOf returns the kind of a file with this content, nil if it is none of these.
func kindOf(data []byte) *kind {
	head := bytes.ToLower(bytes.TrimLeft(data[:min(len(data), 256)], " \t\r\n\ufeff"))
	for i := range kinds {
		if bytes.HasPrefix(head, bytes.ToLower([]byte(kinds[i].begin))) {
			return &kinds[i]
		}
	}
	return nil
}

// Wrong returns an error that says what a file is and what to do, if its first bytes tell that it is not a
// file of the format that was expected, JSON or safetensors. Otherwise it returns nil.
func Wrong(data []byte) error {
	if k := kindOf(data); k != nil {
		return fmt.Errorf("it is %s: %s", k.is, k.model)
	}
	return nil
}

// NoRows returns an error that says what a file is and what to do, if its first bytes tell that it has no
// rows. Otherwise it returns nil.
func NoRows(data []byte) error {
	if k := kindOf(data); k != nil && k.rows != "" {
		return fmt.Errorf("the file is %s: %s", k.is, k.rows)
	}
	return nil
}
