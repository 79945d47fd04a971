package serve

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// The policy allows the script and the styles by their hashes: an element or an attribute that it does
// not cover would not work in a browser.
func TestThePageNeedsNothingThatItsPolicyForbids(t *testing.T) {
	server := start(t, nil)
	answer, err := server.Get(server.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || string(text) != pageHTML {
		t.Fatalf("status %d, %d bytes, %v", answer.StatusCode, len(text), err)
	}
	policy := answer.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", hashOf("script"), hashOf("style")} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %s", policy, want)
		}
	}
	page := string(text)
	for element, n := range map[string]int{"<script": 1, "<style": 1, "<script>": 1, "<style>": 1} {
		if got := strings.Count(page, element); got != n {
			t.Errorf("%d times %s, want %d", got, element, n)
		}
	}
	for _, forbidden := range []string{`\son[a-z]+=`, `\sstyle=`, `https?://`, `\ssrc=`, `@import`, `url\(`, `eval\(`, `innerHTML`} {
		if found := regexp.MustCompile(forbidden).FindString(page); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	if status, _ := server.get("/index.html"); status != http.StatusNotFound {
		t.Errorf("/index.html: status %d", status)
	}
}

func TestThePageNeedsTheKey(t *testing.T) {
	server := start(t, func(o *Options) { o.Keys = []string{"a-key"} })
	if status, _ := server.get("/"); status != http.StatusUnauthorized {
		t.Errorf("without the key: status %d", status)
	}
	request, err := http.NewRequest("GET", server.url+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		accept, key string
		status      int
		challenge   string
	}{
		{"text/html,*/*", "", http.StatusUnauthorized, "Basic"}, // a browser asks for the key as a password
		{"*/*", "", http.StatusUnauthorized, "Bearer"},          // the page's script asks in its own field
		{"text/html,*/*", "a-key", http.StatusOK, ""},
	} {
		request.Header.Set("Accept", c.accept)
		request.SetBasicAuth("", c.key)
		answer, err := server.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("WWW-Authenticate"); answer.StatusCode != c.status ||
			!strings.HasPrefix(got, c.challenge) || (got == "") != (c.challenge == "") {
			t.Errorf("accept %q, key %q: status %d, challenge %q", c.accept, c.key, answer.StatusCode, got)
		}
	}
}
