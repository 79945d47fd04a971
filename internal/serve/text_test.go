package serve

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/chat"
	"ptune/internal/demo"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

// events sends a request that is answered with server-sent events and returns their data.
func (r *running) events(path string, body object) (events []string) {
	r.t.Helper()
	answer := r.open(path, body)
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			events = append(events, data)
		}
	}
	return events
}

// open sends a request and returns its answer with status 200 before the end of its body.
func (r *running) open(path string, body object) *http.Response {
	r.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := r.Post(r.url+path, "application/json", strings.NewReader(string(raw)))
	if err != nil {
		r.t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		r.t.Fatalf("%s %s: %d %s", path, raw, answer.StatusCode, text)
	}
	return answer
}

func TestAStreamHasTheTextOfTheWholeAnswer(t *testing.T) {
	server := start(t, nil)
	ask := object{"model": demo.Name, "prompt": []string{"We tried this cafe", "The"}, "n": 2, "seed": 5,
		"max_tokens": 30, "logprobs": 2, "stop": []string{"zzzz"}}
	var want completion
	server.post("/v1/completions", ask, &want)
	stream := maps.Clone(ask)
	stream["stream"], stream["stream_options"] = true, object{"include_usage": true}
	events := server.events("/v1/completions", stream)
	if last := events[len(events)-1]; last != "[DONE]" {
		t.Fatalf("the last event is %s", last)
	}
	got := make([]completionChoice, len(want.Choices))
	for i, e := range events[:len(events)-1] {
		var part completion
		if err := json.Unmarshal([]byte(e), &part); err != nil {
			t.Fatalf("%v: %s", err, e)
		}
		if i == len(events)-2 {
			if !reflect.DeepEqual(part.Usage, want.Usage) || len(part.Choices) != 0 {
				t.Errorf("usage is %+v, want %+v", part.Usage, want.Usage)
			}
			continue
		}
		for _, c := range part.Choices {
			to := &got[c.Index]
			to.Index, to.Text, to.FinishReason = c.Index, to.Text+c.Text, c.FinishReason
			if to.Logprobs == nil {
				to.Logprobs = &completionLogprobs{}
			}
			to.Logprobs.Tokens = append(to.Logprobs.Tokens, c.Logprobs.Tokens...)
			to.Logprobs.TokenLogprobs = append(to.Logprobs.TokenLogprobs, c.Logprobs.TokenLogprobs...)
			to.Logprobs.TopLogprobs = append(to.Logprobs.TopLogprobs, c.Logprobs.TopLogprobs...)
			to.Logprobs.TextOffset = append(to.Logprobs.TextOffset, c.Logprobs.TextOffset...)
		}
	}
	if !reflect.DeepEqual(got, want.Choices) {
		t.Errorf("the stream has\n%+v, want\n%+v", got, want.Choices)
	}
	if want.Choices[0].Text == want.Choices[1].Text {
		t.Error("two choices have the same text")
	}
	var again completion
	server.post("/v1/completions", ask, &again)
	if !reflect.DeepEqual(again.Choices, want.Choices) {
		t.Error("the same seed gives another text")
	}
}

func TestLogprobsAreOfTheTokensOfTheText(t *testing.T) {
	server := start(t, nil)
	var got completion
	server.post("/v1/completions", object{"model": demo.Name, "prompt": "We tried this cafe", "max_tokens": 20,
		"temperature": 0, "logprobs": 3}, &got)
	c := got.Choices[0]
	if len(c.Logprobs.Tokens) != 20 || strings.Join(c.Logprobs.Tokens, "") != c.Text {
		t.Errorf("the tokens are %q, the text is %q", c.Logprobs.Tokens, c.Text)
	}
	for i, token := range c.Logprobs.Tokens {
		top := c.Logprobs.TopLogprobs[i]
		if p := c.Logprobs.TokenLogprobs[i]; len(top) != 3 || top[token] != p || p != slices.Max(slices.Collect(maps.Values(top))) {
			t.Errorf("token %d %q: log p is %g, the likeliest are %v", i, token, p, top)
		}
		if at := c.Logprobs.TextOffset[i]; !strings.HasPrefix(c.Text[at:], token) {
			t.Errorf("token %d %q is not at %d of %q", i, token, at, c.Text)
		}
	}
	var same completion
	server.post("/v1/completions", object{"model": demo.Name, "prompt": "We tried this cafe", "max_tokens": 20,
		"temperature": 0, "stop": c.Logprobs.Tokens[4]}, &same)
	if want, _, _ := strings.Cut(c.Text, c.Logprobs.Tokens[4]); same.Choices[0].Text != want ||
		*same.Choices[0].FinishReason != "stop" {
		t.Errorf("with stop %q: %q, want %q", c.Logprobs.Tokens[4], same.Choices[0].Text, want)
	}
}

const chatTemplate = `{% for m in messages %}<{{ m.role }}>{{ m.content }}
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}`

