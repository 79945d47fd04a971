package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ptune/internal/demo"
	"ptune/internal/infer"
	"ptune/internal/prompt"
)

var discard = slog.New(slog.DiscardHandler)

// long is a request whose text does not end by itself within the tokens of a test.
func long(model string, tokens int) object {
	return object{"model": model, "prompt": "We tried this cafe", "max_tokens": tokens, "seed": 1,
		"temperature": 1, "stream": true}
}

// until waits for a condition that the server makes true without a signal to the test.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); runtime.Gosched() {
		if time.Since(begin) > time.Minute {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// metric returns the value of the line of /metrics that begins with a name.
func (r *running) metric(name string) string {
	_, text := r.get("/metrics")
	for _, line := range strings.Split(text, "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	return ""
}

func TestAClientThatLeavesFreesItsPlace(t *testing.T) {
	server := start(t, func(o *Options) { o.Texts, o.Queue, o.MaxTokens = 1, 0, 400 })
	const short = `{"model": "ptune:demo", "prompt": "x", "max_tokens": 1}`
	for i := range 5 {
		release := server.hold()
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			request, err := http.NewRequestWithContext(ctx, "POST", server.url+"/v1/completions", strings.NewReader(short))
			if err == nil {
				request.Header.Set("Content-Type", "application/json")
				_, err = server.Do(request)
			}
			left <- err
		}()
		until(t, "waiting", func() bool { return len(server.server.loop.places) == 1 })
		status, text := server.do("POST", "/v1/completions", short)
		if status != http.StatusTooManyRequests || !strings.Contains(text, "too many requests") {
			t.Fatalf("beside the only place: %d %s, want 429", status, text)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		until(t, "499 in the metrics", func() bool {
			return server.metric(`ptune:http_requests_total{route="/v1/completions",status="499"}`) == strconv.Itoa(i+1)
		})
		release()
		until(t, "free", func() bool {
			status, _ := server.do("POST", "/v1/completions", short)
			return status == http.StatusOK
		})
	}
	if got := server.metric("vllm:num_requests_running"); got != "0" {
		t.Errorf("%s requests are running, want 0", got)
	}
	if got := server.metric("ptune:requests_rejected_total"); got == "0" || got == "" {
		t.Errorf("%q requests were rejected, want some", got)
	}
}

func TestAClientThatLeavesInMidStreamIsNotAnsweredAnyFurther(t *testing.T) {
	server := start(t, func(o *Options) { o.MaxTokens = 400 })
	many := long(demo.Name, 400)
	many["n"] = 64 // seconds of work
	answer := server.open("/v1/completions", many)
	release := server.hold()
	answer.Body.Close()
	until(t, "in the log", func() bool { return strings.Contains(server.log.String(), "path=/v1/completions") })
	release()
	until(t, "free", func() bool { return len(server.server.loop.places) == 0 })
	ended := 0
	for _, reason := range []string{"stop", "length"} {
		n, _ := strconv.Atoi(server.metric(`vllm:request_success_total{finished_reason="` + reason +
			`",model_name="ptune:demo"}`))
		ended += n
	}
	if ended >= 64 {
		t.Error("all texts were made to their ends")
	}
}

func TestTheServerEndsWhenRunningRequestsHave(t *testing.T) {
	server := start(t, func(o *Options) { o.Texts = 2 })
	var wg sync.WaitGroup
	began := make(chan struct{}, 6)
	texts := make([]string, 6)
	for i := range texts {
		wg.Go(func() {
			answer := server.open("/v1/completions", long(demo.Name, 60))
			defer answer.Body.Close()
			began <- struct{}{}
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Error(err)
			}
			texts[i] = string(text)
		})
	}
	for range 2 { // four wait
		<-began
	}
	until(t, "all requests in the server", func() bool {
		return server.metric("vllm:num_requests_waiting") == "4" || len(began) > 0
	})
	if err := server.stop(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for i, text := range texts {
		if !strings.HasSuffix(text, "data: [DONE]\n\n") {
			t.Errorf("answer %d ends with %.200q", i, text[max(0, len(text)-200):])
		}
	}
	if _, err := server.Get(server.url + "/health"); err == nil {
		t.Error("the server still answers")
	}
}

func TestRequestsAreCutOffAfterTheDrain(t *testing.T) {
	server := start(t, func(o *Options) { o.Drain, o.MaxTokens = 0, 400 })
	many := long(demo.Name, 400)
	many["n"] = 64
	answer := server.open("/v1/completions", many)
	defer answer.Body.Close()
	release := server.hold()
	time.AfterFunc(time.Millisecond, release) // after Run has begun to end
	ended := server.stop()
	server.stop = func() error { return nil } // the error is expected
	if ended == nil || !strings.Contains(ended.Error(), "cut off") {
		t.Errorf("the server ended with %v, want an error", ended)
	}
	if rest, err := io.ReadAll(answer.Body); err == nil && strings.Contains(string(rest), "[DONE]") {
		t.Error("a request that was cut off looks whole")
	}
}

func TestFilesOfPromptsAreTakenUpWithoutARestart(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, nil)
	text := func() string {
		var got completion
		server.post("/v1/completions", object{"model": "p", "prompt": "The soup", "temperature": 0, "max_tokens": 12}, &got)
		return got.Choices[0].Text
	}
	meta := prompt.Meta{Input: "{text}", Target: "{y}"}
	server.save("p", newPrompt(b, 1, 6, meta))
	first := text()
	server.save("p", newPrompt(b, 2, 9, meta))
	until(t, "the new text", func() bool { return text() != first })
	second := text()

	look := func() { server.get("/v1/models/unknown") } // the files are looked at before it is refused
	path := filepath.Join(server.folder, "p.st")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(content []byte) {
		t.Helper()
		err := os.WriteFile(path+".new", content, 0o644)
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace(whole[:len(whole)/2])
	until(t, "refused in the log", func() bool { look(); return strings.Contains(server.log.String(), "prompt refused") })
	foreign := newPrompt(b, 3, 4, meta)
	foreign.Meta.Base.Fingerprint = "another"
	server.save("p", foreign)
	until(t, "refused as foreign", func() bool { look(); return strings.Contains(server.log.String(), "with other weights") })
	if got := text(); got != second {
		t.Errorf("with a damaged file the text is %q, want that of the old one, %q", got, second)
	}
	if n := strings.Count(server.log.String(), "prompt refused"); n != 2 {
		t.Errorf("the log refuses %d files, want 2:\n%s", n, server.log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "removed", func() bool {
		look()
		status, _ := server.do("POST", "/v1/completions", `{"model": "p", "prompt": "x"}`)
		return status == http.StatusNotFound
	})
	server.save("ptune:demo", newPrompt(b, 4, 3, meta)) // the base's name
	until(t, "refused", func() bool { look(); return strings.Contains(server.log.String(), "the base model has the same name") })
}

func TestAPromptIsLoadedOnceThereIsMemory(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, func(o *Options) { o.CacheBytes = 1 << 20 })
	l := server.server.loop
	_, limit := l.decoder.Bytes()
	rows := int(limit / l.decoder.TokenBytes())
	var all *infer.Prompt
	fill := func() {
		t.Helper()
		err := l.call(func() (err error) {
			all, err = l.engine.AddPrompt(make([]float32, rows*b.Hidden), rows)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	free := func() { l.post(func() { l.engine.RemovePrompt(all) }) }
	answer := func() (int, string) {
		return server.do("POST", "/v1/completions", `{"model": "p", "prompt": "x", "max_tokens": 1}`)
	}
	fill()
	server.save("p", newPrompt(b, 1, 6, prompt.Meta{Input: "{text}", Target: "{y}"}))
	for range 3 {
		if status, text := answer(); status != http.StatusNotFound {
			t.Fatalf("without memory: %d %s", status, text)
		}
	}
	if log := server.log.String(); strings.Count(log, "tried again") != 1 || !strings.Contains(log, "cache is full") {
		t.Errorf("the log is\n%s", log)
	}
	free()
	if status, text := answer(); status != http.StatusOK {
		t.Fatalf("with memory: %d %s", status, text)
	}

	// A request that has found the model just before its file is removed.
	old := server.server.models.get("p").engine
	l.post(func() { l.retire(old) })
	fill()
	w, err := l.begin(t.Context(), old, []infer.Request{{IDs: []int32{1}, MaxTokens: 1}}, false)
	if err == nil {
		_, err = l.wait(t.Context(), w.tickets[0])
	}
	if e := asAPI(err); e.status != http.StatusServiceUnavailable || !strings.Contains(e.Message, "cache is full") {
		t.Errorf("for an old model without memory: %d %v", e.status, err)
	}
	free()
}

func TestARequestThatTheCacheCannotHoldIsRefused(t *testing.T) {
	server := start(t, func(o *Options) { o.CacheBytes = 1 })
	status, text := server.do("POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "x", "max_tokens": 200}`)
	if status != http.StatusBadRequest || !strings.Contains(text, "cache is full") || !strings.Contains(text, codeLength) {
		t.Errorf("%d %s, want 400", status, text)
	}
}

func TestAPanicOfTheEngineIsAnsweredAndEndsTheServerInOrder(t *testing.T) {
	server := start(t, nil)
	release := server.hold()
	answers := make(chan int, 2)
	for range cap(answers) {
		go func() {
			status, _ := server.do("POST", "/v1/completions", `{"model": "ptune:demo", "prompt": "x", "max_tokens": 100}`)
			answers <- status
		}()
	}
	until(t, "waiting", func() bool { return len(server.server.loop.places) == cap(answers) })
	server.server.loop.post(func() { panic("for a test") })
	release()
	for range cap(answers) {
		if status := <-answers; status != http.StatusInternalServerError {
			t.Errorf("status %d, want 500", status)
		}
	}
	until(t, "ended", func() bool { return strings.Contains(server.log.String(), "must be started again") })
	ended := server.stop()
	server.stop = func() error { return nil } // the error is expected
	if !errors.Is(ended, errBroken) || !strings.Contains(server.log.String(), "operation_test.go") {
		t.Errorf("the server ended with %v, and the log\n%s", ended, server.log)
	}
}

func TestOnlyLengthsHaveTheirCode(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{refused{errors.New("x")}, 400, ""},
		{refused{fmt.Errorf("y: %w", infer.ErrFull)}, 400, codeLength},
		{fmt.Errorf("y: %w", infer.ErrFull), 400, codeLength},
		{infer.ErrNaN, 500, ""},
		{errEnding, 503, "ending"},
	} {
		if e := asAPI(c.err); e.status != c.status || e.Code != c.code || e.Param != "" {
			t.Errorf("%v: %+v, want %d with code %q", c.err, e, c.status, c.code)
		}
	}
	server := start(t, nil)
	m := server.server.models.get(demo.Name)
	_, err := server.server.choices(m, &sampling{}, infer.Request{MaxTokens: 1}, [][]int32{{}})
	if err == nil || asAPI(err).status != 400 || asAPI(err).Code != "" || !strings.Contains(err.Error(), "no tokens") {
		t.Errorf("an empty prompt of the base alone: %v", err)
	}
}

func TestARunningRequestEndsOnThePromptItBeganWith(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server := start(t, func(o *Options) { o.MaxTokens = 300 })
	meta := prompt.Meta{Input: "{text}", Target: "{y}"}
	server.save("p", newPrompt(b, 1, 6, meta))
	read := func(e []string) (text string) {
		for _, e := range e {
			var part completion
			if json.Unmarshal([]byte(e), &part) == nil && len(part.Choices) > 0 {
				text += part.Choices[0].Text
			}
		}
		return text
	}
	want := read(server.events("/v1/completions", long("p", 300)))
	answer := server.open("/v1/completions", long("p", 300))
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	var events []string
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if events = append(events, data); len(events) == 1 {
			server.save("p", newPrompt(b, 2, 6, meta))
			until(t, "loaded again", func() bool {
				server.get("/v1/models/unknown")
				return strings.Count(server.log.String(), "prompt loaded") == 2
			})
		}
	}
	if got := read(events); got != want {
		t.Errorf("the text is %q, want that of the old prompt, %q", got, want)
	}
}

func TestAKeyIsAskedOfEveryRouteButHealth(t *testing.T) {
	server := start(t, func(o *Options) { o.Keys = []string{"first", "second"} })
	ask := func(method, path, header string) int {
		request, err := http.NewRequest(method, server.url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			request.Header.Set("Authorization", header)
		}
		answer, err := server.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	for _, r := range newServer(Options{}).routes {
		want := map[bool]int{true: 200, false: 401}[r.path == "/health"]
		for _, header := range []string{"", "Bearer third", "Bearer ", "Basic x"} {
			if got := ask(r.method, strings.TrimSuffix(r.path, "{$}"), header); got != want {
				t.Errorf("%s %s with %q: %d, want %d", r.method, r.path, header, got, want)
			}
		}
	}
	if got := ask("GET", "/nothing", ""); got != 401 {
		t.Errorf("a path that does not exist: %d, want 401", got)
	}
	for _, header := range []string{"Bearer first", "Bearer second", "Basic OnNlY29uZA=="} {
		if got := ask("GET", "/v1/models", header); got != 200 {
			t.Errorf("with %q: %d, want 200", header, got)
		}
	}
}

func TestPagesOfOtherOriginsAreRefusedUnlessAllowed(t *testing.T) {
	for _, c := range []struct {
		allow        []string
		host, origin string
		status       int
		header       string // Access-Control-Allow-Origin
	}{
		{nil, "", "", 200, ""},
		{nil, "", "http://localhost:3000", 200, ""}, // the browser keeps the answer from the page
		{nil, "evil.example", "http://evil.example", 403, ""},
		{nil, "evil.example", "", 403, ""}, // a page that has given its name this address
		{nil, "evil.example:80", "", 403, ""},
		{nil, "LocalHost:80", "", 200, ""},
		{nil, "[::1]:80", "", 200, ""},
		{nil, "[::1]", "", 200, ""},
		{nil, "192.168.0.7:80", "", 200, ""},
		{[]string{"https://a.example"}, "a.example", "", 200, ""},
		{[]string{"https://a.example"}, "", "https://a.example", 200, "https://a.example"},
		{[]string{"https://a.example"}, "a.example:8080", "https://a.example", 200, "https://a.example"},
		{[]string{"https://a.example"}, "b.example", "https://b.example", 403, ""},
		{[]string{"*"}, "", "https://b.example", 200, "https://b.example"},
	} {
		server := start(t, func(o *Options) { o.Origins = c.allow })
		request, err := http.NewRequest("GET", server.url+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = c.host
		if c.origin != "" {
			request.Header.Set("Origin", c.origin)
		}
		answer, err := server.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("Access-Control-Allow-Origin"); answer.StatusCode != c.status || got != c.header {
			t.Errorf("%+v: %d with %q", c, answer.StatusCode, got)
		}
		request.Method = "OPTIONS"
		request.Header.Set("Access-Control-Request-Method", "POST")
		if answer, err = server.Do(request); err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.StatusCode == http.StatusNoContent; got != (c.header != "") {
			t.Errorf("%+v: OPTIONS answers %d", c, answer.StatusCode)
		}
	}
}

func TestHealthIs503UntilTheBaseIsLoaded(t *testing.T) {
	s := newServer(Options{Log: discard})
	for _, path := range []string{"/health", "/v1/models"} {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "loading") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestTheRequestIDIsTakenOrMade(t *testing.T) {
	server := start(t, nil)
	for given, want := range map[string]bool{"abc-1": true, "": false, strings.Repeat("x", 200): false, "a b": false} {
		request, err := http.NewRequest("GET", server.url+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Request-Id", given)
		answer, err := server.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		id := answer.Header.Get("X-Request-Id")
		if (id == given) != want || id == "" {
			t.Errorf("given %q: the id is %q", given, id)
		}
		until(t, "in the log", func() bool { return strings.Contains(server.log.String(), "id="+id) })
	}
}

func TestARequestThatTakesTooLongIsEnded(t *testing.T) {
	server := start(t, func(o *Options) { o.Timeout = time.Millisecond; o.MaxTokens = 400 })
	status, text := server.do("POST", "/v1/completions",
		`{"model": "ptune:demo", "prompt": "We tried", "max_tokens": 400, "seed": 1}`)
	if status != http.StatusGatewayTimeout || !strings.Contains(text, "longer than the server allows") {
		t.Errorf("%d %s, want 504", status, text)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		server := start(t, nil)
		server.events("/v1/completions", long(demo.Name, 20))
		answer := server.open("/v1/completions", long(demo.Name, 200))
		answer.Body.Close()
		server.CloseIdleConnections()
		if err := server.stop(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, fmt.Sprintf("back to %d goroutines", before), func() bool { return runtime.NumGoroutine() <= before })
}

func TestAFileThatIsNamedMustBeRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.st")
	if err := os.WriteFile(path, []byte("no prompt"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, files := range []map[string]string{{"x": path}, {"x": path + "2"}, {demo.Name: path}} {
		err := Run(t.Context(), Options{Open: openDemo, Files: files, Listen: "127.0.0.1:0", Texts: 1,
			CacheBytes: 1 << 28, Log: discard})
		if err == nil || !strings.Contains(err.Error(), "x.st") {
			t.Errorf("%v: %v", files, err)
		}
	}
	err := Run(t.Context(), Options{Open: openDemo, Folder: path + "/none", Listen: "127.0.0.1:0", Texts: 1,
		CacheBytes: 1 << 28, Log: discard})
	if err == nil || errors.Is(err, os.ErrInvalid) {
		t.Errorf("a folder that is missing: %v", err)
	}
}
