package tensorfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// file returns a safetensors file with a header and data bytes of 0.
func file(header string, data int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, data)...)
}

const tensorA = `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`

func TestAWrittenFileIsReadUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	want := Floats("rows", []int{2, 3}, []float32{1, -2, 3.5, 0, 1e-30, 6})
	meta := map[string]string{"b": "2", "a": "ä"}
	if err := Write(path, []Tensor{want, Floats("other", []int{1}, []float32{9})}, meta); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, ok := f.Tensor("rows")
	if !ok || got.DType != "F32" || !slices.Equal(got.Shape, want.Shape) ||
		!bytes.Equal(got.Data, want.Data) {
		t.Errorf("read %v, want %v", got, want)
	}
	if f.Meta["a"] != "ä" || f.Meta["b"] != "2" {
		t.Errorf("metadata is %v, want %v", f.Meta, meta)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []Tensor{Floats("other", []int{1}, []float32{9}), want}, meta); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(path); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same tensors in another order give other bytes (%v)", err)
	}
}

func TestBrokenFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"too short":        {[]byte("1234"), "4 bytes, want at least 8"},
		"huge header":      {binary.LittleEndian.AppendUint64(nil, 1<<40), "want at most 25000000"},
		"truncated header": {file("{}", 0)[:9], "ends after 1"},
		"no header":        {file("", 0), "does not begin with {"},
		"null":             {file("null", 0), "does not begin with {"},
		"leading space":    {file(" {}", 0), "does not begin with {"},
		"trailing newline": {file("{}\n", 0), "after its last }"},
		"invalid UTF-8":    {file("{\"\xff\":1}", 0), "UTF-8"},
		"lone surrogate": {file(`{"\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0),
			"half of a surrogate pair"},
		"half a pair in text": {file(`{"__metadata__":{"a":"\ude00\ud83e"},`+tensorA+`}`, 8),
			"half of a surrogate pair"},
		"a name twice": {file(`{`+tensorA+`,`+tensorA+`}`, 8), `duplicate name "a"`},
		"a field twice": {
			file(`{"a":{"dtype":"F32","dtype":"U8","shape":[2],"data_offsets":[0,8]}}`, 8),
			`duplicate name "dtype"`,
		},
		"metadata twice": {file(`{"__metadata__":{},"__metadata__":{},`+tensorA+`}`, 8),
			"duplicate name"},
		"too deep": {file(`{"a":{"b":{"c":{"d":{"e":1}}}}}`, 0), "nested too deeply"},
		"many dimensions": {
			file(`{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}`, 1),
			"more than 8 numbers",
		},
		"a huge dimension": {
			file(`{"a":{"dtype":"U8","shape":[0,9999999999],"data_offsets":[0,0]}}`, 0),
			"dimension of 9999999999",
		},
		"unknown type": {file(`{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}`, 1),
			"F8_E4M3"},
		"short data": {file(`{`+tensorA+`}`, 7), "its tensors have 8 bytes, but the file has 7 of them: it is cut off; download or copy it again"},
		"long data":  {file(`{`+tensorA+`}`, 9), "the file has 1 bytes after the 8 bytes of its tensors"},
		"a hole": {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8),
			"offset"},
		"shape and size": {file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), ""},
		"control character": {file(`{"\u0001":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
			"control character"},
		"header ends midway": {file(`{"a":`, 0), "not JSON"},
		"a name of a kilobyte": {
			file(`{"`+strings.Repeat("n", 1000)+`":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
			"tensor name has 1000 bytes",
		},
	} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := os.WriteFile(path, c.data, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err == nil {
			f.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) ||
			len(err.Error()) > 1000 {
			t.Errorf("%s: error is %v, want one with %q and the path", name, err, c.want)
		}
	}
}

func TestEscapedCharactersAreRead(t *testing.T) {
	f, err := Parse("x",
		file(`{"__metadata__":{"pair":"\ud83e\udd99","text":"\\ud800"},`+tensorA+`}`, 8))
	if err != nil {
		t.Fatal(err)
	}
	if f.Meta["pair"] != "🦙" || f.Meta["text"] != `\ud800` {
		t.Errorf("metadata is %q, want 🦙 and \\ud800", f.Meta)
	}
}

func TestALargeHostileHeaderIsRefusedQuickly(t *testing.T) {
	begin := time.Now()
	header := `{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 5_000_000) +
		`1],"data_offsets":[0,1]}}`
	if _, err := Parse("x", file(header, 1)); err == nil || len(err.Error()) > 1000 {
		t.Errorf("error is %v, want one of at most 1000 bytes", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v, want at most 5 s", took)
	}
}

func TestShardsAreReadThroughTheirIndex(t *testing.T) {
	shard := func(name string) Tensor { return Floats(name, []int{1}, []float32{1}) }
	var many strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&many, `,"%d":"%d.safetensors"`, i, i)
	}
	many.WriteString("}}")
	for name, c := range map[string]struct {
		index string
		want  string // empty: no error
	}{
		"whole":  {`{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}`, ""},
		"more":   {`{"weight_map":{"b":"s2.safetensors","c":"s1.safetensors"}}`, ""},
		"a page": {"<html><body>404", "index.json\": it is an HTML page"},
		"outside": {`{"weight_map":{"a":"../s1.safetensors"}}`,
			"want a .safetensors file of the same directory"},
		"absolute": {`{"weight_map":{"a":"/etc/passwd"}}`,
			"want a .safetensors file of the same directory"},
		"missing tensor": {`{"weight_map":{"a":"s1.safetensors","c":"s1.safetensors"}}`,
			"where the index says"},
		"tensor not named": {`{"weight_map":{"b":"s2.safetensors","a":"s2.safetensors"}}`,
			"the index says"},
		"a tensor that the index has not": {`{"weight_map":{"b":"s2.safetensors","x":"s1.safetensors"}}`,
			`no tensor "x" in s1.safetensors`},
		"missing file": {`{"weight_map":{"a":"s3.safetensors"}}`, "no such file"},
		"empty":        {`{"weight_map":{}}`, "weight_map is empty"},
		"not JSON":     {`{`, "index.json"},
		"long names": {`{"weight_map":{"` + strings.Repeat("é", 20_000) + `":"` +
			strings.Repeat("é", 20_000) + `"}}`, "want a .safetensors file of the same directory"},
		"a long number": {`{"weight_map":` + strings.Repeat("1", 20_000) + `}`, "weight_map"},
		// The index has 200,000 names. A quadratic search took a minute.
		"a shard a tensor": {`{"weight_map":{` + many.String()[1:], "no such file"},
	} {
		dir := t.TempDir()
		for file, tensor := range map[string]string{"s1.safetensors": "a", "s2.safetensors": "b"} {
			tensors := []Tensor{shard(tensor)}
			if name == "more" && tensor == "a" {
				tensors = append(tensors, shard("c")) // "a" is there and not in the index
			}
			if err := Write(filepath.Join(dir, file), tensors, nil); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, "model.safetensors.index.json")
		if err := os.WriteFile(path, []byte(c.index), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := OpenDir(dir)
		switch {
		case err == nil && c.want == "":
			if !slices.Equal(d.Names(), []string{"a", "b"}) && name != "more" || len(d.Names()) < 2 {
				t.Errorf("%s: tensors are %v", name, d.Names())
			}
			d.Close()
		case err == nil:
			t.Errorf("%s: no error", name)
			d.Close()
		case c.want == "" || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 4096:
			t.Errorf("%s: error is %.5000v, want one with %q", name, err, c.want)
		}
	}
}

func TestOtherWeightsAreNamed(t *testing.T) {
	for name, c := range map[string]struct{ file, data, want string }{
		"a pointer": {"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
			"it is a Git LFS pointer, not the file itself: run git lfs pull"},
		"a page":        {"model.safetensors", "<!DOCTYPE html>\n<html>", "it is an HTML page"},
		"an old pickle": {"model.safetensors", "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "it is a pickle"},
		"GGUF":          {"model.safetensors", "GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "it is a GGUF file"},
		"PyTorch's":     {"pytorch_model.bin", "PK", "its weights are in pytorch_model.bin, which ptune does not read"},
		"PyTorch's shards": {"pytorch_model-00001-of-00002.bin", "PK",
			"its weights are in pytorch_model-00001-of-00002.bin, which"},
		"rows": {"model.safetensors", "{\"text\": \"good\"}\n{",
			`it is not a safetensors file: it begins with the text "{\"text\": \"good\"}\n{"`},
		"none": {"readme.md", "x", "neither model.safetensors nor model.safetensors.index.json is there"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.data), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c.want)
		}
	}
}

func FuzzWhatIsAcceptedLiesInsideTheFile(f *testing.F) {
	f.Add(file(`{`+tensorA+`}`, 8))
	f.Add(file(`{"__metadata__":{"format":"pt"},`+tensorA+`}  `, 8))
	f.Add(file(`null`, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Parse("fuzz", data)
		if err != nil {
			if len(err.Error()) > 4096 {
				t.Fatalf("the error has %d bytes, want at most 4096", len(err.Error()))
			}
			return
		}
		total := 0
		for _, tensor := range x.Tensors() {
			total += len(tensor.Data)
		}
		if header := int(binary.LittleEndian.Uint64(data)); total != len(data)-8-header {
			t.Fatalf("tensors have %d bytes, want all %d bytes of data", total, len(data)-8-header)
		}
	})
}

func FuzzAnIndexIsReadOrRefused(f *testing.F) {
	dir := f.TempDir()
	shard := filepath.Join(dir, "a.safetensors")
	if err := os.WriteFile(shard, file(`{`+tensorA+`}`, 8), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"weight_map": {"a": "a.safetensors"}, "metadata": {"total_size": 8}}`))
	f.Add([]byte(`{"weight_map": {"a": "../a.safetensors", "b": "b.safetensors"}}`))
	f.Fuzz(func(t *testing.T, index []byte) {
		path := filepath.Join(dir, "model.safetensors.index.json")
		if err := os.WriteFile(path, index, 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := OpenDir(dir)
		if err != nil {
			if len(err.Error()) > 4096 {
				t.Fatalf("the error has %d bytes, want at most 4096", len(err.Error()))
			}
			return
		}
		defer d.Close()
		if names := d.Names(); len(names) != 1 || names[0] != "a" {
			t.Errorf("index %q: tensors are %q, want only a", index, names)
		}
	})
}
