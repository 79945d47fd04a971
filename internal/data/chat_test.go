package data_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ptune/internal/chat"
	"ptune/internal/data"
)

// turns is a chat template that writes each turn as <role name: content>.
type turns struct{}

func (turns) Render(conversation []chat.Message, begin bool) (string, error) {
	var b strings.Builder
	for _, m := range conversation {
		fmt.Fprintf(&b, "<%s%s:%s>", m.Role, m.Name, m.Content)
	}
	if begin {
		b.WriteString("<assistant:")
	}
	return b.String(), nil
}

func conversations(t *testing.T, rows string) (*data.Set, error) {
	t.Helper()
	f := data.NewConversations("m")
	if _, err := f.UseChat(turns{}, letters{}, []int32{'>'}); err != nil {
		t.Fatal(err)
	}
	o := options
	o.MaxTokens = 200
	return load(t, rows, f, o)
}

func TestConversationsAreReadInEachForm(t *testing.T) {
	for _, c := range []struct{ what, turns, want string }{
		{"roles and contents", `{"role":"system","content":"s"},{"role":"user","content":"q"},` +
			`{"role":"assistant","content":"a"}`, "<system:s><user:q><assistant:|a"},
		{"ShareGPT", `{"from":"system","value":"s"},{"from":"human","value":"q"},{"from":"gpt","value":"a"}`,
			"<system:s><user:q><assistant:|a"},
		{"ShareGPT with the names of roles", `{"from":"user","value":"q"},{"from":"assistant","value":"a"}`,
			"<user:q><assistant:|a"},
		{"parts of text", `{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"r"}]},` +
			`{"role":"assistant","content":[{"type":"text","text":"a"}]}`, "<user:qr><assistant:|a"},
		{"names", `{"role":"user","name":"Ann","content":"q"},{"role":"assistant","content":"a","name":null}`,
			"<userAnn:q><assistant:|a"},
		{"an answer of weight 0", `{"role":"user","content":"q"},{"role":"assistant","content":"a","weight":0},` +
			`{"role":"user","content":"r"},{"role":"assistant","content":"b","weight":1}`,
			"<user:q><assistant:a><user:r><assistant:|b"},
		{"weights of other turns", `{"role":"user","content":"q","weight":1},{"role":"assistant","content":"a"}`,
			"<user:q><assistant:|a"},
		{"null keys of Parquet", `{"role":"user","content":"q","tool_calls":null},` +
			`{"role":"assistant","content":"a","weight":null}`, "<user:q><assistant:|a"},
	} {
		set, err := conversations(t, `{"m":[`+c.turns+`]}`)
		if err != nil || len(set.Rows) != 1 {
			t.Errorf("%s: rows are %+v (%v), want one", c.what, set, err)
			continue
		}
		row := set.Rows[0]
		target := string(row.Target[:len(row.Target)-1])
		if got := row.Text + "|" + target; got != c.want {
			t.Errorf("%s: row is %q, want %q", c.what, got, c.want)
		}
	}
}

// ending is a chat template that writes a text after each conversation, or fails.
type ending struct {
	turns
	text string
	err  error
}

func (e ending) Render(conversation []chat.Message, begin bool) (string, error) {
	text, _ := e.turns.Render(conversation, begin)
	if begin {
		return text, e.err
	}
	return text + e.text, e.err
}

