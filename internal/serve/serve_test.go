package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ptune/internal/base"
	"ptune/internal/demo"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

// running is a server under test and its client.
type running struct {
	*http.Client
	t      testing.TB
	url    string
	stop   func() error // ends the server and returns Run's error
	folder string       // of prompts
	server *Server
	log    *logText
}

// logText is a log that tests read.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func openDemo() (*base.Base, error) { return base.Open(demo.Name, base.Options{Trusted: true}) }

// start runs a server of the demo base on a free port, with the prompts of a folder.
func start(t testing.TB, change func(*Options)) *running {
	t.Helper()
	r := &running{Client: &http.Client{}, t: t, folder: t.TempDir(), log: &logText{}}
	o := Options{
		Open: openDemo, Folder: r.folder, Listen: "127.0.0.1:0",
		Texts: 8, Queue: 64, MaxTokens: 200, CacheBytes: 1 << 30, MaxBody: 1 << 16,
		Drain: time.Minute, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if change != nil {
		change(&o)
	}
	o.testOnlyReady = func(s *Server) { r.server = s }
	listening := make(chan net.Addr, 1)
	o.Listening = func(a net.Addr) { listening <- a }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		r.CloseIdleConnections()
		if err := r.stop(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, r.log)
		}
	})
	select {
	case a := <-listening:
		r.url = "http://" + a.String()
	case err := <-ended:
		t.Fatal(err)
	}
	for { // loading
		status, _ := r.get("/health")
		if status == http.StatusOK {
			return r
		}
	}
}

// hold stops the loop between two steps until the function that it returns is called.
func (r *running) hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	r.server.loop.post(func() { close(held); <-free })
	<-held
	release = sync.OnceFunc(func() { close(free) })
	r.t.Cleanup(release)
	return release
}

// do sends a request and returns the status and the body of the answer.
func (r *running) do(method, path, body string) (int, string) {
	r.t.Helper()
	request, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := r.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func (r *running) get(path string) (int, string) { r.t.Helper(); return r.do("GET", path, "") }

// post sends a body of JSON and reads an answer with status 200 into v.
func (r *running) post(path string, body, v any) {
	r.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	status, answer := r.do("POST", path, string(raw))
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: status %d: %s", path, raw, status, answer)
	}
	if err := json.Unmarshal([]byte(answer), v); err != nil {
		r.t.Fatalf("%s: %v: %s", path, err, answer)
	}
}

// object is a body of JSON.
type object map[string]any

// newPrompt returns a soft prompt for a base: embeddings of random words, so that texts after it differ.
func newPrompt(b *base.Base, seed uint64, rows int, meta prompt.Meta) *prompt.Prompt {
	r := rand.New(rand.NewPCG(seed, 1))
	p := &prompt.Prompt{Rows: rows, Dim: b.Hidden, Values: make([]float32, rows*b.Hidden), Meta: meta}
	p.Meta.Base = prompt.Base{Name: b.Name, Fingerprint: b.Fingerprint}
	p.Meta.Tokenizer, p.Meta.EOS = b.Tokenizer.Hash, b.EOS[0]
	for i := range rows {
		copy(p.Row(i), b.EmbeddingRow(r.IntN(b.Vocab)))
	}
	return p
}

// save writes a prompt into the server's folder.
func (r *running) save(name string, p *prompt.Prompt) {
	r.t.Helper()
	if err := p.Save(filepath.Join(r.folder, name+".st")); err != nil {
		r.t.Fatal(err)
	}
}

var labels = []prompt.Label{{Value: "0", Name: "bad"}, {Value: "1", Name: "good"}}

