package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/demo"
	"ptune/internal/eval"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

// By hand: 1.7 = 0.1·0 + 0.1·1 + 0.8·2. Confidence of the choice: (0.8 − 1/3) / (2/3) = 0.7. Mean
// distance from level 2: 0.1·2 + 0.1·1 = 0.3; of equal levels from their middle: 2/3; 1 − 0.45 = 0.55.
func TestConfidencesAreThoseComputedByHand(t *testing.T) {
	for _, c := range []struct {
		p                     []float64
		choice, score, levels float64
	}{
		{[]float64{0.1, 0.1, 0.8}, 0.7, 0.55, 1.7},
		{[]float64{0.25, 0.25, 0.25, 0.25}, 0, 0, 1.5}, // 1 − 1.5/1 is below 0
		{[]float64{1, 0}, 1, 1, 0},
		{[]float64{0, 0.5, 0.5, 0}, 1.0 / 3, 0.5, 1.5},
	} {
		for _, x := range []struct {
			name      string
			got, want float64
		}{{"choice", choiceConfidence(c.p), c.choice}, {"score", scoreConfidence(c.p), c.score}, {"level", score(c.p), c.levels}} {
			if !(math.Abs(x.got-x.want) <= 1e-12) {
				t.Errorf("%v, %s: got %g, want %g", c.p, x.name, x.got, x.want)
			}
		}
	}
}

var stars = []prompt.Label{{Value: "1", Name: "bad"}, {Value: "2", Name: "mixed"}, {Value: "3", Name: "good"},
	{Value: "4", Name: "good and cheap"}}

// probabilities returns what eval finds for inputs after a prompt.
func probabilities(t *testing.T, b *base.Base, p *prompt.Prompt, inputs []data.Fields) [][]float64 {
	t.Helper()
	task, err := infer.NewTask(&p.Meta, b, b.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	_, choices, err := task.Format()
	if err != nil {
		t.Fatal(err)
	}
	o := eval.Options{EOS: p.Meta.EOS, MaxTokens: 500, PromptRows: []int{p.Rows}, Probabilities: true}
	for _, c := range choices {
		o.Labels, o.Names = append(o.Labels, c.IDs), append(o.Names, c.Name)
	}
	rows := make([]eval.Row, len(inputs))
	for i, fields := range inputs {
		ids, err := task.Fields(fields)
		if err != nil {
			t.Fatal(err)
		}
		rows[i] = eval.Row{Input: ids, Target: o.Labels[0]}
	}
	res, err := eval.Run(context.Background(), b, p.Values, rows, o)
	if err != nil {
		t.Fatal(err)
	}
	return res.Probabilities
}

func TestProbabilitiesAreThoseOfEvalWhateverElseIsAsked(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	var prompts []*prompt.Prompt
	for i := range 3 {
		p := newPrompt(b, uint64(i), 3+7*i, prompt.Meta{Input: "{text}\nAnswer:", Target: " {label}", Labels: stars})
		server.save(fmt.Sprint("p", i), p)
		prompts = append(prompts, p)
	}
	words := strings.Fields("the soup was cold and service slow but rooms were clean bright cheap near station")
	random := rand.New(rand.NewPCG(1, 1))
	var inputs []data.Fields
	for range 8 {
		var text []string
		for range 1 + random.IntN(12) {
			text = append(text, words[random.IntN(len(words))])
		}
		inputs = append(inputs, data.Texts(map[string]string{"text": strings.Join(text, " ")}))
	}
	var all sync.WaitGroup
	for i, p := range prompts {
		want := probabilities(t, b, p, inputs)
		for k, x := range inputs {
			all.Go(func() {
				var got decisionAnswersRead
				server.post("/v1/decisions", object{"model": fmt.Sprint("p", i), "input": x["text"].Text,
					"questions": []object{{"type": "choice", "instructions": "How good?"}}}, &got)
				var found []float64
				for _, p := range got.Answers[0].Probabilities {
					found = append(found, p.Probability)
				}
				if !slices.Equal(found, want[k]) {
					t.Errorf("p%d, %q: got %v, want %v", i, x["text"].Text, found, want[k])
				}
			})
			all.Go(func() { // beside texts
				var got completion
				server.post("/v1/completions", object{"model": fmt.Sprint("p", i), "prompt": "The", "max_tokens": 8}, &got)
			})
		}
	}
	all.Wait()
}

// decisionAnswersRead is the answer of /v1/decisions as a client reads it.
type decisionAnswersRead struct {
	Model   string
	Answers []struct {
		Type, Name                     string
		Probability, Score, Confidence float64
		Choice                         any
		Probabilities                  []struct {
			Value       any
			Label       string
			Probability float64
		}
	}
	Usage json.RawMessage
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-9) {
		t.Errorf("%s: got %g, want %g", what, got, want)
	}
}

