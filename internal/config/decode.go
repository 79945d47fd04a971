package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"ptune/internal/data"
)

// decoder fills a Task or a Sweep from YAML nodes. It notes the place of each key and collects
// errors.
type decoder struct {
	file   string
	places map[string]string // place of each dotted key
	errs   []error
}

func (d *decoder) bad(n *yaml.Node, format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("%s: %s", d.place(n), fmt.Sprintf(format, args...)))
}

func (d *decoder) place(n *yaml.Node) string {
	if n.Line == 0 {
		return d.file // a setting from the command line
	}
	return fmt.Sprintf("%s:%d:%d", d.file, n.Line, n.Column)
}

func (d *decoder) task(root *yaml.Node, t *Task) { d.section(root, reflect.ValueOf(t).Elem(), "") }

// section fills a struct from a mapping. prefix is the dotted key of the section and a dot.
func (d *decoder) section(n *yaml.Node, to reflect.Value, prefix string) {
	if n.Kind != yaml.MappingNode {
		d.bad(n, "%s must be a mapping of keys to values, not %s",
			strings.TrimSuffix(prefix, "."), describe(n))
		return
	}
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		name := prefix + key.Value
		field, ok := fieldOf(to, key.Value)
		switch {
		case !ok:
			d.bad(key, "unknown key %q%s%s", key.Value, under(prefix), suggest(name, prefix))
			continue
		case seen[key.Value]:
			d.bad(key, "duplicate key %q%s", key.Value, under(prefix))
			continue
		}
		seen[key.Value] = true
		d.places[name] = d.place(value)
		before := len(d.errs)
		d.value(value, field, name)
		if len(d.errs) > before && field.Kind() != reflect.Struct {
			delete(d.places, name) // keeps its default, which check must not judge
		}
	}
}

// set applies a setting a.b=c. If the key is a text, c is taken literally, else parsed as YAML.
func (d *decoder) set(setting string, t *Task) {
	file := d.file
	defer func() { d.file = file }()
	d.file = "--set " + setting
	key, text, ok := strings.Cut(setting, "=")
	if !ok {
		d.errs = append(d.errs, fmt.Errorf("%s: want key=value, for example --set train.steps=100",
			d.file))
		return
	}
	to := reflect.ValueOf(t).Elem()
	prefix := ""
	for name := range strings.SplitSeq(key, ".") {
		field, ok := fieldOf(to, name)
		if !ok || to.Kind() != reflect.Struct {
			hint := suggest(key, prefix)
			d.errs = append(d.errs, fmt.Errorf("%s: unknown key %q%s", d.file, key, hint))
			return
		}
		to = field
		prefix += name + "."
	}
	d.places[key] = d.file
	if to.Kind() == reflect.String {
		to.SetString(text)
		return
	}
	value, err := parseValue(text)
	if err != nil {
		d.errs = append(d.errs, fmt.Errorf("%s: the value is not YAML: %w", d.file, err))
		return
	}
	clearPlaces(value)
	d.value(value, to, key)
}

// clearPlaces marks a node and its children as coming from the command line.
func clearPlaces(n *yaml.Node) {
	n.Line, n.Column = 0, 0
	for _, c := range n.Content {
		clearPlaces(c)
	}
}

// fieldOf returns the field of a struct that has the YAML key name.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	if v.Kind() != reflect.Struct {
		return v, false
	}
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag == name && tag != "" {
			return v.Field(i), true
		}
	}
	return v, false
}

// value fills one field.
func (d *decoder) value(n *yaml.Node, to reflect.Value, name string) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.bad(n, "%s has a YAML anchor or alias; write the value itself", name)
		return
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.bad(n, "%s has the YAML tag %s; write only the value", name, n.Tag)
		return
	}
	switch p := to.Addr().Interface().(type) {
	case *Sets:
		d.sets(n, p, name)
		return
	case *Labels:
		d.labels(n, p, name)
		return
	case *[]string:
		*p = nil
		if n.Kind != yaml.SequenceNode {
			d.bad(n, "%s must be a list of names, for example [label, text], not %s",
				name, describe(n))
			return
		}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode || c.Tag == "!!null" {
				d.bad(c, "%s must hold names, not %s", name, describeName(c))
				continue
			}
			*p = append(*p, c.Value)
		}
		return
	case *Rate:
		if n.Kind == yaml.ScalarNode && n.Value == "auto" {
			*p = Rate{Auto: true}
			return
		}
		*p = Rate{}
		d.value(n, reflect.ValueOf(&p.Value).Elem(), name)
		return
	case *[2]float64:
		if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
			d.bad(n, "%s must be two numbers, for example [0.9, 0.999], not %s", name, describe(n))
			return
		}
		for i, c := range n.Content {
			d.value(c, to.Index(i), name)
		}
		return
	}
	if to.Kind() == reflect.Struct {
		d.section(n, to, name+".")
		return
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.bad(n, "%s must be %s, not %s", name, kindName(to.Kind()), describe(n))
		return
	}
	ok := false
	switch to.Kind() {
	case reflect.String:
		ok = true // any scalar, as written in the file
		to.SetString(n.Value)
	case reflect.Bool:
		if ok = n.Tag == "!!bool"; ok {
			to.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case reflect.Int:
		var i int
		if ok = n.Tag == "!!int" && n.Decode(&i) == nil; ok {
			to.SetInt(int64(i))
		}
	case reflect.Uint64:
		var u uint64
		if ok = n.Tag == "!!int" && n.Decode(&u) == nil; ok {
			to.SetUint(u)
		}
	case reflect.Float64:
		var f float64
		if f, ok = number(n); ok {
			to.SetFloat(f)
		}
	}
	if !ok {
		d.bad(n, "%s must be %s, not %s", name, kindName(to.Kind()), describe(n))
	}
}

