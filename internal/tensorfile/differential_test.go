package tensorfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"regexp"
	"slices"
	"testing"
)

var differential = flag.String("differential", "../../testdata/differential.jsonl",
	"files and the results of the Rust library, from testdata/differential.py")

// stricter matches the errors of files that the Rust library reads and ptune refuses on purpose:
// files that two readers may understand differently, files that the format's description forbids (a
// header that does not begin with {), and types that ptune does not support.
var stricter = regexp.MustCompile(`a tensor name has \d+ bytes|header does not begin with \{|` +
	`invalid DType string value "(F8_|F6_|F4|C64)|expected 3 keys \(dtype, shape, data_offsets\)|` +
	`has the duplicate name ".*"|has a control character or invalid UTF-8|` +
	`a list of more than \d+ numbers|has a dimension of \d+|nested too deeply|has text after its last`)

func TestFilesAreReadLikeTheRustLibrary(t *testing.T) {
	f, err := os.Open(*differential)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read, refused, stricterThan := 0, 0, 0
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			File    []byte
			Tensors map[string]Tensor // nil: it refuses the file
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		x, err := Parse("x", c.File)
		switch {
		case err == nil && c.Tensors == nil:
			t.Errorf("%q is read, the Rust library refuses it", c.File)
		case err != nil && c.Tensors == nil:
			refused++
		case err != nil && stricter.MatchString(err.Error()):
			stricterThan++
		case err != nil:
			t.Errorf("%q is refused, the Rust library reads it: %v", c.File, err)
		default:
			read++
			if len(x.Tensors()) != len(c.Tensors) {
				t.Errorf("%q has %d tensors, want %d", c.File, len(x.Tensors()), len(c.Tensors))
			}
			for name, want := range c.Tensors {
				got, ok := x.Tensor(name)
				if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) ||
					!bytes.Equal(got.Data, want.Data) {
					t.Errorf("%q: tensor %q is %v, want %v", c.File, name, got, want)
				}
			}
		}
	}
	if read == 0 || refused == 0 {
		t.Errorf("%d files were read and %d refused, want at least 1 each", read, refused)
	}
	t.Logf("%d files are equal, %d are refused by both, %d only by ptune, on purpose", read, refused,
		stricterThan)
}
