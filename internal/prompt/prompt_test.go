package prompt_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ptune/internal/prompt"
	"ptune/internal/tensorfile"
)

const dim = 6

// source is a vocabulary of 40 tokens. The row of id k is k, k+0.1, …; ids below 4 are special.
func source() prompt.Source {
	return prompt.Source{
		Vocab: 40,
		Row: func(id int) []float32 {
			row := make([]float32, dim)
			for i := range row {
				row[i] = float32(id) + float32(i)/10
			}
			return row
		},
		Ordinary: func(id int32) bool { return id >= 4 },
	}
}

func start(t *testing.T, rows int, init prompt.Init, s prompt.Source) *prompt.Prompt {
	t.Helper()
	p, err := prompt.New(rows, dim, init, s)
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != rows || p.Dim != dim || len(p.Values) != rows*dim {
		t.Fatalf("the prompt has %d rows of %d, %d values", p.Rows, p.Dim, len(p.Values))
	}
	return p
}

// tokens returns the ids whose rows a prompt holds.
func tokens(p *prompt.Prompt) []int {
	var ids []int
	for i := range p.Rows {
		ids = append(ids, int(p.Row(i)[0]))
	}
	return ids
}

func TestTextIsRepeatedAndCut(t *testing.T) {
	s := source()
	s.Text = []int32{7, 8, 9}
	for rows, want := range map[int][]int{2: {7, 8}, 3: {7, 8, 9}, 8: {7, 8, 9, 7, 8, 9, 7, 8}} {
		if got := tokens(start(t, rows, prompt.Init{Kind: "text"}, s)); !slices.Equal(got, want) {
			t.Errorf("%d rows hold tokens %v, want %v", rows, got, want)
		}
	}
	s.Text = nil
	if _, err := prompt.New(2, dim, prompt.Init{Kind: "text"}, s); err == nil {
		t.Error("a prompt was made from a text without tokens")
	}
}

func TestVocabTakesNoOrdinaryTokenTwiceBeforeAllAreTaken(t *testing.T) {
	for _, rows := range []int{5, 36, 50} {
		ids := tokens(start(t, rows, prompt.Init{Kind: "vocab", Seed: 3}, source()))
		count := map[int]int{}
		for _, id := range ids {
			if id < 4 {
				t.Errorf("special token %d was taken", id)
			}
			count[id]++
		}
		for id, n := range count {
			if most := (rows + 35) / 36; n > most {
				t.Errorf("%d rows: token %d was taken %d times, want at most %d", rows, id, n, most)
			}
		}
	}
}

func TestOnlyTheMostCommonTokensAreTaken(t *testing.T) {
	s := source()
	s.Vocab, s.Ordinary = 20000, func(id int32) bool { return id%2 == 0 }
	for _, id := range tokens(start(t, 2000, prompt.Init{Kind: "vocab", Seed: 1}, s)) {
		if id%2 != 0 || id >= 10000 {
			t.Fatalf("token %d is not one of the 5,000 most common ordinary ones", id)
		}
	}
}

func TestLabelsComeFirstThenOtherTokens(t *testing.T) {
	s := source()
	s.Labels = [][]int32{{10}, {20, 30}}
	p := start(t, 4, prompt.Init{Kind: "labels"}, s)
	if got := p.Row(0)[0]; got != 10 {
		t.Errorf("row 1 starts with %g, want label 10", got)
	}
	if got := p.Row(1)[0]; got != 25 {
		t.Errorf("row 2 starts with %g, want the mean of tokens 20 and 30", got)
	}
	start(t, 1, prompt.Init{Kind: "labels"}, s) // fewer rows than labels
}

func TestRandomHasTheMeanAndDeviationOfTheRows(t *testing.T) {
	p := start(t, 20000, prompt.Init{Kind: "random", Seed: 1}, source())
	var mean, square float64
	for i := range p.Rows {
		v := float64(p.Row(i)[0])
		mean += v / float64(p.Rows)
		square += v * v / float64(p.Rows)
	}
	const wantMean, wantDeviation = 19.5, 11.543
	deviation := math.Sqrt(square - mean*mean)
	if !(math.Abs(mean-wantMean) <= 0.4) || !(math.Abs(deviation-wantDeviation) <= 0.3) {
		t.Errorf("mean %g, deviation %g, want %g and %g", mean, deviation, wantMean, wantDeviation)
	}
	// A seed's draws stay what they are: the mean and so many deviations.
	r := rand.New(rand.NewPCG(1, 0x696e6974))
	for k, got := range p.Row(0) {
		want := wantMean + float64(k)/10 + wantDeviation*r.NormFloat64()
		if !(math.Abs(float64(got)-want) <= 2e-3) {
			t.Errorf("value %d of the first row is %g, want %g", k, got, want)
		}
	}
}

