package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ptune/internal/kernels"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ptune": main, "failing": failing})
}

// TestScripts runs the scripts in testdata, one or more for each command, as a user would type them.
// They check results, JSON, errors and exit codes.
func TestScripts(t *testing.T) {
	endpoint := smallHub(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(c string) (bool, error) {
			if c != "bf16" {
				return false, fmt.Errorf("unknown condition %q", c)
			}
			return len(kernels.Names(kernels.BF16)) > 0, nil
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HF_ENDPOINT", endpoint)
			e.Setenv("HF_HUB_CACHE", filepath.Join(e.WorkDir, "cache"))
			root, err := filepath.Abs("../..")
			e.Setenv("ROOT", root)
			return err
		},
	})
}

// exits runs a command and checks its exit code: exits 2 ptune train …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code is %d, want %s", code, args[0])
	}
}

// repository makes a folder with the files of the project that the documented commands read.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"configs", "internal"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shell runs a command line in dir and returns its stdout.
func shell(t *testing.T, dir, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// smallHub starts a hub that has the demo model under another name. It returns the endpoint.
func smallHub(t *testing.T) string {
	t.Helper()
	const sha = "0123456789abcdef0123456789abcdef01234567"
	files := map[string][]byte{}
	siblings := []map[string]string{}
	entries, err := os.ReadDir("../../internal/demo/base")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile("../../internal/demo/base/" + e.Name()); err != nil {
			t.Fatal(err)
		}
		siblings = append(siblings, map[string]string{"rfilename": e.Name()})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/models/HuggingFaceTB/SmolLM2-135M/revision/main" {
			json.NewEncoder(w).Encode(map[string]any{"sha": sha, "siblings": siblings})
			return
		}
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/HuggingFaceTB/SmolLM2-135M/resolve/"+sha+"/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf("\"%x\"", sha256.Sum256(data)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestTheExamplesInHelpAndDocsRun(t *testing.T) {
	dir := repository(t)
	t.Setenv("HF_ENDPOINT", smallHub(t))
	t.Setenv("HF_HUB_CACHE", filepath.Join(dir, "cache"))
	var lines []string
	for _, c := range newRoot(streams{}).Commands() {
		if c.Name() == "help" || c.Name() == "completion" || !c.Runnable() {
			continue
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
		lines = append(lines, strings.Split(c.Example, "\n")...)
	}
	for _, doc := range []string{"README.md", "docs/models.md", "docs/serving.md"} {
		text, err := os.ReadFile("../../" + doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(string(text), "\n") {
			if l, ok := strings.CutPrefix(l, "$ "); ok && strings.HasPrefix(l, "ptune ") {
				lines = append(lines, l)
			}
		}
	}
	// The other commands read these two prompts.
	shell(t, dir, "ptune train --config configs/things.yaml --quiet")
	shell(t, dir, "ptune train --config configs/stars.yaml --quiet")
	for task, atMost := range map[string]float64{"stars": 0.6, "things": 0.8} {
		var got struct {
			Accuracy float64
			Baseline struct{ Accuracy float64 }
			Text     struct{ Accuracy float64 } `json:"as_words"`
		}
		out := shell(t, dir, "ptune eval --json --data internal/demo/data/test.jsonl "+
			"--prompt runs/"+task+".st")
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		told := fmt.Sprintf("%s: accuracy %.4f, without the prompt %.4f, as plain words %.4f",
			task, got.Accuracy, got.Baseline.Accuracy, got.Text.Accuracy)
		if t.Log(told); got.Accuracy < 0.97 || max(got.Baseline.Accuracy, got.Text.Accuracy) > atMost {
			t.Errorf("%s; want at least 0.97 with the prompt, at most %g else", told, atMost)
		}
	}
	for _, l := range lines {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "ptune serve ") {
			serveAndEnd(t, dir, l)
		} else if l != "" {
			if strings.Contains(l, "configs/stars.yaml") {
				l = strings.Replace(l, "ptune train ", "ptune train --force --set train.steps=140 ", 1)
			}
			if strings.HasPrefix(l, "ptune sweep ") && !strings.Contains(l, "train.steps") {
				l += " --set train.steps=10"
			}
			shell(t, dir, strings.Replace(l, "ptune export ", "ptune export --force ", 1))
		}
	}
	if len(lines) < 15 {
		t.Errorf("found %d command lines, want at least 15", len(lines))
	}
}

// serveAndEnd runs a command line that serves, and ends it with SIGTERM once it is ready and the examples
// of docs/serving.md have been asked.
func serveAndEnd(t *testing.T, dir, line string) {
	t.Helper()
	line = regexp.MustCompile(` --listen \S+`).ReplaceAllString(line, "") + " --listen 127.0.0.1:0"
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	log, ready := strings.Builder{}, false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		if strings.Contains(lines.Text(), "msg=ready") {
			ready = true
			_, rest, _ := strings.Cut(log.String(), "msg=listening address=")
			askAsDocumented(t, "http://"+strings.Fields(rest)[0])
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil || !ready {
		t.Errorf("%s: %v, ready: %v\n%s", line, err, ready, log.String())
	}
}

// curlExample is a call of curl in docs/serving.md, with the answer below it.
var curlExample = regexp.MustCompile(`(?s)\n\$ curl http://127\.0\.0\.1:8080(\S+) -H 'Content-Type: application/json' -d '([^']*)'\n(\{[^\n]*)\n`)

// askAsDocumented sends the examples of docs/serving.md to a server. Answers differ from those in the page only
// in numbers and ids.
func askAsDocumented(t *testing.T, address string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/serving.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := curlExample.FindAllStringSubmatch(string(page), -1)
	if n := strings.Count(string(page), "$ curl "); n == 0 || len(examples) != n {
		t.Fatalf("docs/serving.md has %d examples, of which %d are understood", n, len(examples))
	}
	numbers := regexp.MustCompile(`:[0-9.e-]+|"id":"[^"]*"|[0-9.]+(e-[0-9]+)?[,\]]`)
	for _, e := range examples {
		answer, err := http.Post(address+e[1], "application/json", strings.NewReader(e[2]))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		plain := func(s string) string { return numbers.ReplaceAllString(strings.TrimSpace(s), "N") }
		if err != nil || answer.StatusCode != http.StatusOK || plain(string(got)) != plain(e[3]) {
			t.Errorf("%s %s: status %d, %v\ngot  %s\nwant %s", e[1], e[2], answer.StatusCode, err, plain(string(got)), plain(e[3]))
		}
	}
}

func TestASignalSetsTheExitCodeAndKeepsTheBestPrompt(t *testing.T) {
	codes := map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129,
		syscall.SIGUSR1: 138}
	for signal, code := range codes {
		dir := repository(t)
		cmd := exec.Command("ptune", "train", "--config", "configs/stars.yaml",
			"--set", "train.steps=100000", "--set", "train.patience=0",
			"--set", "output.prompt=x/s.st", "--set", "output.dir=x/run")
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		events := filepath.Join(dir, "x/run/events.jsonl")
		for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			if data, _ := os.ReadFile(events); strings.Contains(string(data), `"step":3,`) {
				break
			}
			if time.Since(begin) > time.Minute {
				cmd.Process.Kill()
				t.Fatalf("no step in a minute: %s", stderr.String())
			}
		}
		cmd.Process.Signal(signal)
		time.Sleep(5 * time.Millisecond) // signals that wait together are one
		cmd.Process.Signal(signal)       // as by a supervisor that signals the process and its group
		err := cmd.Wait()
		if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != code {
			t.Errorf("%v: %v, want exit code %d\n%s", signal, err, code, stderr.String())
		}
		if _, err := os.Stat(filepath.Join(dir, "x/run/interrupted.st")); err != nil {
			t.Errorf("%v: %v", signal, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "x/s.st")); err == nil {
			t.Errorf("%v: an unfinished prompt was written to output.prompt", signal)
		}
		if !strings.Contains(stderr.String(), "ptune: error: interrupted by") ||
			!strings.Contains(stderr.String(), "ptune: hint: the best prompt so far") {
			t.Errorf("%v: stderr is %s", signal, stderr.String())
		}
	}
}

func TestTwoRunsCannotWriteToOneFolder(t *testing.T) {
	dir := repository(t)
	args := []string{"train", "--config", "configs/stars.yaml", "--set", "train.steps=100000",
		"--set", "output.prompt=x/s.st", "--set", "output.dir=x/run"}
	first := exec.Command("ptune", args...)
	first.Dir = dir
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer first.Process.Kill()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "x/run/events.jsonl")); err == nil {
			break
		}
	}
	second := exec.Command("ptune", args...)
	second.Dir = dir
	out, err := second.CombinedOutput()
	if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != 1 ||
		!strings.Contains(string(out), "another run writes to x/run") {
		t.Errorf("the second run: %v\n%s", err, out)
	}
}

