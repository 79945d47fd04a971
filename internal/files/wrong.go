package files

import (
	"bytes"
	"errors"
)

// beginnings of files that are often in the place of another, and what to do.
var beginnings = []struct{ begin, is string }{
	{"version https://git-lfs.github.com/", "it is a Git LFS pointer, not the file itself: " +
		"run git lfs pull in its folder, or download the file again"},
	{"<!doctype html", "it is an HTML page, not the file itself: download it again, " +
		"from an address with /resolve/ and not /blob/ if it is on the Hub"},
	{"<html", "it is an HTML page, not the file itself: download it again, " +
		"from an address with /resolve/ and not /blob/ if it is on the Hub"},
	{"<?xml", "it is an XML page, often the error of a download: download it again"},
	{"PK\x03\x04", "it is a zip file, as torch.save writes it: load it with transformers and save it " +
		"with save_pretrained, which writes safetensors"},
	{"\x80\x02", "it is a pickle, as older versions of torch.save write it: load it with transformers " +
		"and save it with save_pretrained, which writes safetensors"},
	{"GGUF", "it is a GGUF file: give the directory of the model in Hugging Face's format"},
	{"\x1f\x8b", "it is compressed with gzip: unpack it"},
	{"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it"},
}

// Wrong returns an error that says what a file is and what to do, if its first bytes tell that it is not a
// file of the format that was expected, JSON or safetensors. Otherwise it returns nil.
func Wrong(data []byte) error {
	head := bytes.ToLower(bytes.TrimLeft(data[:min(len(data), 256)], " \t\r\n\ufeff"))
	for _, b := range beginnings {
		if bytes.HasPrefix(head, bytes.ToLower([]byte(b.begin))) {
			return errors.New(b.is)
		}
	}
	return nil
}
