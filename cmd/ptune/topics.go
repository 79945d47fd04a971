package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"ptune/internal/config"
	"ptune/internal/hub"
)

// newTopics are pages of help that belong to no command.
func newTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the program's exit says", Long: `  0    done
  1    failed: what was being done, and why, is on stderr
  2    the command line, the task file or the data is wrong
  3    an evaluation missed --fail-under, --fail-over or --max-drop
  4    training diverged; the best prompt so far is in output.dir
  130  interrupted by SIGINT, 143 by SIGTERM, 129 by SIGHUP; the best prompt so far and the state are in output.dir, and
       train --resume goes on. A second signal ends the program at once.`},
		{Use: "environment", Short: "The environment variables that are read", Long: `  HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME   where the Hugging Face cache is, as huggingface_hub looks for it
  XDG_CACHE_HOME, HOME                    where ptune/tokenizers keeps an empty file for each tokenizer.json that has been loaded before
  HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH    the hub that pull downloads from, and the token that is sent to it alone
  HF_HUB_OFFLINE                          with 1, pull downloads nothing
  PTUNE_KERNELS                           forces a kernel set: plain, avx2, avx512, amx, on arm64 neon
  GITHUB_STEP_SUMMARY                     a file that eval appends a summary in Markdown to
  TERM                                    with dumb, train draws no bar`},
		{Use: "formats", Short: "The files that are read and written", Long: `  task.yaml            ptune help train has all keys, ptune schema their JSON Schema
  rows                 .jsonl: a JSON object a line; .parquet where it was built in; .csv and .tsv: a table, whose first line names the columns unless data.columns does
  x.st                 a soft prompt: a safetensors file with the F32 tensor prompt_embeddings [virtual tokens, width] and, under
                       __metadata__.ptune, the base's name and fingerprint, the tokenizer's hash, templates, labels, start and training
  adapter directory    PEFT's: adapter_config.json and adapter_model.safetensors (prompt.init: file, import, export --peft, compare)
  events.jsonl         what happened in a run: {"event":"start"|"step"|"eval"|"end", …}, an object a line
  state.safetensors    where a run is, for train --resume; state.safetensors.before is the one before it
  report.html          a run's page (ptune report)
  stdout               the result; with --json one JSON document, or one a line for several results
  stderr               the story: progress, warnings, errors as "ptune: error: …", what to do next as "ptune: hint: …"`},
	}
}

// newMan writes the manual pages, for those who package the program.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Hidden: true, Args: cobra.ExactArgs(1), Example: "  ptune man runs/man",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return workError{fmt.Errorf("write the manual pages: %w", err)}
			}
			cmd.Root().DisableAutoGenTag = true
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "PTUNE", Section: "1", Source: "ptune " + version}, args[0]); err != nil {
				return workError{fmt.Errorf("write the manual pages: %w", err)}
			}
			return nil
		},
	}
}

// complete has shells complete what a flag or argument can be.
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
		for name, f := range map[string]cobra.CompletionFunc{"prompt": prompts, "config": tasks, "set": keys, "model": models} {
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