// number returns the finite number of a node. The library reads 1e-5 as a string, but in YAML 1.2
// it is a number.
func number(n *yaml.Node) (f float64, ok bool) {
	switch quoted := n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0; {
	case n.Tag == "!!int" || n.Tag == "!!float":
		ok = n.Decode(&f) == nil
	case n.Tag == "!!str" && !quoted:
		var err error
		f, err = strconv.ParseFloat(n.Value, 64)
		ok = err == nil
	}
	return f, ok && !math.IsNaN(f) && !math.IsInf(f, 0)
}

// sets reads a path, or a mapping of names to paths.
func (d *decoder) sets(n *yaml.Node, to *Sets, name string) {
	*to = nil
	// The empty value of --set data.valid= removes the sets of the file.
	if n.Kind == yaml.ScalarNode && (n.Tag != "!!null" || n.Line == 0) {
		if n.Value != "" {
			*to = Sets{{"valid", n.Value}}
		}
		return
	}
	d.pairs(n, name, "a path or a mapping of names to paths", func(key, value *yaml.Node) {
		*to = append(*to, Set{key.Value, value.Value})
	})
}

// labels reads a list of names, or a mapping of values to names.
func (d *decoder) labels(n *yaml.Node, to *Labels, name string) {
	*to = nil
	if n.Kind == yaml.SequenceNode {
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode || c.Tag == "!!null" {
				d.bad(c, "%s must hold names, not %s", name, describeName(c))
				continue
			}
			*to = append(*to, data.Label{Value: c.Value, Name: c.Value})
		}
		return
	}
	d.pairs(n, name, "a list of names or a mapping of values to names", func(key, value *yaml.Node) {
		*to = append(*to, data.Label{Value: key.Value, Name: value.Value})
	})
}

// pairs calls add for each pair of a mapping. want says what the key accepts, for the error.
func (d *decoder) pairs(n *yaml.Node, name, want string, add func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.bad(n, "%s must be %s, not %s", name, want, describe(n))
		return
	}
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!null":
			d.bad(key, "%s must be %s, but a key is %s", name, want, describeName(key))
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			d.bad(value, "%s.%s must be text, not %s", name, key.Value, describe(value))
		case seen[key.Value]:
			d.bad(key, "duplicate key %s.%s", name, key.Value)
		default:
			seen[key.Value] = true
			add(key, value)
		}
	}
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Int, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	return "text"
}

// describeName describes a node that is no name. Unquoted, ~ and null stand for nothing in YAML.
func describeName(n *yaml.Node) string {
	if n.Tag == "!!null" && n.Value != "" {
		return fmt.Sprintf("%s, which is empty unless it is quoted", n.Value)
	}
	return describe(n)
}

// describe names a node for an error message.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "empty"
	}
	if len(n.Value) > 60 {
		return fmt.Sprintf("%q…", n.Value[:60])
	}
	return fmt.Sprintf("%q", n.Value)
}

func under(prefix string) string {
	if prefix == "" {
		return ""
	}
	return fmt.Sprintf(" under %q", strings.TrimSuffix(prefix, "."))
}

// Keys returns all dotted keys of a task file.
func Keys() []string { return keys(reflect.TypeFor[Task](), "") }

func keys(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("yaml") == "" {
			continue
		}
		name := prefix + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Rate]() {
			out = append(out, name)
			out = append(out, keys(f.Type, name+".")...)
		} else {
			out = append(out, name)
		}
	}
	return out
}

// suggest returns a hint with the key that was probably meant: one of the same section with a
// similar spelling, else one of the same name in another section. It is empty if there is none.
func suggest(name, prefix string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if key := otherNames[last]; key != "" {
		return fmt.Sprintf("; did you mean %q?", key)
	}
	if way := OtherWay(last); way != "" {
		return "; " + way
	}
	best, near := "", len(last)/3+1
	for _, k := range Keys() {
		if !strings.HasPrefix(k, prefix) || strings.Contains(k[len(prefix):], ".") {
			continue
		}
		if n := distance(last, k[len(prefix):]); n <= near && (best == "" || n < distance(last, best)) {
			best = k[len(prefix):]
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	if key := KeyNamed(last); key != "" {
		return fmt.Sprintf("; did you mean %q?", key)
	}
	return ""
}

// distance returns the number of insertions, deletions, replacements and swaps of neighbours that
// turn one word into the other.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range b {
		rows[0][j+1] = j + 1
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
