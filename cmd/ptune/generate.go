package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/generate"
	"ptune/internal/model"
)

type generateFlags struct {
	prompts   []string
	model     string
	jsonl     string
	sampling  generate.Sampling
	maxTokens int
	stop      []string
	batch     int
	guess     bool
	computeOptions
	json bool
}

func newGenerate(s streams) *cobra.Command {
	var o generateFlags
	cmd := &cobra.Command{
		Use:   "generate --prompt x.st [text...]",
		Short: "Continue texts behind a soft prompt",
		Long: `Continue texts behind a soft prompt. The template, the base and its tokenizer come from the prompt's file: a text fills the
template's one field. Texts are the arguments, or the lines of standard input, or with --jsonl rows whose fields fill the
template. Output is in the order of input. The likeliest token is taken unless --temperature is given.

Of one or two texts at a time several tokens are computed at once where what they have said before lets the next ones be guessed.
Guesses that are wrong are dropped: the text is the same.

With several prompts each text is continued behind each of them, on one loaded base. With --model and no --prompt the base
alone continues the texts as they are.

As text, a continuation is shown without the white space it begins with; --json has it as it is.`,
		Example: `  ptune generate --prompt runs/sentiment.st "The soup was cold and the waiters were rude."
  ptune generate --prompt runs/sentiment.st --prompt runs/topic.st --json --jsonl internal/demo/data/valid.jsonl
  ptune generate --model ptune:demo --max-tokens 20 "We tried this cafe"`,
		RunE: runE(func(ctx context.Context, args []string) error { return generateTexts(ctx, o, args, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil, "a soft prompt's file (repeatable)")
	f.StringVar(&o.model, "model", "", "the base's directory, if not where the prompt's file says")
	f.StringVar(&o.jsonl, "jsonl", "", "rows whose fields fill the template, one JSON object a line (- is standard input)")
	f.IntVar(&o.maxTokens, "max-tokens", 128, "the most tokens to generate for a text")
	f.Float64Var(&o.sampling.Temperature, "temperature", 0, "0 takes the likeliest token; higher is more varied")
	f.Float64Var(&o.sampling.TopP, "top-p", 1, "sample among the likeliest tokens that together have this probability")
	f.IntVar(&o.sampling.TopK, "top-k", 0, "sample among this many tokens (0: all)")
	f.Uint64Var(&o.sampling.Seed, "seed", 0, "seed of the sampling")
	f.StringArrayVar(&o.stop, "stop", nil, "end a text before this string (repeatable)")
	f.IntVar(&o.batch, "batch", 16, "texts computed at a time")
	f.BoolVar(&o.guess, "guess", true, "for one or two texts at a time, guess that they repeat what they have said: faster where they do")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print one JSON object a text")
	return cmd
}

func (o *generateFlags) check() error {
	switch {
	case !(o.sampling.Temperature >= 0):
		return fmt.Errorf("--temperature is %g, want at least 0", o.sampling.Temperature)
	case !(o.sampling.TopP > 0 && o.sampling.TopP <= 1):
		return fmt.Errorf("--top-p is %g, want above 0 and at most 1", o.sampling.TopP)
	case o.sampling.TopK < 0:
		return fmt.Errorf("--top-k is %d, want at least 0", o.sampling.TopK)
	case o.maxTokens < 1:
		return fmt.Errorf("--max-tokens is %d, want at least 1", o.maxTokens)
	case o.batch < 1:
		return fmt.Errorf("--batch is %d, want at least 1", o.batch)
	}
	for _, s := range o.stop {
		if s == "" {
			return errors.New("--stop is empty, want the text that ends a text")
		}
	}
	return nil
}

func generateTexts(ctx context.Context, o generateFlags, args []string, s streams) error {
	if err := o.check(); err != nil {
		return failure.Usage(err)
	}
	if o.jsonl != "" && len(args) > 0 {
		return failure.Usage(errors.New("texts are given both as arguments and with --jsonl"))
	}
	prompts, b, err := openPrompts(o.prompts, o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	g, err := newGenerator(o, b, prompts, s)
	if err != nil {
		return failure.Usage(err)
	}
	return eachInput(o, args, s, func(batch []input) error { return g.run(ctx, batch) })
}

// input is a text to continue, or the fields of a row.
type input struct {
	text   string
	fields map[string]string // nil: a text
	where  string
}

// eachInput hands on the inputs, some at a time.
func eachInput(o generateFlags, args []string, s streams, run func([]input) error) error {
	if len(args) > 0 {
		var all []input
		for i, a := range args {
			all = append(all, input{text: a, where: fmt.Sprintf("text %d", i+1)})
		}
		for len(all) > 0 {
			n := min(o.batch, len(all))
			if err := run(all[:n]); err != nil {
				return err
			}
			all = all[n:]
		}
		return nil
	}
	in, name := s.in, "standard input"
	if f, ok := in.(*os.File); ok && o.jsonl == "" {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 { // a terminal: nothing is asked for there
			return failure.Usage(failure.Hint(errors.New("there is no text to continue"), "give texts as arguments, or lines on standard input"))
		}
	}
	if o.jsonl != "" && o.jsonl != "-" {
		f, err := os.Open(o.jsonl)
		if err != nil {
			return failure.Usage(fmt.Errorf("read rows: %w", err))
		}
		defer f.Close()
		in, name = f, o.jsonl
	}
	return lines(in, name, o, run)
}

// lines hands on the lines of a text, or the rows they are.
func lines(in io.Reader, name string, o generateFlags, run func([]input) error) error {
	var batch []input
	var ran error // of run; what Lines itself says is about the text
	found := false
	err := data.Lines(in, name, func(n int, line string) error {
		found = true
		x := input{text: line, where: fmt.Sprintf("%s:%d", name, n)}
		if o.jsonl != "" {
			var err error
			if x.fields, err = data.ParseObject([]byte(line)); err != nil {
				return fmt.Errorf("%s: %w", x.where, err)
			}
		}
		if batch = append(batch, x); len(batch) < o.batch {
			return nil
		}
		full := batch
		batch = nil
		ran = run(full)
		return ran
	})
	switch {
	case ran != nil:
		return ran
	case err != nil:
		return failure.Usage(err)
	case !found:
		return failure.Usage(failure.Hint(fmt.Errorf("there is no text in %s", name), "give texts as arguments, or lines on standard input"))
	case len(batch) == 0:
		return nil
	}
	return run(batch)
}

// generator continues inputs behind each prompt.
type generator struct {
	o       generateFlags
	b       *base.Base
	s       streams
	prompts []base.Prompt // none: the base alone
	inputs  []data.Template
	chats   []data.Renderer // of the prompts; nil: texts as they are
	values  []float32       // of all prompts, one behind the other
	rows    []int
}

func newGenerator(o generateFlags, b *base.Base, prompts []base.Prompt, s streams) (*generator, error) {
	g := &generator{o: o, b: b, s: s, prompts: prompts}
	templates := []string{"{text}"}
	if len(prompts) > 0 {
		templates = nil
	}
	for _, p := range prompts {
		g.values, g.rows = append(g.values, p.Values...), append(g.rows, p.Rows)
		if p.Meta.Input == "" { // a PEFT adapter has no template, a prompt for conversations none of its own
			p.Meta.Input = "{text}"
		}
		templates = append(templates, p.Meta.Input)
		var by data.Renderer
		if p.Meta.Chat != "" {
			t, err := b.ChatOf(p.Meta.Chat)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Path, err)
			}
			by = t
		}
		g.chats = append(g.chats, by)
	}
	if len(prompts) == 0 {
		g.chats = []data.Renderer{nil}
	}
	for _, text := range templates {
		t, err := data.ParseTemplate(text)
		if err != nil {
			return nil, err
		}
		if n := len(t.Fields()); n != 1 && o.jsonl == "" {
			return nil, fmt.Errorf("the template %q has %d fields, so a text alone does not fill it; give rows with --jsonl", text, n)
		}
		g.inputs = append(g.inputs, t)
	}
	return g, nil
}

// generated is the JSON of a continued text.
type generated struct {
	Input        string  `json:"input"`
	Prompt       string  `json:"prompt,omitempty"`
	Text         string  `json:"text"`
	IDs          []int32 `json:"ids"`
	FinishReason string  `json:"finish_reason"`
}

// run continues a batch of inputs behind every prompt, in one packed forest.
func (g *generator) run(ctx context.Context, batch []input) error {
	var texts []model.Text
	var out []generated
	for _, x := range batch {
		for k, t := range g.inputs {
			fields := x.fields
			if fields == nil {
				fields = map[string]string{t.Fields()[0]: x.text}
			}
			filled, err := t.Fill(fields)
			if err != nil {
				return failure.Usage(fmt.Errorf("%s: %w", x.where, err))
			}
			_, ids, err := data.EncodeInput(g.chats[k], filled, g.b.Tokenizer)
			if err != nil {
				return failure.Usage(fmt.Errorf("%s: %w", x.where, err))
			}
			name := ""
			if g.prompts != nil {
				name = g.prompts[k].Path
			}
			texts = append(texts, model.Text{Prompt: k, IDs: ids})
			out = append(out, generated{Input: x.text, Prompt: name})
		}
	}
	d, logits, err := g.b.NewDecoder(g.values, g.rows, texts, g.o.maxTokens)
	if err != nil {
		return err
	}
	var show func(int, string)
	var writeErr error
	stream := len(texts) == 1 && !g.o.json
	if stream {
		began := false
		show = func(_ int, piece string) {
			if !began {
				piece = strings.TrimLeft(piece, " \n")
			}
			began = began || piece != ""
			if _, err := io.WriteString(g.s.out, piece); err != nil && writeErr == nil {
				writeErr = err
			}
		}
	}
	options := generate.Options{Sampling: g.o.sampling, MaxTokens: g.o.maxTokens, EOS: g.b.EOS, Stop: g.o.stop}
	if g.o.guess {
		options.Rows = model.RowsAtOnce
	}
	said := func(i int) []int32 { return texts[i].IDs }
	results, err := generate.Run(ctx, d, logits, said, func(i int, ids []int32) string { return g.decode(said(i), ids) }, options, show)
	if err != nil || writeErr != nil {
		return errors.Join(err, writeErr)
	}
	for i, r := range results {
		out[i].Text, out[i].IDs, out[i].FinishReason = r.Text, r.IDs, r.FinishReason
		if out[i].IDs == nil {
			out[i].IDs = []int32{}
		}
	}
	if stream {
		_, err := fmt.Fprintln(g.s.out)
		return err
	}
	return g.print(out)
}

func (g *generator) print(out []generated) error {
	w := bufio.NewWriter(g.s.out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, r := range out {
		switch {
		case g.o.json:
			if err := enc.Encode(r); err != nil {
				return err
			}
		case len(g.prompts) > 1:
			fmt.Fprintf(w, "%s\t%s\n", r.Prompt, strings.TrimLeft(r.Text, " \n"))
		default:
			fmt.Fprintln(w, strings.TrimLeft(r.Text, " \n"))
		}
	}
	return w.Flush()
}

// decodeWith is how many tokens before the generated ones are decoded with them: some tokenizers drop a text's first space.
const decodeWith = 4

// decode is the text of generated ids as it continues what stands before them.
func (g *generator) decode(before, ids []int32) string {
	before = before[max(0, len(before)-decodeWith):]
	head := g.b.Tokenizer.Decode(before)
	all := g.b.Tokenizer.Decode(append(append([]int32(nil), before...), ids...))
	if text, ok := strings.CutPrefix(all, head); ok {
		return text
	}
	return g.b.Tokenizer.Decode(ids)
}
