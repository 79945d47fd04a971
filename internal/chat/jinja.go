package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// environment returns what a template can use: the library's functions that only compute, and the
// functions that transformers adds. It leaves out what reads files, knows the date or is random.
func (t *Template) environment() *exec.Environment {
	tags := exec.NewControlStructureSet(map[string]parser.ControlStructureParser{
		"generation": generation, "for": plainFor, "macro": t.macro,
	})
	for _, name := range []string{"if", "set", "raw", "with", "do", "break", "continue", "filter"} {
		tag, _ := builtins.ControlStructures.Get(name)
		tags.Register(name, tag)
	}
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	filters.Replace("tojson", toJSON)
	filters.Replace("random", unavailable("random"))
	texts := map[string]exec.Method[string]{
		"strip": strip(true, true), "lstrip": strip(true, false), "rstrip": strip(false, true),
		"split": split,
	}
	for _, name := range []string{
		"capitalize", "count", "endswith", "find", "index", "isalpha", "isdigit", "join", "lower",
		"replace", "rfind", "splitlines", "startswith", "title", "upper",
	} {
		if m, ok := builtins.Methods.Str.Get(name); ok {
			texts[name] = m
		}
	}
	methods := builtins.Methods
	methods.Str = exec.NewMethodSet(texts)
	namespace, _ := builtins.GlobalFunctions.Get("namespace")
	dict, _ := builtins.GlobalFunctions.Get("dict")
	return &exec.Environment{
		Context: exec.NewContext(map[string]any{
			"namespace": namespace, "dict": dict, "range": rangeList, "raise_exception": raise,
		}).Update(builtins.GlobalVariables),
		Filters: filters, Tests: builtins.Tests, ControlStructures: tags, Methods: methods,
	}
}

// list is a list with Python's negative indices. The library's own lists fail at -len.
type list []any

func (l list) GetItem(key any) (*exec.Value, bool) {
	i, ok := key.(int)
	if i < 0 {
		i += len(l)
	}
	if !ok || i < 0 || i >= len(l) {
		return exec.AsValue(nil), false
	}
	return exec.AsValue(l[i]), true
}

// strip returns Python's str.strip, lstrip or rstrip. The library's strip only spaces, not all
// white space.
func strip(left, right bool) exec.Method[string] {
	return func(s string, _ *exec.Value, params *exec.VarArgs) (any, error) {
		remove := unicode.IsSpace
		if len(params.Args) == 1 && params.First().IsString() {
			remove = func(r rune) bool { return strings.ContainsRune(params.First().String(), r) }
		} else if len(params.Args) > 0 && !params.First().IsNil() || len(params.KwArgs) > 0 {
			return nil, errors.New("strip() takes one string")
		}
		if left {
			s = strings.TrimLeftFunc(s, remove)
		}
		if right {
			s = strings.TrimRightFunc(s, remove)
		}
		return s, nil
	}
}

// split is Python's str.split(separator).
func split(s string, _ *exec.Value, params *exec.VarArgs) (any, error) {
	var parts []string
	switch {
	case len(params.KwArgs) > 0 || len(params.Args) > 1:
		return nil, errors.New("split() takes one string")
	case len(params.Args) == 0:
		parts = strings.Fields(s)
	case !params.First().IsString() || params.First().String() == "":
		return nil, errors.New("split() takes a string that is not empty")
	default:
		parts = strings.Split(s, params.First().String())
	}
	l := make(list, len(parts))
	for i, p := range parts {
		l[i] = p
	}
	return l, nil
}

const raised = "raise_exception: "

// raise is raise_exception: it ends the rendering with the template's message.
func raise(_ *exec.Evaluator, params *exec.VarArgs) (string, error) {
	return "", errors.New(raised + params.First().String())
}

