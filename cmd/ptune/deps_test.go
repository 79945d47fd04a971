package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport lists, from the bottom up, the packages of this project that each package may import. If
// the test fails, change the code, not the table. Tests may import any package. docs/architecture.md
// shows the table as a graph.
var mayImport = map[string]string{
	// The system and files, without models.
	"internal/failure":    "",              // errors: usage mistakes and hints
	"internal/process":    "",              // memory, CPUs and bus errors of the process
	"internal/files":      "",              // atomic writing, and files in the place of others
	"internal/tensorfile": "files",         // safetensors and GGUF on disk
	"internal/gguf":       "tensorfile",    // a GGUF file as a Hugging Face checkpoint
	"internal/hub":        "files",         // the Hugging Face cache and its downloads
	"internal/demo":       "failure files", // the embedded base model and its data

	// Arithmetic and models.
	"internal/kernels": "process",                  // matrices, weight formats, CPU features, threads
	"internal/batch":   "",                         // packed batches
	"internal/arch":    "files kernels tensorfile", // architectures as data: config, weights, blocks
	"internal/ops":     "kernels",                  // operators of the graph and their gradients
	// The graph: objective and decoding.
	"internal/model": "arch batch files kernels ops param tensorfile",

	// Text and rows.
	"internal/tokenize": "files",      // tokenizer.json
	"internal/chat":     "",           // chat templates
	"internal/data":     "chat files", // rows, templates, masks

	// Training and measuring.
	"internal/param":  "",                               // types of what is trained inside a model
	"internal/prompt": "files kernels param tensorfile", // adapters: what is trained, and its files
	"internal/report": "",                               // events and their writers; tables, units
	"internal/train":  "batch param report tensorfile",  // optimizer, schedule, stopping, state
	"internal/infer":  "batch chat data failure prompt", // continuations and label scores of requests
	"internal/eval":   "failure infer",                  // metrics and calibration

	// From a task file to a run.
	"internal/config": "data failure prompt train", // the task file
	// An opened base model with its tokenizer and chat template.
	"internal/base": "chat demo failure gguf hub kernels model prompt tokenize",
	// A task becomes a run; sweeps and comparisons.
	"internal/run": "base batch chat config data demo eval failure files infer model param process " +
		"prompt report train",

	// Requests over HTTP.
	"internal/serve": "base chat data eval failure infer model prompt",

	// Flags, streams, exit codes, the order of events.
	"cmd/ptune": "base chat config data demo eval failure files hub infer kernels model process " +
		"prompt report run serve train",
}

// onlyIn lists the packages that may import an external library.
var onlyIn = map[string]string{
	"C":                                           "internal/kernels internal/process",
	"gorgonia.org/gorgonia":                       "internal/ops internal/model",
	"gorgonia.org/tensor":                         "internal/ops internal/model",
	"github.com/chewxy/hm":                        "internal/ops",
	"github.com/spf13/cobra":                      "cmd/ptune",
	"github.com/spf13/cobra/doc":                  "cmd/ptune",
	"github.com/spf13/pflag":                      "cmd/ptune",
	"go.yaml.in/yaml/v4":                          "internal/config",
	"github.com/daulet/tokenizers":                "internal/tokenize",
	"github.com/nlpodyssey/safetensors":           "internal/tensorfile",
	"github.com/nikolalohinski/gonja/v2/builtins": "internal/chat",
	"github.com/nikolalohinski/gonja/v2/builtins/control_structures": "internal/chat",
	"github.com/nikolalohinski/gonja/v2/config":                      "internal/chat",
	"github.com/nikolalohinski/gonja/v2/exec":                        "internal/chat",
	"github.com/nikolalohinski/gonja/v2/loaders":                     "internal/chat",
	"github.com/nikolalohinski/gonja/v2/nodes":                       "internal/chat",
	"github.com/nikolalohinski/gonja/v2/parser":                      "internal/chat",
	"github.com/nikolalohinski/gonja/v2/tokens":                      "internal/chat",
	"google.golang.org/protobuf/encoding/protowire":                  "internal/report",
	"github.com/parquet-go/parquet-go":                               "internal/data",
	"github.com/klauspost/compress/zstd":                             "internal/data",
	"github.com/prometheus/client_golang/prometheus":                 "internal/serve",
	"github.com/prometheus/client_golang/prometheus/collectors":      "internal/serve",
	"github.com/prometheus/client_golang/prometheus/promhttp":        "internal/serve",
	"golang.org/x/text/encoding":                                     "internal/data",
	"golang.org/x/text/encoding/htmlindex":                           "internal/data",
	"golang.org/x/sys/unix":                                          "internal/kernels internal/tensorfile",
	"golang.org/x/term":                                              "cmd/ptune",
	"golang.org/x/sys/cpu":                                           "internal/kernels",
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	found := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "lib" || d.Name() == ".git" || d.Name() == ".venv") {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "../.." {
			return fs.SkipDir // a module of its own
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../../"))
		found[pkg] = true
		allowed, ok := mayImport[pkg]
		if !ok {
			t.Errorf("package %s is not in mayImport", pkg)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(name, "ptune/internal/"); ok &&
				!slices.Contains(strings.Fields(allowed), ours) {
				t.Errorf("%s: %s must not import %s", path, pkg, ours)
			}
			if in, ok := onlyIn[name]; ok {
				if !slices.Contains(strings.Fields(in), pkg) {
					t.Errorf("%s: only %s may import %q", path, in, name)
				}
			} else if strings.Contains(strings.SplitN(name, "/", 2)[0], ".") {
				t.Errorf("%s: %q is not in onlyIn", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range mayImport {
		if !found[pkg] {
			t.Errorf("mayImport has %s, which does not exist", pkg)
		}
	}
}

func TestLinkedModulesAreListedWithTheirVersions(t *testing.T) {
	list, err := os.ReadFile("../../docs/linked.md")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := exec.Command("go", "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}| {{.Path}} | {{.Version}} |{{end}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(modules)) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(string(list), line) {
			t.Errorf("docs/linked.md does not have %q; run make linked to update it", line)
		}
	}
}
