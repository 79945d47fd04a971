package serve

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"ptune/internal/base"
	"ptune/internal/prompt"
)

// requestOf is a request with the path that it goes to.
type requestOf struct {
	path string
	body object
}

// randomRequest returns a request of any kind to one of eight prompts or the base.
func randomRequest(r *rand.Rand, baseID string) requestOf {
	words := strings.Fields("the soup was cold and nobody came to our table for an hour so we left this nice old place")
	text := ""
	for range 1 + r.IntN(40)*r.IntN(3) {
		text += words[r.IntN(len(words))] + " "
	}
	text = strings.TrimSpace(text)
	kinds := []string{"labels0", "labels1", "labels2", "text0", "text1", "turn0", "talk0", "talk1", baseID}
	model := kinds[r.IntN(len(kinds))]
	ask := object{"model": model, "max_tokens": 1 + r.IntN(10), "temperature": float64(r.IntN(2)), "seed": r.IntN(100),
		"n": 1 + r.IntN(2)*r.IntN(2)}
	switch {
	case strings.HasPrefix(model, "labels") && r.IntN(3) > 0:
		if r.IntN(2) == 0 {
			return requestOf{"/classify", object{"model": model, "input": []string{text, "good " + text}}}
		}
		return requestOf{"/v1/decisions", object{"model": model, "input": text, "questions": []object{
			{"name": "a", "type": "choice"}}}}
	case strings.HasPrefix(model, "t") && model != "text0" && model != "text1":
		ask["messages"] = []object{{"role": "user", "content": text}}
		ask["logprobs"], ask["top_logprobs"] = true, 2
		return requestOf{"/v1/chat/completions", ask}
	}
	ask["prompt"], ask["logprobs"] = text, 2
	if r.IntN(4) == 0 {
		ask["stop"] = []string{"the", "ing"}
	}
	return requestOf{"/v1/completions", ask}
}

// A request's answer must not depend on what else is in the batch: not its text, and not one bit of a
// probability, which JSON keeps.
func TestRandomRequestsAreAnsweredAsEachAlone(t *testing.T) {
	dir := chatBase(t)
	open := func() (*base.Base, error) { return base.Open(dir, base.Options{Trusted: true}) }
	b, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	template, err := b.Chat()
	if err != nil {
		t.Fatal(err)
	}
	server := start(t, func(o *Options) { o.Open, o.Queue = open, 1000 })
	for i, meta := range []prompt.Meta{
		{Input: "{text}\nAnswer:", Target: " {label}", Labels: labels},
		{Input: "{text}", Target: " {label}", Labels: labels},
		{Input: "{text}:", Target: "{label}", Labels: append(labels, prompt.Label{Value: "2", Name: "good enough"})},
	} {
		server.save(fmt.Sprint("labels", i), newPrompt(b, uint64(i), 3+7*i, meta))
	}
	for i := range 2 {
		server.save(fmt.Sprint("text", i), newPrompt(b, uint64(10+i), 5+i, prompt.Meta{Input: "{text}", Target: " {y}"}))
		server.save(fmt.Sprint("talk", i), newPrompt(b, uint64(20+i), 50+i, prompt.Meta{Messages: "m", Chat: template.Sum()}))
	}
	server.save("turn0", newPrompt(b, 30, 1, prompt.Meta{Input: "Say: {text}", Target: "{y}", Chat: template.Sum()}))

	r := rand.New(rand.NewPCG(7, 7))
	requests := make([]requestOf, 200)
	alone := make([]object, len(requests))
	answer := func(i int) (got object) {
		server.post(requests[i].path, requests[i].body, &got)
		delete(got, "id")
		delete(got, "created")
		return got
	}
	for i := range requests {
		requests[i] = randomRequest(r, b.Name)
		alone[i] = answer(i)
	}
	var wg sync.WaitGroup
	arrive := make(chan int)
	for range 24 {
		wg.Go(func() {
			for i := range arrive {
				if got := answer(i); !reflect.DeepEqual(got, alone[i]) {
					a, _ := json.Marshal(got)
					b, _ := json.Marshal(alone[i])
					t.Errorf("request %d, %s %v: got\n%s, alone\n%s", i, requests[i].path, requests[i].body, a, b)
				}
			}
		})
	}
	for _, i := range r.Perm(len(requests)) {
		arrive <- i
	}
	close(arrive)
	wg.Wait()
}