// chatBase returns the directory of the demo base with a chat template.
func chatBase(t testing.TB) string {
	dir := t.TempDir()
	if err := os.CopyFS(dir, demo.Base()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(chatTemplate), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAChatIsRenderedAsThePromptWasTrained(t *testing.T) {
	dir := chatBase(t)
	b, err := base.Open(dir, base.Options{Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	template, err := b.Chat()
	if err != nil {
		t.Fatal(err)
	}
	server := start(t, func(o *Options) {
		o.Open = func() (*base.Base, error) { return base.Open(dir, base.Options{Trusted: true}) }
	})
	server.save("plain", newPrompt(b, 1, 5, prompt.Meta{Input: "Q: {text}\nA:", Target: " {y}"}))
	server.save("turn", newPrompt(b, 2, 5, prompt.Meta{Input: "Q: {text}", Target: "{y}", Chat: template.Sum()}))
	server.save("talk", newPrompt(b, 3, 5, prompt.Meta{Messages: "messages", Chat: template.Sum()}))
	user := func(text string) object { return object{"role": "user", "content": text} }
	parts := object{"role": "user", "content": []object{{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}}}
	system := object{"role": "developer", "content": "Be nice"}
	for _, c := range []struct {
		model    string
		messages []object
		want     string // the rendered text
	}{
		{b.Name, []object{system, user("Hello")}, "<system>Be nice\n<user>Hello\n<assistant>"},
		{b.Name, []object{parts}, "<user>Hello\n<assistant>"},
		{"plain", []object{user("Hello")}, "Q: Hello\nA:"},
		{"turn", []object{user("Hello"), {"role": "assistant", "content": "Hm"}, user("You")},
			"<user>Q: Hello\n<assistant>Hm\n<user>Q: You\n<assistant>"},
		{"talk", []object{system, user("Hello")}, "<system>Be nice\n<user>Hello\n<assistant>"},
	} {
		var got, want chatAnswer
		ask := object{"model": c.model, "messages": c.messages, "temperature": 0, "max_completion_tokens": 8,
			"logprobs": true, "top_logprobs": 1}
		server.post("/v1/chat/completions", ask, &got)
		ids, err := b.Tokenizer.Encode(c.want)
		if err != nil {
			t.Fatal(err)
		}
		var plain completion
		server.post("/v1/completions", object{"model": c.model, "prompt": ids, "temperature": 0, "max_tokens": 8}, &plain)
		text := *got.Choices[0].Message.Content
		if text != plain.Choices[0].Text || !reflect.DeepEqual(got.Usage, plain.Usage) {
			t.Errorf("%s: got %q %+v, want %q %+v", c.model, text, got.Usage, plain.Choices[0].Text, plain.Usage)
		}
		tokens := ""
		for _, token := range got.Choices[0].Logprobs.Content {
			tokens += token.Token
			if top := token.Top[0]; !reflect.DeepEqual(top, token.tokenLogprob) {
				t.Errorf("%s: the likeliest is %+v, the token %+v", c.model, top, token.tokenLogprob)
			}
		}
		if tokens != text {
			t.Errorf("%s: the tokens are %q, the text is %q", c.model, tokens, text)
		}
		ask["stream"] = true
		events := server.events("/v1/chat/completions", ask)
		streamed, role := "", ""
		for _, e := range events[:len(events)-1] {
			want = chatAnswer{}
			if err := json.Unmarshal([]byte(e), &want); err != nil {
				t.Fatalf("%v: %s", err, e)
			}
			role += want.Choices[0].Delta.Role
			if p := want.Choices[0].Delta.Content; p != nil {
				streamed += *p
			}
		}
		if streamed != text || role != "assistant" || want.Choices[0].FinishReason == nil ||
			*want.Choices[0].FinishReason != *got.Choices[0].FinishReason {
			t.Errorf("%s: the stream has %q of %q, last %+v; want %q", c.model, streamed, role, want, text)
		}
	}
	for body, message := range map[string]string{
		`{"model": "plain", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]}`: "one message of the user",
		`{"model": "talk", "messages": []}`:                                                                             "messages is missing or empty",
		`{"model": "talk", "messages": [{"role": "tool", "content": "x"}]}`:                                             `messages[0].role is \"tool\"`,
		`{"model": "talk", "messages": [{"role": "user", "content": 3}]}`:                                               "messages[0].content is neither",
		`{"model": "talk", "messages": [{"role": "user", "text": "x"}]}`:                                                "messages[0].text is not supported",
		`{"model": "talk", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}`:                         "only text is supported",
		`{"model": "talk", "messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}`: "response_format is not supported",
		`{"model": "talk", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}`:                              "tools is not supported",
		`{"model": "talk", "messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}`:                          "want 0 to 20, and logprobs",
		`{"model": "talk", "messages": [{"role": "user", "content": "x"}], "stream_options": {}}`:                       "with stream only",
	} {
		if status, answer := server.do("POST", "/v1/chat/completions", body); status != 400 || !strings.Contains(answer, message) {
			t.Errorf("%s: %d %s, want %q", body, status, answer, message)
		}
	}
	var ids []int32
	task, err := infer.NewTask(&prompt.Meta{}, b, b.Tokenizer)
	if err == nil {
		ids, err = task.Messages([]chat.Message{{Role: "user", Content: "x"}}, nil)
	}
	if err == nil || !strings.Contains(err.Error(), "no chat template") {
		t.Errorf("a base without a chat template: %v, %v", ids, err)
	}
}