// rangeList is Python's range(), as a list.
func rangeList(_ *exec.Evaluator, params *exec.VarArgs) ([]int, error) {
	from, to, step := 0, 0, 1
	for _, a := range params.Args {
		if !a.IsInteger() {
			return nil, fmt.Errorf("range() takes whole numbers, not %s", a)
		}
	}
	switch len(params.Args) {
	case 1:
		to = params.Args[0].Integer()
	case 2, 3:
		from, to = params.Args[0].Integer(), params.Args[1].Integer()
		if len(params.Args) == 3 {
			step = params.Args[2].Integer()
		}
	default:
		return nil, errors.New("range() takes one to three numbers")
	}
	if step == 0 {
		return nil, errors.New("range() has a step of 0")
	}
	list := []int{}
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if len(list) == maxRange {
			return nil, fmt.Errorf("range() has more than %d numbers", maxRange)
		}
		list = append(list, i)
	}
	return list, nil
}

func unavailable(name string) exec.FilterFunction {
	return func(*exec.Evaluator, *exec.Value, *exec.VarArgs) *exec.Value {
		return exec.AsValue(fmt.Errorf("the filter %q is not available to chat templates", name))
	}
}

// toJSON writes strings, whole numbers and booleans as Python's json.dumps(…, ensure_ascii=False)
// does. Templates use it on lists and objects only for tools, which are not supported.
func toJSON(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	if !in.IsString() && !in.IsInteger() && !in.IsBool() && !in.IsNil() {
		return exec.AsValue(errors.New("tojson takes a string, a whole number or a boolean"))
	}
	return exec.AsSafeValue(python(in.Interface()))
}

// python returns a value as json.dumps writes it.
func python(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	// encoding/json escapes two line separators that Python does not. The pair \\ is in the list so
	// that the replacer skips an escaped backslash before "u2028".
	s := strings.TrimSuffix(b.String(), "\n")
	return strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(s)
}

// quoted returns a text as tojson writes it, without the quotation marks.
func quoted(s string) string { return strings.Trim(python(s), `"`) }

// body is a tag that renders its content unchanged.
type body struct {
	at      *tokens.Token
	content *nodes.Wrapper
}

func (b *body) Position() *tokens.Token { return b.at }
func (b *body) String() string          { return "generation" }
func (b *body) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(b.content)
}

// generation parses {% generation %}, with which templates mark the assistant's tokens for
// training.
func generation(p, args *parser.Parser) (nodes.ControlStructure, error) {
	b := &body{at: p.Current()}
	var err error
	b.content, _, err = p.WrapUntil("endgeneration")
	return b, err
}

// plainFor parses loops. It refuses recursive ones.
func plainFor(p, args *parser.Parser) (nodes.ControlStructure, error) {
	parse, _ := builtins.ControlStructures.Get("for")
	loop, err := parse(p, args)
	if f, ok := loop.(*controlStructures.ForControlStructure); ok && f.Recursive {
		return nil, errors.New("recursive loops are not available to chat templates")
	}
	return loop, err
}

// counted is a macro with a limit on the depth of nested calls.
type counted struct {
	*controlStructures.MacroControlStructure
	template *Template
}

// macro parses a macro.
func (t *Template) macro(p, args *parser.Parser) (nodes.ControlStructure, error) {
	parse, _ := builtins.ControlStructures.Get("macro")
	m, err := parse(p, args)
	if err != nil {
		return nil, err
	}
	return &counted{m.(*controlStructures.MacroControlStructure), t}, nil
}

func (c *counted) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	call, err := exec.MacroNodeToFunc(c.Macro, r)
	if err != nil {
		return err
	}
	r.Environment.Context.Set(c.Name, exec.Macro(func(params *exec.VarArgs) *exec.Value {
		defer c.template.depth.Add(-1)
		if c.template.depth.Add(1) > maxDepth {
			return exec.AsValue(fmt.Errorf("macro calls are nested more than %d deep", maxDepth))
		}
		return call(params)
	}))
	return nil
}
