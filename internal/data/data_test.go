package data_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"ptune/internal/data"
)

// letters is a tokenizer that encodes each letter as its code. BOS is 1, the end token 2. The letter
// ! cannot be encoded.
type letters struct{}

func (letters) EncodeInput(s string) ([]int32, error) {
	ids, err := letters{}.Encode(s)
	return append([]int32{1}, ids...), err
}

func (letters) Encode(s string) (ids []int32, err error) {
	for _, c := range s {
		if c == '!' {
			return nil, errors.New("no token for !")
		}
		ids = append(ids, c)
	}
	return ids, nil
}

var options = data.Options{MaxTokens: 20, Limit: "data.max_tokens is 20",
	OnTooLong: data.TooLongIsError, EOS: 2}

func load(t *testing.T, rows string, f *data.Format, o data.Options) (*data.Set, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	return data.Load("train", data.Source{Path: path}, f, letters{}, o)
}

func (letters) EncodeAfter(_, text string) ([]int32, error) {
	return letters{}.Encode(text)
}

func format(t *testing.T, input, target string, labels ...data.Label) *data.Format {
	t.Helper()
	f, err := data.NewFormat(input, target, labels)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestARowHasItsInputItsTargetAndTheEndToken(t *testing.T) {
	rows := "\ufeff" + `{"a": "xy", "n": 7, "b": "z"}` + "\r\n\n" + `{"a": "q", "n": 8, "b": "w"}`
	s, err := load(t, rows, format(t, "{a}{n}:", "={b}"), options)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 2 || s.Rows[1].Line != 3 {
		t.Fatalf("rows are %+v, want 2 rows, the second from line 3", s.Rows)
	}
	r := s.Rows[0]
	if !slices.Equal(r.Input, []int32{1, 'x', 'y', '7', ':'}) ||
		!slices.Equal(r.Target, []int32{'=', 'z', 2}) || r.Label != -1 {
		t.Errorf("row is %+v, want input BOS xy7:, target =z EOS, no label", r)
	}
}

func TestLabelsAreFoundByTheirValues(t *testing.T) {
	f := format(t, "{a}", " {y}", data.Label{Value: "0", Name: "no"},
		data.Label{Value: "1", Name: "yes"})
	s, err := load(t, `{"a":"x","y":1}`+"\n"+`{"a":"x","y":"0"}`, f, options)
	if err != nil {
		t.Fatal(err)
	}
	if s.Rows[0].Label != 1 || s.Rows[1].Label != 0 ||
		!slices.Equal(s.Rows[0].Target, []int32{' ', 'y', 'e', 's', 2}) {
		t.Errorf("rows are %+v, want labels 1 and 0", s.Rows)
	}
	choices, err := f.Choices(letters{})
	if err != nil || len(choices) != 2 || !slices.Equal(choices[0].IDs, []int32{' ', 'n', 'o'}) {
		t.Errorf("choices are %v (%v), want 2, the first \" no\"", choices, err)
	}
}

func TestEveryBrokenRowIsReportedWithItsLine(t *testing.T) {
	rows := []string{
		`{"a":"x","b":"y"}`,
		`{"a":"x"`,
		`[1]`,
		`{"a":"x"}`,
		`{"b":"y"}`,
		`{"a":"x","b":""}`,
		`{"a":"x","a":"z","b":"y"}`,
		`{"a":"a text that is much longer than twenty","b":"y"}`,
		`{"a":"!","b":"y"}`,
		`{"a":"x","b":"y"} more`,
		`{"a":null,"b":"y"}`,
		"{\"a\":\"\xff\",\"b\":\"y\"}",
	}
	_, err := load(t, strings.Join(rows, "\n"), format(t, "{a}", "{b}"), options)
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		"2: not JSON",
		"3: not a JSON object",
		`4: target: no field "b" in the row; it has "a"`,
		`5: input: no field "a" in the row`,
		"6: the target has no token",
		`7: duplicate field "a"`,
		"8: the row has 41 tokens, but data.max_tokens is 20",
		"9: input: no token for !",
		"10: text after the object",
		`11: input: the field "a" is null`,
		"12: the line is not valid UTF-8",
	} {
		if i >= len(lines) || !strings.Contains(lines[i], "rows.jsonl:"+want) {
			t.Errorf("line %d of the error is %q, want %q", i+1, lines[min(i, len(lines)-1)], want)
		}
	}
}

