package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/kernels"
	"ptune/internal/prompt"
	"ptune/internal/tokenize"
)

func newImport(s streams) *cobra.Command {
	var out, model string
	cmd := &cobra.Command{
		Use:   "import ADAPTER_DIR -o x.st",
		Short: "Make a prompt's file of a PEFT adapter",
		Long: `Make a prompt's file of a PEFT adapter directory: PROMPT_TUNING, or P_TUNING, whose saved rows mean the same. The values are taken as they
are. The file notes the base that --model names, or that the adapter does if it is a directory here.`,
		Example: "  ptune import runs/adapter -o runs/imported.st --model ptune:demo",
		Args:    cobra.ExactArgs(1),
		RunE:    runE(func(_ context.Context, args []string) error { return importAdapter(args[0], out, model, s) }),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the prompt's file to write")
	cmd.Flags().StringVar(&model, "model", "", "the base's directory, if the adapter does not say")
	return cmd
}

func importAdapter(dir, out, model string, s streams) error {
	if out == "" {
		return failure.Usage(errors.New("there is no -o: where shall the prompt be written?"))
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return failure.Usage(failure.Hint(fmt.Errorf("%s is no directory", dir), "a PEFT adapter is a directory with adapter_config.json and adapter_model.safetensors"))
	}
	p, err := base.LoadPrompt(dir)
	if err != nil {
		return err
	}
	if model == "" {
		if info, err := os.Stat(p.Meta.Base.Name); err == nil && info.IsDir() {
			model = p.Meta.Base.Name
		}
	}
	p.Meta.Input, p.Meta.Init = "{text}", prompt.Init{Kind: "file", File: filepath.Base(filepath.Clean(dir))}
	if model == "" {
		s.warn("%s was made for %q, which is no directory here: %s will not say which base it is for", dir, p.Meta.Base.Name, out)
	} else {
		b, err := openBaseOf([]base.Prompt{p}, model, computeOptions{compute: "f32"})
		if err != nil {
			return err
		}
		defer b.Close()
		p.Meta.Base = prompt.Base{Name: b.Name, Path: base.ModelFrom(out, model), Fingerprint: b.Fingerprint, Type: b.Type}
		p.Meta.Tokenizer = b.Tokenizer.Hash
		if len(b.EOS) > 0 {
			p.Meta.EOS = b.EOS[0]
		}
	}
	if err := p.Save(out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, out)
	return err
}

type exportFlags struct {
	peft, vocabRows string
	model, name     string
}

func newExport(s streams) *cobra.Command {
	var o exportFlags
	cmd := &cobra.Command{
		Use:   "export x.st --peft DIR | --vocab-rows DIR",
		Short: "Write a soft prompt for PEFT, or as vocabulary of its base",
		Long: `Write a soft prompt for other programs.

--peft writes a PEFT adapter directory: PeftModel.from_pretrained(base, DIR) has ptune's logits.

--vocab-rows writes the base once more, with the virtual tokens as so many more rows of its vocabulary and a tokenizer that knows
them, so that any engine serves the tuned prompt as ordinary text. DIR/prompt.txt is the text to write before an input; it has
the tokenizer's first token, so the engine must add none itself (add_special_tokens off). The engine must not sample
the new ids: generation_config.json suppresses them, and an engine that does not read it has to be told.`,
		Example: "  ptune export runs/sentiment.st --peft runs/adapter\n  ptune export runs/sentiment.st --model internal/demo/base --vocab-rows runs/served",
		Args:    cobra.ExactArgs(1),
		RunE:    runE(func(_ context.Context, args []string) error { return exportPrompt(o, args[0], s) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.peft, "peft", "", "the adapter directory to write")
	f.StringVar(&o.vocabRows, "vocab-rows", "", "the model directory to write")
	f.StringVar(&o.model, "model", "", "the base's directory, if not where the prompt's file says")
	f.StringVar(&o.name, "base-name", "", "the base's name or path in adapter_config.json (default: its directory)")
	return cmd
}

func exportPrompt(o exportFlags, path string, s streams) error {
	if (o.peft == "") == (o.vocabRows == "") {
		return failure.Usage(errors.New("give one of --peft and --vocab-rows, the directory to write"))
	}
	if o.name != "" && o.peft == "" {
		return failure.Usage(errors.New("--base-name is for --peft"))
	}
	prompts, b, err := openPrompts([]string{path}, o.model, computeOptions{compute: "f32"})
	if err != nil {
		return err
	}
	defer b.Close()
	p, dir := prompts[0], o.model
	if dir == "" {
		dir = base.PathAt(path, p.Meta.Base.Path)
	}
	if o.peft != "" {
		if o.name == "" {
			o.name = dir
		}
		if err := p.SavePEFT(o.peft, o.name, b.Layers(), b.Heads.Q); err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.out, o.peft)
		return err
	}
	return exportRows(o.vocabRows, dir, p, b, s)
}

// exportRows writes the base of directory dir to out with the prompt in its vocabulary.
func exportRows(out, dir string, p base.Prompt, b *base.Base, s streams) error {
	if dir == demo.Name {
		return failure.Usage(failure.Hint(errors.New("the embedded base is no directory to copy"), "its files are internal/demo/base in ptune's source; name that with --model"))
	}
	if entries, err := os.ReadDir(out); err == nil && len(entries) > 0 {
		return failure.Usage(fmt.Errorf("%s is not empty", out))
	}
	names := make([]string, p.Rows)
	for i := range names {
		names[i] = fmt.Sprintf("<|ptune_%d|>", i)
	}
	tok, err := tokenize.AddTokens(dir, names)
	if err != nil {
		return err
	}
	files, err := tok.Files()
	if err != nil {
		return err
	}
	files["prompt.txt"] = []byte(tok.Prefix)
	dtype, err := b.SaveWithTokens(dir, out, int(tok.First), p.Values, files)
	if err != nil {
		return err
	}
	if dtype != kernels.F32 {
		s.warn("the base is %v, and so are the virtual tokens now: logits differ by that rounding", dtype)
	}
	fmt.Fprintf(s.err, "the text of %s goes before an input (%q); the engine must add no special tokens and never sample the ids %d to %d\n",
		filepath.Join(out, "prompt.txt"), p.Meta.Input, tok.First, int(tok.First)+p.Rows-1)
	_, err = fmt.Fprintln(s.out, out)
	return err
}