func TestEachKindOfQuestionIsAnsweredFromTheSameProbabilities(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	p := newPrompt(b, 1, 5, prompt.Meta{Input: "{text}\nAnswer:", Target: " {label}", Labels: stars})
	server.save("stars", p)
	yes := newPrompt(b, 2, 5, prompt.Meta{Input: "{text} It is {topic}:", Target: " {label}",
		Labels: []prompt.Label{{Value: "0", Name: "No"}, {Value: "1", Name: "Yes"}}})
	server.save("yes", yes)
	want := probabilities(t, b, p, []data.Fields{data.Texts(map[string]string{"text": "Cold soup."})})[0]

	var d decisionAnswersRead
	server.post("/v1/decisions", object{"model": "stars", "input": []object{{"role": "user", "content": "Cold soup."}},
		"user": "me", "questions": []object{
			{"type": "choice", "name": "a", "instructions": "How good?"},
			{"type": "choice", "instructions": "How good?", "choices": []object{ // another order, and values
				{"value": "4"}, {"value": "good", "description": "pleased"}, {"value": "bad"}, {"value": "2"}}},
			{"type": "score", "instructions": []object{{"type": "input_text", "text": "How good?"}}},
		}}, &d)
	for i, order := range [][]int{{0, 1, 2, 3}, {3, 2, 0, 1}, {0, 1, 2, 3}} {
		for k, of := range order {
			near(t, fmt.Sprintf("question %d, option %d", i, k), d.Answers[i].Probabilities[k].Probability, want[of])
		}
	}
	best := slices.Index(want, slices.Max(want))
	if d.Answers[0].Choice != stars[best].Name || d.Answers[0].Name != "a" || d.Model != "stars" {
		t.Errorf("got %+v, want the choice %q", d.Answers[0], stars[best].Name)
	}
	expected := want[1] + 2*want[2] + 3*want[3]
	near(t, "score", d.Answers[2].Score, expected)
	near(t, "confidence", d.Answers[0].Confidence, choiceConfidence(want))
	if l := d.Answers[2].Probabilities[3]; l.Label != "good and cheap" || l.Value != 3.0 {
		t.Errorf("the last level is %+v", l)
	}
	tokens, _ := b.Tokenizer.EncodeInput("Cold soup.\nAnswer:")
	usage := fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cache_write_tokens":0,"cached_tokens":0},`+
		`"output_tokens":0,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%[1]d}`, 3*len(tokens))
	if string(d.Usage) != usage {
		t.Errorf("usage is %s, want %s", d.Usage, usage)
	}

	// System One keeps the order of names.
	status, text := server.do("POST", "/v1/systemone", `{"model":"stars","state":"Cold soup.","questions":{
		"z":{"type":"choice","instructions":"How good?","criteria":{"good":null,"bad":"cold","mixed":{"a":1},"good and cheap":null}},
		"a":{"type":"score","criteria":["bad","mixed","good","good and cheap"]}}}`)
	f := func(x float64) string { s, _ := json.Marshal(x); return string(s) }
	for i, p := range d.Answers[0].Probabilities {
		want[i] = p.Probability // to the bit
	}
	wantText := fmt.Sprintf(`{"model":"stars","answers":{"z":{"type":"choice","choice":%q,"confidence":%s,`+
		`"probabilities":{"good":%s,"bad":%s,"mixed":%s,"good and cheap":%s}},`+
		`"a":{"type":"score","score":%s,"confidence":%s,"legend":{"0":"bad","1":"mixed","2":"good","3":"good and cheap"},`+
		`"probabilities":{"0":%s,"1":%s,"2":%s,"3":%s}}},"usage":{"input_tokens":%d,"output_tokens":0}}`,
		stars[best].Name, f(d.Answers[0].Confidence), f(want[2]), f(want[0]), f(want[1]), f(want[3]), f(d.Answers[2].Score),
		f(d.Answers[2].Confidence), f(want[0]), f(want[1]), f(want[2]), f(want[3]), 2*len(tokens))
	if status != http.StatusOK || strings.TrimSpace(text) != wantText {
		t.Errorf("got  %s\nwant %s", text, wantText)
	}

	// Two fields: one of the state, one of the instructions; or a text of JSON with both.
	both := data.Texts(map[string]string{"text": "Cold soup.", "topic": "food"})
	true_ := probabilities(t, b, yes, []data.Fields{both})[0][1]
	var one struct {
		Answers map[string]struct{ Noul float64 }
	}
	server.post("/v1/systemone", object{"model": "yes", "state": object{"text": "Cold soup."},
		"questions": object{"food": object{"type": "noul", "instructions": object{"topic": "food"}}}}, &one)
	near(t, "noul", one.Answers["food"].Noul, true_)
	server.post("/v1/decisions", object{"model": "yes", "input": `{"text": "Cold soup.", "topic": "food"}`,
		"questions": []object{{"type": "predicate", "instructions": "Is it?"}}}, &d)
	near(t, "predicate", d.Answers[0].Probability, true_)

	var list struct{ Models []namedModel }
	if _, text := server.get("/v1/models"); json.Unmarshal([]byte(text), &list) != nil || len(list.Models) != 3 ||
		list.Models[1].Name != "stars" || list.Models[1].Description != "a prompt with 4 labels" ||
		len(list.Models[1].Released) != len("2026-09-15") {
		t.Errorf("System One's list of models is %+v", list.Models)
	}
	var c struct{ Data []classified }
	server.post("/classify", object{"model": "stars", "input": []string{"Cold soup.", "Cold soup."}}, &c)
	if len(c.Data) != 2 || c.Data[1].Index != 1 || c.Data[1].Label != stars[best].Name || c.Data[1].Classes != 4 ||
		!slices.Equal(c.Data[0].Probs, c.Data[1].Probs) {
		t.Errorf("/classify answers %+v", c.Data)
	}
	near(t, "/classify", c.Data[0].Probs[2], want[2])
}

