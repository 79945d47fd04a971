package chat_test

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"ptune/internal/chat"
)

var goldens = flag.String("goldens", "../../testdata/chat/goldens.json", "renderings to compare with")

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
	live := *goldens != flag.Lookup("goldens").DefValue // any templates: some are refused, but what is rendered is right
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
				t.Errorf("%s: %v: %v", c.Name, k.Messages, err)
			case got != *k.Text:
				t.Errorf("%s: %v renders to\n%q, want\n%q", c.Name, k.Messages, got, *k.Text)
			default:
				equal++
			}
		}
	}
	t.Logf("| %d templates, %d of them refused | %d texts equal, %d refused |", len(g.Templates), refused, equal, unable)
}
