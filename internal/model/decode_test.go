package model_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/model"
)

// next adds tokens to texts and returns copies of their logits.
func next(t *testing.T, d *model.Decoder, seqs []int, ids ...[]int32) (rows [][]float32) {
	t.Helper()
	got, err := d.Next(seqs, ids)
	if err != nil {
		t.Fatal(err)
	}
	return copies(got)
}

func copies(rows [][]float32) (c [][]float32) {
	for _, r := range rows {
		c = append(c, slices.Clone(r))
	}
	return c
}

func sameBits(a, b [][]float32) bool { return slices.EqualFunc(a, b, slices.Equal) }

// used returns the bytes of a decoder's cache that are used or reserved.
func used(d *model.Decoder) int64 {
	n, _ := d.Bytes()
	return n
}

// Speculative decoding adds several tokens together and drops the wrong ones.
func TestDecodingTokensTogetherOrDroppingThemChangesNoBitOfTheLogits(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		texts := []batch.Text{{IDs: []int32{1, 20, 3}}, {IDs: []int32{1, 21}}}
		one, of, _ := begin(t, m, prompt(m, 3), []int{3}, texts, 40)
		many, other, _ := begin(t, m, prompt(m, 3), []int{3}, texts, 40)
		for step := range 12 {
			n := 1 + step%4
			var ids, wrong []int32
			for k := range n {
				ids, wrong = append(ids, int32((7*step+k)%50)), append(wrong, int32(60+k))
			}
			var want [][]float32
			for _, id := range ids {
				want = append(want, next(t, one, of[1:], []int32{id})...)
			}
			next(t, many, other[1:], append(slices.Clone(ids[:1]), wrong[1:]...))
			many.Drop(other[1], n)
			if got := next(t, many, other[1:], ids); !sameBits(got, want) {
				t.Errorf("logits of %d tokens together differ from those one after the other", n)
			}
		}
		want := [][]float32{
			next(t, one, of[:1], []int32{5})[0],
			next(t, one, of[:1], []int32{6})[0],
			next(t, one, of[1:], []int32{7})[0],
		}
		if got := next(t, many, other, []int32{5, 6}, []int32{7}); !sameBits(got, want) {
			t.Error("logits of two texts' tokens differ from each text's alone")
		}
	})
}

// The texts have up to two pages and one row, so that some end at a page and some one row after it.
func TestDecodingFromThePagesOfTheCacheChangesNoBitOfTheLogits(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		for _, n := range []int{20, 44, 45, 46, 47, 48, 49, 56} {
			ids := make([]int32, n)
			for i := range ids {
				ids[i] = int32(i*i%50 + 1)
			}
			for _, rows := range []int{0, 4} {
				var p []float32
				var prompts []int
				if rows > 0 {
					p, prompts = prompt(m, rows), []int{rows}
				}
				texts := []batch.Text{{IDs: ids}, {IDs: ids[:n/2]}}
				want, err := m.Logits(p, batch.Pack(prompts, []batch.Example{
					{IDs: append(slices.Clone(ids), 0), From: n},
					{IDs: append(slices.Clone(ids[:n/2]), 0), From: n / 2}}))
				if err != nil {
					t.Fatal(err)
				}
				expected := [][]float32{slices.Clone(want.Row(0)), slices.Clone(want.Row(1))}
				if _, _, got := begin(t, m, p, prompts, texts, 1); !sameBits(got, expected) {
					t.Errorf(
						"%s: %d tokens after %d rows: logits differ from those without a cache", name, n, rows)
				}
			}
		}
	}
}

