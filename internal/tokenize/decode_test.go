package tokenize

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The ids are random, many of them bytes: no text is encoded as most of these.
func TestAnyIdsDecodeAsInTheTokenizersLibrary(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(dir, "decoded.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string][]struct {
		IDs  []int32
		Text string
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	nul := 0
	for name, cases := range golden {
		tok, err := Open(filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tok.Close()
		for _, c := range cases {
			if got := tok.Decode(c.IDs); got != c.Text {
				t.Errorf("%s: %v decodes to %q, want %q", name, c.IDs, got, c.Text)
			}
			if strings.Contains(c.Text, "\x00") {
				nul++
			}
		}
	}
	if nul < 100 {
		t.Errorf("%d texts have a NUL, want 100", nul)
	}
}

// Whatever follows, the text of the other ids stays. U+FFFD at its end may become a character.
func TestTheTextOfSettledIdsNeverChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names, err := filepath.Glob(filepath.Join(dir, "*", "tokenizer.json"))
	if err != nil || len(names) < 9 {
		t.Fatalf("found %d tokenizers (%v)", len(names), err)
	}
	for _, name := range names {
		tok, err := Open(filepath.Dir(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tok.Close()
		var all, bytes []int32
		for id, p := range tok.pieces {
			if all = append(all, id); isByte(p) || tok.special[id] {
				bytes = append(bytes, id)
			}
		}
		slices.Sort(all) // the same test each time
		slices.Sort(bytes)
		for range 200 {
			var ids []int32
			settled := ""
			for range 12 {
				if ids = append(ids, all[r.IntN(len(all))]); bytes != nil && r.IntN(2) == 0 {
					ids[len(ids)-1] = bytes[r.IntN(len(bytes))]
				}
				if text := tok.Decode(ids); !strings.HasPrefix(text, settled) {
					t.Fatalf("%s: %v decodes to %q, but a beginning of it was settled as %q", name, ids, text,
						settled)
				}
				settled = strings.TrimRight(tok.Decode(ids[:len(ids)-tok.Unsettled(ids)]), "\ufffd")
			}
		}
	}
}
