package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/data"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

// The kinds of questions.
const (
	kindChoice    = "choice"
	kindScore     = "score"     // its options are levels, the lowest first
	kindPredicate = "predicate" // true or false; System One calls it noul
)

// Limits of a request of decisions. OpenAI has the same.
const (
	maxQuestions = 400
	maxOptions   = 255
)

// state is what a question is about.
type state struct {
	text   string
	fields data.Fields // of a JSON object, or of a text that is one; nil: it is neither
	object bool        // it was given as JSON, not as a text
}

// textState returns a text as the state.
func textState(text string) state {
	x := state{text: text}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if fields, err := data.ParseObject([]byte(text)); err == nil {
			x.fields = fields
		}
	}
	return x
}

// jsonState returns JSON as the state.
func jsonState(raw json.RawMessage) state {
	x := textState(compact(raw))
	x.object = raw[0] != '"'
	return x
}

// question is a question as both protocols ask it.
type question struct {
	at           string // its place in the request, for errors
	optionsAt    string // the name of the field with its options, for errors
	kind         string
	input        state
	instructions string
	fields       data.Fields // of instructions that are a JSON object
	options      []option    // of a predicate: true, then false. None: the prompt's labels
	numbered     bool        // a model without labels answers with the options' numbers, from 0
}

// option is a possible answer.
type option struct {
	text        string
	description string // may be empty
}

// decided is the answer to a question.
type decided struct {
	options       []option
	probabilities []float64 // of the options
}

// best returns the index of the likeliest option.
func (d *decided) best() int {
	best := 0
	for i, p := range d.probabilities {
		if p > d.probabilities[best] {
			best = i
		}
	}
	return best
}

// choiceConfidence is how far the likeliest option is above chance: 0 if all are equally likely, 1 if
// it is certain. It is TypeSafe's, as llama.cpp's server computes it.
func choiceConfidence(p []float64) float64 {
	n := float64(len(p))
	return max(0, (n*slices.Max(p)-1)/(n-1))
}

// scoreConfidence is 1 less the mean distance from the likeliest level, as a share of the mean distance
// of equally likely levels from their middle. It is TypeSafe's, as llama.cpp's server computes it.
func scoreConfidence(p []float64) float64 {
	mode := float64(slices.Index(p, slices.Max(p)))
	distance, uniform := 0.0, 0.0
	for i, x := range p {
		distance += x * math.Abs(float64(i)-mode)
		uniform += math.Abs(float64(i)-float64(len(p)-1)/2) / float64(len(p))
	}
	return max(0, 1-distance/uniform)
}

// score returns the expected level, from 0.
func score(p []float64) float64 {
	sum := 0.0
	for i, x := range p {
		sum += float64(i) * x
	}
	return sum
}

// checkCount refuses a request whose field has no question, or more than are ever answered together.
func (s *Server) checkCount(field string, n int) error {
	switch most := min(maxQuestions, cap(s.loop.places)); {
	case n == 0:
		return invalid(field, "%s is missing or empty: want at least one element", field)
	case n > most:
		return invalid(field, "%s has %d elements, want at most %d", field, n, most)
	}
	return nil
}

// encode calls f, which makes the tokens of a request with n texts. It refuses the request if the queue is
// full, and bounds how many requests are encoded at a time: tokenizing a long text takes a core for long.
func (s *Server) encode(ctx context.Context, n int, f func() error) error {
	if len(s.loop.places)+n > cap(s.loop.places) {
		s.loop.metrics.rejected.Inc()
		return errBusy
	}
	select {
	case s.encoding <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.encoding }()
	return f()
}

