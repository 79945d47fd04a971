package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ptune/internal/config"
)

var updateDocs = flag.Bool("update", false, "write the graph of packages in docs/architecture.md")

const architecture = "../../docs/architecture.md"

// packageGraph returns the table of allowed imports as a Mermaid graph. To keep the graph readable,
// it leaves out imports that are also reached through another package.
func packageGraph() string {
	imports := map[string][]string{}
	for pkg, list := range mayImport {
		for _, name := range strings.Fields(list) {
			imports[pkg] = append(imports[pkg], "internal/"+name)
		}
	}
	var reaches func(from, to string) bool
	reaches = func(from, to string) bool {
		return slices.ContainsFunc(imports[from],
			func(next string) bool { return next == to || reaches(next, to) })
	}
	var b strings.Builder
	b.WriteString("```mermaid\ngraph TD\n")
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		slices.Sort(imports[pkg])
		for _, to := range imports[pkg] {
			over := func(next string) bool { return next != to && reaches(next, to) }
			if !slices.ContainsFunc(imports[pkg], over) {
				fmt.Fprintf(&b, "    %s --> %s\n", path.Base(pkg), path.Base(to))
			}
		}
	}
	b.WriteString("```\n")
	return b.String()
}

func TestTheArchitecturePageShowsThePackages(t *testing.T) {
	const begin = "<!-- packages: go test ./cmd/ptune -run Architecture -update -->\n"
	const end = "<!-- end -->\n"
	text, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers for the graph", architecture)
	}
	want := packageGraph()
	if *updateDocs {
		if err := os.WriteFile(architecture, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("the graph in %s differs from the import table (-update writes it), want:\n%s",
			architecture, want)
	}
	for pkg := range mayImport {
		if !strings.Contains(before+after, "\n| `"+pkg+"` |") {
			t.Errorf("%s has no row for %s", architecture, pkg)
		}
	}
}

// declared returns the names that a package declares: functions, types, variables and constants.
// Methods, fields and interface methods are listed as Type.Name.
func declared(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fields := func(name string, list *ast.FieldList) {
		for _, f := range list.List {
			for _, n := range f.Names {
				names[name+"."+n.Name] = true
			}
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					recv := d.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					if id, ok := recv.(*ast.Ident); ok {
						name = id.Name + "." + name
					}
				}
				names[name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = true
						}
					case *ast.TypeSpec:
						names[s.Name.Name] = true
						switch typ := s.Type.(type) {
						case *ast.StructType:
							fields(s.Name.Name, typ.Fields)
						case *ast.InterfaceType:
							fields(s.Name.Name, typ.Methods)
						}
					}
				}
			}
		}
	}
	return names
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	filePath   = regexp.MustCompile(`^(cmd|internal|docs|testdata|configs|packaging|\.ci)/[\w./-]*$`)
	goName     = regexp.MustCompile(`^([a-z]+)\.(\w+(\.\w+)?)$`)
	linkTarget = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
)

// In pages for contributors, text in backquotes that looks like a path names a file or folder, and
// package.Name names a declaration. In all pages, relative links lead to files.
func TestTheDocsNameFilesAndDeclarationsThatExist(t *testing.T) {
	packages := map[string]string{}
	for pkg := range mayImport {
		packages[path.Base(pkg)] = pkg
	}
	names := map[string]map[string]bool{}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	pages = append(pages, "../../README.md", "../../CONTRIBUTING.md", "../../SECURITY.md",
		"../../testdata/README.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkTarget.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
		if page != architecture && page != "../../CONTRIBUTING.md" {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			if name == "config.json" || slices.Contains(config.Keys(), name) {
				continue // a file or a key of the task file, not a declaration of a package
			}
			if filePath.MatchString(name) && !strings.Contains(name, "NAME") {
				found++
				if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
					t.Errorf("%s names %s: %v", page, name, err)
				}
			} else if m := goName.FindStringSubmatch(name); m != nil && packages[m[1]] != "" {
				found++
				pkg := packages[m[1]]
				if names[pkg] == nil {
					names[pkg] = declared(t, pkg)
				}
				if !names[pkg][m[2]] {
					t.Errorf("%s names %s, which %s does not declare", page, name, pkg)
				}
			}
		}
	}
	if found < 60 {
		t.Errorf("found %d files and declarations in the pages, want at least 60", found)
	}
}