func TestEqualSeedsInitialiseEqualPrompts(t *testing.T) {
	for _, kind := range []string{"vocab", "random"} {
		a := start(t, 8, prompt.Init{Kind: kind, Seed: 5}, source())
		b := start(t, 8, prompt.Init{Kind: kind, Seed: 5}, source())
		c := start(t, 8, prompt.Init{Kind: kind, Seed: 6}, source())
		if !slices.Equal(a.Values, b.Values) || slices.Equal(a.Values, c.Values) {
			t.Errorf("%s: seeds 5, 5, 6 start at %v, %v, %v", kind, a.Values[:3], b.Values[:3],
				c.Values[:3])
		}
	}
}

func made() *prompt.Prompt {
	p := &prompt.Prompt{Rows: 2, Dim: 3, Values: []float32{1, 2, 3, -4, 5e-9, 6}}
	accuracy := 0.9
	p.Meta = prompt.Meta{
		Base:      prompt.Base{Name: "base", Path: "../base", Fingerprint: "abc", Type: "llama"},
		Tokenizer: "t", Input: "{a}\n", Target: " {b}", EOS: 2,
		Labels: []prompt.Label{{Value: "0", Name: "no"}, {Value: "1", Name: "yes"}},
		Init:   prompt.Init{Kind: "text", Text: "ü", Seed: 7},
		Training: &prompt.Training{
			Steps: 3, Valid: map[string]prompt.Quality{"valid": {Loss: 1.5, Accuracy: &accuracy}},
		},
	}
	return p
}

func TestASavedPromptIsLoadedTheSame(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.st"), filepath.Join(dir, "b.st")
	if err := made().Save(a); err != nil {
		t.Fatal(err)
	}
	p, err := prompt.Load(a)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, made()) {
		t.Errorf("loaded %+v, want %+v", p, made())
	}
	if err := p.Save(b); err != nil {
		t.Fatal(err)
	}
	x, _ := os.ReadFile(a)
	if y, _ := os.ReadFile(b); len(x) == 0 || !bytes.Equal(x, y) {
		t.Error("the same prompt gives other bytes")
	}
}

