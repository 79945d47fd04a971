package infer_test

import (
	"slices"
	"testing"

	"ptune/internal/infer"
	"ptune/internal/prompt"
	"ptune/internal/tokenize"
)

// Prompts of earlier versions have no Continued in their files: their labels keep the ids they were
// trained with.
func TestLabelsAreEncodedAsThePromptWasTrained(t *testing.T) {
	for _, c := range []struct {
		tokenizer string
		continued bool
		want      [][]int32
	}{
		// 278 is the space that the tokenizer puts before a text alone.
		{"sentencepiece", true, [][]int32{{320, 267, 262}, {283, 286}}},
		{"sentencepiece", false, [][]int32{{278, 320, 267, 262}, {278, 283, 286}}},
		{"byte-level", true, nil},
		{"byte-level", false, nil},
	} {
		tok, err := tokenize.Open("../../testdata/tokenizers/"+c.tokenizer, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tok.Close()
		m := &prompt.Meta{
			Input: "{text}\nAnswer:", Target: " {label}", Continued: c.continued,
			Labels: []prompt.Label{{Value: "0", Name: "cold"}, {Value: "1", Name: "was"}},
		}
		task, err := infer.NewTask(m, nil, tok)
		if err != nil {
			t.Fatal(err)
		}
		_, choices, err := task.Format()
		if err != nil {
			t.Fatal(err)
		}
		for i, choice := range choices {
			want, err := tok.Encode(" " + choice.Name)
			if err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				want = c.want[i]
			}
			if !slices.Equal(choice.IDs, want) {
				t.Errorf("%s, continued: %v: %q is %v, want %v", c.tokenizer, c.continued, choice.Name, choice.IDs, want)
			}
		}
	}
}
