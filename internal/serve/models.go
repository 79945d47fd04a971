package serve

import (
	"cmp"
	"fmt"
	"net/http"
	"time"
)

// health answers 200 once requests are answered, and 503 before.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	if !s.ready.Load() {
		return errLoading
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// modelInfo is a model as /v1/models lists it. The first six fields are OpenAI's and vLLM's.
type modelInfo struct {
	ID        string  `json:"id"`
	Object    string  `json:"object"`
	Created   int64   `json:"created"` // when the file was written, in seconds since 1970
	OwnedBy   string  `json:"owned_by"`
	Parent    *string `json:"parent"` // the base's id; null for the base
	MaxLength int     `json:"max_model_len"`

	Architecture  architecture `json:"architecture"`
	Input         string       `json:"input,omitempty"`  // the template that inputs fill
	Fields        []string     `json:"fields,omitempty"` // of the template, if it has not just one
	Labels        []string     `json:"labels,omitempty"`
	VirtualTokens int          `json:"virtual_tokens"`
}

// architecture says what a model answers with, in llama.cpp's words.
type architecture struct {
	Outputs []string `json:"output_modalities"` // text, and decisions of a prompt with labels
}

func (s *Server) info(m *served) modelInfo {
	info := modelInfo{ID: m.id, Object: "model", Created: m.created.Unix(), OwnedBy: "ptune",
		MaxLength: s.length, Input: m.meta.Input, VirtualTokens: m.rows,
		Architecture: architecture{Outputs: []string{"text"}}}
	if !m.alone {
		info.Parent = &s.base.Name
	}
	if m.alone || len(m.choices) > 0 {
		info.Architecture.Outputs = append(info.Architecture.Outputs, "decisions")
	}
	for _, l := range m.meta.Labels {
		info.Labels = append(info.Labels, cmp.Or(l.Name, l.Value))
	}
	if m.task.CheckText() != nil {
		info.Fields = m.task.FieldNames()
	}
	return info
}

// namedModel is a model as TypeSafe's clients list it.
type namedModel struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Released    string `json:"release_date"`
}

func describeModel(m *served) string {
	switch {
	case m.alone:
		return "the base model without a prompt"
	case len(m.choices) > 0:
		return fmt.Sprintf("a prompt with %d labels", len(m.choices))
	}
	return "a prompt that writes text"
}

func (s *Server) listModels(w http.ResponseWriter, r *http.Request) error {
	all, named := []modelInfo{}, []namedModel{}
	for _, m := range s.models.list() {
		all = append(all, s.info(m))
		named = append(named, namedModel{m.id, describeModel(m), m.created.UTC().Format(time.DateOnly)})
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string       `json:"object"`
		Data   []modelInfo  `json:"data"`
		Models []namedModel `json:"models"`
	}{"list", all, named})
}

func (s *Server) showModel(w http.ResponseWriter, r *http.Request) error {
	m, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.info(m))
}
