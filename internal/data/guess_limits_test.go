package data_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/data"
)

// look guesses what the fields of a file are for.
func look(t *testing.T, name, text string) (*data.Guess, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return data.Look(data.Source{Path: path}, data.Roles{})
}

// The rows have so many values in turn, and the first line has the first of them.
func TestAFirstLineWithAValueOfAClassIsARow(t *testing.T) {
	for _, c := range []struct {
		values, rows int
		want         bool
	}{
		{2, 3, false},                             // one row has the value of the first line
		{2, 4, true}, {3, 8, false}, {3, 9, true}, // a third of the rows at most
		{200, 600, true}, {201, 603, false}, // 200 at most
	} {
		text := "v0\tthe first text\n"
		for i := range c.rows {
			text += fmt.Sprintf("v%d\ttext number %d is this\n", (i+1)%c.values, i)
		}
		g, err := look(t, "a.tsv", text)
		if got := err == nil && g.Columns != nil; got != c.want {
			t.Errorf("%d values in %d rows: the first line is a row: %v (%v), want %v", c.values, c.rows,
				got, err, c.want)
		}
	}
}

func TestAClassHasFewShortValues(t *testing.T) {
	for _, c := range []struct {
		values, rows, length int // length: of each value
		want                 bool
	}{
		{1, 9, 3, false}, {2, 4, 3, true}, {3, 8, 3, false}, {3, 9, 3, true},
		{200, 600, 3, true}, {201, 603, 3, false},
		{2, 10, 39, true}, {2, 10, 40, false},
	} {
		var text strings.Builder
		for i := range c.rows {
			fmt.Fprintf(&text, `{"text":"text number %d","label":"%0*d"}`+"\n", i, c.length, i%c.values)
		}
		g, err := look(t, "a.jsonl", text.String())
		if err != nil || (g.Labels != nil) != c.want {
			t.Errorf("%+v: labels are %v (%v)", c, g.Labels, err)
		}
	}
}

func TestTheInputIsOfFieldsWithWordsInMostRows(t *testing.T) {
	for wordy, want := range map[int][]string{10: {"text"}, 11: {"note", "text"}} { // of 20 rows
		var text strings.Builder
		for i := range 20 {
			note := fmt.Sprintf("n%d", i)
			if i < wordy {
				note = fmt.Sprintf("some words %d", i)
			}
			fmt.Fprintf(&text, `{"note":%q,"text":"text number %d","label":"%d"}`+"\n", note, i, i%2)
		}
		g, err := look(t, "a.jsonl", text.String())
		if err != nil || !slices.Equal(g.Texts, want) {
			t.Errorf("%d of 20 notes are words: the input is %v (%v), want %v", wordy, g, err, want)
		}
	}
}

func TestAFieldThatEndsInTheTargetIsNoInput(t *testing.T) {
	for ends, out := range map[int]bool{0: false, 8: false, 9: true, 10: true} { // of 10 rows
		var text strings.Builder
		for i := range 10 {
			end := "something else"
			if i < ends {
				end = fmt.Sprintf("answer %d", i)
			}
			fmt.Fprintf(&text, `{"prompt":"say %d it","story":"it was %d: %s","completion":"answer %d"}`+"\n", i, i, end, i)
		}
		g, err := look(t, "a.jsonl", text.String())
		if err != nil || slices.Contains(g.Texts, "story") == out {
			t.Errorf("%d of 10 end in the target: the input is %v (%v), want it left out: %v", ends,
				g.Texts, err, out)
		}
	}
	var text strings.Builder
	for i := range 20 { // the label is a number, and the text ends in its name
		name := []string{"good", "bad"}[i%2]
		fmt.Fprintf(&text, `{"text":"it was %d then","story":"long words %d: %s","label":%d,"called":%q}`+"\n", i, i, name, i%2, name)
	}
	g, err := look(t, "a.jsonl", text.String())
	if err != nil || !slices.Equal(g.Texts, []string{"text"}) || g.Labels[0].Name != "good" {
		t.Errorf("a field that ends in the label's name: %+v (%v), want only text as input", g, err)
	}
	text.Reset()
	for i := range 10 { // rows with a title have no target
		fmt.Fprintf(&text, `{"prompt":"say %d it","completion":"answer %d"}`+"\n", i, i)
		fmt.Fprintf(&text, `{"prompt":"say %d it","completion":null,"title":"these are words %d"}`+"\n", i, i)
	}
	if g, err = look(t, "a.jsonl", text.String()); err != nil || !slices.Equal(g.Texts, []string{"prompt", "title"}) {
		t.Errorf("a field that is never beside a target: %+v (%v)", g, err)
	}
}

func TestAnEmptyListIsNoConversation(t *testing.T) {
	var text strings.Builder
	for i := range 20 {
		fmt.Fprintf(&text, `{"tags":[],"text":"text number %d","label":%s}`+"\n", i, []string{"1", "2"}[i%2])
	}
	g, err := look(t, "a.jsonl", text.String())
	if err != nil || g.Messages != "" || len(g.Labels) != 2 || g.Notes != nil {
		t.Errorf("guess is %+v (%v), want two labels and no conversation", g, err)
	}
}
