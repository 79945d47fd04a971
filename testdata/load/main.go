// Load asks a server on the network's OpenAI routes with a fixed number of clients and prints requests and
// tokens a second and the times of requests.
//
//	cd testdata/load && go run . --url http://127.0.0.1:8080 --models a,b --kind classify --clients 8 --seconds 20
//
// Each client sends a request, waits for the answer and sends the next. Client k begins with text and model
// number k, so the same work is asked of every server. With --kind mixed, a client alternates between
// /classify, /v1/completions and streamed completions, a third of which it leaves half read.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type settings struct {
	url, kind string
	models    []string
	texts     []string
	tokens    int
	clients   int
	pause     time.Duration
}

// answer is one request's result.
type answer struct {
	kind    string
	seconds float64
	tokens  int
	err     error
}

// Report is what is printed as JSON.
type Report struct {
	Kind           string  `json:"kind"`
	Clients        int     `json:"clients"`
	Seconds        float64 `json:"seconds"`
	Requests       int     `json:"requests"`
	Failed         int     `json:"failed"`
	FirstError     string  `json:"first_error,omitempty"`
	RequestsSecond float64 `json:"requests_per_second"`
	TokensSecond   float64 `json:"tokens_per_second"`
	P50            float64 `json:"p50_seconds"`
	P99            float64 `json:"p99_seconds"`
	// Resident memory of --pid in MiB, after the first tenth of the time: the least, the median and the most.
	ResidentMiB []float64 `json:"resident_mib,omitempty"`
}

func main() {
	var s settings
	var models, file string
	var seconds float64
	var pid int
	flag.StringVar(&s.url, "url", "http://127.0.0.1:8080", "the server")
	flag.StringVar(&models, "models", "", "model ids, separated by commas; requests take them in turn")
	flag.StringVar(&s.kind, "kind", "classify", "classify, text or mixed")
	flag.StringVar(&file, "texts", "", "a file with a text on each line")
	flag.IntVar(&s.tokens, "max-tokens", 48, "tokens of a generated text")
	flag.IntVar(&s.clients, "clients", 8, "clients at a time")
	flag.Float64Var(&seconds, "seconds", 20, "how long to ask")
	flag.DurationVar(&s.pause, "pause", 0, "how long a client waits between requests")
	flag.IntVar(&pid, "pid", 0, "a process whose resident memory is watched")
	flag.Parse()
	s.models = strings.Split(models, ",")
	read, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	s.texts = strings.Split(strings.TrimSpace(string(read)), "\n")
	json.NewEncoder(os.Stdout).Encode(s.run(time.Duration(seconds*float64(time.Second)), pid))
}

// run asks for the given time. Requests that are not over at its end are waited for, but do not count.
func (s *settings) run(most time.Duration, pid int) Report {
	transport := &http.Transport{MaxIdleConnsPerHost: s.clients, MaxConnsPerHost: 0}
	client := &http.Client{Transport: transport}
	begin := time.Now()
	end := begin.Add(most)
	var mu sync.Mutex
	var all []answer
	var group sync.WaitGroup
	for k := range s.clients {
		group.Go(func() {
			for n := k; time.Now().Before(end); n += s.clients {
				a := s.ask(client, n)
				if time.Now().Before(end) {
					mu.Lock()
					all = append(all, a)
					mu.Unlock()
				}
				time.Sleep(s.pause)
			}
		})
	}
	resident := watch(pid, begin, end)
	group.Wait()
	r := Report{Kind: s.kind, Clients: s.clients, Seconds: most.Seconds(), Requests: len(all), ResidentMiB: resident}
	var times []float64
	tokens := 0
	for _, a := range all {
		if a.err != nil {
			if r.Failed++; r.FirstError == "" {
				r.FirstError = a.err.Error()
			}
			continue
		}
		times = append(times, a.seconds)
		tokens += a.tokens
	}
	if len(times) > 0 {
		slices.Sort(times)
		r.P50, r.P99 = times[len(times)/2], times[len(times)*99/100]
	}
	r.RequestsSecond = float64(len(times)) / most.Seconds()
	r.TokensSecond = float64(tokens) / most.Seconds()
	return r
}

// ask sends request number n.
func (s *settings) ask(client *http.Client, n int) answer {
	a := answer{kind: s.kind}
	leave := false
	if s.kind == "mixed" {
		a.kind = []string{"classify", "text", "stream"}[n/s.clients%3]
		leave = a.kind == "stream" && n/s.clients%9 < 3
	}
	body := map[string]any{"model": s.models[n%len(s.models)]}
	route := "/v1/completions"
	if a.kind == "classify" {
		route, body["input"] = "/classify", s.texts[n%len(s.texts)]
	} else {
		body["prompt"], body["max_tokens"], body["temperature"] = s.texts[n%len(s.texts)], s.tokens, 0
		body["stream"] = a.kind == "stream"
	}
	sent, _ := json.Marshal(body)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "POST", s.url+route, bytes.NewReader(sent))
	if err != nil {
		a.err = err
		return a
	}
	request.Header.Set("Content-Type", "application/json")
	begin := time.Now()
	response, err := client.Do(request)
	if err != nil {
		a.err = err
		return a
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		a.err = fmt.Errorf("%s: %s: %s", route, response.Status, text)
		return a
	}
	if a.kind == "stream" {
		a.tokens, a.err = readStream(response.Body, leave)
	} else {
		a.tokens, a.err = readUsage(response.Body)
	}
	a.seconds = time.Since(begin).Seconds()
	return a
}

// readUsage returns the number of tokens generated.
func readUsage(body io.Reader) (int, error) {
	var got struct {
		Usage struct {
			CompletionTokens int `json:"completion_tokens"`
		} `json:"usage"`
	}
	err := json.NewDecoder(body).Decode(&got)
	return got.Usage.CompletionTokens, err
}

// readStream returns the number of events with text, or leaves after five of them.
func readStream(body io.Reader, leave bool) (int, error) {
	lines := bufio.NewScanner(body)
	events := 0
	for lines.Scan() {
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if data == "[DONE]" {
			return events, nil
		}
		if is {
			events++
		}
		if leave && events == 5 {
			return events, nil
		}
	}
	if lines.Err() != nil {
		return events, lines.Err()
	}
	return events, io.ErrUnexpectedEOF
}

// watch returns the least, the median and the most resident memory of a process in MiB from a tenth of the
// time to its end. Without a process it returns nil at once.
func watch(pid int, begin, end time.Time) []float64 {
	if pid == 0 {
		return nil
	}
	var seen []float64
	for step := max(time.Second, end.Sub(begin)/400); time.Now().Before(end); time.Sleep(step) {
		if time.Since(begin) > end.Sub(begin)/10 {
			if mib, ok := resident(pid); ok {
				seen = append(seen, mib)
			}
		}
	}
	if len(seen) == 0 {
		return nil
	}
	slices.Sort(seen)
	return []float64{seen[0], seen[len(seen)/2], seen[len(seen)-1]}
}

// resident reads a process's resident memory without the pages of files.
func resident(pid int) (mib float64, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(status)) {
		if rest, is := strings.CutPrefix(line, "RssAnon:"); is {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err == nil
		}
	}
	return 0, false
}
