package report

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// Case is a check of what was measured.
type Case struct {
	Name   string // what is asked for, as in "--fail-under accuracy=0.9"
	Passed []string
	Missed []string
}

// JUnit returns a JUnit report with one test case for each case.
func JUnit(cases []Case) []byte {
	type failure struct {
		Message string `xml:"message,attr"`
	}
	type testCase struct {
		Class   string    `xml:"classname,attr"`
		Name    string    `xml:"name,attr"`
		Failure []failure `xml:"failure"`
		Out     string    `xml:"system-out,omitempty"`
	}
	suite := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testCase `xml:"testcase"`
	}{Name: "ptune eval", Tests: len(cases)}
	for _, c := range cases {
		t := testCase{Class: "ptune.eval", Name: c.Name, Out: strings.Join(c.Passed, "\n")}
		for _, m := range c.Missed {
			t.Failure = append(t.Failure, failure{m})
		}
		if len(c.Missed) > 0 {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, t)
	}
	data, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		panic(err) // cannot happen: strings and numbers
	}
	return append([]byte(xml.Header), append(data, '\n')...)
}

// CheckSummary returns the error with which AppendSummary would fail. It leaves nothing behind.
func CheckSummary(path string) error {
	_, missing := os.Lstat(path)
	f, err := openSummary(path)
	if err != nil {
		return err
	}
	f.Close()
	if missing != nil {
		return os.Remove(path)
	}
	return nil
}

func openSummary(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write the summary: %w", err)
	}
	return f, nil
}

// AppendSummary appends a table and the cases as Markdown to a file, which GitHub Actions shows.
func AppendSummary(path string, t Table, cases []Case) error {
	var b strings.Builder
	b.WriteString("### ptune eval\n\n")
	if err := t.Markdown(&b); err != nil {
		return err
	}
	for _, c := range cases {
		for _, m := range c.Passed {
			fmt.Fprintf(&b, "\n- passed: %s (%s)", m, c.Name)
		}
		for _, m := range c.Missed {
			fmt.Fprintf(&b, "\n- **missed**: %s", m)
		}
	}
	b.WriteString("\n\n")
	f, err := openSummary(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.String())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
