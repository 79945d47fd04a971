package data_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"ptune/internal/data"
)

func TestTheFormatOfADataFileIsGuessed(t *testing.T) {
	repeat := func(line string, n int) (s string) {
		for i := range n {
			s += strings.NewReplacer(
				"N", fmt.Sprint(i),
				"C", []string{"ham", "spam"}[i%2],
				"K", fmt.Sprint(i%2+1),
				"W", []string{"no complaint", "complaint"}[i%2],
			).Replace(line)
		}
		return s
	}
	for _, c := range []struct{ what, name, text, want string }{
		{"a TSV without a header", "sms.tsv", repeat("C\ta message of some length N\n", 20),
			"text > label [ham=ham spam=spam] columns [label text]"},
		{"twelve columns without a header", "twelve.csv",
			repeat("C,b,c,d,e,f,g,h,i,j,k,a message N\n", 20),
			"text > label [ham=ham spam=spam] columns [label column2 column3 column4 column5 " +
				"column6 column7 column8 column9 column10 column11 text]"},
		{"a CSV with a header", "b.csv", "text,category\n" + repeat("\"question, number N\",C\n", 20),
			"text > category [ham=ham spam=spam] columns []"},
		{"fields with other names", "c.jsonl",
			repeat(`{"id": N, "what was said": "some text N", "verdict": "C"}`+"\n", 20),
			"what was said > verdict [ham=ham spam=spam] columns []"},
		{"numbers with a field of their names, and a field that contains the answer", "d.jsonl",
			repeat(`{"Tweet text": "words N", "ID": N, "Label": K, "text_label": "W", `+
				`"output": "long long long words N: W"}`+"\n", 20),
			"Tweet text > Label [1=no complaint 2=complaint] columns []"},
		{"conversations", "f.jsonl",
			repeat(`{"id": N, "said": [{"role": "user", "content": "C"}, `+
				`{"role": "assistant", "content": "N"}]}`+"\n", 3),
			"said is a conversation"},
		{"a list that is not a conversation", "g.jsonl",
			repeat(`{"text": "some text N", "n": [N], "label": "C"}`+"\n", 20),
			"text > label [ham=ham spam=spam] columns []"},
		{"free text", "e.jsonl", repeat(`{"prompt": "say N", "completion": "this is N"}`+"\n", 20),
			"prompt > completion [] columns []"},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		g, err := data.Look(data.Source{Path: path}, data.Roles{})
		if err != nil {
			t.Fatal(err)
		}
		var labels []string
		for _, l := range g.Labels {
			labels = append(labels, l.Value+"="+l.Name)
		}
		got := fmt.Sprintf("%s > %s %v columns %v", strings.Join(g.Texts, "+"), g.Target, labels, g.Columns)
		if g.Messages != "" {
			got = g.Messages + " is a conversation"
		}
		if got != c.want {
			t.Errorf("%s: guessed %s, want %s", c.what, got, c.want)
		}
	}
}

// reviews are rows of a table with the labels good and bad in turn.
func reviews(n int) (s string) {
	for i := range n {
		s += fmt.Sprintf("the soup number %d was %s,%s\n", i, []string{"cold", "warm"}[i%2], []string{"bad", "good"}[i%2])
	}
	return s
}

