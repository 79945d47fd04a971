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
)

// ggufWriter builds GGUF files for tests.
type ggufWriter struct{ bytes.Buffer }

func (w *ggufWriter) put(values ...any) {
	for _, v := range values {
		if s, ok := v.(string); ok {
			binary.Write(w, binary.LittleEndian, uint64(len(s)))
			w.WriteString(s)
			continue
		}
		binary.Write(w, binary.LittleEndian, v)
	}
}

// smallGGUF is a file with one value of each kind and two tensors: "a" of F32 [2, 3] and "b" of Q8_0
// [1, 32].
func smallGGUF(extra ...any) []byte {
	w := &ggufWriter{}
	w.WriteString("GGUF")
	w.put(uint32(3), uint64(2), uint64(8+len(extra)/2))
	w.put("general.architecture", uint32(kindString), "llama")
	w.put("n", uint32(kindU32), uint32(7))
	w.put("minus", uint32(kindI32), int32(-3))
	w.put("big", uint32(kindU64), uint64(1)<<63)
	w.put("half", uint32(kindF32), float32(0.5))
	w.put("yes", uint32(kindBool), byte(1))
	w.put("words", uint32(kindArray), uint32(kindString), uint64(2), "one", "")
	w.put("counts", uint32(kindArray), uint32(kindI16), uint64(3), int16(1), int16(-2), int16(3))
	for i := 0; i < len(extra); i += 2 {
		w.put(extra[i], uint32(kindU32), extra[i+1])
	}
	w.put("a", uint32(2), uint64(3), uint64(2), uint32(0), uint64(64))
	w.put("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(0))
	w.Write(make([]byte, (32-w.Len()%32)%32))
	begin := w.Len()
	for i := range 34 {
		w.WriteByte(byte(i))
	}
	w.Write(make([]byte, begin+64-w.Len()))
	w.put([]float32{1, 2, 3, 4, 5, 6})
	return w.Bytes()
}

func TestAGGUFFileIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "small.gguf")
	if err := os.WriteFile(path, smallGGUF(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(string) (*GGUF, error){OpenGGUF, ReadGGUF} {
		g, err := open(path)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := g.Weights.Tensor("a")
		values, err := a.Values()
		if want := []float32{1, 2, 3, 4, 5, 6}; err != nil || !slices.Equal(values, want) ||
			!slices.Equal(a.Shape, []int{2, 3}) {
			t.Errorf("a is %v of %v (%v), want %v of [2 3]", values, a.Shape, err, want)
		}
		b, _ := g.Weights.Tensor("b")
		if len(b.Data) != 34 || b.Data[33] != 33 || b.DType != "Q8_0" || !slices.Equal(b.Shape, []int{1, 32}) {
			t.Errorf("b is %s of %v with %d bytes, want Q8_0 of [1 32] with 34", b.DType, b.Shape, len(b.Data))
		}
		text, _ := g.String("general.architecture")
		n, _ := g.Int("n")
		minus, _ := g.Int("minus")
		half, _ := g.Float("half")
		whole, _ := g.Float("n")
		yes, _ := g.Bool("yes")
		words, _ := g.Strings("words")
		counts, _ := g.Ints("counts")
		got := fmt.Sprint(text, n, minus, half, whole, yes, words, counts)
		if want := "llama 7 -3 0.5 7 true [one ] [1 -2 3]"; strings.Join(strings.Fields(got), "") !=
			strings.Join(strings.Fields(want), "") {
			t.Errorf("the metadata is %s, want %s", got, want)
		}
		if v, ok := g.Int("big"); ok {
			t.Errorf("a number of 2^63 is read as %d", v)
		}
		for _, key := range []string{"missing", "words", "counts"} {
			if _, ok := g.String(key); ok {
				t.Errorf("%s is read as a text", key)
			}
			if _, ok := g.Int(key); ok {
				t.Errorf("%s is read as a number", key)
			}
		}
		if err := g.Weights.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABrokenGGUFFileIsRefusedWithItsFault(t *testing.T) {
	whole := smallGGUF()
	replaced := func(old, new string) []byte {
		at := bytes.Index(whole, []byte(old))
		if at < 0 {
			t.Fatalf("%q is not in the file", old)
		}
		return slices.Concat(whole[:at], []byte(new), whole[at+len(old):])
	}
	le := func(values ...any) string {
		w := &ggufWriter{}
		w.put(values...)
		return w.String()
	}
	table := le("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(0))
	for _, c := range []struct {
		data []byte
		want string
	}{
		{whole[:3], "is not a GGUF file"},
		{replaced("GGUF", "GGML"), "is not a GGUF file"},
		{replaced("GGUF\x03", "GGUF\x01"), "its version is 1"},
		{replaced("GGUF\x03\x00\x00\x00", "GGUF\x00\x00\x00\x03"), "big-endian"},
		{whole[:len(whole)-1], "is cut off"},
		{whole[:40], "the file ends after 40"},
		{replaced(le(uint32(3), uint64(2)), le(uint32(3), uint64(1<<40))), "at most"},
		{replaced(le("n", uint32(kindU32)), le("n", uint32(99))), "has the type 99"},
		{replaced(le(uint32(kindI16), uint64(3)), le(uint32(kindI16), uint64(1<<60))), "1152921504606846976 elements"},
		{replaced(le(uint32(kindString), uint64(2)), le(uint32(kindArray), uint64(2))), "which GGUF does not have here"},
		{replaced(table, le("a", uint32(2), uint64(32), uint64(1), uint32(8), uint64(0))), "is there twice"},
		{replaced(table, le("b", uint32(2), uint64(33), uint64(1), uint32(8), uint64(0))), "want a multiple of 32"},
		{replaced(table, le("b", uint32(2), uint64(0), uint64(1), uint32(8), uint64(0))), "a dimension of 0"},
		{replaced(table, le("b", uint32(2), uint64(1<<31), uint64(1), uint32(8), uint64(0))), "a dimension of"},
		{replaced(table, le("b", uint32(2), uint64(32), uint64(1), uint32(77), uint64(0))), "the type 77"},
		{replaced(table, le("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(8))), "want a multiple of 32"},
		{replaced(table, le("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(64))), "within the tensor before"},
		{replaced(table, le("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(1)<<63)), "begins at"},
		{replaced(table, le("b", uint32(2), uint64(32), uint64(1), uint32(8), uint64(1)<<40)), "is cut off"},
		{replaced(table, le("b", uint32(9), uint64(32), uint64(1), uint32(8), uint64(0))), "9 dimensions"},
		{smallGGUF("general.alignment", uint32(24)), "general.alignment is 24"},
		{smallGGUF("n", uint32(1)), `the key "n" is there twice`},
		{[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "Git LFS"},
	} {
		_, err := ParseGGUF(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
	}
	for n := range whole {
		if _, err := ParseGGUF(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are read as a file", n, len(whole))
		}
	}
}

func TestSplitGGUFFilesAreOneModel(t *testing.T) {
	dir := t.TempDir()
	part := func(no int, name string) {
		w := &ggufWriter{}
		w.WriteString("GGUF")
		w.put(uint32(3), uint64(1), uint64(2))
		w.put("split.no", uint32(kindU16), uint16(no), "split.count", uint32(kindU16), uint16(2))
		w.put(name, uint32(1), uint64(8), uint32(0), uint64(0))
		w.Write(make([]byte, (32-w.Len()%32)%32+32))
		file := filepath.Join(dir, fmt.Sprintf("m-%05d-of-00002.gguf", no+1))
		if err := os.WriteFile(file, w.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	part(0, "a")
	first := filepath.Join(dir, "m-00001-of-00002.gguf")
	if _, err := OpenGGUF(first); err == nil || !strings.Contains(err.Error(), "one of 2 split files") {
		t.Errorf("without the second file the error is %v", err)
	}
	part(1, "b")
	for _, path := range []string{first, filepath.Join(dir, "m-00002-of-00002.gguf")} {
		g, err := OpenGGUF(path)
		if err != nil {
			t.Fatal(err)
		}
		if names := g.Weights.Names(); !slices.Equal(names, []string{"a", "b"}) || GGUFName(path) != "m" {
			t.Errorf("the files of %s have the tensors %q, want a and b", GGUFName(path), names)
		}
		g.Weights.Close()
	}
	part(1, "a")
	if _, err := OpenGGUF(first); err == nil || !strings.Contains(err.Error(), "another of the split files") {
		t.Errorf("with a tensor in both files the error is %v", err)
	}
	os.Rename(filepath.Join(dir, "m-00002-of-00002.gguf"), first)
	part(1, "b")
	if _, err := OpenGGUF(first); err == nil || !strings.Contains(err.Error(), "split file number 2") {
		t.Errorf("with files that have changed places the error is %v", err)
	}
}

func FuzzParseGGUF(f *testing.F) {
	f.Add(smallGGUF())
	f.Add(smallGGUF("general.alignment", uint32(64)))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGGUF(data)
		if err != nil {
			return
		}
		for _, name := range g.Weights.Names() {
			x, _ := g.Weights.Tensor(name)
			n := 1
			for _, d := range x.Shape {
				n *= d
			}
			if len(x.Data) > len(data) || n > 0 && len(x.Data) == 0 {
				t.Fatalf("tensor %q of %v has %d bytes in a file of %d", name, x.Shape, len(x.Data), len(data))
			}
		}
		for key := range g.Meta {
			g.Int(key)
			g.Bool(key)
			g.Float(key)
			g.String(key)
			g.Strings(key)
			g.Ints(key)
			g.Floats(key)
		}
	})
}
