package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func hashKeys(keys []string) (sums [][32]byte) {
	for _, k := range keys {
		sums = append(sums, sha256.Sum256([]byte(k)))
	}
	return sums
}

// checkKey refuses a client without a key, in a time that does not depend on how much of it is right.
// A browser sends a key as the password of Basic authorization.
func (s *Server) checkKey(w http.ResponseWriter, r *http.Request) error {
	if len(s.keys) == 0 {
		return nil
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, key, _ = r.BasicAuth()
	}
	sum, match := sha256.Sum256([]byte(key)), 0
	for _, k := range s.keys {
		match |= subtle.ConstantTimeCompare(sum[:], k[:])
	}
	if match == 1 {
		return nil
	}
	challenge := `Bearer realm="ptune"`
	if strings.Contains(r.Header.Get("Accept"), "text/html") { // a browser that opens the page asks for the key
		challenge = `Basic realm="ptune", charset="UTF-8"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	return &apiError{status: http.StatusUnauthorized, Type: "authentication_error", Code: "invalid_api_key",
		Message: "the key is missing or wrong: send it as Authorization: Bearer KEY"}
}

// allowed reports whether pages of an origin may call the server.
func (s *Server) allowed(origin string) bool {
	return origin != "" && (slices.Contains(s.Origins, origin) || slices.Contains(s.Origins, "*"))
}

// preflight answers a browser that asks what a page of another origin may do, and adds the permission to
// other answers.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(s.Origins) == 0 {
		return false
	}
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !s.allowed(origin) {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
	w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// checkHost refuses what a page of a stranger sends through a browser on this machine: a server without a
// key that only this machine reaches trusts everyone who reaches it. Such a page can give its own name the
// address 127.0.0.1, so the name is checked. A browser that takes both for the same site need not send an
// origin, so the name of every request is.
func (s *Server) checkHost(r *http.Request) error {
	if !s.local || len(s.keys) > 0 {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "" || strings.EqualFold(host, "localhost") || net.ParseIP(strings.Trim(host, "[]")) != nil {
		return nil
	}
	for _, origin := range s.Origins {
		if u, err := url.Parse(origin); origin == "*" || err == nil && u.Hostname() == host {
			return nil
		}
	}
	return &apiError{status: http.StatusForbidden, Type: typeInvalid, Code: "forbidden_host",
		Message: fmt.Sprintf("the host of the request is %.100q: without a key, a server that listens on this "+
			"machine alone answers requests to localhost and to IP addresses; start it with --api-key-file or, "+
			"for pages of that host, --cors-origins", host)}
}
