package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/infer"
	"ptune/internal/kernels"
	"ptune/internal/prompt"
)

func newImport(s streams) *cobra.Command {
	var o importFlags
	cmd := &cobra.Command{
		Use:   "import ADAPTER -o x.st",
		Short: "Convert a PEFT adapter to a prompt file",
		Long: `Convert a PEFT adapter to a prompt file. ADAPTER is a directory, or org/name in the Hugging Face
cache. The types PROMPT_TUNING and P_TUNING are supported: both save the virtual tokens as plain rows.
The base is --model or, without it, the adapter's base_model_name_or_path if it is here.

PEFT does not save how the training script made inputs and targets. --input, --target and --labels
put that into the prompt file, so that eval can measure it on rows. Write them as in a task file.`,
		Example: "  ptune import runs/adapter -o runs/imported.st --model ptune:demo --force\n" +
			"  ptune import runs/adapter -o runs/imported.st --force " +
			`--input '{text} Answer:' --target ' {label}' --labels good,bad`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return importAdapter(ctx, args[0], o, s)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "output", "o", "", "the prompt file to write")
	forceFlag(f, &o.force)
	f.StringVar(&o.model, "model", "", "the base model: a directory, org/name or "+
		"ptune:demo (default: what the adapter names)")
	o.taskFlags.flags(f, "")
	return cmd
}

type importFlags struct {
	out, model string
	force      bool
	taskFlags
}

// taskFlags are the templates and labels of rows, for what has none of its own.
type taskFlags struct {
	input, target string
	labels        []string
}

// flags adds the flags. only ends their help: when they can be given.
func (o *taskFlags) flags(f *pflag.FlagSet, only string) {
	f.StringVar(&o.input, "input", "", "input template, as in '{text} Answer:' (default {text})"+only)
	f.StringVar(&o.target, "target", "", "target template, as in ' {label}'"+only)
	f.StringSliceVar(&o.labels, "labels", nil,
		"labels, as name,name or value=name,value=name"+only)
}

// given reports whether a flag was given.
func (o *taskFlags) given() bool { return o.input != "" || o.target != "" || len(o.labels) > 0 }

// warn warns of a line break that was written as two characters.
func (o *taskFlags) warn(s streams) {
	if e := data.KeptEscape(o.input + o.target); e != "" {
		s.warn("--input or --target has %s as two characters; the shell's $'…' writes a line break", e)
	}
}

// set gives a prompt without templates those of the flags.
func (o *taskFlags) set(b *base.Base, p base.Prompt) error {
	if o.target == "" {
		return errors.New("--target is missing: the template of what the model should write")
	}
	if err := b.SetTask(p, o.input, o.target, prompt.ParseLabels(o.labels)); err != nil {
		return err
	}
	task, err := infer.NewTask(&p.Meta, b, b.Tokenizer)
	if err == nil {
		_, _, err = task.Format()
	}
	return err
}

// setAll gives prompts without templates those of the flags, if there are any.
func (o *taskFlags) setAll(b *base.Base, prompts []base.Prompt) error {
	if !o.given() {
		return nil
	}
	for _, p := range prompts {
		if p.HasTask() {
			return fmt.Errorf("--input, --target and --labels are for the base alone or a prompt "+
				"without templates; %s has its own", p.Path)
		}
		if err := o.set(b, p); err != nil {
			return err
		}
	}
	return nil
}

func importAdapter(ctx context.Context, adapter string, o importFlags, s streams) error {
	if o.out == "" {
		return failure.Usage(errors.New("-o is missing: the prompt file to write"))
	}
	if err := refuseExisting(o.out, o.force); err != nil {
		return err
	}
	if err := files.Check(o.out); err != nil {
		return failure.Usage(err)
	}
	o.warn(s)
	p, err := base.ImportAdapter(adapter)
	if err != nil {
		return err
	}
	model := o.model
	if named, found := p.Base(); model == "" && found {
		model = named
	}
	switch {
	case model == "" && o.given():
		return failure.Usage(failure.Hint(
			fmt.Errorf("%s was made for %q, which is not here: without it there is no tokenizer for the "+
				"templates", adapter, p.Meta.Base.Name), "give the base's directory with --model"))
	case model == "":
		s.warn("%s was made for %q, which is not here: %s will not name its base",
			adapter, p.Meta.Base.Name, o.out)
	default:
		b, err := openBaseOf(ctx, []base.Prompt{p}, model, computeOptions{compute: "f32"})
		if err != nil {
			return err
		}
		defer b.Close()
		b.NameIn(&p.Meta, o.out, model)
		if o.given() {
			if err := o.set(b, p); err != nil {
				return failure.Usage(err)
			}
		}
	}
	if err := p.Save(o.out); err != nil {
		return err
	}
	return s.wrote(o.out)
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
		Example: "  ptune export runs/stars.st -o runs/adapter\n" +
			"  ptune export runs/stars.st --model internal/demo/base --vocab-rows runs/served",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return exportPrompt(ctx, o, args[0], s)
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

func exportPrompt(ctx context.Context, o exportFlags, path string, s streams) error {
	if o.peft != "" && o.output != "" {
		return failure.Usage(errors.New("-o and --peft are two names of one option; give one of them"))
	}
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
	prompts, b, err := openPrompts(ctx, []string{path}, o.model, computeOptions{compute: "f32"})
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
