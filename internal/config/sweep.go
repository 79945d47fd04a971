package config

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// SweepReference is a sweep file with every key and a comment on what it does.
//
//go:embed sweep.yaml
var SweepReference string

// Sweep is a sweep file: a task file, and values of its keys to try in all combinations.
type Sweep struct {
	Task    string // path
	Preset  string
	Grid    []Axis
	Halving int    // n: after each rung, the best 1/n of the runs continue; 0: no halving
	Rungs   int    // number of halvings
	Dir     string // folder for the results
}

// Axis is a key of the task file and its values, as text for --set.
type Axis struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// Presets returns grids by name: the ablations of Lester et al. (2021), figure 3.
func Presets() map[string][]Axis {
	seeds := Axis{"train.seed", []string{"0", "1", "2"}}
	return map[string][]Axis{
		"lengths": {{"prompt.tokens", []string{"1", "5", "20", "100", "150"}}, seeds},
		"inits":   {{"prompt.init", []string{"uniform", "vocab", "labels"}}, seeds},
		"rates": {
			{"train.learning_rate", []string{"0.001", "0.01", "0.03", "0.1", "0.3", "1"}}, seeds,
		},
	}
}

// LoadSweep reads a sweep file. A dir that is not empty replaces its output. Its error has one line for
// each mistake.
func LoadSweep(path, dir string) (*Sweep, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	name := path
	if path == Stdin {
		path = stdinName
	}
	root, err := parseYAML(path, text)
	if err != nil {
		return nil, err
	}
	d := &decoder{file: path, places: map[string]string{}}
	s := &Sweep{Rungs: 2}
	d.sweep(root, s)
	if s.Dir = cmp.Or(dir, s.Dir); s.Dir == "" && name == Stdin {
		d.bad(root, "output is missing: the folder for the results of a sweep from standard input")
	}
	if s.Task == Stdin {
		d.bad(root, "task is %q, but each run reads it again, so it cannot be standard input", Stdin)
	}
	if err := errors.Join(d.errs...); err != nil {
		return nil, err
	}
	s.Dir = cmp.Or(s.Dir, strings.TrimSuffix(path, filepath.Ext(path)))
	return s, nil
}

func (d *decoder) sweep(root *yaml.Node, s *Sweep) {
	seen := map[string]bool{}
	for pair := range slices.Chunk(root.Content, 2) {
		key, value := pair[0], pair[1]
		if seen[key.Value] {
			d.bad(key, "duplicate key %q", key.Value)
		}
		seen[key.Value] = true
		switch key.Value {
		case "task", "preset", "output":
			if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
				d.bad(value, "%s must be text, not %s", key.Value, describe(value))
				continue
			}
			texts := map[string]*string{"task": &s.Task, "preset": &s.Preset, "output": &s.Dir}
			*texts[key.Value] = value.Value
			if key.Value == "preset" && Presets()[value.Value] == nil {
				d.bad(value, "preset is %q, want lengths, inits or rates", value.Value)
			}
		case "halving", "rungs":
			to, least := &s.Halving, 0
			if key.Value == "rungs" {
				to, least = &s.Rungs, 1
			}
			if value.Tag != "!!int" || value.Decode(to) != nil || *to < least || *to > 64 {
				d.bad(value, "%s must be a whole number from %d to 64, not %s",
					key.Value, least, describe(value))
			}
		case "grid":
			s.Grid = d.grid(value)
		default:
			d.bad(key, "unknown key %q; want task, grid or preset, halving, rungs, output", key.Value)
		}
	}
	if s.Halving == 1 {
		d.bad(root, "halving is 1, which keeps all runs; 2 keeps half of them at each rung")
	}
	if !seen["task"] {
		d.bad(root, "task is missing: the path of the task file to vary")
	}
	if seen["grid"] == seen["preset"] {
		d.bad(root, "want either grid (keys with lists of values) or preset (lengths, inits or rates)")
	}
	if s.Preset != "" {
		s.Grid = Presets()[s.Preset]
	}
}

// grid reads a mapping of keys to lists of values.
func (d *decoder) grid(n *yaml.Node) []Axis {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		d.bad(n, "grid must be a mapping of task file keys to lists of values, "+
			"for example train.seed: [0, 1], not %s", describe(n))
		return nil
	}
	var axes []Axis
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, list := pair[0], pair[1]
		section, _, _ := strings.Cut(key.Value, ".")
		switch {
		case seen[key.Value]:
			d.bad(key, "duplicate key %s in grid", key.Value)
			continue
		case section != "prompt" && section != "train":
			d.bad(key, "grid has %q; only keys of prompt and train can vary, "+
				"because all runs share a base model and its rows", key.Value)
			continue
		case list.Kind != yaml.SequenceNode || len(list.Content) == 0:
			d.bad(list, "%s must be a list of values, not %s", key.Value, describe(list))
			continue
		}
		seen[key.Value] = true
		a := Axis{Key: key.Value}
		for _, v := range list.Content {
			if v.Kind == yaml.ScalarNode {
				a.Values = append(a.Values, v.Value)
				continue
			}
			v.Style = yaml.FlowStyle
			text, err := yaml.Marshal(v)
			if err != nil {
				d.bad(v, "%s: %v", key.Value, err)
			}
			a.Values = append(a.Values, strings.TrimSpace(string(text)))
		}
		axes = append(axes, a)
	}
	return axes
}

// maxRuns is the largest number of runs in a sweep.
const maxRuns = 4096

// Runs returns all combinations of the grid's values, as settings for Load. The last axis varies
// fastest.
func (s *Sweep) Runs() ([][]string, error) {
	runs := [][]string{nil}
	for _, a := range s.Grid {
		var next [][]string
		for _, r := range runs {
			for _, v := range a.Values {
				next = append(next, append(r[:len(r):len(r)], a.Key+"="+v))
			}
		}
		if runs = next; len(runs) > maxRuns {
			return nil, fmt.Errorf("the grid has more than %d combinations", maxRuns)
		}
	}
	return runs, nil
}
