package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// part is the schema of a key.
type part struct {
	Type, Description string
	Default           any
	Enum, Required    []string
	Properties        map[string]part
}

func TestTheSchemaHasTheReferencesTypesDefaultsAndComments(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root part
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(root.Required, []string{"model", "data", "output"}) {
		t.Errorf("the file requires %v", root.Required)
	}
	for section, required := range map[string][]string{"prompt": nil, "train": nil, "output": {"prompt"}} {
		if got := root.Properties[section].Required; !slices.Equal(got, required) ||
			(got == nil) != (required == nil) {
			t.Errorf("%s requires %v, want %v", section, got, required)
		}
	}
	for key, want := range map[string]part{
		"prompt.tokens": {Type: "integer", Default: 16., Description: "number of virtual tokens; 8 to 32 are usual"},
		"train.steps":   {Type: "integer", Default: 0., Description: "optimizer steps; 0: as many as epochs takes"},
		"train.schedule": {
			Type: "string", Default: "linear", Enum: []string{"constant", "linear", "cosine"},
			Description: "constant | linear | cosine: the learning rate after the warm-up",
		},
		"output.dir": {Type: "string", Description: "for events.jsonl and the resume state; empty: the prompt's folder"},
	} {
		section, name, _ := strings.Cut(key, ".")
		if got := root.Properties[section].Properties[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", key, got, want)
		}
	}
	// A comment of several lines, and one with a mark.
	if got := root.Properties["model"].Description; !strings.HasPrefix(got,
		"base model: a directory (docs/models.md ") ||
		strings.Count(got, " ") < 8 {
		t.Errorf("model is %q", got)
	}
	for section, p := range root.Properties {
		for key, k := range p.Properties {
			if k.Description == "" {
				t.Errorf("%s.%s has no description", section, key)
			}
		}
	}
}

func TestTheSchemaTakesTemplatesOrAConversation(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Data struct {
				Required []string
				AnyOf    []struct{ Required []string }
			}
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	d := schema.Properties.Data
	if !slices.Equal(d.Required, []string{"train"}) || len(d.AnyOf) != 2 ||
		!slices.Equal(d.AnyOf[0].Required, []string{"input", "target"}) ||
		!slices.Equal(d.AnyOf[1].Required, []string{"messages"}) {
		t.Errorf("data requires %+v, want train, and input and target or messages", d)
	}
}
