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

// mayImport is the direction of the project: what each package may import of ours. It is a statement of policy; a build
// that breaks it is mended in the code, not here. Tests may import what they like.
var mayImport = map[string]string{
	"cmd/ptune":           "batch chat config data demo eval files generate hub kernels model process prompt report tokenize train",
	"internal/arch":       "kernels tensorfile",
	"internal/batch":      "",
	"internal/config":     "data prompt train",
	"internal/chat":       "",
	"internal/data":       "chat",
	"internal/demo":       "",
	"internal/eval":       "batch",
	"internal/files":      "",
	"internal/generate":   "",
	"internal/hub":        "files",
	"internal/kernels":    "process",
	"internal/model":      "arch batch files kernels ops param tensorfile",
	"internal/ops":        "kernels",
	"internal/param":      "",
	"internal/process":    "",
	"internal/prompt":     "files tensorfile",
	"internal/report":     "",
	"internal/tensorfile": "files",
	"internal/tokenize":   "",
	"internal/train":      "batch param report tensorfile",
}

// onlyIn says which packages may import an outside library.
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
	"github.com/parquet-go/parquet-go":                               "internal/data",
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
			if ours, ok := strings.CutPrefix(name, "ptune/internal/"); ok && !slices.Contains(strings.Fields(allowed), ours) {
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

func TestWhatIsLinkedInIsListedWithItsVersion(t *testing.T) {
	list, err := os.ReadFile("../../docs/linked.md")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}| {{.Path}} | {{.Version}} |{{end}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(modules)) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(string(list), line) {
			t.Errorf("docs/linked.md does not have %q; make linked writes it", line)
		}
	}
}
