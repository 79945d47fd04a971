package serve

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts what the server does, under the names of vLLM's metrics, which dashboards and
// autoscalers know. Those that vLLM does not have begin with ptune:.
type metrics struct {
	handler http.Handler

	promptTokens, generatedTokens *prometheus.CounterVec // by model
	success                       *prometheus.CounterVec // by model and reason
	decisions                     *prometheus.CounterVec // by model: inputs whose endings were scored
	rejected                      prometheus.Counter     // because the queue was full
	requests                      *prometheus.CounterVec // by route and status
	reloads                       *prometheus.CounterVec // by result

	firstToken, perToken, whole, queued *prometheus.HistogramVec // seconds, by model
	prompts, generations                *prometheus.HistogramVec // tokens, by model
	step                                prometheus.Histogram     // seconds

	running, waiting, cacheUsed, cacheLimit atomic.Int64 // written by the loop
}

const byModel = "model_name"

// Upper limits of histograms, in seconds and in tokens.
var (
	secondsOf = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	tokensOf  = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}
)

func newMetrics() *metrics {
	m := &metrics{}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, limits []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: limits}, labels)
		registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	m.promptTokens = counter("vllm:prompt_tokens_total", "Tokens of inputs, without soft prompts.", byModel)
	m.generatedTokens = counter("vllm:generation_tokens_total", "Generated tokens.", byModel)
	m.success = counter("vllm:request_success_total", "Texts that ended, by reason.", byModel, "finished_reason")
	m.decisions = counter("ptune:decisions_total", "Inputs whose labels or options were scored.", byModel)
	m.rejected = counter("ptune:requests_rejected_total", "Requests refused because the queue was full.").WithLabelValues()
	m.requests = counter("ptune:http_requests_total", "HTTP requests, by route and status.", "route", "status")
	m.reloads = counter("ptune:prompt_files_total", "Prompt files taken up, by result: loaded, refused, removed.", "result")
	m.firstToken = histogram("vllm:time_to_first_token_seconds", "Time from a request to its first token.", secondsOf, byModel)
	m.perToken = histogram("vllm:time_per_output_token_seconds", "Mean time between the tokens of a text.", secondsOf, byModel)
	m.whole = histogram("vllm:e2e_request_latency_seconds", "Time from a request to its end.", secondsOf, byModel)
	m.queued = histogram("vllm:request_queue_time_seconds", "Time that a text waits before it is begun.", secondsOf, byModel)
	m.prompts = histogram("vllm:request_prompt_tokens", "Tokens of an input.", tokensOf, byModel)
	m.generations = histogram("vllm:request_generation_tokens", "Generated tokens of a text.", tokensOf, byModel)
	m.step = histogram("ptune:step_seconds", "Time of one step of the loop.", secondsOf).
		WithLabelValues().(prometheus.Histogram)
	gauge("vllm:num_requests_running", "Texts being continued.", func() float64 { return float64(m.running.Load()) })
	gauge("vllm:num_requests_waiting", "Texts and decisions that wait.", func() float64 { return float64(m.waiting.Load()) })
	gauge("vllm:kv_cache_usage_perc", "Share of the memory of keys and values in use or reserved, 0 to 1.", func() float64 {
		return float64(m.cacheUsed.Load()) / max(1, float64(m.cacheLimit.Load()))
	})
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m
}

// showMetrics answers with all metrics in Prometheus' text format.
func (s *Server) showMetrics(w http.ResponseWriter, r *http.Request) error {
	s.metrics.handler.ServeHTTP(w, r)
	return nil
}

// times are when a request got where, for the metrics.
type times struct{ came, begun, first time.Time }

// note counts the requests in the loop after a step, and how far each has come.
func (m *metrics) note(l *loop, now time.Time) {
	running := 0
	for _, t := range l.tickets {
		if t.handle.Begun() {
			running++
			if t.begun.IsZero() {
				t.begun = now
			}
		}
		if t.first.IsZero() && t.handle.Generated() > 0 {
			t.first = now
		}
	}
	used, limit := l.decoder.Bytes()
	m.running.Store(int64(running))
	m.waiting.Store(int64(len(l.tickets) - running))
	m.cacheUsed.Store(used)
	m.cacheLimit.Store(limit)
}

// ended counts a request that is over.
func (m *metrics) ended(t *ticket, now time.Time) {
	if t.err != nil || t.result == nil {
		return
	}
	id := t.model.id
	since := func(h *prometheus.HistogramVec, from, to time.Time, n int) {
		if !from.IsZero() && n > 0 {
			h.WithLabelValues(id).Observe(to.Sub(from).Seconds() / float64(n))
		}
	}
	m.promptTokens.WithLabelValues(id).Add(float64(len(t.request.IDs)))
	m.prompts.WithLabelValues(id).Observe(float64(len(t.request.IDs)))
	since(m.whole, t.came, now, 1)
	if t.request.Labels != nil {
		m.decisions.WithLabelValues(id).Inc()
		return
	}
	n := len(t.result.IDs)
	m.generatedTokens.WithLabelValues(id).Add(float64(n))
	m.generations.WithLabelValues(id).Observe(float64(n))
	m.success.WithLabelValues(id, finishReason(t.result)).Inc()
	if t.begun.IsZero() { // it was begun and ended in one step
		t.begun = now
	}
	if t.first.IsZero() && n > 0 {
		t.first = now
	}
	since(m.queued, t.came, t.begun, 1)
	since(m.firstToken, t.came, t.first, min(n, 1))
	since(m.perToken, t.first, now, n-1)
}

// answered counts an HTTP request.
func (m *metrics) answered(to route, status int) {
	path := to.path
	if path == "" {
		path = "other"
	}
	m.requests.WithLabelValues(path, strconv.Itoa(status)).Inc()
}
