package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/model"
)

type generateFlags struct {
	prompts   []string
	model     string
	jsonl     string
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
input; with --jsonl, the fields of each row fill the template. Output is in the order of the input. The
likeliest token is taken unless --temperature is given.

For one or two texts at a time, the next tokens are guessed from what the text has said before, and several
are computed at once. Wrong guesses are dropped; the result is the same.

With several prompts, each text is continued after each of them, on one loaded base. With --model and without
--prompt, the base alone continues the texts as they are.

Without --json, white space at the beginning of a continuation is not printed.`,
		Example: `  ptune generate --prompt runs/sentiment.st "The soup was cold and the waiters were rude."
  ptune generate --prompt runs/sentiment.st --prompt runs/topic.st --json --jsonl internal/demo/data/valid.jsonl
  ptune generate --model ptune:demo --max-tokens 20 "We tried this cafe"`,
		RunE: runE(func(ctx context.Context, args []string) error { return generateTexts(ctx, o, args, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil, "prompt file (repeatable)")
	f.StringVar(&o.model, "model", "",
		"the base model: a directory, org/name or ptune:demo (default: what the prompt's file "+
			"names)")
	f.StringVar(&o.jsonl, "jsonl", "",
		"file of rows whose fields fill the template, one JSON object a line (-: standard input)")
	f.IntVar(&o.maxTokens, "max-tokens", 128, "most tokens to generate for a text")
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
	f.IntVar(&o.batch, "batch", 16, "texts continued at a time")
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
	case slices.Contains(o.stop, ""):
		return errors.New("--stop is empty, want a text")
	}
	if err := o.sampling.Check(); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

func generateTexts(ctx context.Context, o generateFlags, args []string, s streams) error {
	if err := o.check(); err != nil {
		return failure.Usage(err)
	}
	if o.jsonl != "" && len(args) > 0 {
		return failure.Usage(errors.New(
			"texts are given both as arguments and with --jsonl; give one of them"))
	}
	prompts, b, err := openPrompts(o.prompts, o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	g, err := newGenerator(o, b, prompts)
	if err != nil {
		return failure.Usage(err)
	}
	return eachInput(o, args, s, func(batch []infer.Input) error {
		return generateBatch(ctx, o, g, batch, s)
	})
}

const textsHint = "give texts as arguments, or lines on standard input"

// eachInput calls run with the inputs, o.batch at a time.
func eachInput(o generateFlags, args []string, s streams, run func([]infer.Input) error) error {
	if len(args) > 0 {
		return infer.EachText(args, o.batch, run)
	}
	in, name := s.in, "standard input"
	if f, ok := in.(*os.File); ok && o.jsonl == "" {
		// never wait for a terminal
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return failure.Usage(failure.Hint(errors.New("there is no text to continue"), textsHint))
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
	err := infer.EachLine(in, name, o.jsonl != "", o.batch, run)
	if errors.Is(err, infer.ErrNoText) {
		err = failure.Hint(err, textsHint)
	}
	return err
}

// newGenerator returns a generator for the prompts, or for the base alone if there are none.
func newGenerator(o generateFlags, b *base.Base, prompts []base.Prompt) (*infer.Generator, error) {
	options := infer.Options{Decode: b.Tokenizer.Decode, Unsettled: b.Tokenizer.Unsettled}
	if o.guess {
		options.GuessRows = model.RowsAtOnce
	}
	g := infer.NewGenerator(infer.New(b.NewDecoder(model.NoCacheLimit), options), infer.Request{
		Sampling: o.sampling, MaxTokens: o.maxTokens, EOS: b.EOS, Stop: o.stop,
	})
	if len(prompts) == 0 {
		return g, g.Add(nil, b, b.Tokenizer, o.jsonl == "")
	}
	for _, p := range prompts {
		err := g.Add(p.Prompt, b, b.Tokenizer, o.jsonl == "")
		if errors.Is(err, infer.ErrFields) {
			err = failure.Hint(err, "give rows with --jsonl")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		}
	}
	return g, nil
}

// generateBatch continues inputs after every prompt and prints the texts.
func generateBatch(ctx context.Context, o generateFlags, g *infer.Generator, batch []infer.Input,
	s streams) error {
	var show func(int, string)
	var writeErr error
	if len(batch) == 1 && len(o.prompts) <= 1 && !o.json { // a single text is printed as it is made
		began := false
		show = func(_ int, piece string) {
			if !began {
				piece = strings.TrimLeft(piece, " \n")
			}
			began = began || piece != ""
			if _, err := io.WriteString(s.out, piece); err != nil && writeErr == nil {
				writeErr = err
			}
		}
	}
	results, err := g.Generate(ctx, batch, show)
	if err != nil || writeErr != nil {
		return errors.Join(err, writeErr)
	}
	if show != nil {
		_, err := fmt.Fprintln(s.out)
		return err
	}
	return printResults(o, batch, results, s)
}

// generated is the JSON of a continued text.
type generated struct {
	Input        string  `json:"input"`
	Prompt       string  `json:"prompt,omitempty"`
	Text         string  `json:"text"`
	IDs          []int32 `json:"ids"`
	FinishReason string  `json:"finish_reason"`
}

// printResults prints the results of each input after each prompt.
func printResults(o generateFlags, batch []infer.Input, results []infer.Result, s streams) error {
	w := bufio.NewWriter(s.out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	n := max(1, len(o.prompts))
	for i, r := range results {
		path := ""
		if len(o.prompts) > 0 {
			path = o.prompts[i%n]
		}
		switch {
		case o.json:
			err := enc.Encode(generated{
				Input: batch[i/n].Text, Prompt: path, Text: r.Text,
				IDs: append([]int32{}, r.IDs...), FinishReason: r.FinishReason,
			})
			if err != nil {
				return err
			}
		case n > 1:
			fmt.Fprintf(w, "%s\t%s\n", path, strings.TrimLeft(r.Text, " \n"))
		default:
			fmt.Fprintln(w, strings.TrimLeft(r.Text, " \n"))
		}
	}
	return w.Flush()
}
