package config

import (
	"encoding/json"
	"slices"
	"testing"
)

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