func TestACompletionIsWhatGenerateWrites(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := newPrompt(b, 1, 7, prompt.Meta{Input: "{text}\nAnswer:", Target: " {label}", Labels: labels})
	server := start(t, nil)
	server.save("p", p)
	for _, c := range []struct {
		model  string
		prompt *prompt.Prompt
	}{{"p", p}, {demo.Name, nil}} {
		g := infer.NewGenerator(infer.New(b.NewDecoder(1<<30), infer.Options{
			Decode: b.Tokenizer.Decode, Unsettled: b.Tokenizer.Unsettled,
		}), infer.Request{MaxTokens: 12, EOS: b.EOS})
		if err := g.Add(c.prompt, b, b.Tokenizer, true, false); err != nil {
			t.Fatal(err)
		}
		const text = "The soup was cold."
		var want string
		err := g.Run(context.Background(), infer.Known(infer.Texts([]string{text})), 1, nil,
			func(a infer.Answer) error { want = a.Results[0].Text; return nil })
		if err != nil {
			t.Fatal(err)
		}
		var got completion
		server.post("/v1/completions", object{
			"model": c.model, "prompt": text, "temperature": 0, "max_tokens": 12,
		}, &got)
		if got.Choices[0].Text != want {
			t.Errorf("%s: got %q, want %q", c.model, got.Choices[0].Text, want)
		}
		server.post("/v1/completions", object{"model": c.model, "prompt": text, "temperature": 0,
			"max_tokens": 12, "echo": true}, &got)
		if got.Choices[0].Text != text+want {
			t.Errorf("%s: got %q, want %q", c.model, got.Choices[0].Text, text+want)
		}
	}
}

func TestWrongRequestsAreRefusedByName(t *testing.T) {
	server := start(t, nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		param, message     string
	}{
		{"POST", "/v1/completions", `{"prompt": "a"}`, 400, "model", "model is missing"},
		{"POST", "/v1/completions", `{"model": "x", "prompt": "a"}`, 404, "model", `the model "x" does not exist`},
		{"POST", "/v1/completions", `{"model": "ptune:demo"}`, 400, "prompt", "prompt is missing"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": []}`, 400, "prompt", "no tokens"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": [1, 9999]}`, 400, "prompt", "token id 9999"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": {"a": 1}}`, 400, "prompt", "neither a text"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a\u0000b"}`, 400, "prompt", "NUL byte"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "Temperature": 1}`, 400, "Temperature",
			"not supported"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "tools": [], "best_of": 2}`, 400,
			"best_of", "tools is not supported"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "prompt_embeds": "AA=="}`, 400,
			"prompt_embeds", "no tensors"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "temperature": -1}`, 400,
			"temperature", "want at least 0"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "temperature": "x"}`, 400,
			"temperature", "want a number"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "max_tokens": 201}`, 400,
			"max_tokens", "at most 200"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "repetition_penalty": 1e-40, "top_p": 0.9}`,
			400, "repetition_penalty", "0.01 to 100"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "n": 0}`, 400, "n", "1 to 72"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "a", "stop": ["x", ""]}`, 400, "stop", "0 bytes"},
		{"POST", "/v1/completions", `{"model": `, 400, "", "not JSON"},
		{"POST", "/v1/completions", `[]`, 400, "", "not a JSON object"},
		{"POST", "/v1/completions", `null`, 400, "", "not a JSON object"},
		{"POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "` + strings.Repeat("a ", 600) + `"}`, 400, "",
			"the model takes 512"},
		{"POST", "/v1/completions", strings.Repeat(" ", 1<<16+1), 413, "", "more than 65536 bytes"},
		{"GET", "/v1/completions", "", 405, "", "takes POST, not GET"},
		{"POST", "/v1/models", "", 405, "", "takes GET, not POST"},
		{"GET", "/v1/models/x", "", 404, "model", `"x" does not exist`},
		{"GET", "/v2", "", 404, "", "nothing at GET /v2"},
	} {
		status, answer := server.do(c.method, c.path, c.body)
		var e struct {
			Error struct {
				Message, Type string
				Param         *string
			}
		}
		if err := json.Unmarshal([]byte(answer), &e); err != nil {
			t.Errorf("%s %.100s: %v: %s", c.path, c.body, err, answer)
			continue
		}
		param := ""
		if e.Error.Param != nil {
			param = *e.Error.Param
		}
		if status != c.status || param != c.param || !strings.Contains(e.Error.Message, c.message) ||
			e.Error.Type != typeInvalid {
			t.Errorf("%s %s %.100s: got %d, param %q: %s; want %d, %q, %q",
				c.method, c.path, c.body, status, param, answer, c.status, c.param, c.message)
		}
	}
	answer, err := server.Post(server.url+"/v1/completions", "text/plain", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: status %d, want 415", answer.StatusCode)
	}
}

