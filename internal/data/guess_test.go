package data_test

import (
	"fmt"
	"os"
	"path/filepath"
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
