package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// setting is a line of a task file that sets a key.
var setting = regexp.MustCompile(`^( *)(\w+): +(\S.*?)\s*(#.*)?$`)

// The test changes each line with a key in many ways, one at a time. Each change must be an
// error with the line and column of the mistake.
func TestEveryMistakeOfATaskFileIsFoundAtItsPlace(t *testing.T) {
	text, err := os.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if _, err := parse("task.yaml", text, nil); err != nil {
		t.Fatal(err)
	}
	const atKey, atValue, inLine = "key", "value", "line"
	tried := 0
	for i, line := range lines {
		m := setting.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		indent, key, value := m[1], m[2], m[3]
		number := regexp.MustCompile(`^[\d.]+$`).MatchString(value)
		words := []string{"true", "false", "auto", "adamw", "linear", "error", "utf-8", "text"}
		word := number || slices.Contains(words, value) || value == "off" && key != "quotes"
		type mutation struct{ name, line, at string }
		is := func(v string) string { return indent + key + ": " + v }
		list := []mutation{
			{"a key that is longer", indent + key + "x: " + value, atKey},
			{"a key in capitals", indent + strings.ToUpper(key) + ": " + value, atKey},
			{"a key with a space", indent + `"` + key + ` ": ` + value, atKey},
			{"a duplicate key", line + "\n" + is(value), "second"},
			{"a list of lists", is("[[1], [2]]"), inLine},
			{"a tree", is("{a: {b: {c: 1}}}"), "inside"},
			{"an unknown alias", is("*nothing"), inLine},
			{"an open quotation mark", is(`"` + strings.Trim(value, `"`)), inLine},
			{"an open bracket", is("[1, 2"), inLine},
			{"no colon", indent + key + " " + value, inLine},
			{"a tab before the key", indent + "\t" + key + ": " + value, inLine},
			{"null", is("~"), atValue},
			{"a tag", is("!!binary aGk="), atValue},
		}
		if word {
			list = append(list,
				mutation{"an unknown word", is("nosuch"), atValue},
				mutation{"an empty text", is(`""`), atValue})
		}
		if number {
			list = append(list,
				mutation{"a negative number", is("-3"), atValue},
				mutation{"not a number", is(".nan"), atValue},
				mutation{"infinity", is(".inf"), atValue},
				mutation{"a number in quotation marks", is(`"` + value + `"`), atValue},
				mutation{"a letter after it", is(value + "x"), atValue})
			if !strings.Contains("anchor weight_decay clip_norm max_decrease min_gain", key) {
				list = append(list, mutation{"too many digits", is("99999999999999999999999"), atValue})
			}
		}
		for _, c := range list {
			tried++
			changed := strings.Join(slices.Concat(lines[:i], []string{c.line}, lines[i+1:]), "\n")
			_, err := parse("task.yaml", []byte(changed), nil)
			if err == nil {
				t.Errorf("line %d, %s: %q is accepted", i+1, c.name, c.line)
				continue
			}
			want := fmt.Sprintf("task.yaml:%d:", i+1)
			switch c.at {
			case atKey:
				want += fmt.Sprintf("%d: ", len(indent)+1)
			case atValue:
				want += fmt.Sprintf("%d: ", len(indent)+len(key)+3)
			case "second":
				want = fmt.Sprintf("task.yaml:%d:%d: ", i+2, len(indent)+1)
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("line %d, %s: %q: the error is %q, want %q in it",
					i+1, c.name, c.line, err, want)
			}
		}
	}
	t.Logf("%d mistakes", tried)
}