// likelihoods returns the probabilities of endings after an input, each computed alone.
func likelihoods(t *testing.T, b *base.Base, input []int32, ends [][]int32) []float64 {
	t.Helper()
	var scores []float64
	for _, end := range ends {
		s, err := infer.Score(b, nil, nil, []infer.Question{{Input: input, Ends: [][]int32{end}}})
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, s[0][0].NLL)
	}
	return infer.Probabilities(scores)
}

func TestTheBaseAnswersByTheLikelihoodOfTheOptions(t *testing.T) {
	plain, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	dir := filepath.Join(t.TempDir(), "demo")
	if err := os.CopyFS(dir, demo.Base()); err != nil {
		t.Fatal(err)
	}
	const template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}" +
		"{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}" +
		"{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
	if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(template), 0o644); err != nil {
		t.Fatal(err)
	}
	openChat := func() (*base.Base, error) { return base.Open(dir, base.Options{Trusted: true}) }
	for _, c := range []struct {
		name            string
		open            func() (*base.Base, error)
		before, between string // the question, and its options
		after, space    string
	}{
		{demo.Name, openDemo, "Cold soup.\n\nQuestion: ", "\n", "\nAnswer:", " "},
		{"demo", openChat, "user: Cold soup.\n\n", "\nAnswer with one of these:\n", "\nassistant: ", ""},
	} {
		server := start(t, func(o *Options) { o.Open = c.open })
		input := func(question, options string) []int32 {
			ids, err := plain.Tokenizer.EncodeInput(c.before + question + c.between + options + c.after)
			if err != nil {
				t.Fatal(err)
			}
			return ids
		}
		ends := func(texts ...string) (ends [][]int32) {
			for _, text := range texts {
				ids, err := plain.Tokenizer.EncodeAfter("\nassistant: ", c.space+text)
				if c.space != "" {
					ids, err = plain.Tokenizer.EncodeAfter("\nAnswer:", c.space+text)
				}
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, ids)
			}
			return ends
		}
		var one struct {
			Answers map[string]struct {
				Noul          float64
				Choice        string
				Score         float64
				Probabilities map[string]float64
				Legend        map[string]string
			}
		}
		server.post("/v1/systemone", object{"model": c.name, "state": "Cold soup.", "questions": object{
			"good":  object{"type": "noul", "instructions": "Is it good?", "criteria": object{"true": "it tastes"}},
			"what":  object{"type": "choice", "instructions": "What?", "criteria": object{"food": "to eat", "room": nil}},
			"stars": object{"type": "score", "instructions": "How good?", "criteria": []string{"awful", "fair", "great"}},
		}}, &one)
		p := likelihoods(t, plain, input("Is it good?", "- Yes: it tastes\n- No"), ends("Yes", "No"))
		close := func(what string, got, want float64) {
			if !(math.Abs(got-want) <= 1e-12) {
				t.Errorf("%s, %s: got %g, want %g", c.name, what, got, want)
			}
		}
		close("noul", one.Answers["good"].Noul, p[0])
		p = likelihoods(t, plain, input("What?", "- food: to eat\n- room"), ends("food", "room"))
		close("choice", one.Answers["what"].Probabilities["room"], p[1])
		p = likelihoods(t, plain, input("How good?", "- 0: awful\n- 1: fair\n- 2: great"), ends("0", "1", "2"))
		close("score", one.Answers["stars"].Score, p[1]+2*p[2])
		if l := one.Answers["stars"].Legend; l["0"] != "awful" || l["2"] != "great" {
			t.Errorf("the legend is %v", l)
		}
		var d decisionAnswersRead
		server.post("/v1/decisions", object{"model": c.name, "input": "Cold soup.", "questions": []object{
			{"type": "choice", "instructions": "Is it?", "choices": []object{{"value": true}, {"value": "perhaps"}}},
			{"type": "score", "instructions": "How good?", "levels": []object{{"label": "low"}, {"label": "high"}}},
		}}, &d)
		p = likelihoods(t, plain, input("Is it?", "- true\n- perhaps"), ends("true", "perhaps"))
		close("true", d.Answers[0].Probabilities[0].Probability, p[0])
		if d.Answers[0].Probabilities[0].Value != true || d.Answers[0].Probabilities[1].Value != "perhaps" {
			t.Errorf("the values are %+v", d.Answers[0].Probabilities)
		}
		p = likelihoods(t, plain, input("How good?", "- low\n- high"), ends("low", "high"))
		close("level", d.Answers[1].Score, p[1])
	}
}

