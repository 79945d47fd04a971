package config

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// SweepReference is a sweep file with every key and what it means.
//
//go:embed sweep.yaml
var SweepReference string

// Sweep is a sweep file: a task, and values of its keys that are to be tried in all combinations.
type Sweep struct {
	Task    string // path
	Preset  string
	Grid    []Axis
	Halving int    // after each rung one run in so many goes on; 0: all runs end
	Rungs   int    // of halving
	Dir     string // where the results go
}

// Axis is a key of the task file and the values it takes, as --set would have them.
type Axis struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// Presets are grids by name: the ablations of Lester et al. (2021), figure 3.
func Presets() map[string][]Axis {
	seeds := Axis{"train.seed", []string{"0", "1", "2"}}
	return map[string][]Axis{
		"lengths": {{"prompt.tokens", []string{"1", "5", "20", "100", "150"}}, seeds},
		"inits":   {{"prompt.init", []string{"uniform", "vocab", "labels"}}, seeds},
		"rates":   {{"train.learning_rate", []string{"0.001", "0.01", "0.03", "0.1", "0.3", "1"}}, seeds},
	}
}

// LoadSweep reads a sweep file. Its error has every mistake.
func LoadSweep(path string) (*Sweep, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	root, err := parseYAML(path, text)
	if err != nil {
		return nil, err
	}
	d := &decoder{file: path, places: map[string]string{}}
	s := &Sweep{Rungs: 2}
	d.sweep(root, s)
	if err := errors.Join(d.errs...); err != nil {
		return nil, err
	}
	if s.Dir == "" {
		s.Dir = strings.TrimSuffix(path, filepath.Ext(path))
	}
	return s, nil
}

func (d *decoder) sweep(root *yaml.Node, s *Sweep) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if seen[key.Value] {
			d.bad(key, "key %q is there twice", key.Value)
		}
		seen[key.Value] = true
		switch key.Value {
		case "task", "preset", "output":
			if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
				d.bad(value, "%s wants text, not %s", key.Value, describe(value))
				continue
			}
			*map[string]*string{"task": &s.Task, "preset": &s.Preset, "output": &s.Dir}[key.Value] = value.Value
			if key.Value == "preset" && Presets()[value.Value] == nil {
				d.bad(value, "preset is %q, want lengths, inits or rates", value.Value)
			}
		case "halving", "rungs":
			to := map[string]*int{"halving": &s.Halving, "rungs": &s.Rungs}[key.Value]
			if value.Tag != "!!int" || value.Decode(to) != nil || *to < 0 || key.Value == "rungs" && *to < 1 || *to > 64 {
				d.bad(value, "%s wants a small whole number, not %s", key.Value, describe(value))
			}
		case "grid":
			s.Grid = d.grid(value)
		default:
			d.bad(key, "unknown key %q; a sweep has task, grid or preset, halving, rungs and output", key.Value)
		}
	}
	if s.Halving == 1 {
		d.bad(root, "halving is 1, which cuts nothing; 2 keeps half of the runs at each rung")
	}
	if !seen["task"] {
		d.bad(root, "task is missing: the task file whose keys vary")
	}
	if seen["grid"] == seen["preset"] {
		d.bad(root, "want either grid, keys with lists of values, or preset: lengths, inits or rates")
	}
	if s.Preset != "" {
		s.Grid = Presets()[s.Preset]
	}
}

// grid reads keys with lists of values.
func (d *decoder) grid(n *yaml.Node) []Axis {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		d.bad(n, "grid wants keys of the task file with lists of values, as in train.seed: [0, 1], not %s", describe(n))
		return nil
	}
	var axes []Axis
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, list := n.Content[i], n.Content[i+1]
		section, _, _ := strings.Cut(key.Value, ".")
		switch {
		case seen[key.Value]:
			d.bad(key, "grid has %s twice", key.Value)
			continue
		case section != "prompt" && section != "train":
			d.bad(key, "grid has %q; only keys of prompt and train can vary: all runs share a base and its rows", key.Value)
			continue
		case list.Kind != yaml.SequenceNode || len(list.Content) == 0:
			d.bad(list, "%s wants a list of values, not %s", key.Value, describe(list))
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

// maxRuns is how many runs a sweep may have.
const maxRuns = 4096

// Runs are all combinations of the grid's values, as settings for Load; the last axis varies fastest.
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
