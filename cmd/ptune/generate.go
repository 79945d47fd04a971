package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/model"
	"ptune/internal/run"
)

type generateFlags struct {
	prompts   []string
	model     string
	rows      string
	jsonl     string
	constrain string
	sampling  infer.Sampling
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
		Short: "Continue texts after a soft prompt",
		Long: `Continue texts after a soft prompt. The input template, the base model and its tokenizer come from the
prompt's file. A text fills the one field of the template. Texts are the arguments or the lines of standard
input; with --rows, the fields of each row fill the template. The likeliest token is taken unless
--temperature is given.

Each line of standard input is answered as soon as it is read. Output is in the order of the input; a blank
line stays one. An input that is too long is an error with its place: all are listed before the first text is
made if inputs are arguments or a file, else the lines before it are answered.

With --constrain labels, the result is one of the labels of the prompt: the one that is likeliest as a whole,
as eval and classify find it, or with --temperature one drawn by the labels' likelihoods.

For one or two texts at a time, the next tokens are guessed from what the text has said before, and several
are computed at once. Wrong guesses are dropped; the result is the same.

With several prompts, each text is continued after each of them, on one loaded base. With --model and without
--prompt, the base alone continues the texts as they are.

Without --json, white space at the beginning of a continuation is not printed.`,
		Example: `  ptune generate --prompt runs/stars.st "The soup was cold and the waiters were rude."
  ptune generate --prompt runs/stars.st --prompt runs/things.st --json --rows internal/demo/data/valid.jsonl
  ptune generate --model ptune:demo --max-tokens 20 "We tried this cafe"`,
		RunE: runE(func(ctx context.Context, args []string) error { return generateTexts(ctx, o, args, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil,
		"prompt file, PEFT adapter directory, or a directory: all .st files in it (repeatable)")
	modelFlag(f, &o.model)
	f.StringVar(&o.rows, "rows", "",
		"file of rows whose fields fill the template: .jsonl, .json, .csv, .tsv or .parquet "+
			"(-: standard input)")
	f.StringVar(&o.jsonl, "jsonl", "", "file of rows as JSON lines, whatever its name")
	cobra.CheckErr(f.MarkHidden("jsonl")) // the name of --rows before it read other formats
	f.IntVar(&o.maxTokens, "max-tokens", usualTokens, "most tokens to generate for a text")
	f.Float64Var(&o.sampling.Temperature, "temperature", 0,
		"0: take the likeliest token; higher: more varied text")
	f.Float64Var(&o.sampling.TopP, "top-p", 1,
		"sample only among the likeliest tokens that reach this probability together (1: all)")
	f.IntVar(&o.sampling.TopK, "top-k", 0,
		"sample only among this many of the likeliest tokens (0: all)")
	f.Float64Var(&o.sampling.MinP, "min-p", 0,
		"sample only among tokens at least this times as likely as the likeliest (0: all)")
	f.Float64Var(&o.sampling.RepetitionPenalty, "repetition-penalty", 1,
		"divide positive logits of tokens that occur in the input or the text by this, multiply others (1: none)")
	f.Uint64Var(&o.sampling.Seed, "seed", 0, "seed of sampling")
	f.StringArrayVar(&o.stop, "stop", nil, "end a text before this string (repeatable)")
	f.StringVar(&o.constrain, "constrain", "", "labels: generate only labels of the prompt")
	f.IntVar(&o.batch, "batch", 16, "inputs answered at a time")
	f.BoolVar(&o.guess, "guess", true,
		"for one or two texts at a time, guess the next tokens from earlier text; "+
			"faster if it repeats itself")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print one JSON object for each text")
	return cmd
}

func (o *generateFlags) check() error {
	switch {
	case o.maxTokens < 1:
		return fmt.Errorf("--max-tokens is %d, want at least 1", o.maxTokens)
	case o.batch < 1:
		return fmt.Errorf("--batch is %d, want at least 1", o.batch)
	case o.constrain != "" && o.constrain != "labels":
		return fmt.Errorf("--constrain is %q, want labels", o.constrain)
	case o.constrain != "" && len(o.prompts) == 0:
		return errors.New("--constrain labels needs a prompt that has labels")
	case slices.Contains(o.stop, ""):
		return errors.New("--stop is empty, want a text")
	}
	if err := o.sampling.Check(); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return o.unused()
}

// usualTokens is the default of --max-tokens.
const usualTokens = 128

// unused returns an error that names the flags that would have no effect.
func (o *generateFlags) unused() error {
	var errs []error
	for _, f := range []struct {
		given, sampling, text bool // what it changes: sampling, or a text of any tokens
		name                  string
	}{
		{o.sampling.TopP != 1, true, false, "--top-p"},
		{o.sampling.TopK != 0, true, false, "--top-k"},
		{o.sampling.MinP != 0, true, false, "--min-p"},
		{o.sampling.RepetitionPenalty != 1, false, true, "--repetition-penalty"},
		{o.maxTokens != usualTokens, false, true, "--max-tokens"},
		{len(o.stop) > 0, false, true, "--stop"},
	} {
		switch {
		case f.given && f.sampling && o.sampling.Temperature == 0:
			errs = append(errs, fmt.Errorf("%s has no effect without --temperature", f.name))
		case f.given && f.text && o.constrain != "":
			errs = append(errs, fmt.Errorf("%s has no effect on labels (--constrain)", f.name))
		}
	}
	return errors.Join(errs...)
}

func generateTexts(ctx context.Context, o generateFlags, args []string, s streams) error {
	if err := o.check(); err != nil {
		return failure.Usage(err)
	}
	if given := o.rows != "" || o.jsonl != ""; given && (len(args) > 0 || o.rows != "" && o.jsonl != "") {
		return failure.Usage(errors.New("give texts as arguments, or rows with --rows"))
	}
	var err error
	if o.prompts, err = base.PromptPaths(o.prompts); err != nil {
		return err
	}
	prompts, b, err := openPrompts(ctx, o.prompts, o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil) // ends the reading of lines
	decoder := b.NewDecoder(model.NoCacheLimit)
	defer decoder.Close()
	g, err := newGenerator(o, b, decoder, prompts)
	if err != nil {
		return failure.Usage(err)
	}
	defer g.Close()
	inputs, err := openInputs(ctx, o, args, g, s)
	if err != nil {
		return err
	}
	defer run.StopWith(ctx, b)()
	p := &answerPrinter{generateFlags: o, w: bufio.NewWriter(s.out)}
	err = g.Run(ctx, inputs, 2*o.batch, p.pieces(), p.answer)
	if errors.Is(err, infer.ErrNoText) {
		err = failure.Hint(err, textsHint)
	}
	return errors.Join(p.err, err)
}

// tokensAtOnce is how many tokens of inputs with their labels are computed at a time, as eval does.
const tokensAtOnce = 4096

const textsHint = "give texts as arguments, or lines on standard input"

// openInputs returns the inputs. Those that are arguments or in a file are checked first.
func openInputs(ctx context.Context, o generateFlags, args []string, g *infer.Generator,
	s streams) (<-chan infer.Input, error) {
	known := func(all []infer.Input, notes []string, err error) (<-chan infer.Input, error) {
		s.warnAll(notes)
		if err == nil {
			err = g.Check(ctx, all)
		}
		return infer.Known(all), err
	}
	if len(args) > 0 {
		return known(infer.Texts(args), nil, nil)
	}
	in, name, rows := s.in, "standard input", o.rows != "" || o.jsonl != ""
	switch {
	case o.jsonl != "" && o.jsonl != data.Stdin:
		text, err := os.ReadFile(o.jsonl)
		if err != nil {
			return nil, failure.Usage(fmt.Errorf("read rows: %w", err))
		}
		in, name = bytes.NewReader(text), o.jsonl
	case o.rows != "" && o.rows != data.Stdin:
		return known(infer.Rows(data.Source{Path: o.rows, Context: ctx}, nil))
	case o.rows != "":
		b := bufio.NewReader(in)
		begin, err := until(ctx, func() ([]byte, error) { return b.Peek(1) })
		if ctx.Err() != nil {
			return nil, err
		}
		if len(begin) > 0 && begin[0] != '{' { // no JSON lines: not readable line by line
			return known(infer.Rows(data.Source{Path: data.Stdin, Context: ctx}, b))
		}
		in = b
	}
	if data.Endless(in) {
		return nil, failure.Usage(failure.Hint(errors.New("there is no text to continue"), textsHint))
	}
	lines := data.TextLines(in, name, "text")
	if rows {
		lines = data.ObjectLines(in, name)
	}
	return infer.Lines(ctx, lines, !rows, o.batch), nil
}

// newGenerator returns a generator for the prompts, or for the base alone if there are none.
func newGenerator(o generateFlags, b *base.Base, decoder *model.Decoder,
	prompts []base.Prompt) (*infer.Generator, error) {
	options := infer.Options{
		Decode: b.Tokenizer.Decode, Unsettled: b.Tokenizer.Unsettled,
		Texts:  o.batch * max(1, len(prompts)),
		Scorer: b, Trees: decoder, ScoreTokens: tokensAtOnce,
	}
	if o.guess {
		options.GuessRows = model.RowsAtOnce
	}
	g := infer.NewGenerator(infer.New(decoder, options), infer.Request{
		Sampling: o.sampling, MaxTokens: o.maxTokens, EOS: b.EOS, Stop: o.stop,
	})
	texts, labels := o.rows == "" && o.jsonl == "", o.constrain != ""
	if len(prompts) == 0 {
		return g, g.Add(nil, b, b.Tokenizer, texts, labels)
	}
	for _, p := range prompts {
		err := g.Add(p.Prompt, b, b.Tokenizer, texts, labels)
		if errors.Is(err, infer.ErrFields) {
			err = failure.Hint(err, "give rows with --rows")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		}
	}
	return g, nil
}

// generated is the JSON of a continued text.
type generated struct {
	Input        any     `json:"input"` // a text, or the fields of a row
	Prompt       string  `json:"prompt,omitempty"`
	Text         string  `json:"text"`
	IDs          []int32 `json:"ids"`
	FinishReason string  `json:"finish_reason"`
}

// answerPrinter prints generated texts.
type answerPrinter struct {
	generateFlags
	w     *bufio.Writer
	began bool  // of a text that is shown in pieces, more than white space has been printed
	err   error // of printing a piece
}

// pieces returns what prints a text as it is made; nil if that is not wanted.
func (p *answerPrinter) pieces() func(piece string) {
	if p.json || len(p.prompts) > 1 {
		return nil
	}
	return func(piece string) {
		if !p.began {
			piece = strings.TrimLeft(piece, " \n")
		}
		p.began = p.began || piece != ""
		p.w.WriteString(piece)
		if err := p.w.Flush(); err != nil && p.err == nil {
			p.err = err
		}
	}
}

// answer prints what was generated for an input, after each prompt.
func (p *answerPrinter) answer(a infer.Answer) error {
	enc := json.NewEncoder(p.w)
	enc.SetEscapeHTML(false)
	var input any = a.Text
	if a.Fields != nil {
		texts := map[string]string{}
		for name, f := range a.Fields {
			if f.Not == "" {
				texts[name] = f.Text
			}
		}
		input = texts
	}
	for i, r := range a.Results {
		path := ""
		if len(p.prompts) > 0 {
			path = p.prompts[i]
		}
		switch {
		case a.Shown:
			fmt.Fprintln(p.w)
		case p.json:
			err := enc.Encode(generated{
				Input: input, Prompt: path, Text: r.Text,
				IDs: append([]int32{}, r.IDs...), FinishReason: r.FinishReason,
			})
			if err != nil {
				return err
			}
		case len(p.prompts) > 1:
			fmt.Fprintf(p.w, "%s\t%s\n", path, strings.TrimLeft(r.Text, " \n"))
		default:
			fmt.Fprintln(p.w, strings.TrimLeft(r.Text, " \n"))
		}
	}
	p.began = false
	return errors.Join(p.err, p.w.Flush())
}