func TestAPromptIsInitialisedFromAPEFTAdapter(t *testing.T) {
	dir := t.TempDir()
	write := func(config string) {
		path := filepath.Join(dir, "adapter_config.json")
		if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	values := make([]float32, 4*dim)
	for i := range values {
		values[i] = float32(i)
	}
	tensors := []tensorfile.Tensor{tensorfile.Floats("prompt_embeddings", []int{4, dim}, values)}
	path := filepath.Join(dir, "adapter_model.safetensors")
	if err := tensorfile.Write(path, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	write(`{"peft_type":"PROMPT_TUNING","num_virtual_tokens":4,"num_transformer_submodules":1}`)
	s := source()
	s.Load = func() (*prompt.Prompt, error) { return prompt.Load(dir) }
	if p := start(t, 4, prompt.Init{Kind: "file", File: dir}, s); !slices.Equal(p.Values, values) {
		t.Errorf("the prompt is %v, want %v", p.Values, values)
	}
	full := s
	full.Ordinary = func(int32) bool {
		t.Error("a prompt that the file fills asked for ordinary tokens")
		return true
	}
	p := start(t, 3, prompt.Init{Kind: "file", File: dir}, full)
	if !slices.Equal(p.Values, values[:3*dim]) {
		t.Errorf("three rows of four are %v, want %v", p.Values, values[:3*dim])
	}
	longer := start(t, 6, prompt.Init{Kind: "file", File: dir}, s)
	more := tokens(longer)[4:]
	if !slices.Equal(longer.Values[:4*dim], values) || more[0] < 4 || more[1] < 4 || more[0] == more[1] {
		t.Errorf("six rows from four are %v, want the four and two ordinary tokens", longer.Values)
	}
	_, err := prompt.New(4, dim+1, prompt.Init{Kind: "file"}, s)
	if err == nil || !strings.Contains(err.Error(), "the base needs 7") {
		t.Errorf("another width: error is %v", err)
	}
	for config, want := range map[string]string{
		`{"peft_type":"LORA"}`: `type "LORA"`,
		`{"peft_type":"PROMPT_TUNING","num_transformer_submodules":2}`: "encoder-decoder",
		`{"peft_type":"PROMPT_TUNING","num_virtual_tokens":9}`:         "has 9 virtual tokens",
		`{`: "adapter_config.json",
	} {
		write(config)
		if _, err := prompt.Load(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want one that contains %q", config, err, want)
		}
	}
}

func TestOtherFilesAreNotReadAsPrompts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.st")
	const name = "prompt_embeddings"
	pair := []float32{1, 2}
	ours := map[string]string{"ptune_format": "1", "ptune": "{}"}
	later := map[string]string{"ptune_format": "9"}
	broken := map[string]string{"ptune_format": "1", "ptune": "{"}
	for what, c := range map[string]struct {
		tensor tensorfile.Tensor
		meta   map[string]string
		want   string
	}{
		"another tensor": {tensorfile.Floats("weight", []int{1, 2}, pair), ours,
			`no tensor "prompt_embeddings"`},
		"three dims": {tensorfile.Floats(name, []int{1, 1, 2}, pair), ours, "shape [1 1 2]"},
		"not a number": {
			tensorfile.Floats(name, []int{2, 2}, []float32{1, 1, 1, float32(math.NaN())}), ours,
			"virtual token 2 has the value NaN",
		},
		"too many rows":   {tensorfile.Floats(name, []int{65537, 1}, make([]float32, 65537)), ours, "shape [65537 1]"},
		"no metadata":     {tensorfile.Floats(name, []int{1, 2}, pair), nil, "no metadata of ptune"},
		"a later format":  {tensorfile.Floats(name, []int{1, 2}, pair), later, `the format is "9"`},
		"broken metadata": {tensorfile.Floats(name, []int{1, 2}, pair), broken, "metadata"},
		"whole numbers": {
			tensorfile.Tensor{Name: name, DType: "I16", Shape: []int{1, 2}, Data: make([]byte, 4)}, ours,
			`tensor "prompt_embeddings": type I16 is not supported, want F32, BF16 or F16`,
		},
		"an infinite half float": {
			tensorfile.Tensor{Name: name, DType: "F16", Shape: []int{2, 1}, Data: []byte{0, 0x3c, 0, 0x7c}}, ours,
			"virtual token 2 has the value +Inf",
		},
	} {
		if err := tensorfile.Write(path, []tensorfile.Tensor{c.tensor}, c.meta); err != nil {
			t.Fatal(err)
		}
		if _, err := prompt.Load(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one that contains %q", what, err, c.want)
		}
	}
	most := &prompt.Prompt{Rows: 65536, Dim: 1, Values: make([]float32, 65536)}
	if err := most.Save(path); err != nil {
		t.Error(err)
	}
	if p, err := prompt.Load(path); err != nil || p.Rows != most.Rows {
		t.Errorf("the largest number of rows: %v", err)
	}
	bad := made()
	bad.Values[4] = float32(math.Inf(1))
	if err := bad.Save(path + "2"); err == nil {
		t.Error("a prompt with an infinity was saved")
	}
}

// How files are read is noted only if it is not the default.
func TestReadingIsZeroIfAllIsDefault(t *testing.T) {
	for _, c := range []struct {
		reading prompt.Reading
		want    bool
	}{
		{prompt.Reading{}, true}, {prompt.Reading{Quotes: "auto", Encoding: "utf-8"}, true},
		{prompt.Reading{Columns: []string{"text"}}, false}, {prompt.Reading{Separator: ";"}, false},
		{prompt.Reading{Quotes: "none"}, false}, {prompt.Reading{Encoding: "utf-16"}, false},
	} {
		if got := c.reading.IsZero(); got != c.want {
			t.Errorf("%+v: zero is %v, want %v", c.reading, got, c.want)
		}
	}
}

func TestAPromptForAnotherBaseIsRefusedWithBothNames(t *testing.T) {
	p := made()
	if err := p.Fits("base", "abc", 3); err != nil {
		t.Error(err)
	}
	for _, err := range []error{p.Fits("other", "def", 3), p.Fits("other", "abc", 4)} {
		if err == nil || !strings.Contains(err.Error(), `"base"`) ||
			!strings.Contains(err.Error(), `"other"`) {
			t.Errorf("error is %v, want one that has both names", err)
		}
	}
}

func FuzzALoadedPromptCanBeSavedTheSame(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed.st")
	if err := made().Save(path); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := filepath.Join(dir, "a.st"), filepath.Join(dir, "b.st")
		if err := os.WriteFile(a, data, 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := prompt.Load(a)
		if err != nil {
			return
		}
		if err := p.Save(b); err != nil {
			t.Fatal(err)
		}
		q, err := prompt.Load(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p.Values, q.Values) {
			t.Fatal("saved and loaded values differ")
		}
	})
}

func TestHalfFloatsAreWidened(t *testing.T) {
	ours := map[string]string{"ptune_format": "1", "ptune": "{}"}
	for dtype, data := range map[string][]byte{ // 1.5, −2, 0.25
		"F32":  {0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0, 0, 0, 0x80, 0x3e},
		"BF16": {0xc0, 0x3f, 0, 0xc0, 0x80, 0x3e},
		"F16":  {0, 0x3e, 0, 0xc0, 0, 0x34},
	} {
		tensor := tensorfile.Tensor{Name: "prompt_embeddings", DType: dtype, Shape: []int{1, 3}, Data: data}
		file, adapter := filepath.Join(t.TempDir(), "x.st"), t.TempDir()
		config := `{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 1}`
		err := errors.Join(tensorfile.Write(file, []tensorfile.Tensor{tensor}, ours),
			tensorfile.Write(filepath.Join(adapter, "adapter_model.safetensors"), []tensorfile.Tensor{tensor}, nil),
			os.WriteFile(filepath.Join(adapter, "adapter_config.json"), []byte(config), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file, adapter} {
			p, err := prompt.Load(path)
			if want := []float32{1.5, -2, 0.25}; err != nil || !slices.Equal(p.Values, want) {
				t.Errorf("%s: read as %v (%v), want %v", dtype, p, err, want)
			}
		}
	}
}
