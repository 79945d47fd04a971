package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/serve"
)

type serveFlags struct {
	serve.Options
	model     string
	prompts   []string
	keyFile   string
	cert, key string
	logFormat string
	cache     float64
	computeOptions
}

func newServe(s streams) *cobra.Command {
	var o serveFlags
	cmd := &cobra.Command{
		Use:   "serve --prompts DIR",
		Short: "Answer HTTP requests with soft prompts on one base model",
		Long: `Answer HTTP requests in the form of OpenAI's API. One base model is loaded; every prompt file is a model
under its name without .st, and the base alone is one under its own name. Requests of all of them are computed
together, and none changes the results of another.

Files of --prompts that are new, changed or removed are taken up within a second, without a restart. A file
that is damaged or made for another base is refused in the log, and the prompt that it would replace stays.

A completion's prompt fills the input template of the prompt's file, as a text of ptune generate does. As in
OpenAI's API, temperature is 1 and max_tokens of a completion is 16 unless the request gives them;
temperature 0 gives what ptune generate gives.

SIGTERM or SIGINT ends the server: no new requests are taken, and those in work get --drain to end. The exit
code is 0 if all were answered. A second signal ends the server at once.`,
		Example: `  ptune serve --prompts runs
  ptune serve --model ptune:demo --prompt stars=runs/stars.st --listen 127.0.0.1:9000`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error { return serveModels(ctx, o, s) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.Folder, "prompts", "", "directory whose .st files are served")
	f.StringArrayVar(&o.prompts, "prompt", nil,
		"prompt file or PEFT adapter directory to serve, as name=path, or a path: its file's name (repeatable)")
	modelFlag(f, &o.model)
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "address and port; :8080 is port 8080 of all addresses")
	f.StringVar(&o.keyFile, "api-key-file", "",
		"file of API keys, one a line (# begins a comment): every route but /health asks for one of them")
	f.StringVar(&o.cert, "tls-cert", "", "certificate chain (PEM), to serve HTTPS")
	f.StringVar(&o.key, "tls-key", "", "private key of --tls-cert (PEM)")
	f.StringSliceVar(&o.Origins, "cors-origins", nil,
		"origins of web pages that may call the server, as https://example.com (*: all); default: only its own page")
	f.IntVar(&o.Texts, "batch", 16, "texts continued at a time")
	f.IntVar(&o.Queue, "queue", 128, "requests that wait at a time; more are answered with 429")
	f.IntVar(&o.MaxTokens, "max-tokens", 1024, "most tokens generated for a text")
	f.IntVar(&o.MaxLength, "max-length", 0,
		"most tokens of a text with its soft prompt (0: what the model can read, at most 8192)")
	f.Float64Var(&o.cache, "cache", 2, "most memory for keys and values of texts in work, in GB")
	f.Int64Var(&o.MaxBody, "max-body", 1<<20, "most bytes of a request's body")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "most time of a request with its wait (0: no limit)")
	f.DurationVar(&o.Drain, "drain", 30*time.Second, "time that running requests get when the server ends")
	f.StringVar(&o.logFormat, "log-format", "text", "format of the log on stderr: text or json")
	o.computeOptions.flags(cmd)
	return cmd
}