func TestWhatMayBeAMistakeInTheRowsIsRefusedOrNoted(t *testing.T) {
	const head = "text,label\n"
	for _, c := range []struct{ what, name, text, want string }{
		{"a header that is repeated", "a.csv", head + reviews(6) + head + reviews(6),
			"a.csv:8: the line repeats the names of the columns"},
		{"a header that is repeated often", "a.csv", strings.Repeat(head+reviews(6), 4),
			"a.csv:8: the line repeats the names of the columns (and 2 more: line 15, 22)"},
		{"a text that is the name of its column", "a.csv", head + reviews(6) + "text,good\n", ""},
		{"two texts that are the name of their column", "a.csv", head + reviews(6) + "text,good\ntext,bad\n", ""},
		{"a label that is the name of its column", "a.csv", head + reviews(9) + "what is this,label\n",
			`a.csv: the label "label" is the name of its field (in line 11)`},
		{"rows without a label", "a.csv", head + reviews(6) + "this one has none,\nnor this one, \n",
			`a.csv:8: the row has no label, its "label" is ""; give it one or delete it` + "\n" +
				`a.csv:9: the row has no label, its "label" is " "; give it one or delete it`},
		{"nan of pandas", "a.csv", head + reviews(6) + "x y,nan\nx z,NaN\nx w,nan\n",
			`a.csv:8: the row has no label, its "label" is "nan"; give it one or delete it (and 1 more: line 10)` +
				"\n" + `a.csv:9: the row has no label, its "label" is "NaN"; give it one or delete it`},
		{"a row of empty cells", "a.csv", head + reviews(6) + ",\n",
			`a.csv:8: the row has no label, its "label" is ""; give it one or delete it`},
		{"null", "a.jsonl", strings.Repeat(`{"text":"some words","label":"a"}`+"\n"+`{"text":"more words","label":"b"}`+"\n", 4) +
			`{"text":"words","label":null}`,
			`a.jsonl:9: the row has no label, its "label" is null; give it one or delete it`},
		{"no field", "a.jsonl", strings.Repeat(`{"text":"some words","label":"a"}`+"\n"+`{"text":"more words","label":"b"}`+"\n", 4) +
			`{"text":"words"}`, `a.jsonl:9: the row has no field "label"; give it a label or delete it`},
		{"labels that differ in case and blanks", "a.csv", head + reviews(20) + "it was so,Good\nso it was,good \n",
			`a.csv: these labels are nearly equal, but each is a class: "good" (in 10 rows, the first in line 3), ` +
				`"Good" (in line 22), "good " (in line 23)`},
		{"numbers that are written in two ways", "a.csv", strings.NewReplacer("bad", "0", "good", "1").Replace(head+reviews(20)) +
			"it was so,1.0\n", `a.csv: these labels are nearly equal, but each is a class: ` +
			`"1" (in 10 rows, the first in line 3), "1.0" (in line 22)`},
		{"numbers of which none is written in the shortest way", "a.csv",
			strings.NewReplacer("bad", "1.0", "good", "2").Replace(head+reviews(20)) + "it was so,1.00\n",
			`a.csv: these labels are nearly equal, but each is a class: ` +
				`"1.0" (in 10 rows, the first in line 2), "1.00" (in line 22)`},
		{"numbers that are nearly equal", "a.csv",
			strings.NewReplacer("bad", "1.25", "good", "1.3").Replace(head + reviews(20)), ""},
		{"a label that may be none", "a.csv", head + reviews(20) + "it was so,None\n",
			`a.csv: the label "None" may mean that there is none (in line 22)`},
		{"rows that cannot be read", "a.jsonl", "hello\nworld\n",
			"a.jsonl:1: not a JSON object: invalid character 'h' looking for beginning of value (and 1 more: line 2)"},
		{"another separator in some rows", "a.csv", head + reviews(6) + "x;good\n",
			`a.csv:8: the line has 1 cell, want 2 (text, label); is the separator ";"? set data.separator`},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		g, err := data.Look(data.Source{Path: path}, data.Roles{})
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join(g.Notes, "\n")
			if g.Columns != nil || g.Target != "label" {
				t.Errorf("%s: guessed columns %v and target %q, want the header's", c.what, g.Columns, g.Target)
			}
		}
		if got = strings.ReplaceAll(got, path, c.name); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

func TestFieldsOfTheInputAndOtherLabelsAreNamed(t *testing.T) {
	rows := func(format string) (s string) {
		for i := range 24 {
			s += strings.NewReplacer("N", fmt.Sprint(i), "C", []string{"low", "high"}[i%2],
				"K", fmt.Sprint(i%3), "Q", []string{"sales", "tech", "billing"}[i%3]).Replace(format) + "\n"
		}
		return s
	}
	for _, c := range []struct {
		what, text  string
		known       data.Roles
		want, notes string
	}{
		{"Alpaca", rows(`{"instruction":"Translate number N","input":"the word N","output":"answer N",` +
			`"text":"### Translate number N ### answer N"}`), data.Roles{}, "instruction+input > output",
			`the field "text" ends in the target and is left out of the input
the input is made of the fields "instruction", "input" (--text chooses)`},
		{"Alpaca without inputs", rows(`{"instruction":"Say number N","input":"","output":"answer N"}`), data.Roles{},
			"instruction > output", ""},
		{"two sentences", rows(`{"idx":N,"premise":"it is N","hypothesis":"so N is","label":K}`), data.Roles{},
			"premise+hypothesis > label", `the input is made of the fields "premise", "hypothesis" (--text chooses)`},
		{"a title and fields that are no text", rows(`{"url":"http://x/N","when":"2026-01-0N","title":"number N is",` +
			`"body":"a long text on N","class":"C"}`), data.Roles{}, "title+body > class",
			`the input is made of the fields "title", "body" (--text chooses)`},
		{"a question and a passage that has the answer", rows(`{"question":"what is N","context":"we say N is so","answer":"N is"}`),
			data.Roles{}, "question+context > answer", `the input is made of the fields "question", "context" (--text chooses)`},
		{"fields of an object", rows(`{"id":"aN","translation":{"en":"number N it is","fr":"le nombre N"}}`),
			data.Roles{Texts: []string{"translation.en"}, Target: "translation.fr"}, "translation.en > translation.fr", ""},
		{"several labels", rows(`{"text":"it is N","priority":"C","queue":"Q"}`), data.Roles{}, "text > priority",
			`the label is "priority" (2 values); it could also be "queue" (3 values) (--label chooses)`},
		{"the label that was asked for", rows(`{"text":"it is N","priority":"C","queue":"Q"}`),
			data.Roles{Target: "queue"}, "text > queue", ""},
		{"the text that was asked for", rows(`{"text":"it is N","title":"the N is","label":"Q"}`),
			data.Roles{Texts: []string{"title"}}, "title > label", ""},
		{"Chinese", rows(`{"a":"这部电影非常好看第N次我很喜欢它","b":"C"}`), data.Roles{}, "a > b", ""},
	} {
		path := filepath.Join(t.TempDir(), "a.jsonl")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		g, err := data.Look(data.Source{Path: path}, c.known)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		notes := strings.ReplaceAll(strings.Join(g.Notes, "\n"), path+": ", "")
		if got := strings.Join(g.Texts, "+") + " > " + g.Target; got != c.want || notes != c.notes {
			t.Errorf("%s: guessed %s with the notes\n%s\nwant %s\n%s", c.what, got, notes, c.want, c.notes)
		}
	}
	path := filepath.Join(t.TempDir(), "a.jsonl")
	if err := os.WriteFile(path, []byte(rows(`{"text":"it is N","label":"C"}`)), 0o644); err != nil {
		t.Fatal(err)
	}
	for known, want := range map[string]string{
		"mood": `no row has a text in the field "mood"; the fields are "text", "label" (2 values)`,
		"text": `the field "text" is given as input and as target`,
	} {
		_, err := data.Look(data.Source{Path: path}, data.Roles{Texts: []string{"text"}, Target: known})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("label %q: error is %v, want %q", known, err, want)
		}
	}
}