// decide answers questions and returns the number of tokens of their inputs.
func (s *Server) decide(ctx context.Context, w http.ResponseWriter, m *served, questions []question) (
	[]decided, int, error) {
	answers := make([]answering, len(questions))
	scored, tokens := make([]infer.Question, len(questions)), 0
	err := s.encode(ctx, len(questions), func() error {
		a, err := s.asker(m)
		if err != nil {
			return err
		}
		for i := range questions {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if answers[i], err = a.ask(&questions[i]); err != nil {
				return err
			}
			scored[i] = answers[i].question
			if err := s.checkQuestion(m, &scored[i]); err != nil {
				return err
			}
			tokens += len(scored[i].Input)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	note(w, m.id, &usage{Prompt: tokens, Total: tokens})
	scores, err := s.score(ctx, m, scored)
	if err != nil {
		return nil, 0, err
	}
	all := make([]decided, len(questions))
	for i, q := range answers {
		p := infer.Probabilities(scores[i])
		all[i] = decided{options: q.options}
		for _, of := range q.order {
			all[i].probabilities = append(all[i].probabilities, p[of])
		}
	}
	return all, tokens, nil
}

// answering is a question as it is scored.
type answering struct {
	question infer.Question
	options  []option
	order    []int // the ending of each option
}

// asker turns questions about a model's inputs into what is scored.
type asker struct {
	model   *served
	meta    *prompt.Meta
	task    *infer.Task
	enc     infer.Tokenizer
	most    int  // tokens of an input
	cut     bool // longer inputs are cut, as in training
	choices []data.Choice
	ends    [][]int32 // of choices
	special []string  // fields that a question fills
}

// The fields of an input template that a question fills, beside one for the state.
const (
	questionField = "question" // its instructions
	optionsField  = "options"  // a line for each option
)

// The templates of questions to a model that has none: the base alone, and a prompt from PEFT. A chat
// template renders the input as the user's turn.
const (
	askInput     = "{state}\n\nQuestion: {question}\n{options}\nAnswer:"
	askTarget    = " {answer}"
	askChat      = "{state}\n\n{question}\nAnswer with one of these:\n{options}"
	askChatReply = "{answer}"
)

// asker returns what asks a model.
func (s *Server) asker(m *served) (*asker, error) {
	if m.meta.Messages != "" {
		return nil, invalid("model", "the prompt %q was trained on conversations, so it answers no questions: "+
			"ask /v1/chat/completions", m.id)
	}
	a := &asker{model: m, meta: m.meta, task: m.task, enc: s.base.Tokenizer}
	if m.meta.Input == "" {
		var err error
		if a.meta, err = s.asking(); err == nil {
			a.task, err = infer.NewTask(a.meta, s.base, s.base.Tokenizer)
		}
		if err != nil {
			return nil, err
		}
	}
	longest := 0
	if len(m.choices) > 0 {
		var ids [][]int32
		for _, c := range m.choices {
			ids, longest = append(ids, c.IDs), max(longest, len(c.IDs)+1)
		}
		a.choices, a.ends = m.choices, infer.LabelEnds(ids, a.meta.EOS)
	}
	if a.most, a.cut = a.task.Limit(s.base.MaxPositions, m.rows, longest); !a.cut {
		a.most = math.MaxInt // checkQuestion refuses longer ones
	}
	if fields := a.task.FieldNames(); len(fields) > 1 {
		for _, f := range fields {
			if f == questionField || f == optionsField {
				a.special = append(a.special, f)
			}
		}
		if len(a.special) == len(fields) {
			a.special = []string{optionsField}
		}
	}
	return a, nil
}

// asking returns the metadata of a task that asks any question.
func (s *Server) asking() (*prompt.Meta, error) {
	eos, err := s.base.EndToken()
	if err != nil {
		return nil, err
	}
	m := &prompt.Meta{Input: askInput, Target: askTarget, EOS: eos, Continued: s.base.Tokenizer.Prepends}
	if t, err := s.base.Chat(); err == nil {
		m.Input, m.Target, m.Chat = askChat, askChatReply, t.Sum()
		format := &data.Format{}
		if m.EOS, err = format.UseChat(t, s.base.Tokenizer, s.base.EOS); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// ask returns what is scored for a question.
func (a *asker) ask(q *question) (r answering, err error) {
	if err := checkOptions(q); err != nil {
		return r, err
	}
	var shown []option
	if len(a.choices) > 0 {
		shown, err = a.askLabels(q, &r)
	} else {
		shown, err = a.askAny(q, &r)
	}
	if err == nil {
		r.question.Input, err = a.input(q, shown)
	}
	return r, err
}

// checkOptions refuses options of which two cannot be told apart, too few and too many.
func checkOptions(q *question) error {
	at := inside(q.at, q.optionsAt)
	if n := len(q.options); n == 1 || n > maxOptions {
		return invalid(at, "%s: the question has %d options, want 2 to %d", at, n, maxOptions)
	}
	seen := map[string]bool{}
	for _, o := range q.options {
		switch {
		case strings.TrimSpace(o.text) == "":
			return invalid(at, "%s: an option is empty", at)
		case seen[o.text]:
			return invalid(at, "%s: the option %.100q is there twice", at, o.text)
		}
		seen[o.text] = true
	}
	return nil
}

// askLabels has a question answered by the prompt's labels. Options are all labels in any order. Where
// the prompt's template has a field for the question, they may be some of them. It returns them as they are
// shown to the model.
func (a *asker) askLabels(q *question, r *answering) (shown []option, err error) {
	r.question.Ends = a.ends
	if q.kind == kindPredicate {
		yes := a.trueLabel()
		if yes < 0 {
			return nil, invalid(inside(q.at, "type"), "%s: the labels of %q are %s, so it answers no question of true "+
				"or false: ask for a choice", q.at, a.model.id, a.listLabels())
		}
		r.options, r.order = []option{{text: "true"}, {text: "false"}}, []int{yes, 1 - yes}
		for i, of := range r.order {
			shown = append(shown, option{text: a.choices[of].Name})
			if q.options != nil {
				shown[i].description = q.options[i].description
			}
		}
		return shown, nil
	}
	if q.options == nil {
		for i, c := range a.choices {
			r.options, r.order = append(r.options, option{text: c.Name}), append(r.order, i)
		}
		return r.options, nil
	}
	at := inside(q.at, q.optionsAt)
	for _, o := range q.options {
		i := slices.IndexFunc(a.choices, func(c data.Choice) bool { return c.Name == o.text })
		if i < 0 {
			i = slices.IndexFunc(a.meta.Labels, func(l prompt.Label) bool { return l.Value == o.text })
		}
		if i < 0 || slices.Contains(r.order, i) {
			return nil, invalid(at, "%s: the option %.100q is no label of %q; they are %s", at, o.text, a.model.id,
				a.listLabels())
		}
		r.options, r.order = append(r.options, o), append(r.order, i)
	}
	if q.kind == kindScore && !slices.IsSorted(r.order) {
		return nil, invalid(at, "%s: the levels are not in the order of the labels of %q: %s", at, a.model.id,
			a.listLabels())
	}
	if len(r.order) == len(a.choices) {
		return r.options, nil
	}
	if !slices.Contains(a.special, questionField) {
		return nil, invalid(at, "%s: %q was trained to choose among all of its labels: %s; leave the options out or "+
			"give all of them", at, a.model.id, a.listLabels())
	}
	ends := r.question.Ends
	r.question.Ends = nil
	for i, of := range r.order {
		r.question.Ends, r.order[i] = append(r.question.Ends, ends[of]), i
	}
	return r.options, nil
}

// listLabels returns the names of the labels for an error, at most 20.
func (a *asker) listLabels() string {
	var names []string
	for _, c := range a.choices {
		if len(names) == 20 {
			names = append(names, fmt.Sprintf("and %d more", len(a.choices)-20))
			break
		}
		names = append(names, fmt.Sprintf("%q", c.Name))
	}
	return strings.Join(names, ", ")
}

// truths are the labels that mean true and false.
var truths = [][2]string{{"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"1", "0"}}

// trueLabel returns which of two labels means true, by their names or else by their values in the rows;
// -1: neither does.
func (a *asker) trueLabel() int {
	if len(a.meta.Labels) != 2 {
		return -1
	}
	names := func(text func(prompt.Label) string) int {
		first, second := text(a.meta.Labels[0]), text(a.meta.Labels[1])
		for _, t := range truths {
			switch {
			case strings.EqualFold(first, t[0]) && strings.EqualFold(second, t[1]):
				return 0
			case strings.EqualFold(first, t[1]) && strings.EqualFold(second, t[0]):
				return 1
			}
		}
		return -1
	}
	if i := names(func(l prompt.Label) string { return l.Name }); i >= 0 {
		return i
	}
	return names(func(l prompt.Label) string { return l.Value })
}

// askAny has a question answered by the likelihood of its options as targets. It returns them as they are
// shown to the model.
func (a *asker) askAny(q *question, r *answering) (shown []option, err error) {
	at := inside(q.at, q.optionsAt)
	shown, r.options = slices.Clone(q.options), q.options
	switch {
	case q.kind == kindPredicate:
		shown, r.options = []option{{text: "Yes"}, {text: "No"}}, []option{{text: "true"}, {text: "false"}}
		for i, o := range q.options {
			shown[i].description = o.description
		}
	case q.numbered:
		for i, o := range shown {
			shown[i] = option{strconv.Itoa(i), o.text}
		}
	}
	if len(shown) == 0 {
		return nil, invalid(at, "%s is missing: %q has no labels, so the question needs options", at, a.model.id)
	}
	labels := make([]data.Label, len(shown))
	for i, o := range shown {
		labels[i] = data.Label{Value: o.text, Name: o.text}
		r.order = append(r.order, i)
	}
	choices, err := a.task.Choices(labels)
	if err != nil {
		return nil, invalid(at, "%s: %v", at, err)
	}
	for _, c := range choices {
		r.question.Ends = append(r.question.Ends, c.IDs)
	}
	r.question.Ends = infer.LabelEnds(r.question.Ends, a.meta.EOS)
	return shown, nil
}

// input returns the tokens of a question's input. A state that is a JSON object fills the fields of the
// template by their names, and so do instructions that are one.
func (a *asker) input(q *question, shown []option) ([]int32, error) {
	fields := data.Fields{}
	for name, f := range q.fields {
		fields[name] = f
	}
	for _, name := range a.special {
		if _, ok := fields[name]; ok {
			continue
		}
		switch {
		case name == optionsField:
			fields[name] = data.Field{Text: optionList(shown)}
		case q.instructions != "":
			fields[name] = data.Field{Text: q.instructions}
		default:
			return nil, invalid(inside(q.at, "instructions"), "%s has no instructions, but %q needs them",
				q.at, a.model.id)
		}
	}
	var open, missing []string // fields of the state, and those that it does not have
	for _, name := range a.task.FieldNames() {
		if _, ok := fields[name]; !ok {
			open = append(open, name)
			if _, ok := q.input.fields[name]; !ok {
				missing = append(missing, name)
			}
		}
	}
	switch {
	case len(open) == 1 && (missing != nil || !q.input.object):
		fields[open[0]] = data.Field{Text: q.input.text}
	case missing == nil:
		for _, name := range open {
			fields[name] = q.input.fields[name]
		}
	default:
		return nil, invalid("", "the input template of %q has the fields %s: the input must be a JSON object with them",
			a.model.id, strings.Join(open, ", "))
	}
	ids, err := a.task.Input(fields, a.most, a.cut)
	if err != nil {
		return nil, invalid("", "the input: %v", err)
	}
	if len(ids) == 0 && a.model.rows == 0 {
		return nil, invalid("", "the input has no token")
	}
	return ids, nil
}

// optionList returns options as a template shows them, one on each line.
func optionList(options []option) string {
	var b strings.Builder
	for i, o := range options {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("- " + o.text)
		if o.description != "" {
			b.WriteString(": " + o.description)
		}
	}
	return b.String()
}
