package serve

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"ptune/internal/infer"
)

// route is a path with its handler. A handler's error is answered as OpenAI's API does.
type route struct {
	method, path string // the path as http.ServeMux takes it
	handle       func(w http.ResponseWriter, r *http.Request) error
	open         bool // needs no key
}

// addRoutes lists what the server answers.
func (s *Server) addRoutes() {
	s.routes = []route{
		{"GET", "/health", s.health, true},
		{"GET", "/metrics", s.showMetrics, false},
		{"GET", "/v1/models", s.listModels, false},
		{"GET", "/v1/models/{id...}", s.showModel, false},
		{"POST", "/v1/completions", s.completions, false},
		{"POST", "/v1/chat/completions", s.chat, false},
		{"POST", "/v1/decisions", s.decisions, false},
		{"POST", "/v1/systemone", s.systemOne, false},
		{"POST", "/classify", s.classify, false},
		{"GET", "/{$}", s.page, false},
	}
}

// handler returns the server's handler of all requests.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	paths := http.NewServeMux() // tells an unknown path from a known one with another method
	known := map[string]bool{}
	for _, r := range s.routes {
		mux.Handle(r.method+" "+r.path, s.wrap(r))
		if !known[r.path] {
			known[r.path] = true
			paths.Handle(r.path, http.NotFoundHandler())
		}
	}
	mux.Handle("/", s.wrap(route{handle: func(w http.ResponseWriter, r *http.Request) error {
		_, pattern := paths.Handler(r)
		if pattern == "" {
			return &apiError{status: http.StatusNotFound, Type: typeInvalid, Code: "unknown_url",
				Message: fmt.Sprintf("there is nothing at %s %.200s", r.Method, r.URL.Path)}
		}
		var methods []string
		for _, other := range s.routes {
			if other.path == pattern {
				methods = append(methods, other.method)
			}
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return &apiError{status: http.StatusMethodNotAllowed, Type: typeInvalid,
			Message: fmt.Sprintf("%.200s takes %s, not %s", r.URL.Path, strings.Join(methods, " or "), r.Method)}
	}}))
	return mux
}

// exchange is what the log says about a request beside its route. Handlers fill it in.
type exchange struct {
	http.ResponseWriter
	status int
	model  string
	used   *usage
	err    error
}

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// note tells the log which model a request asks, and where its tokens are counted.
func note(w http.ResponseWriter, model string, used *usage) {
	if x, ok := w.(*exchange); ok {
		x.model, x.used = model, used
	}
}

// wrap returns the handler of a route: it checks the key, limits the time, answers errors and writes
// the log.
func (s *Server) wrap(to route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := requestID(r)
		w.Header().Set("X-Request-Id", id)
		x := &exchange{ResponseWriter: w}
		if s.preflight(x, r) {
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(began.Add(bodyTime)) // readBody lifts it
		ctx := r.Context()
		if s.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, errTimeout)
			defer cancel()
		}
		if err := s.answer(to, x, r.WithContext(ctx)); err != nil {
			switch x.err = err; {
			case x.status != 0: // an event has told it
			case errors.Is(err, context.Canceled):
				x.status = statusLeft
			default:
				s.writeError(x, r, err)
			}
		}
		s.metrics.answered(to, x.status)
		s.logRequest(x, r, id, time.Since(began))
	})
}

// statusLeft is the status that the log and the metrics have for a client that left before the answer began,
// as nginx's.
const statusLeft = 499

// answer calls a route's handler if the client may use it and the base is loaded.
func (s *Server) answer(to route, w http.ResponseWriter, r *http.Request) error {
	if err := s.checkHost(r); err != nil {
		return err
	}
	if !to.open {
		if err := s.checkKey(w, r); err != nil {
			return err
		}
		if !s.ready.Load() {
			return errLoading
		}
	}
	return to.handle(w, r)
}

func (s *Server) logRequest(x *exchange, r *http.Request, id string, took time.Duration) {
	level := slog.LevelInfo
	if r.URL.Path == "/health" {
		level = slog.LevelDebug
	}
	args := []any{"id", id, "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path,
		"status", x.status, "seconds", took.Seconds()}
	if x.model != "" {
		args = append(args, "model", x.model, "prompt_tokens", x.used.Prompt, "completion_tokens", x.used.Completion)
	}
	if x.err != nil {
		if x.status >= 500 && level == slog.LevelInfo {
			level = slog.LevelError
		}
		args = append(args, "error", x.err)
	}
	s.Log.Log(r.Context(), level, "request", args...)
}

// maxID is the longest X-Request-Id that is taken from a client.
const maxID = 128

// requestID returns the id that the client has given, or a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	plain := func(c rune) bool { return c <= ' ' || c > '~' }
	if id != "" && len(id) <= maxID && !strings.ContainsFunc(id, plain) {
		return id
	}
	return "req-" + rand.Text()
}

// apiError is an error as clients get it, in OpenAI's form.
type apiError struct {
	status  int
	Message string
	Type    string
	Param   string // the field of the request; empty: none
	Code    string // for programs; empty: none
}

const (
	typeInvalid = "invalid_request_error"
	codeLength  = "context_length_exceeded" // the code of a text with too many tokens
)

func (e *apiError) Error() string { return e.Message }

