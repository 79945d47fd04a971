package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// systemOneRequest is the body of /v1/systemone.
type systemOneRequest struct {
	Model     string          `json:"model"`
	State     json.RawMessage `json:"state"`     // any JSON but null
	Questions ordered         `json:"questions"` // by their names
}

// systemOneQuestion is one of the questions. Criteria are the descriptions of a choice's options by
// their names, of a score's levels in order, or of true and false.
type systemOneQuestion struct {
	Type         string          `json:"type"`
	Instructions json.RawMessage `json:"instructions"`
	Criteria     json.RawMessage `json:"criteria"`
}

// systemOneAnswers is the answer of /v1/systemone.
type systemOneAnswers struct {
	Model   string         `json:"model"`
	Answers ordered        `json:"answers"`
	Usage   systemOneUsage `json:"usage"`
}

type systemOneUsage struct {
	Input  int `json:"input_tokens"`
	Output int `json:"output_tokens"`
}

// The kind of question that OpenAI calls a predicate.
const kindNoul = "noul"

type noulAnswer struct {
	Type string  `json:"type"`
	Noul float64 `json:"noul"`
}

type namedChoice struct {
	Type          string  `json:"type"`
	Choice        string  `json:"choice"`
	Confidence    float64 `json:"confidence"`
	Probabilities ordered `json:"probabilities"`
}

type namedScore struct {
	Type          string  `json:"type"`
	Score         float64 `json:"score"`
	Confidence    float64 `json:"confidence"`
	Legend        ordered `json:"legend"`
	Probabilities ordered `json:"probabilities"`
}

// ordered is a JSON object whose fields keep their order.
type ordered []member

type member struct {
	name  string
	value json.RawMessage
}

func (o *ordered) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%.20s is no JSON object", raw)
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		x := member{name: t.(string)}
		if seen[x.name] {
			return fmt.Errorf("the field %.100q is there twice", x.name)
		}
		seen[x.name] = true
		if err := dec.Decode(&x.value); err != nil {
			return err
		}
		*o = append(*o, x)
	}
	return nil
}

func (o ordered) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for i, x := range o {
		name, err := json.Marshal(x.name)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, name...), ':'), x.value...)
	}
	return append(b, '}'), nil
}

// put adds a field.
func (o *ordered) put(name string, value any) error {
	raw, err := json.Marshal(value)
	*o = append(*o, member{name, raw})
	return err
}

// compact returns JSON as it is shown to a model: a text itself, anything else without white space.
func compact(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var b bytes.Buffer
	_ = json.Compact(&b, raw) // it was read before
	return b.String()
}

// given reports whether a field is there and not null.
func given(raw json.RawMessage) bool { return raw != nil && string(raw) != "null" }

// index returns the name of an element for errors.
func index(at string, i int) string { return at + "[" + strconv.Itoa(i) + "]" }

// systemOne answers questions in the form of TypeSafe's System One.
func (s *Server) systemOne(w http.ResponseWriter, r *http.Request) error {
	var body systemOneRequest
	if err := s.readBody(w, r, &body, nil); err != nil {
		return err
	}
	m, err := s.find(body.Model)
	if err != nil {
		return err
	}
	if !given(body.State) {
		return invalid("state", "state is missing")
	}
	if err := s.checkCount("questions", len(body.Questions)); err != nil {
		return err
	}
	input := jsonState(body.State)
	questions := make([]question, len(body.Questions))
	wire := make([]systemOneQuestion, len(body.Questions))
	for i, q := range body.Questions {
		at := "questions." + q.name
		if err := decodeObject(q.value, &wire[i], at, nil); err != nil {
			return err
		}
		if questions[i], err = wire[i].read(at); err != nil {
			return err
		}
		questions[i].input = input
	}
	all, tokens, err := s.decide(r.Context(), w, m, questions)
	if err != nil {
		return err
	}
	answer := systemOneAnswers{Model: m.id, Answers: ordered{}, Usage: systemOneUsage{Input: tokens}}
	for i := range all {
		a, err := wire[i].answer(&all[i])
		if err == nil {
			err = answer.Answers.put(body.Questions[i].name, a)
		}
		if err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, answer)
}

// read returns a question. The levels of a score are its options.
func (q *systemOneQuestion) read(at string) (question, error) {
	x := question{at: at, optionsAt: "criteria", kind: q.Type}
	if given(q.Instructions) {
		s := textState(compact(q.Instructions))
		x.instructions, x.fields = s.text, s.fields
	}
	switch q.Type {
	case kindChoice:
		var criteria ordered
		if given(q.Criteria) && json.Unmarshal(q.Criteria, &criteria) != nil {
			return x, invalid(at+".criteria", "%s.criteria is no JSON object of options, each there once", at)
		}
		for _, c := range criteria {
			x.options = append(x.options, option{c.name, describe(c.value)})
		}
	case kindScore:
		x.numbered = true
		var levels []json.RawMessage
		if given(q.Criteria) && json.Unmarshal(q.Criteria, &levels) != nil {
			return x, invalid(at+".criteria", "%s.criteria is no array of levels", at)
		}
		for _, l := range levels {
			x.options = append(x.options, option{text: describe(l)})
		}
	case kindNoul:
		x.kind = kindPredicate
		var criteria struct {
			True  json.RawMessage `json:"true"`
			False json.RawMessage `json:"false"`
		}
		if !given(q.Criteria) {
			break
		}
		if err := decodeObject(q.Criteria, &criteria, at+".criteria", nil); err != nil {
			return x, err
		}
		x.options = []option{{"true", describe(criteria.True)}, {"false", describe(criteria.False)}}
	default:
		return x, invalid(at+".type", "%s.type is %.100q, want choice, score or noul", at, q.Type)
	}
	return x, nil
}

// describe returns a description as text; empty: there is none.
func describe(raw json.RawMessage) string {
	if !given(raw) {
		return ""
	}
	return compact(raw)
}

// answer returns the answer to a question.
func (q *systemOneQuestion) answer(d *decided) (any, error) {
	var probabilities, legend ordered
	for i, p := range d.probabilities {
		name := d.options[i].text
		if q.Type == kindScore {
			name = strconv.Itoa(i)
			if err := legend.put(name, d.options[i].text); err != nil {
				return nil, err
			}
		}
		if err := probabilities.put(name, p); err != nil {
			return nil, err
		}
	}
	switch q.Type {
	case kindChoice:
		return namedChoice{q.Type, d.options[d.best()].text, choiceConfidence(d.probabilities), probabilities}, nil
	case kindScore:
		return namedScore{q.Type, score(d.probabilities), scoreConfidence(d.probabilities), legend, probabilities}, nil
	}
	return noulAnswer{q.Type, d.probabilities[0]}, nil
}
