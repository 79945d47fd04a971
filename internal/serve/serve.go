// Package serve answers HTTP requests with one base model. Every prompt file is a model of its own,
// under its name; the base alone is one, too. It knows routes, the queue, limits and logs, and the
// forms of OpenAI's API. It does not know flags, or how logits are computed.
//
// One goroutine (loop.go) owns the engine that computes. Handlers give it requests and receive pieces of
// text and results, so that requests of all prompts share its batches.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"ptune/internal/base"
	"ptune/internal/infer"
	"ptune/internal/model"
)

// Options are what a server serves, and its limits.
type Options struct {
	Open    func() (*base.Base, error) // opens the base model
	Folder  string                     // its .st files are models; empty: none
	Files   map[string]string          // further models: the path of each name
	Listen  string                     // host:port
	TLS     *tls.Config                // nil: plain HTTP
	Keys    []string                   // any of them opens every route; none: no key is asked for
	Origins []string                   // web pages of these origins may call the server; "*": of all

	Texts      int           // the most texts continued at a time
	Queue      int           // the most requests that wait
	MaxTokens  int           // the most tokens generated for a request
	MaxLength  int           // the most tokens of a text, its soft prompt included; 0: what the model can read
	CacheBytes int64         // of keys and values
	MaxBody    int64         // bytes of a request's body
	Timeout    time.Duration // of a request, its wait included; 0: none
	Drain      time.Duration // that requests in work get when the server ends

	Log       *slog.Logger
	Listening func(addr net.Addr) // is told the address; nil: nobody is

	testOnlyReady func(*Server)
}

// Limits that nobody has asked to change.
const (
	maxHeader     = 64 << 10         // bytes
	headerTime    = 10 * time.Second // for a client to send its header
	bodyTime      = 60 * time.Second // for a client to send its body
	writeTime     = 60 * time.Second // for a client to read one piece of an answer
	idleTime      = 2 * time.Minute  // of a connection between two requests
	pollTime      = time.Second      // between two looks at the files of prompts
	cutTime       = 2 * time.Second  // to write that requests are cut off
	defaultLength = 8192             // Options.MaxLength of a model that can read longer texts
)

// Tokens of new inputs that one step of the loop computes. The next tokens of texts that are being continued
// wait for it: on two cores, 128 tokens of a model with 135 million weights take about a third of a second.
// More at a time are up to a tenth faster a token.
const (
	tokensAlone  = 512 // if no text is being continued
	tokensBeside = 128
)

// Server is what the handlers share.
type Server struct {
	Options
	keys    [][32]byte // SHA-256 of Options.Keys
	local   bool       // only this machine reaches the server
	base    *base.Base // set once, before ready
	length  int        // Options.MaxLength, or what the model can read
	loop    *loop
	models  *registry
	ready   atomic.Bool // the base is loaded
	metrics *metrics
	routes  []route

	encoding chan struct{} // has an element for each request whose texts are being tokenized
}

// Run serves until ctx ends, and then until the requests in work are answered or Options.Drain has
// passed. It returns an error if it could not begin, or if requests were cut off.
func Run(ctx context.Context, o Options) error {
	s := newServer(o)
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.Listen, err)
	}
	tcp, ok := listener.Addr().(*net.TCPAddr)
	s.local = ok && tcp.IP.IsLoopback()
	if !s.local && len(s.Keys) == 0 {
		o.Log.Warn("everyone who can reach this address can use the server: --api-key-file asks for a key",
			"address", listener.Addr().String())
	}
	if o.TLS != nil {
		listener = tls.NewListener(listener, o.TLS)
	}
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx)) // ends when requests are cut off
	defer cut(nil)
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, BaseContext: func(net.Listener) context.Context { return work },
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Close()
	if o.Listening != nil {
		o.Listening(listener.Addr())
	}
	o.Log.Info("listening", "address", listener.Addr().String())

	if err := s.load(work); err != nil {
		return err
	}
	defer s.close()
	watch, unwatch := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); s.models.watch(watch) }()
	defer func() {
		unwatch()
		<-watched
	}()
	if s.testOnlyReady != nil {
		s.testOnlyReady(s)
	}
	s.ready.Store(true)
	o.Log.Info("ready", "base", s.base.Name, "models", len(s.models.list()))

	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-s.loop.ended:
		o.Log.Error("the server ends: it must be started again", "error", s.loop.broken)
		cut(errBroken)
		letAnswer(work, server)
		return errBroken
	case <-ctx.Done():
	}
	o.Log.Info("ending: running requests are answered", "drain", o.Drain)
	drain, cancel := context.WithTimeout(work, o.Drain)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		cut(errEnding)
		letAnswer(work, server)
		return fmt.Errorf("requests were cut off after %v: %w", o.Drain, context.Cause(ctx))
	}
	o.Log.Info("ended")
	return nil
}

// letAnswer ends a server after its requests, which were cut off, have been answered that they were.
func letAnswer(work context.Context, server *http.Server) {
	answers, cancel := context.WithTimeout(context.WithoutCancel(work), cutTime)
	defer cancel()
	_ = server.Shutdown(answers)
	server.Close()
}

// errEnding and errBroken are why requests are cut off.
var (
	errEnding = errors.New("the server is ending")
	errBroken = errors.New("the engine has panicked (the log has the stack)")
)

func newServer(o Options) *Server {
	s := &Server{Options: o, keys: hashKeys(o.Keys), metrics: newMetrics(),
		encoding: make(chan struct{}, runtime.GOMAXPROCS(0))}
	s.addRoutes()
	return s
}

// load opens the base and the prompts.
func (s *Server) load(work context.Context) error {
	b, err := s.Open()
	if err != nil {
		return err
	}
	s.base = b
	b.Stop = func() error { return context.Cause(work) }
	if s.length = s.MaxLength; s.length == 0 {
		s.length = defaultLength
	}
	if b.MaxPositions > 0 {
		s.length = min(s.length, b.MaxPositions)
	}
	decoder := b.NewDecoder(s.CacheBytes)
	s.loop = newLoop(decoder, infer.Options{
		Scorer: b, Trees: decoder, ScoreTokens: tokensAlone, ReadTokens: tokensAlone,
		Texts: s.Texts, GuessRows: model.RowsAtOnce,
		Decode: b.Tokenizer.Decode, Unsettled: b.Tokenizer.Unsettled,
	}, s.Texts+s.Queue, s.metrics)
	_, limit := decoder.Bytes()
	s.Log.Info("memory of keys and values", "limit_gb", float64(limit)/1e9,
		"tokens", limit/max(1, decoder.TokenBytes()))
	s.loop.start(work)
	if s.models, err = newRegistry(s); err != nil {
		s.close()
	}
	return err
}

// close ends the loop and frees the base.
func (s *Server) close() {
	s.loop.stop()
	s.base.Close()
}
