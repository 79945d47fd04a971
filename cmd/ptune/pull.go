package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/failure"
	"ptune/internal/hub"
	"ptune/internal/report"
)

func newPull(s streams) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "pull ORG/NAME[@REVISION]",
		Short: "Download a model from the Hugging Face Hub into its cache",
		Long: `Download the files of a model that ptune reads (safetensors, JSON, chat templates) into the Hugging
Face cache, with huggingface_hub's layout, and print the folder. Each file is checked by its hash. An
interrupted download continues. A task file can then name the model as org/name.

HF_ENDPOINT is the hub, HF_TOKEN a token that is sent to it alone, HF_HUB_CACHE or HF_HOME the place of
the cache. With HF_HUB_OFFLINE=1 nothing is downloaded.`,
		Example: "  ptune pull HuggingFaceTB/SmolLM2-135M",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return pullModel(ctx, args[0], quiet, s)
		}),
	}
	cmd.Flags().BoolVar(&quiet, "quiet", false, "print only warnings and errors on stderr")
	return cmd
}

func pullModel(ctx context.Context, name string, quiet bool, s streams) error {
	repo, ok := hub.ParseRepo(name)
	if !ok {
		return failure.Usage(fmt.Errorf(
			"%q is not the name of a model on the Hub, want org/name or org/name@revision", name))
	}
	c, err := hub.NewClient(os.Getenv)
	if err != nil {
		return failure.Usage(err)
	}
	last := time.Now()
	c.Tell = func(file string, done, size int64) {
		if !quiet && (time.Since(last) > 2*time.Second || done == size) {
			last = time.Now()
			s.tell("%s: %s of %s", file, report.BytesText(done), report.BytesText(size))
		}
	}
	dir, err := c.Pull(ctx, repo)
	if c.Offline {
		err = failure.Hint(err, "HF_HUB_OFFLINE is set, so nothing is downloaded")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, dir)
	return err
}