// Texts join and leave at random: with cached soft prompts or none, with shared prefixes, and empty
// ones. Each has the logits that it has alone, and all memory is freed at the end.
func TestDecodingTextsThatJoinAndLeaveEqualsEachAlone(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		r := rand.New(rand.NewPCG(1, 2))
		d := m.NewDecoder(1 << 30)
		prompts := make([]int, 2)
		for i := range prompts {
			var err error
			if prompts[i], err = d.AddPrompt(prompt(m, 3+i)); err != nil {
				t.Fatal(err)
			}
		}
		registered := used(d)
		stem := []int32{1, 20, 21, 22, 23, 24}
		type text struct {
			batch.Text
			prompt, seq int
		}
		var live []*text
		check := func(x *text, logits []float32) {
			t.Helper()
			var p []float32
			var rows []int
			if x.prompt >= 0 {
				p, rows = prompt(m, 3+x.prompt), []int{3 + x.prompt}
			}
			alone := []batch.Example{{IDs: append(slices.Clone(x.IDs), 0), From: len(x.IDs)}}
			want, err := m.Logits(p, batch.Pack(rows, alone))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "logits of a text among others", logits, want.Row(0))
		}
		for range 60 {
			switch n := r.IntN(4); {
			case n == 0 && len(live) < 6: // some join, all with a soft prompt or all without
				var texts []batch.Text
				var joined []*text
				bare := r.IntN(3) == 0
				for range 1 + r.IntN(3) {
					x := &text{prompt: r.IntN(2), Text: batch.Text{Room: 20, Prompt: batch.NoPrompt}}
					x.IDs = append(slices.Clone(stem[:r.IntN(7)]), []int32{30, 31, 32}[:r.IntN(4)]...)
					if bare {
						x.prompt, x.IDs = -1, append([]int32{1}, x.IDs...)
					} else {
						x.Prompt = prompts[x.prompt]
					}
					joined, texts = append(joined, x), append(texts, x.Text)
				}
				seqs, logits, err := d.Add(texts)
				if err != nil {
					t.Fatal(err)
				}
				joinedLogits := copies(logits)
				for i, x := range joined {
					x.seq = seqs[i]
					check(x, joinedLogits[i])
				}
				live = append(live, joined...)
			case n == 1 && len(live) > 0: // one leaves
				i := r.IntN(len(live))
				d.Remove(live[i].seq)
				live = slices.Delete(live, i, i+1)
			case len(live) > 0: // some grow, some of them by a token that is taken back
				var seqs []int
				var ids [][]int32
				var grown []*text
				for _, x := range live {
					if d.Room(x.seq) == 0 || r.IntN(3) == 0 {
						continue
					}
					id := int32(r.IntN(50))
					x.IDs = append(x.IDs, id)
					grown, seqs, ids = append(grown, x), append(seqs, x.seq), append(ids, []int32{id})
				}
				if len(seqs) == 0 {
					continue
				}
				for i, logits := range next(t, d, seqs, ids...) {
					check(grown[i], logits)
				}
				if i := r.IntN(len(grown)); r.IntN(2) == 0 {
					d.Drop(seqs[i], 1)
					grown[i].IDs = grown[i].IDs[:len(grown[i].IDs)-1]
				}
			}
		}
		for _, x := range live {
			d.Remove(x.seq)
		}
		if got := used(d); got != registered {
			t.Errorf("without texts %d bytes are in use, want %d as before the first", got, registered)
		}
		for _, p := range prompts {
			d.RemovePrompt(p)
		}
		if got := used(d); got != 0 {
			t.Errorf("without texts and prompts %d bytes are in use, want 0", got)
		}
	})
}

// An input that is read in chunks has the logits of one that is read at once, whatever texts are read
// with it. Chunks of 1 to 4 rows, of up to 16 and of more take different kernels.
func TestDecodingAnInputInChunksChangesNoBitOfTheLogits(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		ids := make([]int32, 41)
		for i := range ids {
			ids[i] = int32(i*i%50 + 1)
		}
		alone, err := m.Logits(prompt(m, 3), batch.Pack([]int{3}, []batch.Example{{IDs: ids, From: 1}}))
		if err != nil {
			t.Fatal(err)
		}
		var want [][]float32 // what follows each token but the last
		for i := range len(ids) - 1 {
			want = append(want, slices.Clone(alone.Row(i)))
		}
		for _, chunk := range []int{1, 3, 7, 40} {
			d := m.NewDecoder(1 << 30)
			p, err := d.AddPrompt(prompt(m, 3))
			if err != nil {
				t.Fatal(err)
			}
			var seqs []int
			for i := range 3 { // texts that begin at different times
				text := batch.Text{Prompt: p, IDs: ids[:1], Room: len(ids)}
				seq, logits, err := d.Add([]batch.Text{text})
				if err != nil {
					t.Fatal(err)
				}
				same(t, "logits of the first token", logits[0], want[0])
				if seqs = append(seqs, seq...); i < 2 {
					next(t, d, seq, ids[1:2+i])
				}
			}
			for at := 1; at+2 < len(want); at += chunk {
				n := min(chunk, len(want)-2-at)
				got := next(t, d, seqs, ids[at:at+1], ids[at:at+1], ids[at:at+n])
				if !sameBits(got[2:], want[at:at+n]) {
					t.Errorf("logits of chunks of %d tokens differ from those of all tokens at once", chunk)
				}
			}
		}
	})
}

