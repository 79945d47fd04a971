package config

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the task file into README.md")

// everyday are the keys that most task files set. The README shows them first.
var everyday = []string{
	"model", "prompt.tokens", "prompt.init", "prompt.text", "data.train", "data.valid",
	"data.valid_fraction", "data.input", "data.target", "data.labels", "data.max_tokens",
	"data.on_too_long", "train.epochs", "train.batch_size", "train.learning_rate",
	"train.eval_every", "train.seed", "output.prompt", "output.dir",
}

// entry is one key of the reference: its line, with the comment lines that belong to it.
type entry struct {
	section, key string // section is empty at the top level
	lines        []string
}

// entries splits the reference into its keys. A comment line before a key, indented at most as
// deep as the key, belongs to that key. Lines that are indented deeper continue the key before.
func entries(reference string) []entry {
	var list []entry
	var comments []string
	section := ""
	for line := range strings.Lines(reference) {
		text := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		key, value, _ := strings.Cut(text, ":")
		switch {
		case indent > 2:
			last := &list[len(list)-1]
			last.lines = append(last.lines, line)
		case text == "" || strings.HasPrefix(text, "#"):
			comments = append(comments, line)
		case indent == 0 && strings.TrimSpace(value) == "":
			section = key
		default:
			e := entry{key: key, lines: append(comments, line)}
			if indent > 0 {
				e.section = section
				e.key = section + "." + key
			}
			list, comments = append(list, e), nil
		}
	}
	return list
}

// block is a fenced block of YAML with the entries for which in is true.
func block(list []entry, in func(key string) bool) string {
	var b strings.Builder
	b.WriteString("```yaml\n")
	section := ""
	for _, e := range list {
		if !in(e.key) {
			continue
		}
		if e.section != section {
			section = e.section
			b.WriteString(section + ":\n")
		}
		b.WriteString(strings.Join(e.lines, ""))
	}
	b.WriteString("```\n")
	return b.String()
}

func TestTheReadmeShowsTheReferenceInTwoGroups(t *testing.T) {
	list := entries(Reference)
	var keys, sections []string
	for _, e := range list {
		keys, sections = append(keys, e.key), append(sections, e.section)
	}
	want := slices.DeleteFunc(Keys(), func(key string) bool { return slices.Contains(sections, key) })
	if !slices.Equal(slices.Sorted(slices.Values(keys)), slices.Sorted(slices.Values(want))) {
		t.Fatalf("the reference has the keys %v, want %v", keys, want)
	}
	for _, key := range everyday {
		if !slices.Contains(keys, key) {
			t.Errorf("everyday has %s, which is not a key", key)
		}
	}
	const page = "../../README.md"
	const command = " keys: go test ./internal/config -run Reference -update -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	for group, want := range map[string]string{
		"everyday": block(list, func(key string) bool { return slices.Contains(everyday, key) }),
		"other":    block(list, func(key string) bool { return !slices.Contains(everyday, key) }),
	} {
		marker := "<!-- " + group + command
		before, rest, ok := strings.Cut(readme, marker)
		end := strings.Index(rest, "```\n")
		if !ok || end < 0 {
			t.Fatalf("%s has no block after %q", page, marker)
		}
		end += len("```\n")
		if *update {
			readme = before + marker + want + rest[end:]
		} else if got := rest[:end]; got != want {
			t.Errorf(
				"the %s keys in %s are not those of reference.yaml; -update writes them:\n%s\nwant:\n%s",
				group, page, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(readme), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