func TestTheTokenThatEndsATurnIsTheFirstAfterTheAnswer(t *testing.T) {
	for _, c := range []struct {
		ends []int32
		want int32
	}{
		{[]int32{'>'}, '>'}, {[]int32{2, '>'}, '>'}, {[]int32{'#', 2}, '#'}, {[]int32{'>', 'y'}, 'y'},
	} {
		if got, err := data.NewConversations("m").UseChat(turns{}, letters{}, c.ends); err != nil || got != c.want {
			t.Errorf("ends %v: the template's is %d (%v), want %d", c.ends, got, err, c.want)
		}
	}
	broken := errors.New("undefined variable")
	for template, want := range map[ending]string{
		{err: broken}: "undefined variable", {text: "!"}: "no token for !",
	} {
		if _, err := data.NewConversations("m").UseChat(template, letters{}, []int32{2}); err == nil ||
			err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

func TestEachAnswerIsARowOfAtMostMaxTokens(t *testing.T) {
	f := data.NewConversations("m")
	if _, err := f.UseChat(turns{}, letters{}, []int32{'>'}); err != nil {
		t.Fatal(err)
	}
	o := options
	const row = `{"m":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"assistant","content":"bc"}]}`
	const first, second = len("<user:q><assistant:a") + 1, len("<user:q><assistant:a><assistant:bc") + 1
	for most, want := range map[int]string{
		second:     "",
		second - 1: fmt.Sprintf("the conversation up to answer 2 has %d tokens", second),
		first - 1:  fmt.Sprintf("the conversation up to answer 1 has %d tokens", first),
	} {
		o.MaxTokens = most
		s, err := load(t, row, f, o)
		if want == "" && (err != nil || len(s.Rows) != 2 || s.Rows[0].Label != -1) ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d tokens: rows are %+v (%v), want %q", most, s, err, want)
		}
	}
}

func TestBrokenConversationsAreRefused(t *testing.T) {
	const answer = `,{"role":"assistant","content":"a"}`
	for _, c := range []struct{ turns, want string }{
		{`{"role":"tool","content":"q"}` + answer, `m: turn 1 has the role "tool", want system, user or assistant`},
		{`{"from":"function_call","value":"q"}` + answer, `m: turn 1 has the role "function_call", want`},
		{`{"role":"user","from":"human","content":"q"}` + answer, "m: turn 1 has both role and from"},
		{`{"role":"user","content":"q","value":"q"}` + answer, "m: turn 1 has both content and value"},
		{`{"content":"q"}` + answer, "m: turn 1 has no role"},
		{`{"role":"user"}` + answer, "m: turn 1 has no content"},
		{`{"role":"user","content":7}` + answer, "m: turn 1 has no text in content"},
		{`{"role":"user","content":[{"type":"image_url","image_url":{}}]}` + answer,
			`m: turn 1 has the content type "image_url" in part 1, want only text`},
		{`{"role":"user","content":[{"type":"text"}]}` + answer, `m: turn 1 has the content type "text" in part 1`},
		{`{"role":"user","content":"q","name":7}` + answer, "m: turn 1 has the name 7, want a text"},
		{`{"role":"assistant","content":"q","weight":0.5}`, "m: turn 1 has the weight 0.5, want 0 or 1"},
		{`{"role":"assistant","content":"q","weight":0}`, "m: the conversation has no turn of the assistant to learn"},
		{`{"role":"user","content":"q"},{"role":"assistant","content":"> a"}`, "answer 1 has no token"},
		{`{"role":"user","content":"q","zeal":1,"audio":{}}` + answer, `m: turn 1 has the unknown key "audio", want`},
	} {
		_, err := conversations(t, `{"m":[`+c.turns+`]}`)
		if err == nil || !strings.Contains(err.Error(), "rows.jsonl:1: "+c.want) {
			t.Errorf("turns %s: error is\n%v\nwant one with\n%s", c.turns, err, c.want)
		}
	}
	for row, want := range map[string]string{
		`{"m":"hi"}`:     `the field "m" is a text, want a list`,
		`{"m":null}`:     `the field "m" is null, want a list`,
		`{"n":[]}`:       `no field "m" in the row; it has "n"`,
		`{"m":["q"]}`:    `m: want a list of {"role": …, "content": …} or {"from": …, "value": …}`,
		`{"m":{"a":[]}}`: `the field "m" is an object; {m.name} is its field "name", want a list`,
	} {
		if _, err := conversations(t, row); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("row %s: error is\n%v\nwant\n%s", row, err, want)
		}
	}
}
