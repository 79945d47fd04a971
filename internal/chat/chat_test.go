package chat_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"ptune/internal/chat"
)

var goldens = flag.String("goldens", "../../testdata/chat/goldens.json",
	"file of templates and the texts that transformers renders")

type golden struct {
	Tokens    chat.Tokens
	Templates []struct {
		Name, Source string
		Cases        []struct {
			Messages []chat.Message
			Begin    bool
			Text     *string
		}
	}
}

func TestRenderingsEqualTransformers(t *testing.T) {
	raw, err := os.ReadFile(*goldens)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	// Of templates from elsewhere some may be refused, but what is rendered must be right.
	live := *goldens != flag.Lookup("goldens").DefValue
	equal, refused, unable := 0, 0, 0
	for _, c := range g.Templates {
		p, err := chat.Parse(c.Name, c.Source, g.Tokens)
		if err != nil {
			if refused++; !live {
				t.Error(err)
			}
			t.Logf("refused: %v", err)
			continue
		}
		for _, k := range c.Cases {
			got, err := p.Render(k.Messages, k.Begin)
			switch {
			case k.Text == nil && err == nil:
				t.Errorf("%s: %v renders to %q, want an error", c.Name, k.Messages, got)
			case k.Text == nil:
			case err != nil && live:
				unable++
				t.Logf("not rendered: %v", err)
			case err != nil:
				t.Errorf("%s: %v: error %v", c.Name, k.Messages, err)
			case got != *k.Text:
				t.Errorf("%s: %v renders to\n%q, want\n%q", c.Name, k.Messages, got, *k.Text)
			default:
				equal++
			}
		}
	}
	t.Logf("| %d templates, %d of them refused | %d texts equal, %d refused |", len(g.Templates),
		refused, equal, unable)
}

func TestBrokenAndUnsafeTemplatesAreRefused(t *testing.T) {
	for source, want := range map[string]string{
		`{% include "/etc/hostname" %}`:                            "include",
		`{% import "/etc/hostname" as x %}`:                        "import",
		`{% extends "/etc/hostname" %}`:                            "extends",
		`{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}`:          "nested more than 50 deep",
		`{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}`:  "recursive loops",
		`{% for i in range(1000000000) %}{% endfor %}`:             "more than 100000 numbers",
		`{% for i in range(20000) %}{{ "x" * 10000 }}{% endfor %}`: "more than 16 MB",
		`{{ 1 % 0 }}`:                            "zero",
		`{{ raise_exception("turn it round") }}`: "raise_exception: turn it round",
		`{{ strftime_now("%d") }}`:               "strftime_now",
		`{{ ["a"] | random }}`:                   `the filter "random" is not available`,
		`{{ messages[0].content }}`:              `leaves out the content of a turn of the assistant: "ab"`,
		`{% for m in messages %}{{ m.content.nosuch() }}{% endfor %}`: "nosuch",
		`{% if`:                                  "cannot parse the chat template",
		`{{ messages | tojson }}`:                "tojson takes a string",
		"{#" + strings.Repeat("x", 1<<18) + "#}": "want at most 262144",
		strings.Repeat("{% if true %}", 3000):    "cannot parse the chat template",
		`{{ ` + strings.Repeat("(", 50000) + `1` +
			strings.Repeat(")", 50000): "cannot parse the chat template",
	} {
		p, err := chat.Parse("m", source, nil)
		if err == nil {
			_, err = p.Render([]chat.Message{
				{Role: "user", Content: "hello"},
				{Role: "assistant", Content: "ab"},
			}, false)
		}
		if err == nil {
			t.Errorf("%.80s: no error, want one with %q", source, want)
		} else if got := err.Error(); !strings.Contains(got, want) || strings.Contains(got, "\n") ||
			len(got) > 500 {
			t.Errorf("%.80s: error is %q, want one with %q", source, got, want)
		}
	}
}

func TestATemplateIsFoundWhereTransformersFindsIt(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	say := []chat.Message{{Role: "user", Content: "x"}}
	for name, c := range map[string]struct {
		dir  fstest.MapFS
		want string
	}{
		"a file before the setting": {
			fstest.MapFS{
				"chat_template.jinja":   file("file {{ messages[0].content }}"),
				"tokenizer_config.json": file(`{"chat_template": "setting"}`),
			},
			"file x",
		},
		"the setting, with tokens": {
			fstest.MapFS{"tokenizer_config.json": file(
				`{"chat_template": "{{ bos_token + messages[-1].content + eos_token }}"}`)},
			"<s>x</s>",
		},
		"of several, the default": {
			fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": [
				{"name": "tool_use", "template": "t"},
				{"name": "default", "template": "d {{ messages[0]['content'] }}"}]}`)},
			"d x",
		},
		"of an object, the default": {
			fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": {
				"rag": "r", "default": "o {{ messages[0].content }}"}}`)},
			"o x",
		},
		"a folder of templates": {
			fstest.MapFS{
				"chat_templates/default.jinja": file("f {{ messages[0].content }}"),
				"chat_templates/rag.jinja":     file("r"),
				"tokenizer_config.json":        file(`{"chat_template": "setting"}`),
			},
			"f x",
		},
		"null beside a file": {
			fstest.MapFS{
				"chat_template.jinja":   file("n {{ messages[0].content }}"),
				"tokenizer_config.json": file(`{"chat_template": null}`),
			},
			"n x",
		},
	} {
		p, err := chat.Open("m", c.dir, chat.Tokens{"bos_token": "<s>", "eos_token": "</s>"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got, err := p.Render(say, false); got != c.want || err != nil {
			t.Errorf("%s: renders to %q (%v), want %q", name, got, err, c.want)
		}
	}
	large := file("{" + strings.Repeat(" ", 16<<20) + "}")
	_, err := chat.Open("m", fstest.MapFS{"tokenizer_config.json": large}, nil)
	if err == nil || !strings.Contains(err.Error(), "tokenizer_config.json is larger than 16 MB") {
		t.Errorf("a file of more than 16 MB: error is %v, want one with the limit", err)
	}
	for _, none := range []string{`{}`, `{"chat_template": null}`, `{"chat_template": ""}`, `{"chat_template": []}`} {
		_, err = chat.Open("m", fstest.MapFS{"tokenizer_config.json": file(none)}, nil)
		if !errors.Is(err, chat.ErrNone) {
			t.Errorf("%s: error is %v, want ErrNone", none, err)
		}
	}
	const named = "it has the templates rag, tool_use, and none is named default"
	for _, c := range []struct {
		dir  fstest.MapFS
		want string
	}{
		{fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": [
			{"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r"}]}`)}, named},
		{fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": {"tool_use": "t", "rag": "r"}}`)}, named},
		{fstest.MapFS{
			"chat_templates/rag.jinja": file("r"),
			"tokenizer_config.json":    file(`{"chat_template": "not read, as in transformers"}`),
		}, "it has the templates rag, and"},
		{fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": 7}`)},
			"chat_template is 7, want a template"},
	} {
		if _, err := chat.Open("m", c.dir, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: error is %v, want one with %q", c.dir, err, c.want)
		}
	}
}
