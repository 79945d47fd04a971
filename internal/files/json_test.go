package files_test

import (
	"testing"

	"ptune/internal/files"
)

func TestTheErrorOfAJSONFileSaysWhatIsWrongWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "the file is empty: download or copy it again",
		" \n":                     "the file is empty: download or copy it again",
		"{\"a\": 1,\n \"b\"":      "it ends in the middle of a JSON value, in line 2: the file is cut off: download or copy it again",
		"{\n \"a\": }":            "it is not JSON: line 2, column 7 has an unexpected '}'",
		"{\"a\": é}":              "it is not JSON: line 1, column 7 has an unexpected 'é'",
		"{} x":                    "it is not JSON: line 1, column 4 has an unexpected 'x'",
		"[1]":                     "it is a list, want an object",
		"3":                       "it is a number, want an object",
		`{"a": "x"}`:              "a is a text, want a whole number",
		`{"a": 1.5}`:              "a is a number 1.5, want a whole number",
		`{"b": {"c": true}}`:      "b.c is true or false, want a text",
		`{"b": 2}`:                "b is a number, want an object",
		`{"l": {}}`:               "l is an object, want a list",
		"<!doctype html><html>":   "it is an HTML page, not the file itself: download it again, from an address with /resolve/ and not /blob/ if it is on the Hub",
		`{"a": 1, "b": {"c":""}}`: "",
	} {
		var into struct {
			A int `json:"a"`
			B struct {
				C string `json:"c"`
			} `json:"b"`
			L []string `json:"l"`
		}
		got := ""
		if err := files.ParseJSON([]byte(text), &into); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", text, got, want)
		}
	}
}