func (o *serveFlags) check() error {
	host, port, err := net.SplitHostPort(o.Listen)
	switch {
	case err != nil || port == "":
		return failure.Hint(fmt.Errorf("--listen is %q, want an address and a port", o.Listen),
			"such as 127.0.0.1:8080, or :8080 for all addresses of this machine")
	case net.ParseIP(host) == nil && strings.ContainsAny(host, " /"):
		return fmt.Errorf("--listen is %q: %q is no address", o.Listen, host)
	case o.Texts < 1:
		return fmt.Errorf("--batch is %d, want at least 1", o.Texts)
	case o.Queue < 0:
		return fmt.Errorf("--queue is %d, want at least 0", o.Queue)
	case o.MaxTokens < 1:
		return fmt.Errorf("--max-tokens is %d, want at least 1", o.MaxTokens)
	case o.MaxLength < 0:
		return fmt.Errorf("--max-length is %d, want at least 0", o.MaxLength)
	case !(o.cache > 0 && o.cache < 1e6):
		return fmt.Errorf("--cache is %g, want a size in GB", o.cache)
	case o.MaxBody < 1:
		return fmt.Errorf("--max-body is %d, want at least 1", o.MaxBody)
	case o.Timeout < 0 || o.Drain < 0:
		return errors.New("--timeout and --drain must not be negative")
	case (o.cert == "") != (o.key == ""):
		return errors.New("--tls-cert and --tls-key need each other")
	case o.logFormat != "text" && o.logFormat != "json":
		return fmt.Errorf("--log-format is %q, want text or json", o.logFormat)
	}
	return nil
}

func serveModels(ctx context.Context, o serveFlags, s streams) (err error) {
	if err := o.check(); err != nil {
		return failure.Usage(err)
	}
	if o.Files, err = namedPrompts(o.prompts); err != nil {
		return failure.Usage(err)
	}
	if o.keyFile != "" {
		if o.Keys, err = readKeys(o.keyFile); err != nil {
			return failure.Usage(err)
		}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return failure.Usage(fmt.Errorf("read --tls-cert and --tls-key: %w", err))
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	o.CacheBytes = int64(o.cache * 1e9)
	if o.Log = slog.New(slog.NewTextHandler(s.err, nil)); o.logFormat == "json" {
		o.Log = slog.New(slog.NewJSONHandler(s.err, nil))
	}
	o.Open = func() (*base.Base, error) { return openServed(ctx, o) }
	return serve.Run(ctx, o.Options)
}

// openServed opens the base: --model, or the one that the first prompt's file names.
func openServed(ctx context.Context, o serveFlags) (*base.Base, error) {
	if o.model != "" {
		return openBase(ctx, o.model, o.computeOptions)
	}
	var first string
	for _, path := range o.Files {
		if first == "" || path < first {
			first = path
		}
	}
	if first == "" && o.Folder != "" {
		names, err := base.PromptFiles(o.Folder)
		if err != nil {
			return nil, failure.Usage(fmt.Errorf("read --prompts: %w", err))
		}
		if len(names) > 0 {
			first = filepath.Join(o.Folder, names[0])
		}
	}
	if first == "" {
		why := errors.New("no prompt file says which base model to open")
		if o.Folder != "" {
			why = fmt.Errorf("%s has no .st file that says which base model to open", o.Folder)
		}
		return nil, failure.Usage(failure.Hint(why,
			"give the base's directory with --model, or prompt files with --prompt or --prompts"))
	}
	p, err := base.LoadPrompt(first)
	if err != nil {
		return nil, err
	}
	return openBaseOf(ctx, []base.Prompt{p}, "", o.computeOptions)
}

// namedPrompts returns the path of each name of --prompt.
func namedPrompts(given []string) (map[string]string, error) {
	files := map[string]string{}
	for _, text := range given {
		name, path, ok := strings.Cut(text, "=")
		if !ok {
			name, path = strings.TrimSuffix(filepath.Base(text), ".st"), text
		}
		if name == "" || path == "" {
			return nil, fmt.Errorf("--prompt is %q, want name=path or a path", text)
		}
		if files[name] != "" {
			return nil, fmt.Errorf("--prompt gives the name %q to %s and to %s", name, files[name], path)
		}
		files[name] = path
	}
	return files, nil
}

// readKeys reads API keys, one a line. Lines that begin with # are comments.
func readKeys(path string) (keys []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read --api-key-file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key := strings.TrimSpace(lines.Text()); key != "" && !strings.HasPrefix(key, "#") {
			keys = append(keys, key)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read --api-key-file: %w", err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("--api-key-file %s has no key", path)
	}
	return keys, nil
}
