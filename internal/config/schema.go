package config

import (
	"encoding/json"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Schema is the JSON Schema of a task file, for editors: its keys with their types, defaults and what they mean.
func Schema() ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(Reference), &doc); err != nil {
		return nil, err
	}
	comments := map[string]string{}
	collect(doc.Content[0], "", comments)
	root := schemaOf(reflect.ValueOf(Default()).Elem(), "", comments)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "ptune task file"
	return json.MarshalIndent(root, "", "  ")
}

// collect notes the comment behind each key of the reference.
func collect(n *yaml.Node, prefix string, comments map[string]string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := prefix + key.Value
		comment := value.LineComment
		if comment == "" {
			comment = key.LineComment
		}
		comments[name] = strings.TrimSpace(strings.TrimPrefix(comment, "#"))
		if value.Kind == yaml.MappingNode {
			collect(value, name+".", comments)
		}
	}
}

// required is the mark of a key without a default.
const required = "●"

func schemaOf(v reflect.Value, prefix string, comments map[string]string) map[string]any {
	properties, must := map[string]any{}, []string{}
	for i := range v.NumField() {
		key, field := v.Type().Field(i).Tag.Get("yaml"), v.Field(i)
		if key == "" {
			continue
		}
		name := prefix + key
		comment := comments[name]
		if strings.HasPrefix(comment, required) && !strings.Contains(comment, "for init:") || key == "data" || key == "output" {
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
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(must) > 0 {
		s["required"] = must
	}
	return s
}

func schemaType(v reflect.Value, name string, comments map[string]string) map[string]any {
	text := map[string]any{"type": "string"}
	scalar := map[string]any{"type": []string{"string", "number", "boolean"}}
	switch x := v.Interface().(type) {
	case Sets:
		return map[string]any{"anyOf": []any{text, map[string]any{"type": "object", "additionalProperties": text}}}
	case Labels:
		return map[string]any{"anyOf": []any{map[string]any{"type": "array", "items": scalar}, map[string]any{"type": "object", "additionalProperties": scalar}}}
	case []string:
		return map[string]any{"type": "array", "items": text}
	case Rate:
		return map[string]any{"anyOf": []any{map[string]any{"const": Auto}, map[string]any{"type": "number", "exclusiveMinimum": 0}}, "default": Auto}
	case [2]float64:
		return map[string]any{"type": "array", "items": map[string]any{"type": "number"}, "minItems": 2, "maxItems": 2, "default": x}
	}
	switch v.Kind() {
	case reflect.Struct:
		return schemaOf(v, name+".", comments)
	case reflect.Bool:
		return map[string]any{"type": "boolean", "default": v.Bool()}
	case reflect.Int, reflect.Uint64:
		return map[string]any{"type": "integer", "default": v.Interface()}
	case reflect.Float64:
		return map[string]any{"type": "number", "default": v.Float()}
	}
	if s := v.String(); s != "" {
		text["default"] = s
	}
	return text
}

// choicesOf are the words of a comment that begins as a | b | c.
func choicesOf(comment string) []string {
	comment, _, _ = strings.Cut(comment, ":")
	comment, _, _ = strings.Cut(comment, ";")
	var words []string
	for part := range strings.SplitSeq(comment, "|") {
		part = strings.TrimSpace(part)
		if i := strings.IndexByte(part, '('); i > 0 {
			part = strings.TrimSpace(part[:i])
		}
		words = append(words, part)
	}
	if len(words) < 2 {
		return nil
	}
	return words
}