func TestWhatWasFoundOutIsInTheGuess(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       data.Reading
	}{
		{"a.csv", "text,label\n" + reviews(6), data.Reading{}},
		{"a.csv", strings.ReplaceAll("text,label\n"+reviews(6), ",", ";"), data.Reading{Separator: ";"}},
		{"a.csv", "sep=|\n" + strings.ReplaceAll("text,label\n"+reviews(6), ",", "|"), data.Reading{Separator: "|"}},
		{"a.csv", "text,label\n" + reviews(6) + "caf\xe9 it was,good\n", data.Reading{Encoding: "windows-1252"}},
		{"a.csv", "text,label\n" + reviews(6) + "\"it \\\"was\\\"\",good\n", data.Reading{Quotes: "backslash"}},
		{"a.csv", "\xff\xfe" + encoded(t, "utf-16le", "text,label\n"+reviews(6)), data.Reading{Encoding: "utf-16le"}},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		from := data.Source{Path: path, Reading: data.Reading{Quotes: data.Auto, Encoding: data.Auto}}
		g, err := data.Look(from, data.Roles{})
		if err != nil || !reflect.DeepEqual(g.Reading, c.want) || g.Rows < 6 {
			t.Errorf("%.30q: guess is %+v (%v), want the reading %+v", c.text, g, err, c.want)
		}
	}
}

func TestALabelOfFewRowsAmongManyIsNoted(t *testing.T) {
	rows := "text,label\n"
	for i := range 40 {
		rows += fmt.Sprintf("row number %d,%s\n", i, []string{"good", "bad"}[i%2])
	}
	for _, c := range []struct {
		more string
		want []string
	}{
		{"", nil},
		{"a last one,goood\n", []string{`these labels have too few rows to be learned, if they are not typing errors: "goood" (1, the first in line 42)`}},
		{strings.Repeat("one more,ugly\n", 3), []string{`"ugly" (3, the first in line 42)`}},
		{strings.Repeat("one more,ugly\n", 5), nil},
	} {
		path := filepath.Join(t.TempDir(), "rows.csv")
		if err := os.WriteFile(path, []byte(rows+c.more), 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := data.Look(data.Source{Path: path}, data.Roles{})
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Notes) != len(c.want) || c.want != nil && !strings.HasSuffix(g.Notes[0], c.want[0]) {
			t.Errorf("%.20q: notes are %q, want %q", c.more, g.Notes, c.want)
		}
	}
}
