package main

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestComparePassesEveryFlagToItsChildren(t *testing.T) {
	values := map[string]string{
		"bool": "true", "int": "3", "float64": "0.25", "string": "a b,c", "stringArray": "x=1,2",
		"stringSlice": "u,v",
	}
	parent, child := newCompare(streams{}), newCompare(streams{})
	parent.Flags().VisitAll(func(f *pflag.Flag) {
		if err := parent.Flags().Set(f.Name, values[f.Value.Type()]); err != nil {
			t.Fatal(err)
		}
	})
	if err := parent.Flags().Set("set", "train.steps=3"); err != nil {
		t.Fatal(err)
	}
	if err := child.ParseFlags(childFlags(parent.Flags())); err != nil {
		t.Fatal(err)
	}
	forwarded := 0
	parent.Flags().VisitAll(func(f *pflag.Flag) {
		got := child.Flags().Lookup(f.Name)
		if parentFlags[f.Name] {
			if got.Changed {
				t.Errorf("--%s is passed to a child", f.Name)
			}
			return
		}
		forwarded++
		if got.Value.String() != f.Value.String() {
			t.Errorf("--%s is %s in a child, want %s", f.Name, got.Value, f.Value)
		}
	})
	if forwarded < 11 || child.Flags().Lookup("no-mmap").Value.String() != "true" {
		t.Errorf("got %d flags, want at least 11, with --no-mmap among them", forwarded)
	}
}