// A prompt whose template has fields for the question and its options is asked as it was trained.
func TestAPromptTrainedOnSeveralQuestionsAnswersEach(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	all := []prompt.Label{{Value: "food", Name: "food"}, {Value: "room", Name: "room"}, {Value: "yes", Name: "yes"},
		{Value: "no", Name: "no"}}
	const template = "{review}\n{question}\n{options}\nAnswer:"
	for name, labels := range map[string][]prompt.Label{"labels": all, "free": nil} {
		p := newPrompt(b, 3, 5, prompt.Meta{Input: template, Target: " {label}", Labels: labels})
		server.save(name, p)
		full := *p
		full.Meta.Labels = all
		want := probabilities(t, b, &full, []data.Fields{data.Texts(map[string]string{
			"review": "Cold soup.", "question": "What is it about?", "options": "- room\n- food",
		})})[0]
		var d decisionAnswersRead
		server.post("/v1/decisions", object{"model": name, "input": "Cold soup.", "questions": []object{
			{"type": "choice", "instructions": "What is it about?", "choices": []object{{"value": "room"}, {"value": "food"}}},
		}}, &d)
		near(t, name, d.Answers[0].Probabilities[0].Probability, want[1]/(want[0]+want[1]))
	}
}

// As ptune classify does, for a prompt whose long rows were cut in training.
func TestLongInputsAreCutAsInTraining(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	p := newPrompt(b, 1, 5, prompt.Meta{Input: "{text}\nAnswer:", Target: " {label}", Labels: stars,
		OnTooLong: data.TooLongCutInput, MaxTokens: 24})
	server.save("cut", p)
	task, err := infer.NewTask(&p.Meta, b, b.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	format, choices, err := task.Format()
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, c := range choices {
		longest = max(longest, len(c.IDs)+1)
	}
	text := strings.Repeat("The soup was cold. ", 30)
	input, err := format.EncodeInput(data.Texts(map[string]string{"text": text}), b.Tokenizer, 24-longest, true)
	if err != nil || len(input) > 24-longest {
		t.Fatalf("%d tokens, %v", len(input), err)
	}
	scores, err := infer.Score(b, p.Values, []int{p.Rows}, []infer.Question{{Input: input, Ends: infer.LabelEnds(
		[][]int32{choices[0].IDs, choices[1].IDs, choices[2].IDs, choices[3].IDs}, p.Meta.EOS)}})
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	for _, s := range scores[0] {
		want = append(want, s.NLL)
	}
	var c struct{ Data []classified }
	server.post("/classify", object{"model": "cut", "input": text}, &c)
	if want = infer.Probabilities(want); !slices.Equal(c.Data[0].Probs, want) {
		t.Errorf("got %v, want %v", c.Data[0].Probs, want)
	}
}

func TestWrongQuestionsAreRefusedByName(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	server.save("stars", newPrompt(b, 1, 5, prompt.Meta{Input: "{text}:", Target: " {label}", Labels: stars}))
	server.save("two", newPrompt(b, 1, 5, prompt.Meta{Input: "{title} {text}:", Target: " {label}", Labels: labels}))
	server.save("chat", newPrompt(b, 1, 5, prompt.Meta{Messages: "messages"}))
	options := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"value":"o%d"}`, i))
		}
		return strings.Join(all, ",")
	}
	const d, one, classify = "/v1/decisions", "/v1/systemone", "/classify"
	for _, c := range []struct{ path, body, want string }{
		{d, `{"model":"stars","input":"x"}`, "questions is missing or empty"},
		{d, `{"model":"none","input":"x","questions":[{"type":"choice"}]}`, `"none" does not exist`},
		{d, `{"model":"stars","questions":[{"type":"choice"}]}`, "input is missing"},
		{d, `{"model":"stars","input":7,"questions":[{"type":"choice"}]}`, "neither a text nor an array"},
		{d, `{"model":"stars","input":[],"questions":[{"type":"choice"}]}`, "empty array"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice"}],"stream":true}`, "stream is not supported"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"rank"}]}`, "want predicate, choice or score"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","weight":2}]}`, "questions[0].weight is not supported"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"predicate"}]}`, `no question of true or false`},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":"bad"},{"value":"worse"}]}]}`,
			`questions[0].choices: the option "worse" is no label of "stars"; they are "bad", "mixed", "good"`},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":"bad"},{"value":"good"}]}]}`,
			"was trained to choose among all of its labels"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":"bad"},{"value":"1"},{"value":"2"},{"value":"3"}]}]}`,
			`"1" is no label`},
		{d, `{"model":"stars","input":"x","questions":[{"type":"score","levels":[{"label":"4"},{"label":"3"},{"label":"2"},{"label":"1"}]}]}`,
			"not in the order of the labels"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":"bad"},{"value":"bad"}]}]}`, "there twice"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":"bad"}]}]}`, "has 1 options, want 2 to 255"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[` + options(256) + `]}]}`, "has 256 options"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","choices":[{"value":7},{"value":"a"}]}]}`, "choices[0].value is missing, or no text"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"choice","levels":[{"label":"a"}]}]}`, "has choices, no levels"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"score","choices":[{"value":"a"}]}]}`, "has levels, no choices"},
		{d, `{"model":"stars","input":"x","questions":[{"type":"predicate","choices":[{"value":"a"}]}]}`, "neither choices nor levels"},
		{d, `{"model":"stars","input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}],"questions":[{"type":"choice"}]}`,
			`input[0].content[0] is a "input_image"`},
		{d, `{"model":"stars","input":[{"type":"function_call","name":"f"}],"questions":[{"type":"choice"}]}`, "input[0] is a function_call"},
		{d, `{"model":"stars","input":[{"role":"tool","content":"x"}],"questions":[{"type":"choice"}]}`, `input[0].role is "tool"`},
		{d, `{"model":"stars","input":[{"role":"user","content":"x","id":"7"}],"questions":[{"type":"choice"}]}`, "input[0].id is not supported"},
		{d, `{"model":"stars","input":[{"role":"user"}],"questions":[{"type":"choice"}]}`, "input[0].content is neither"},
		{d, `{"model":"ptune:demo","input":"x","questions":[{"type":"choice","instructions":"?"}]}`, "questions[0].choices is missing"},
		{d, `{"model":"ptune:demo","input":"x","questions":[{"type":"predicate"}]}`, "questions[0] has no instructions"},
		{d, `{"model":"chat","input":"x","questions":[{"type":"choice"}]}`, "was trained on conversations"},
		{d, `{"model":"two","input":"x","questions":[{"type":"choice"}]}`, "has the fields title, text"},
		{d, `{"model":"two","input":"{\"text\":\"x\"}","questions":[{"type":"choice"}]}`, "has the fields title, text"},
		{d, `{"model":"stars","input":"x","questions":[` + strings.TrimSuffix(strings.Repeat(`{"type":"choice"},`, 401), ",") + `]}`, "questions has 401 elements"},
		{d, `{"model":"stars","input":"` + strings.Repeat("word ", 600) + `","questions":[{"type":"choice"}]}`, "tokens"},
		{one, `{"model":"stars","questions":{"a":{"type":"choice"}}}`, "state is missing"},
		{one, `{"model":"stars","state":null,"questions":{"a":{"type":"choice"}}}`, "state is missing"},
		{one, `{"model":"stars","state":"x","questions":{}}`, "questions is missing or empty"},
		{one, `{"model":"stars","state":"x","questions":[1]}`, "no JSON object"},
		{one, `{"model":"stars","state":"x","questions":{"a":{"type":"choice"},"a":{"type":"choice"}}}`, `"a" is there twice`},
		{one, `{"model":"stars","state":"x","questions":{"a":7}}`, "questions.a is not a JSON object"},
		{one, `{"model":"stars","state":"x","questions":{"a":{"type":"box"}}}`, "want choice, score or noul"},
		{one, `{"model":"stars","state":"x","assets":{},"questions":{"a":{"type":"choice"}}}`, "assets is not supported"},
		{one, `{"model":"stars","state":"x","questions":{"a":{"type":"choice","criteria":["bad"]}}}`, "questions.a.criteria is no JSON object"},
		{one, `{"model":"stars","state":"x","questions":{"a":{"type":"score","criteria":{"bad":1}}}}`, "questions.a.criteria is no array"},
		{one, `{"model":"stars","state":"x","questions":{"a":{"type":"noul","criteria":{"yes":"x"}}}}`, "questions.a.criteria.yes is not supported"},
		{classify, `{"model":"stars"}`, "input is missing"},
		{classify, `{"model":"stars","input":[]}`, "input is missing"},
		{classify, `{"model":"ptune:demo","input":"x"}`, "has no labels"},
		{classify, `{"model":"stars","input":"x","truncate_prompt_tokens":3}`, "truncate_prompt_tokens is not supported"},
	} {
		status, text := server.do("POST", c.path, c.body)
		var answer struct{ Error struct{ Message string } }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status < 400 || status > 499 ||
			!strings.Contains(answer.Error.Message, c.want) {
			t.Errorf("%s %.150s: status %d, %s, want %q", c.path, c.body, status, text, c.want)
		}
	}
}