func TestScoresAreThoseOfThePromptAlone(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := newServer(Options{Open: openDemo, Folder: t.TempDir(), Texts: 4, Queue: 4, CacheBytes: 1 << 28,
		Log: slog.New(slog.DiscardHandler)})
	if err := s.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	p := newPrompt(b, 2, 5, prompt.Meta{Input: "{text}:", Target: " {label}", Labels: labels})
	if err := p.Save(filepath.Join(s.Folder, "p.st")); err != nil {
		t.Fatal(err)
	}
	m, err := s.find("p")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := m.task.Text("The soup")
	if err != nil {
		t.Fatal(err)
	}
	q := infer.Question{Input: ids, Ends: [][]int32{m.choices[0].IDs, m.choices[1].IDs}}
	got, err := s.score(context.Background(), m, []infer.Question{q})
	if err != nil {
		t.Fatal(err)
	}
	decoder := b.NewDecoder(1 << 28)
	alone := infer.New(decoder, infer.Options{Scorer: b, Trees: decoder})
	soft, err := alone.AddPrompt(p.Values, p.Rows)
	if err != nil {
		t.Fatal(err)
	}
	want, err := alone.Generate(context.Background(), []infer.Request{{Prompt: soft, IDs: q.Input, Labels: q.Ends}})
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want[0].Scores {
		if got[0][i] != w {
			t.Errorf("ending %d: −log p is %v, want %v", i, got[0][i], w)
		}
	}
	if err := s.checkQuestion(m, &infer.Question{Input: make([]int32, 600), Ends: q.Ends}); err == nil ||
		asAPI(err).Code != "context_length_exceeded" {
		t.Errorf("a text that is too long: %v", err)
	}
	many := infer.Question{Input: q.Input}
	for range maxScored/400 + 1 {
		many.Ends = append(many.Ends, make([]int32, 400))
	}
	if err := s.checkQuestion(m, &many); err == nil || asAPI(err).status != 400 ||
		!strings.Contains(asAPI(err).Message, "options have 8400 tokens") {
		t.Errorf("options that are too long together: %v", err)
	}
	if fmt.Sprint(m.choices[1].Name) != "good" {
		t.Errorf("the choices are %v", m.choices)
	}
}

// The last bits of an answer depend on which tokens its rows are asked for, so requests with the same input
// and other options must not share them.
func TestScoresDoNotDependOnOptionsOfOtherRequests(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	decoder := b.NewDecoder(1 << 28)
	defer decoder.Close()
	e := infer.New(decoder, infer.Options{Scorer: b, Trees: decoder, ScoreTokens: 1 << 20})
	p := newPrompt(b, 2, 5, prompt.Meta{})
	soft, err := e.AddPrompt(p.Values, p.Rows)
	if err != nil {
		t.Fatal(err)
	}
	tokens := func(text string) []int32 {
		ids, err := b.Tokenizer.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	input := tokens("The soup was cold:")
	// The likeliest tokens change the sum that the others are compared with.
	next, err := e.Generate(context.Background(), []infer.Request{
		{Prompt: soft, IDs: input, MaxTokens: 1, Logprobs: 41},
	})
	if err != nil {
		t.Fatal(err)
	}
	longer := slices.Concat(input, []int32{next[0].Logprobs[0].ID}) // begins with an option of others
	random := rand.New(rand.NewPCG(1, 2))
	var requests []infer.Request
	for i := range 24 {
		r := infer.Request{Prompt: soft, IDs: [][]int32{input, input, longer}[i%3]}
		for range 1 + i%8 {
			one := next[0].Logprobs[0].Top[random.IntN(40)].ID
			r.Labels = append(r.Labels, []int32{one, random.Int32N(int32(b.Vocab))})
		}
		requests = append(requests, r)
	}
	together, err := e.Generate(context.Background(), requests)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range requests {
		alone, err := e.Generate(context.Background(), []infer.Request{r})
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range alone[0].Scores {
			if got := together[i].Scores[k]; got != want {
				t.Errorf("request %d, option %d: −log p is %v beside others, %v alone", i, k, got, want)
			}
		}
	}
}
