package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What runs the server elsewhere must know its flags and its metrics.
func TestFilesOfServingUseFlagsAndMetricsThatExist(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile("../../" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	flags := newServe(streams{}).Flags()
	flag := regexp.MustCompile(`(?:ptune (\w+) )?--([a-z][a-z-]+)`)
	for path, least := range map[string]int{
		"packaging/ptune.service": 6, "packaging/kubernetes.yaml": 6, "docs/serving.md": 8,
	} {
		found := 0
		for _, line := range strings.Split(read(path), "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			for _, m := range flag.FindAllStringSubmatch(line, -1) {
				if m[1] != "" && m[1] != "serve" {
					continue // another command's
				}
				if found++; flags.Lookup(m[2]) == nil && m[2] != "help" {
					t.Errorf("%s: ptune serve has no flag --%s", path, m[2])
				}
			}
		}
		if found < least {
			t.Errorf("%s: found %d flags, want at least %d", path, found, least)
		}
	}
	source := read("internal/serve/metrics.go")
	metrics := regexp.MustCompile(`(?:vllm|ptune):[a-z_]+_[a-z_]+`).FindAllString(read("docs/serving.md"), -1)
	for _, name := range metrics {
		if !strings.Contains(source, `"`+name+`"`) {
			t.Errorf("docs/serving.md: there is no metric %s", name)
		}
	}
	if len(metrics) < 3 {
		t.Errorf("docs/serving.md names %d metrics, want at least 3", len(metrics))
	}
}