func TestALineThatIsTooLongIsNamedByItsNumber(t *testing.T) {
	rows := "\n\n" + `{"a":"x","b":"y"}` + "\n\n" + strings.Repeat("x", 17<<20)
	_, err := load(t, rows, format(t, "{a}", "{b}"), options)
	if err == nil || !strings.Contains(err.Error(), "rows.jsonl:5: the line is longer than 16 MB") {
		t.Errorf("error is %v, want one with the line number 5", err)
	}
}

func TestTheSameMistakeIsReportedOnceWithItsRows(t *testing.T) {
	for _, c := range []struct{ what, rows, want string }{
		{"broken JSON", strings.Repeat("{\n", 50),
			"1: not JSON: the line ends before the object does (and 49 more: line 2, 3, 4, …)"},
		{"numbers that differ", `{"a":"abcdefghijklmnopqrstuvwxyz","b":"y"}` + "\n" +
			`{"a":"abcdefghijklmnopqrstuvwxyz1234","b":"y"}`,
			"1: the row has 29 tokens, but data.max_tokens is 20 " +
				"(data.on_too_long can be drop or cut_input) (and 1 more: line 2)"},
		{"two mistakes in turn", strings.Repeat(`{"a":"x"}`+"\n"+`{"a":"x","b":null}`+"\n", 3),
			`1: target: no field "b" in the row; it has "a" (and 2 more: line 3, 5)` + "\n" +
				`2: target: the field "b" is null (and 2 more: line 4, 6)`},
		{"lines of text", "hello\nworld\n",
			"1: not a JSON object: invalid character 'h' looking for beginning of value " +
				"(and 1 more: line 2)"},
	} {
		_, err := load(t, c.rows, format(t, "{a}", "{b}"), options)
		if err == nil {
			t.Errorf("%s: no error", c.what)
			continue
		}
		got := regexp.MustCompile(`(?m)^.*rows\.jsonl:`).ReplaceAllString(err.Error(), "")
		if got != c.want {
			t.Errorf("%s: error is\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

func TestTwentyDifferentMistakesAreListed(t *testing.T) {
	var rows strings.Builder
	for i := range 25 {
		fmt.Fprintf(&rows, `{"a":"x","y":"value %c"}`+"\n", 'a'+i)
	}
	f := format(t, "{a}", " {y}", data.Label{Value: "0", Name: "no"}, data.Label{Value: "1", Name: "yes"})
	_, err := load(t, rows.String(), f, options)
	if err == nil || strings.Count(err.Error(), "\n") != 20 ||
		!strings.HasSuffix(err.Error(), "and 5 more rows with errors") {
		t.Errorf("error is %v, want 20 mistakes and the number of the other rows", err)
	}
}

func TestLongRowsAreCutOrDroppedOnlyWhenAsked(t *testing.T) {
	rows := `{"a":"abcdefghijklmnopqrstuvwxyz","b":"YZ"}` + "\n" + `{"a":"x","b":"Y"}`
	f := format(t, "{a}:", "{b}")
	o := options
	o.OnTooLong = data.TooLongDrop
	s, err := load(t, rows, f, o)
	if err != nil || len(s.Rows) != 1 || s.Dropped != 1 ||
		!strings.HasSuffix(strings.Join(s.Notes(), "|"), "rows.jsonl: 1 of 2 rows were too long and were dropped") {
		t.Errorf("drop: set is %+v (%v), want 1 row left", s, err)
	}
	o.OnTooLong = data.TooLongCutInput
	s, err = load(t, rows, f, o)
	short := "rows.jsonl: 1 of 2 rows were too long and had the end of their longest field cut"
	if err != nil || s.Cut != 1 || !strings.HasSuffix(strings.Join(s.Notes(), "|"), short) ||
		len(s.Rows[0].Input)+len(s.Rows[0].Target) != 20 ||
		!slices.Equal(s.Rows[0].Target, []int32{'Y', 'Z', 2}) || s.Rows[0].Text != "abcdefghijklmno:" {
		t.Errorf("cut: set is %+v (%v), want the first input cut to 20 tokens in all", s, err)
	}
	o.MaxTokens = 3
	if _, err = load(t, rows, f, o); err == nil ||
		!strings.Contains(err.Error(), "leave 0 tokens for the input") {
		t.Errorf("a target without room for an input: error is %v", err)
	}
	o.OnTooLong = data.TooLongDrop
	o.MaxTokens = 2
	if _, err = load(t, rows, f, o); err == nil || !strings.Contains(err.Error(), "all 2 rows") {
		t.Errorf("all rows dropped: error is %v", err)
	}
}

func TestARowHasAtMostMaxTokens(t *testing.T) {
	f := format(t, "{a}", "{b}")
	// 20 tokens with BOS and the end token.
	if _, err := load(t, `{"a":"abcdefghijklmnopq","b":"Y"}`, f, options); err != nil {
		t.Error(err)
	}
	_, err := load(t, `{"a":"abcdefghijklmnopqr","b":"Y"}`, f, options)
	if err == nil || !strings.Contains(err.Error(), "the row has 21 tokens, but data.max_tokens is 20") {
		t.Errorf("21 tokens: error is %v", err)
	}
}

func TestTheLongestFieldIsCutToWhatFits(t *testing.T) {
	for _, c := range []struct {
		row  string
		most int
		want string
	}{
		{`{"a":"abc","c":"abcdef","b":"Y"}`, 9, "abc:ab"},
		{`{"a":"abc","c":"abc","b":"Y"}`, 9, "ab:abc"}, // of equals the first
		{`{"a":"","c":"abcdef","b":"Y"}`, 5, ":a"},
		{`{"a":"","c":"abcdef","b":"Y"}`, 4, ":"}, // BOS, the colon, the target and its end
	} {
		o := options
		o.MaxTokens, o.OnTooLong = c.most, data.TooLongCutInput
		s, err := load(t, c.row, format(t, "{a}:{c}", "{b}"), o)
		if err != nil || s.Rows[0].Text != c.want {
			t.Errorf("%s cut to %d tokens: %+v (%v), want input %q", c.row, c.most, s, err, c.want)
		}
	}
}

// heads is a tokenizer that notes what targets are encoded after.
type heads struct {
	letters
	heads *[]string
}

func (h heads) EncodeAfter(head, text string) ([]int32, error) {
	*h.heads = append(*h.heads, head)
	return h.Encode(text)
}

func TestATargetIsEncodedAfterWhatAllInputsEndWith(t *testing.T) {
	for input, want := range map[string]string{"{a}\nAnswer:": "\nAnswer:", "{a}": "", "Q: {a}\nA: {b}.": "."} {
		var got []string
		f := format(t, input, " {y}", data.Label{Value: "0", Name: "no"}, data.Label{Value: "1", Name: "yes"})
		if _, err := f.Choices(heads{heads: &got}); err != nil || !slices.Equal(got, []string{want, want}) {
			t.Errorf("input %q: targets are encoded after %q (%v), want %q", input, got, err, want)
		}
	}
}

func TestErrorsListAtMostTwentyNames(t *testing.T) {
	for n, want := range map[int]string{20: `"f19"`, 21: `"f19", and 1 more`} {
		var row []string
		var labels []data.Label
		for i := range n {
			row = append(row, fmt.Sprintf(`"f%02d":1`, i))
			labels = append(labels, data.Label{Value: fmt.Sprintf("f%02d", i), Name: fmt.Sprint(i)})
		}
		_, err := load(t, "{"+strings.Join(row, ",")+"}", format(t, "{a}", "x"), options)
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d fields: error is %v, want it to end with %s", n, err, want)
		}
		if n > 20 {
			want = `"f19", …`
		}
		_, err = load(t, `{"a":"x","y":"z"}`, format(t, "{a}", "{y}", labels...), options)
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d labels: error is %v, want it to end with %s", n, err, want)
		}
	}
	for n, more := range map[int]string{60: "", 61: "…"} {
		_, err := load(t, `{"`+strings.Repeat("é", n)+`":1}`, format(t, "{a}", "x"), options)
		if want := `it has "` + strings.Repeat("é", 60) + more + `"`; err == nil ||
			!strings.HasSuffix(err.Error(), want) {
			t.Errorf("a name of %d letters: error is %v, want %s", n, err, want)
		}
	}
}

func TestInvalidTemplatesAndLabelsAreRefused(t *testing.T) {
	ab := []data.Label{{Value: "a", Name: "a"}, {Value: "b", Name: "b"}}
	for _, c := range []struct {
		input, target string
		labels        []data.Label
		want          string
	}{
		{"{a", "x", nil, "{ without }"},
		{"a}", "x", nil, "} without {"},
		{"{}", "x", nil, "field without a name"},
		{"{a{b}}", "x", nil, "{ without }"},
		{"{a}", "{x} {y}", ab, "must have exactly one field"},
		{"{y}", "{y}", ab, "contains the label's field"},
		{"{a}", "{y}", ab[:1], "at least two"},
		{"{a}", "{y}", append(ab, ab[0]), "labels: duplicate"},
	} {
		if _, err := data.NewFormat(c.input, c.target, c.labels); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("input %q, target %q: error is %v, want one with %q", c.input, c.target, err,
				c.want)
		}
	}
	f := format(t, "{a}", " {y}", data.Label{Value: "0", Name: "x"}, data.Label{Value: "1", Name: "x "})
	if _, err := f.Choices(letters{}); err != nil {
		t.Errorf("labels that differ in a token: error is %v, want none", err)
	}
}

func TestATemplateReplacesFieldsAndKeepsOtherText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var source, want strings.Builder
		values := map[string]string{}
		for range rapid.IntRange(0, 6).Draw(t, "parts") {
			if rapid.Bool().Draw(t, "field") {
				name, value := rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "name"),
					rapid.String().Draw(t, "value")
				if old, ok := values[name]; ok {
					value = old
				}
				values[name] = value
				source.WriteString("{" + name + "}")
				want.WriteString(value)
			} else {
				text := rapid.String().Draw(t, "text")
				source.WriteString(strings.NewReplacer("{", "{{", "}", "}}").Replace(text))
				want.WriteString(text)
			}
		}
		tpl, err := data.ParseTemplate(source.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpl.Fill(data.Texts(values))
		if err != nil || got != want.String() {
			t.Fatalf("%q fills to %q (%v), want %q", source.String(), got, err, want.String())
		}
	})
}

func TestTheOrderDependsOnlyOnSeedAndEpoch(t *testing.T) {
	a, b := data.Order(50, true, 1, 0), data.Order(50, true, 1, 0)
	c, d := data.Order(50, true, 1, 1), data.Order(50, true, 2, 0)
	if !slices.Equal(a, b) || slices.Equal(a, c) || slices.Equal(a, d) {
		t.Error("the order does not depend on seed and epoch alone")
	}
	// A run goes on with a later version in the same order.
	for epoch := range uint64(3) {
		want := rand.New(rand.NewPCG(7, 0x6f72646572+epoch<<40)).Perm(9)
		if got := data.Order(9, true, 7, int(epoch)); !slices.Equal(got, want) {
			t.Errorf("the order of epoch %d is %v, want %v", epoch, got, want)
		}
	}
	slices.Sort(a)
	if !slices.Equal(a, data.Order(50, false, 1, 0)) {
		t.Error("the order is not a permutation of the rows")
	}
}
