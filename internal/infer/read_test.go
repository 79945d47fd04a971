package infer

import (
	"context"
	"math"
	"slices"
	"testing"
)

func TestALongInputIsReadInPartsWhileOtherTextsContinue(t *testing.T) {
	d := newSpeller("a text that continues", "done", "done", "short")
	e := New(d, Options{Decode: decode, ReadTokens: 10})
	input := func(n int) []int32 { return slices.Repeat([]int32{'x'}, n) }
	var handles []*Handle
	add := func(n int) {
		h, err := e.Add(Request{IDs: input(n), MaxTokens: 100, EOS: []int32{0}})
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	step := func() {
		if err := e.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	add(3)
	step()
	add(34) // 10, 10, 10 and 4 tokens
	add(34)
	add(5)
	for want := 3; want < 6; want++ {
		step()
		if got := handles[0].Generated(); got != want {
			t.Errorf("the text that continues has %d tokens, want %d", got, want)
		}
	}
	if handles[1].Generated() != 0 {
		t.Error("a text was continued before its input was read")
	}
	for !e.Idle() {
		step()
	}
	for i, want := range []string{"a text that continues", "done", "done", "short"} {
		r, err := handles[i].Result()
		if err != nil || r.Text != want {
			t.Errorf("text %d: %v %v, want %q", i, r, err, want)
		}
	}
	if slices.Max(d.reads) != 10 || len(d.texts) != 0 {
		t.Errorf("calls read %v tokens, want at most 10; %d texts are left", d.reads, len(d.texts))
	}
}

func TestACancelledTextIsNotReadAnyFurther(t *testing.T) {
	d := newSpeller("never", "yes")
	e := New(d, Options{Decode: decode, ReadTokens: 4})
	h, err := e.Add(Request{IDs: make([]int32, 100), MaxTokens: 5})
	if err == nil {
		err = e.Step(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	e.Cancel(h)
	got, err := e.Generate(context.Background(), []Request{{IDs: []int32{'x'}, MaxTokens: 9, EOS: []int32{0}}})
	if err != nil || got[0].Text != "yes" || len(d.reads) != 0 || len(d.texts) != 0 {
		t.Errorf("%v %v: %d reads, %d texts left", got, err, len(d.reads), len(d.texts))
	}
}

func TestLogprobsAreThoseOfTheSoftmax(t *testing.T) {
	logits := []float32{1, 3, -2, 3, 0.5}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	l := logprobOf(logits, 4, 3)
	want := []int32{1, 3, 0}
	for i, top := range l.Top {
		if p := math.Log(math.Exp(float64(logits[want[i]])) / sum); top.ID != want[i] || !(math.Abs(top.LogP-p) <= 1e-12) {
			t.Errorf("place %d: %+v, want token %d with %g", i, top, want[i], p)
		}
	}
	if p := math.Log(math.Exp(0.5) / sum); len(l.Top) != 3 || l.ID != 4 || !(math.Abs(l.LogP-p) <= 1e-12) {
		t.Errorf("got %+v, want token 4 with %g and three others", l, p)
	}
	if l := logprobOf(logits, 0, 0); l.Top != nil {
		t.Errorf("got %v, want no others", l.Top)
	}
}
