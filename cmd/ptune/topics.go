package main

import (
	"embed"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"ptune/internal/config"
	"ptune/internal/hub"
)

// topics are help pages that belong to no command.
//
//go:embed topics
var topics embed.FS

func newTopics() []*cobra.Command {
	var all []*cobra.Command
	for _, t := range [][2]string{
		{"environment", "The environment variables that ptune reads"},
		{"exit-codes", "The program's exit codes"},
		{"formats", "The files that ptune reads and writes, and where paths start"},
		{"progress", "The words in the lines of a training"},
	} {
		text, err := topics.ReadFile("topics/" + t[0] + ".txt")
		if err != nil {
			panic(err) // cannot happen: it is embedded
		}
		all = append(all, &cobra.Command{Use: t[0], Short: t[1], Long: string(text)})
	}
	return all
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