func TestDecodingRefusesTextsThatDoNotFitInTheCache(t *testing.T) {
	m := load(t, bases[0], 1)
	texts := []batch.Text{{Prompt: batch.NoPrompt, IDs: []int32{1, 20}, Room: 30},
		{Prompt: batch.NoPrompt, IDs: []int32{1, 21}, Room: 30}}
	page := m.NewDecoder(1 << 30)
	if _, _, err := page.Add(texts[:1]); err != nil {
		t.Fatal(err)
	}
	size := used(page)
	d := m.NewDecoder(size)
	// The second pair fits by its room, but not with its tokens.
	long := make([]int32, 50)
	for _, pair := range [][]batch.Text{texts, {{Prompt: batch.NoPrompt, IDs: long}, texts[1]}} {
		if _, _, err := d.Add(pair); !errors.Is(err, batch.ErrFull) ||
			!strings.Contains(err.Error(), "2 more texts need") ||
			!strings.Contains(err.Error(), "ask for fewer") {
			t.Errorf("two texts in the memory of one: error %v", err)
		}
	}
	if err := d.Check(texts[0]); err != nil {
		t.Errorf("a text that fits is refused: %v", err)
	}
	if err := d.Check(batch.Text{Prompt: batch.NoPrompt, IDs: long}); !errors.Is(err, batch.ErrFull) ||
		!strings.Contains(err.Error(), "1 more text needs") {
		t.Errorf("a text that never fits: error %v", err)
	}
	queue := slices.Repeat(texts, 500)
	if n := testing.AllocsPerRun(1, func() { d.Add(queue) }); n > 100 {
		t.Errorf("refusing a queue of 1,000 texts makes %.0f allocations: it was packed", n)
	}
	if _, err := d.AddPrompt(prompt(m, 60)); err == nil ||
		!strings.Contains(err.Error(), "a soft prompt of 60 rows") {
		t.Errorf("a soft prompt in too little room: error %v", err)
	}
	if used(d) != 0 {
		t.Errorf("refused texts use %d bytes", used(d))
	}
	seqs, _, err := d.Add(texts[:1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(seqs, [][]int32{make([]int32, 31)}); err == nil ||
		!strings.Contains(err.Error(), "room for 30") {
		t.Errorf("31 tokens in room for 30: error %v", err)
	}
	if n := d.Room(seqs[0]); n != 30 {
		t.Errorf("after the refused tokens there is room for %d", n)
	}
	for name, c := range map[string]struct {
		text batch.Text
		want string
	}{
		"no such prompt": {batch.Text{Prompt: 77, IDs: []int32{1}}, "there is no soft prompt 77"},
		"nothing":        {batch.Text{Prompt: batch.NoPrompt}, "text 1 is empty"},
		"unknown token": {batch.Text{Prompt: batch.NoPrompt, IDs: []int32{1, 1 << 20}},
			"token id 1048576"},
	} {
		if _, _, err := d.Add([]batch.Text{c.text}); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// If positions bound the length, any number of tokens can be requested. Memory is used only for
// cached tokens.
func TestDecodingReservesRoomWithoutUsingIt(t *testing.T) {
	m := load(t, bases[0], 1)
	for _, most := range []int{1, 1 << 20, math.MaxInt} {
		d := m.NewDecoder(1e12)
		seqs, _, err := d.Add([]batch.Text{{Prompt: batch.NoPrompt, IDs: []int32{1, 20}, Room: most},
			{Prompt: batch.NoPrompt, IDs: []int32{1, 21}, Room: most}})
		if m.MaxPositions == 0 && most == math.MaxInt {
			if err == nil || !strings.Contains(err.Error(), "ask for fewer") {
				t.Errorf("%d tokens: error %v, want one that says to ask for fewer", most, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d tokens: %v", most, err)
		} else if n := d.Room(seqs[0]); n > most || m.MaxPositions > 0 && n > m.MaxPositions {
			t.Errorf("%d tokens: room for %d", most, n)
		}
	}
}
