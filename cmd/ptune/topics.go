package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"ptune/internal/config"
	"ptune/internal/hub"
)

// newTopics are help pages that belong to no command.
func newTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "The program's exit codes",
			Long: `  0    done
  1    failed; stderr says what failed and why
  2    the command line, the task file or the data is wrong
  3    an evaluation missed a gate: --fail-under, --fail-over or --max-drop
  4    training diverged; the best prompt so far is in output.dir
  130  interrupted by SIGINT, 143 by SIGTERM, 129 by SIGHUP. The best prompt so far and the state are in
       output.dir, and train --resume continues the run. A second signal ends the program at once.`},
		{Use: "environment", Short: "The environment variables that ptune reads",
			Long: `  HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME
        the place of the Hugging Face cache, as huggingface_hub finds it
  XDG_CACHE_HOME, HOME
        the place of ptune/tokenizers, with an empty file for each tokenizer.json that was loaded before
  HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH
        the hub that pull downloads from, and the token that is sent to it alone
  HF_HUB_OFFLINE
        1: pull downloads nothing
  PTUNE_KERNELS
        use this kernel set instead of the CPU's fastest: plain, avx2, avx512, amx, or neon on arm64
  GITHUB_STEP_SUMMARY
        a file to which eval appends a summary in Markdown; GitHub Actions sets it
  TERM
        dumb: train shows lines instead of a bar`},
		{Use: "formats", Short: "The files that ptune reads and writes",
			Long: `  task.yaml
        ptune help train prints all keys, ptune schema their JSON Schema
  rows  .jsonl: one JSON object a line; .json: a list of objects; .csv and .tsv: a table whose first
        line names the columns, unless data.columns does; .parquet; each also packed with gzip or zstd.
        The name - is standard input
  x.st  a soft prompt: a safetensors file with the F32 tensor prompt_embeddings [virtual tokens, width].
        __metadata__.ptune has the base's name and fingerprint, the tokenizer's hash, templates, labels,
        initialisation and training
  adapter directory
        PEFT's adapter_config.json and adapter_model.safetensors (prompt.init: file, import,
        export --peft, compare)
  events.jsonl
        the events of a run: {"event":"start"|"step"|"eval"|"end", …}, one object a line
  state.safetensors
        the state of a run, for train --resume; state.safetensors.before is the previous one
  report.html
        the page of a run (ptune report)
  files that exist
        init, train, import and export replace a task file, a prompt or an adapter only with --force.
        train --resume leaves a finished run as it is. A CI job that trains the same task again needs
        one of both. Reports, samples, and the results of sweep and compare are always written anew
  stdout
        the result; with --json one JSON document, or one a line for several results
  stderr
        progress, warnings, errors as "ptune: error: …", and what to do next as "ptune: hint: …"`},
	}
}

// newMan writes the manual pages, for packages of the program.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a folder",
		Args: cobra.ExactArgs(1), Example: "  ptune man runs/man",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return workError{fmt.Errorf("write the manual pages: %w", err)}
			}
			cmd.Root().DisableAutoGenTag = true
			header := &doc.GenManHeader{Title: "PTUNE", Section: "1", Source: "ptune " + version}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return workError{fmt.Errorf("write the manual pages: %w", err)}
			}
			return nil
		},
	}
}

// complete tells shells what flags and arguments can be.
func complete(root *cobra.Command) {
	prompts := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"st"}, cobra.ShellCompDirectiveFilterFileExt
	}
	tasks := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	keys := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, k := range config.Keys() {
			all = append(all, k+"=")
		}
		return all, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
	models := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cache, err := hub.CacheDir(os.Getenv)
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return append(hub.Cached(cache), "ptune:demo"), cobra.ShellCompDirectiveDefault
	}
	for _, c := range root.Commands() {
		for name, f := range map[string]cobra.CompletionFunc{
			"prompt": prompts, "config": tasks, "set": keys, "model": models,
		} {
			if c.Flags().Lookup(name) != nil {
				c.RegisterFlagCompletionFunc(name, f)
			}
		}
		switch c.Name() {
		case "inspect", "export":
			c.ValidArgsFunction = prompts
		case "validate", "sweep", "compare":
			c.ValidArgsFunction = tasks
		case "init", "pull":
			c.ValidArgsFunction = models
		}
	}
}