// A prompt with the labels yes and no is shown them, not true and false, with the client's descriptions.
func TestAPredicateShowsTheLabelsWithTheirDescriptions(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	p := newPrompt(b, 3, 5, prompt.Meta{Input: "{review}\n{question}\n{options}\nAnswer:", Target: " {label}",
		Labels: []prompt.Label{{Value: "0", Name: "no"}, {Value: "1", Name: "yes"}}})
	server.save("yes", p)
	m, err := server.server.find("yes")
	if err != nil {
		t.Fatal(err)
	}
	a, err := server.server.asker(m)
	if err != nil {
		t.Fatal(err)
	}
	for criteria, shown := range map[string]string{
		`{"true": "it was cold", "false": "it was hot"}`: "- yes: it was cold\n- no: it was hot",
		`{"true": "it was cold"}`:                        "- yes: it was cold\n- no",
		"null":                                           "- yes\n- no",
	} {
		wire := systemOneQuestion{Type: kindNoul, Instructions: []byte(`"Cold?"`), Criteria: []byte(criteria)}
		q, err := wire.read("q")
		if err != nil {
			t.Fatal(err)
		}
		q.input = textState("Cold soup.")
		r, err := a.ask(&q)
		if err != nil {
			t.Fatal(err)
		}
		want := "Cold soup.\nCold?\n" + shown + "\nAnswer:"
		if got := b.Tokenizer.Decode(r.question.Input); got != want {
			t.Errorf("%s: the model reads %q, want %q", criteria, got, want)
		}
		if r.options[0].text != "true" || !slices.Equal(r.order, []int{1, 0}) {
			t.Errorf("%s: the answer has the options %v in the order %v", criteria, r.options, r.order)
		}
	}
}
