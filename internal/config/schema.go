package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Schema returns the JSON Schema (draft 7) of a task file, for editors: the keys with their types,
// defaults and descriptions. The descriptions are the comments of Reference.
func Schema() ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(Reference), &doc); err != nil {
		return nil, err
	}
	comments := map[string]string{}
	collect(doc.Content[0], "", strings.Split(Reference, "\n"), comments)
	root := schemaOf(reflect.ValueOf(Default()).Elem(), "", comments)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "ptune task file"
	rows := root["properties"].(object)["data"].(object) // templates, or the field of a conversation
	rows["required"] = []string{"train"}
	rows["anyOf"] = []any{
		object{"required": []string{"input", "target"}}, object{"required": []string{"messages"}},
	}
	return json.MarshalIndent(root, "", "  ")
}

// collect fills comments with the comment of each dotted key.
func collect(n *yaml.Node, prefix string, lines []string, comments map[string]string) {
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		name := prefix + key.Value
		comments[name] = commentAt(lines[key.Line-1:])
		if value.Kind == yaml.MappingNode {
			collect(value, name+".", lines, comments)
		}
	}
}

// commentAt returns the comment of the first line, with its continuation in the lines below:
// comments that begin in the same column. The YAML library gives those to the next key.
func commentAt(lines []string) string {
	before, comment, ok := strings.Cut(lines[0], "# ")
	if !ok {
		return ""
	}
	indent := strings.Repeat(" ", utf8.RuneCountInString(before)) + "# "
	for _, line := range lines[1:] {
		more, ok := strings.CutPrefix(line, indent)
		if !ok {
			break
		}
		comment += " " + more
	}
	return comment
}

// required marks the keys of Reference that have no default.
const required = "●"

// object is a JSON object.
type object = map[string]any

// schemaOf returns the schema of a section.
func schemaOf(v reflect.Value, prefix string, comments map[string]string) object {
	properties, must := object{}, []string{}
	for i := range v.NumField() {
		key, field := v.Type().Field(i).Tag.Get("yaml"), v.Field(i)
		if key == "" {
			continue
		}
		name := prefix + key
		comment := comments[name]
		if strings.HasPrefix(comment, required) || key == "data" || key == "output" {
			must = append(must, key)
		}
		p := schemaType(field, name, comments)
		if comment != "" {
			p["description"] = strings.TrimSpace(strings.TrimPrefix(comment, required))
		}
		if choices := choicesOf(comment); choices != nil && field.Kind() == reflect.String {
			p["enum"] = choices
		}
		properties[key] = p
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(must) > 0 {
		s["required"] = must
	}
	return s
}

// anyOf returns the schema of a value that matches one of several.
func anyOf(schemas ...any) object { return object{"anyOf": schemas} }

// schemaType returns the schema of one field.
func schemaType(v reflect.Value, name string, comments map[string]string) object {
	text := object{"type": "string"}
	scalar := object{"type": []string{"string", "number", "boolean"}}
	switch x := v.Interface().(type) {
	case Sets:
		return anyOf(text, object{"type": "object", "additionalProperties": text})
	case Labels:
		return anyOf(object{"type": "array", "items": scalar},
			object{"type": "object", "additionalProperties": scalar})
	case []string:
		return object{"type": "array", "items": text}
	case Rate:
		rate := anyOf(object{"const": Auto}, object{"type": "number", "exclusiveMinimum": 0})
		rate["default"] = Auto
		return rate
	case [2]float64:
		return object{
			"type": "array", "items": object{"type": "number"},
			"minItems": 2, "maxItems": 2, "default": x,
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		return schemaOf(v, name+".", comments)
	case reflect.Bool:
		return object{"type": "boolean", "default": v.Bool()}
	case reflect.Int, reflect.Uint64:
		return object{"type": "integer", "default": v.Interface()}
	case reflect.Float64:
		return object{"type": "number", "default": v.Float()}
	}
	if s := v.String(); s != "" {
		text["default"] = s
	}
	return text
}

// choicesOf returns the words of a comment that begins with a | b | c; nil for any other comment.
func choicesOf(comment string) []string {
	comment, _, _ = strings.Cut(comment, ":")
	var words []string
	for word := range strings.SplitSeq(comment, "|") {
		words = append(words, strings.TrimSpace(word))
	}
	if len(words) < 2 {
		return nil
	}
	return words
}
