package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"ptune/internal/data"
)

// Starter is what a first task file is made of.
type Starter struct {
	File  string // where the task file will be
	Model string
	Rows  string   // the training file
	Valid string   // the validation file; empty: part of the rows is set aside
	Chat  bool     // the model has a chat template
	Set   []string // settings as of --set
	*data.Guess

	ValidFraction float64 // share of the rows to set aside if there is no validation file
	EvalEvery     int     // steps
	EvalRows      int     // 0: all
}

// Text returns a commented task file, as a person would write it. Its on_too_long is error, and
// CutInput changes that.
func (s Starter) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	out := filepath.ToSlash(filepath.Join(filepath.Dir(s.File), s.name()))
	line("# ptune train --config %s", s.File)
	line("# ptune eval --prompt %s.st", out)
	line("# All keys and their defaults: ptune help train\n")
	line("model: %s", quoteYAML(s.Model))
	line("\nprompt:")
	line("  tokens: 16                  # virtual tokens; more for hard tasks, up to 100")
	line("  init: text")
	line("  text: %s   # the instruction you would give in words", quoteYAML(s.instruction()))
	line("\ndata:\n  train: %s", quoteYAML(s.Rows))
	if s.Valid != "" {
		line("  valid: %s", quoteYAML(s.Valid))
	} else {
		line("  valid_fraction: %-12g# share of the rows to choose the best prompt by", s.ValidFraction)
	}
	if s.Columns != nil {
		var columns []string
		for _, c := range s.Columns {
			columns = append(columns, quoteYAML(c))
		}
		line("  columns: [%s]    # the first line of the file is a row", strings.Join(columns, ", "))
	}
	for _, x := range []struct{ key, value string }{
		{"separator", s.Separator}, {"quotes", s.Quotes}, {"encoding", s.Encoding},
	} {
		if x.value != "" {
			line("  %s: %s", x.key, quoteYAML(x.value))
		}
	}
	switch {
	case s.Messages != "":
		line("  messages: %s      # conversations in the chat template; each answer is a target",
			quoteYAML(s.Messages))
	case s.Chat: // the template marks where an answer begins
		line("  input: %s", quoteYAML(s.input()))
		line("  target: %s", quoteYAML("{"+s.Target+"}"))
		line("  chat: true                  # input and target as user and assistant of the chat template")
	default:
		line("  input: %s", quoteYAML(s.input()+"\nAnswer:"))
		line("  target: %s", quoteYAML(" {"+s.Target+"}"))
	}
	if len(s.Labels) > 0 {
		line("  labels:                     # value in the file: text that the model predicts")
		for _, l := range s.Labels {
			line("    %s: %s", quoteYAML(l.Value), quoteYAML(l.Name))
		}
	}
	line("  %s error          # or cut_input, drop", tooLongKey)
	line("\ntrain:\n  epochs: 3\n  batch_size: %d\n  eval_every: %d", StarterBatch, s.EvalEvery)
	if s.EvalRows > 0 {
		line("  eval_rows: %-17d# of the validation rows; more take over a fifth of the time", s.EvalRows)
	}
	line("  seed: 0")
	line("\noutput:\n  prompt: %s\n  dir: %s", quoteYAML(out+".st"), quoteYAML(out))
	text := b.String()
	for _, setting := range s.Set {
		text = withSetting(text, setting)
	}
	return text
}

// StarterBatch is train.batch_size of a starter.
const StarterBatch = 16

// withSetting returns a starter's text with a key set as --set does it. The key replaces the line
// that has it and the lines below that are indented more, or is added to its section.
func withSetting(text, setting string) string {
	key, value, _ := strings.Cut(setting, "=")
	field := reflect.ValueOf(Default()).Elem()
	for name := range strings.SplitSeq(key, ".") {
		field, _ = fieldOf(field, name)
	}
	if field.Kind() == reflect.String {
		value = quoteYAML(value)
	}
	section, name, nested := strings.Cut(key, ".")
	if !nested {
		return regexp.MustCompile(`(?m)^`+section+`:.*$`).ReplaceAllLiteralString(text, key+": "+value)
	}
	line := "  " + name + ": " + value + "\n"
	old := regexp.MustCompile(`(?m)^(` + section + `:\n(?:(?: .*)?\n)*?)  ` + name + `:.*\n(?:   .*\n)*`)
	if at := old.FindStringSubmatchIndex(text); at != nil {
		return text[:at[3]] + line + text[at[1]:]
	}
	begin := regexp.MustCompile(`(?m)^` + section + `:\n`)
	at := begin.FindStringIndex(text)
	return text[:at[1]] + line + text[at[1]:]
}

// Settings returns the task that settings alone make, and the mistakes in them.
func Settings(settings []string) (*Task, error) {
	t := Default()
	d := &decoder{places: map[string]string{}}
	for _, s := range settings {
		d.set(s, t)
	}
	t.places = d.places
	return t, errors.Join(d.errs...)
}

const tooLongKey = "on_too_long:"

// CutInput returns the text of a starter with inputs that are too long cut instead of refused.
func CutInput(text string) string {
	return strings.Replace(text, tooLongKey+" error ", tooLongKey+" cut_input ", 1)
}

// input returns the template of the fields of the input.
func (s Starter) input() string {
	var fields []string
	for _, f := range s.Texts {
		fields = append(fields, "{"+f+"}")
	}
	return strings.Join(fields, "\n")
}

// name returns the name of the prompt: that of the task file or of the rows, if it says something.
func (s Starter) name() string {
	for _, path := range []string{s.File, s.Rows} {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if !slices.Contains([]string{"task", "train", "data", "rows"}, name) {
			return name
		}
	}
	return "prompt"
}

// instruction returns the text that the prompt is initialised from.
func (s Starter) instruction() string {
	switch n := len(s.Labels); {
	case n == 0:
		return "Answer:"
	case n <= 6:
		var names []string
		for _, l := range s.Labels {
			names = append(names, l.Name)
		}
		slices.Sort(names)
		return "Classify the text as " + strings.Join(names, ", ") + ":"
	}
	return "Classify the text by its " + s.Target + ":"
}

// quoteYAML returns s as a YAML scalar in double quotes.
func quoteYAML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
