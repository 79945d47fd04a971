package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"ptune/internal/demo"
	"ptune/internal/prompt"
)

// allocated returns the bytes that f allocates, with those of all goroutines.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// manyFields returns a JSON object with n fields.
func manyFields(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"f%d":"word",`, i)
	}
	return strings.TrimSuffix(b.String(), ",") + "}"
}

// labelled saves a prompt with labels under the name stars.
func (r *running) labelled() {
	r.save("stars", newPrompt(r.server.base, 1, 5, prompt.Meta{Input: "{text}\nAnswer:", Target: " {label}", Labels: stars}))
}

func TestTheMemoryOfARequestDoesNotGrowWithItsQuestions(t *testing.T) {
	server := start(t, func(o *Options) { o.Queue = 1000 })
	server.labelled()
	var questions []string
	for i := range 400 {
		questions = append(questions, fmt.Sprintf(`"q%d":{"type":"choice"}`, i))
	}
	systemOne := `{"model":"stars","state":` + manyFields(3000) + `,"questions":{` + strings.Join(questions, ",") + `}}`
	decisions := `{"model":"stars","input":"` + strings.Repeat("word ", 8000) + `","questions":[` +
		strings.Repeat(`{"type":"choice"},`, 399) + `{"type":"choice"}]}`
	server.get("/v1/models/stars") // loads it
	for path, body := range map[string]string{"/v1/systemone": systemOne, "/v1/decisions": decisions} {
		var status int
		var text string
		got := allocated(func() { status, text = server.do("POST", path, body) })
		if status != http.StatusBadRequest || !strings.Contains(text, "context_length_exceeded") {
			t.Errorf("%s: %d %s", path, status, text)
		}
		if got > 20<<20 { // each further question would add a state of 1 MB, or 8000 tokens
			t.Errorf("%s: a body of %d bytes took %d MB", path, len(body), got>>20)
		}
	}
}

func TestDuplicatesAmongManyFieldsAreFoundInLinearTime(t *testing.T) {
	raw := []byte(manyFields(100_000))
	began := time.Now()
	var o ordered
	if err := json.Unmarshal(raw, &o); err != nil || len(o) != 100_000 {
		t.Fatal(len(o), err)
	}
	if took := time.Since(began); took > 4*time.Second { // comparing all pairs takes longer on any machine
		t.Errorf("%d fields took %v", len(o), took)
	}
}

func TestAStreamThatTakesTooLongEndsWithAnError(t *testing.T) {
	server := start(t, func(o *Options) { o.Timeout, o.MaxTokens = 2*time.Second, 400 })
	many := long(demo.Name, 400)
	many["n"] = 64
	answer := server.open("/v1/completions", many)
	defer answer.Body.Close()
	release := server.hold()
	text, err := io.ReadAll(answer.Body)
	release()
	if err != nil {
		t.Fatal(err)
	}
	if last := string(text[max(0, len(text)-200):]); !strings.Contains(last, `"code":"timeout"`) ||
		strings.Contains(last, "[DONE]") {
		t.Errorf("the stream ends with %s", last)
	}
}

// When the time of a request is over, the engine ends it, too, with an error of its own.
func TestARequestThatTheEngineEndedHasTheReasonOfItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := &ticket{over: make(chan struct{}), err: context.Canceled}
	close(failed.over)
	l := &loop{}
	if _, err := l.wait(ctx, failed); err != context.Canceled {
		t.Errorf("got %v, want that of the ticket", err)
	}
	cancel(errTimeout)
	for range 20 { // either case of a select
		if _, err := l.wait(ctx, failed); !errors.Is(err, errTimeout) {
			t.Fatalf("got %v, want %v", err, errTimeout)
		}
	}
	server := &Server{loop: l}
	work := &work{tickets: []*ticket{failed}, news: make(chan struct{}, 1)}
	for range 20 {
		work.tell()
		if err := server.pieces(ctx, nil, work, nil, nil); !errors.Is(err, errTimeout) {
			t.Fatalf("a stream: got %v, want %v", err, errTimeout)
		}
	}
}

func TestTextsAreEncodedOnlyIfThereIsAPlaceAndTime(t *testing.T) {
	server := start(t, func(o *Options) { o.Texts, o.Queue, o.Timeout = 1, 1, 50*time.Millisecond })
	server.labelled()
	server.get("/v1/models/stars")
	bodies := map[string]string{
		"/v1/decisions":        `{"model":"stars","input":"x","questions":[{"type":"choice"}]}`,
		"/v1/completions":      `{"model":"stars","prompt":"x"}`,
		"/v1/chat/completions": `{"model":"stars","messages":[{"role":"user","content":"x"}]}`,
	}
	encoding := server.server.encoding
	for range cap(encoding) { // others are at it
		encoding <- struct{}{}
	}
	for path, body := range bodies {
		if status, text := server.do("POST", path, body); status != http.StatusGatewayTimeout {
			t.Errorf("%s beside others: %d %s, want 504", path, status, text)
		}
	}
	places := server.server.loop.places
	for range cap(places) {
		places <- struct{}{}
	}
	for path, body := range bodies { // does not wait for the others
		if status, text := server.do("POST", path, body); status != http.StatusTooManyRequests {
			t.Errorf("%s without a place: %d %s, want 429", path, status, text)
		}
	}
	for range cap(places) {
		<-places
	}
	for range cap(encoding) {
		<-encoding
	}
}

func TestARequestThatNeverFitsIsRefusedForGood(t *testing.T) {
	server := start(t, func(o *Options) { o.Texts, o.Queue = 2, 3 })
	server.labelled()
	six := strings.TrimSuffix(strings.Repeat(`"x",`, 6), ",")
	for _, c := range []struct{ path, body, param, want string }{
		{"/v1/completions", `{"model":"stars","prompt":"x","n":6}`, "n", "1 to 5"},
		{"/v1/chat/completions", `{"model":"stars","messages":[{"role":"user","content":"x"}],"n":6}`, "n", "1 to 5"},
		{"/v1/completions", `{"model":"stars","prompt":["x","y"],"n":3}`, "n", "6 choices, want at most 5"},
		{"/v1/completions", `{"model":"stars","prompt":[[1],[2],[3]],"n":2}`, "n", "6 choices, want at most 5"},
		{"/classify", `{"model":"stars","input":[` + six + `]}`, "input", "input has 6 elements, want at most 5"},
	} {
		status, text := server.do("POST", c.path, c.body)
		var answer struct {
			Error struct{ Message, Param string }
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusBadRequest ||
			answer.Error.Param != c.param || !strings.Contains(answer.Error.Message, c.want) {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, text)
		}
	}
}

func TestValuesThatChangeNothingAreTakenInAnySpelling(t *testing.T) {
	server := start(t, nil)
	server.labelled()
	for _, c := range []struct {
		fields string // of a completion
		want   string // the error; empty: none
	}{
		{`"prompt":"x","frequency_penalty":0.0,"presence_penalty":-0,"best_of":1.0,"logit_bias":{ },"suffix":null`, ""},
		{`"prompt":"x","frequency_penalty":0e5`, ""},
		{`"prompt":"x","frequency_penalty":0.1`, "frequency_penalty is not supported (only 0 is)"},
		{`"prompt":"x","best_of":"1"`, "best_of is not supported"},
		{`"prompt":"x","logit_bias":{"1":0}`, "logit_bias is not supported"},
		{`"prompt":null,"fields":{"text":"x"}`, ""},
		{`"prompt":"x","fields":null`, ""},
		{`"prompt":null`, "prompt is missing"},
		{`"prompt":"x","fields":{"text":"x"}`, "not both"},
		{`"prompt":"x","stream_options":null`, ""},
		{`"prompt":"x","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}`, ""},
		{`"prompt":"x","stream":true,"stream_options":{"include_use":true}`, "stream_options.include_use is not supported"},
		{`"prompt":"x","stream":true,"stream_options":{"Include_usage":true}`, "stream_options.Include_usage is not"},
		{`"prompt":"x","stream":true,"stream_options":7`, "stream_options is not a JSON object"},
		{`"prompt":"x","stream":true,"stream_options":{"include_usage":1}`, "stream_options.include_usage is a JSON number"},
	} {
		status, text := server.do("POST", "/v1/completions", `{"model":"stars","max_tokens":1,`+c.fields+`}`)
		if (status == http.StatusOK) != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %q", c.fields, status, text, c.want)
		}
	}
}
