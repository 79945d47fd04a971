package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/kernels"
	"ptune/internal/prompt"
)

func newImport(s streams) *cobra.Command {
	var out, model string
	var force bool
	cmd := &cobra.Command{
		Use:   "import ADAPTER_DIR -o x.st",
		Short: "Convert a PEFT adapter to a prompt file",
		Long: `Convert a PEFT adapter directory to a prompt file. The types PROMPT_TUNING and P_TUNING are supported:
both save the virtual tokens as plain rows. The base is --model or, without it, the adapter's
base_model_name_or_path if that is a local directory.`,
		Example: "  ptune import runs/adapter -o runs/imported.st --model ptune:demo",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(_ context.Context, args []string) error {
			return importAdapter(args[0], out, model, force, s)
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the prompt file to write")
	forceFlag(cmd.Flags(), &force)
	cmd.Flags().StringVar(&model, "model", "", "the base model: a directory, org/name or "+
		"ptune:demo (default: what the adapter names)")
	return cmd
}

func importAdapter(dir, out, model string, force bool, s streams) error {
	if out == "" {
		return failure.Usage(errors.New("-o is missing: the prompt file to write"))
	}
	if err := refuseExisting(out, force); err != nil {
		return err
	}
	if err := files.Check(out); err != nil {
		return failure.Usage(err)
	}
	p, err := base.ImportAdapter(dir)
	if err != nil {
		return err
	}
	if info, err := os.Stat(p.Meta.Base.Name); model == "" && err == nil && info.IsDir() {
		model = p.Meta.Base.Name
	}
	if model == "" {
		s.warn("%s was made for %q, which is not a directory here: %s will not name its base",
			dir, p.Meta.Base.Name, out)
	} else {
		b, err := openBaseOf([]base.Prompt{p}, model, computeOptions{compute: "f32"})
		if err != nil {
			return err
		}
		defer b.Close()
		b.NameIn(&p.Meta, out, model)
	}
	if err := p.Save(out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, out)
	return err
}

type exportFlags struct {
	output          string
	peft, vocabRows string
	model, name     string
	force           bool
}

func newExport(s streams) *cobra.Command {
	var o exportFlags
	cmd := &cobra.Command{
		Use:   "export x.st -o DIR | --vocab-rows DIR",
		Short: "Write a soft prompt for PEFT, or as vocabulary of its base",
		Long: `Write a soft prompt for other programs.

-o or --peft writes a PEFT adapter directory: PeftModel.from_pretrained(base, DIR) gives ptune's logits.

--vocab-rows writes a copy of the base with the virtual tokens as additional tokens of its vocabulary
and a tokenizer that knows them, so that any engine can serve the prompt as ordinary text. Write the
text of DIR/prompt.txt before an input. It includes the tokenizer's first token, so the engine must not
add one (add_special_tokens off). The engine must not sample the new ids: generation_config.json
suppresses them; configure an engine that does not read this file accordingly.`,
		Example: "  ptune export runs/sentiment.st -o runs/adapter --force\n" +
			"  ptune export runs/sentiment.st --model internal/demo/base --vocab-rows runs/served",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(_ context.Context, args []string) error {
			return exportPrompt(o, args[0], s)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "the adapter directory to write, as --peft")
	f.StringVar(&o.peft, "peft", "", "the adapter directory to write")
	forceFlag(f, &o.force)
	f.StringVar(&o.vocabRows, "vocab-rows", "", "the model directory to write")
	f.StringVar(&o.model, "model", "",
		"the base model: a directory or org/name (default: what the prompt's file names)")
	f.StringVar(&o.name, "base-name", "",
		"the base's name or path in adapter_config.json (default: its directory)")
	return cmd
}

func exportPrompt(o exportFlags, path string, s streams) error {
	o.peft = cmp.Or(o.peft, o.output)
	if (o.peft == "") == (o.vocabRows == "") {
		return failure.Usage(errors.New("give either -o (or --peft) or --vocab-rows, the directory to write"))
	}
	if o.name != "" && o.peft == "" {
		return failure.Usage(errors.New("--base-name needs -o or --peft"))
	}
	file := filepath.Join(o.peft, prompt.AdapterConfig)
	if o.vocabRows != "" {
		file = filepath.Join(o.vocabRows, base.PrefixFile)
	} else if err := refuseExisting(file, o.force); err != nil {
		return err
	}
	if err := files.CheckWithFolder(file); err != nil {
		return failure.Usage(err)
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
	served, err := b.SaveWithPrompt(p, dir, o.vocabRows)
	if err != nil {
		return err
	}
	if served.DType != kernels.F32 {
		s.warn("the base is %v, so the virtual tokens are rounded to it: logits differ by that rounding",
			served.DType)
	}
	s.tell("the text of %s goes before an input (%q); the engine must add no special tokens "+
		"and never sample the ids %d to %d", filepath.Join(served.Dir, base.PrefixFile), p.Meta.Input,
		served.First, served.First+p.Rows-1)
	_, err = fmt.Fprintln(s.out, served.Dir)
	return err
}