// MarshalJSON writes fields without a value as null, as OpenAI does.
func (e *apiError) MarshalJSON() ([]byte, error) {
	null := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return json.Marshal(map[string]any{"error": map[string]any{
		"message": e.Message, "type": e.Type, "param": null(e.Param), "code": null(e.Code),
	}})
}

// invalid is the error of a wrong field of a request.
func invalid(param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, Type: typeInvalid, Param: param,
		Message: fmt.Sprintf(format, args...)}
}

var (
	errBusy = &apiError{status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "queue_full",
		Message: "too many requests are waiting; try again later"}
	errLoading = &apiError{status: http.StatusServiceUnavailable, Type: "unavailable_error", Code: "loading",
		Message: "the model is being loaded"}
	errTimeout = &apiError{status: http.StatusGatewayTimeout, Type: "timeout_error", Code: "timeout",
		Message: "the request took longer than the server allows"}
)

// asAPI returns an error as clients get it. What they cannot have caused is not told.
func asAPI(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, infer.ErrFull): // even if nothing else is in work
		return &apiError{status: http.StatusBadRequest, Type: typeInvalid, Code: codeLength, Message: err.Error()}
	case errors.As(err, new(refused)):
		return &apiError{status: http.StatusBadRequest, Type: typeInvalid, Message: err.Error()}
	case errors.Is(err, errEnding):
		return &apiError{status: http.StatusServiceUnavailable, Type: "unavailable_error", Code: "ending",
			Message: errEnding.Error()}
	}
	return &apiError{status: http.StatusInternalServerError, Type: "server_error",
		Message: "the server failed; its log has the reason under this request's X-Request-Id"}
}

// writeError answers a request with an error.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := asAPI(err)
	switch e.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		w.Header().Set("Connection", "close")
	}
	if err := writeJSON(w, e.status, e); err != nil {
		s.Log.Debug("answer not written", "error", err)
	}
}

// writeJSON answers a request with a value as JSON.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// readBody reads a request's JSON body into the struct that v points to. Fields are those of v.
// neutral are further ones that are accepted with this value, as JSON, which changes nothing; "*": with
// any value. All other fields are refused by name unless they are null.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, v any, neutral map[string]string) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{status: http.StatusUnsupportedMediaType, Type: typeInvalid,
			Message: fmt.Sprintf("the body must be JSON: Content-Type is %.100q, want application/json",
				r.Header.Get("Content-Type"))}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &apiError{status: http.StatusRequestEntityTooLarge, Type: typeInvalid,
			Message: fmt.Sprintf("the body has more than %d bytes", s.MaxBody)}
	}
	if err != nil {
		return &apiError{status: http.StatusRequestTimeout, Type: typeInvalid,
			Message: "the body cannot be read: " + err.Error()}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return decodeObject(raw, v, "", neutral)
}

// decodeObject reads a JSON object into the struct that v points to, as readBody does. at is its place in
// the body, such as "questions[0]", for errors; empty: the body itself.
func decodeObject(raw []byte, v any, at string, neutral map[string]string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return jsonError(err, at)
	}
	known := fieldNames(v)
	var unknown []string
	for name, value := range fields {
		if known[name] {
			continue
		}
		if accepted := neutral[name]; accepted != "*" && string(value) != "null" && !sameJSON(value, accepted) {
			unknown = append(unknown, name)
		}
		delete(fields, name)
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return unsupported(unknown, at, neutral)
	}
	// Names are compared exactly here, but without case by package json.
	exact, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(exact, v)
	}
	if err != nil {
		return jsonError(err, at)
	}
	return nil
}

// inside returns the name of a field for errors.
func inside(at, name string) string {
	if at == "" || name == "" {
		return at + name
	}
	return at + "." + name
}

// place returns the place of an array's element for errors.
func place(at string, i int) string { return fmt.Sprintf("%s[%d]", at, i) }

// unsupported is the error of fields that are not taken.
func unsupported(names []string, at string, neutral map[string]string) *apiError {
	var texts []string
	for _, name := range names {
		text := fmt.Sprintf("%.100s is not supported", inside(at, name))
		if only, ok := neutral[name]; ok {
			text += fmt.Sprintf(" (only %s is)", only)
		}
		if name == "prompt_embeds" {
			text += ": this server takes no tensors from clients; a prompt file with them is served by its name"
		}
		texts = append(texts, text)
	}
	e := invalid(inside(at, names[0]), "%s", strings.Join(texts, "; "))
	e.Code = "unsupported_parameter"
	return e
}

// jsonError explains why JSON was refused.
func jsonError(err error, at string) *apiError {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	name := at
	if name == "" {
		name = "the body"
	}
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		field := inside(at, strings.TrimPrefix(kind.Field, "sampling.")) // an embedded struct is no level of JSON
		return invalid(field, "%.100s is a JSON %s, want %s", field, kind.Value, kindName(kind.Type.Kind().String()))
	case errors.As(err, &syntax):
		return invalid(at, "%s is not JSON: %v at byte %d", name, err, syntax.Offset)
	case err == nil || errors.As(err, &kind):
		return invalid(at, "%s is not a JSON object", name)
	}
	return invalid(at, "%s cannot be read: %v", name, err)
}

// kindName returns the name that users of JSON know for a kind of Go.
func kindName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "an array"
	case kind == "map", kind == "struct":
		return "an object"
	}
	return "a " + kind
}