func TestEveryPhonyTargetOfTheMakefileHasARule(t *testing.T) {
	data, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\n.PHONY:")
	if !ok {
		t.Fatal("the Makefile has no .PHONY")
	}
	names, _, _ := strings.Cut(rest, "\n")
	for _, name := range strings.Fields(names) {
		if !strings.Contains(string(data), "\n"+name+":") {
			t.Errorf("%s has no rule", name)
		}
	}
}

func TestAModelFileThatShrinksDuringARunIsAnError(t *testing.T) {
	dir := repository(t)
	shell(t, dir, "cp -r internal/demo/base base && chmod -R u+w base")
	cmd := exec.Command("ptune", "train", "--config", "configs/stars.yaml", "--set", "model=base",
		"--set", "train.steps=100000", "--set", "output.prompt=x/s.st", "--set", "output.dir=x/run")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		data, _ := os.ReadFile(filepath.Join(dir, "x/run/events.jsonl"))
		if strings.Contains(string(data), `"step":3,`) {
			break
		}
		if time.Since(begin) > time.Minute {
			cmd.Process.Kill()
			t.Fatalf("no step in a minute: %s", stderr.String())
		}
	}
	if err := os.Truncate(filepath.Join(dir, "base/model.safetensors"), 5000); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != 1 ||
		!strings.Contains(stderr.String(), "ptune: error: a model file became shorter") ||
		strings.Contains(stderr.String(), "goroutine") {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}

func TestANaNWeightIsAnErrorWithItsTensor(t *testing.T) {
	dir := repository(t)
	shell(t, dir, "cp -r internal/demo/base base && chmod -R u+w base")
	path := filepath.Join(dir, "base/model.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1], data[len(data)-2] = 0x7f, 0xff // NaN, as F32 or BF16
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"train", "validate"} {
		cmd := exec.Command("ptune", command, "configs/stars.yaml", "--set", "model=base",
			"--set", "output.prompt=x/s.st")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != 2 ||
			!regexp.MustCompile(
				`read model "base": value \d+ of tensor ".*" is NaN or infinite`).Match(out) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}
