package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const sha = "89abcdef0123456789abcdef0123456789abcdef"

// server is a hub with faults. Large files are on another host, as on the real one.
type server struct {
	mu     sync.Mutex
	files  map[string][]byte
	broken map[string]int    // how many downloads of a file end half-way
	bad    map[string]bool   // files sent with other bytes
	status map[string]int    // files answered with a status
	tokens map[string]string // token that each host has seen
	ranges []string
	hub    *httptest.Server
	cdn    *httptest.Server
}

func serve(t *testing.T, files map[string][]byte) *server {
	s := &server{
		files: files, broken: map[string]int{}, bad: map[string]bool{}, status: map[string]int{},
		tokens: map[string]string{},
	}
	send := func(w http.ResponseWriter, r *http.Request, name string) {
		data := s.files[name]
		if s.bad[name] {
			data = bytes.Repeat([]byte{'x'}, len(data))
		}
		if rg := r.Header.Get("Range"); rg != "" && r.Method == http.MethodGet {
			s.ranges = append(s.ranges, name+" "+rg)
		}
		if s.broken[name] > 0 && r.Method == http.MethodGet {
			s.broken[name]--
			var at int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
			rest := data[at:]
			w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
			if at > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			w.Write(rest[:len(rest)/2])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	s.cdn = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tokens["cdn"] += r.Header.Get("Authorization")
		send(w, r, strings.TrimPrefix(r.URL.Path, "/"))
	}))
	s.hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tokens["hub"] = r.Header.Get("Authorization")
		if r.URL.Path == "/api/models/org/tiny/revision/main" {
			var siblings []map[string]string
			for name := range s.files {
				siblings = append(siblings, map[string]string{"rfilename": name})
			}
			json.NewEncoder(w).Encode(map[string]any{"sha": sha, "siblings": siblings})
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/org/tiny/resolve/"+sha+"/")
		data, ok := s.files[name]
		if status := s.status[name]; status != 0 || !ok {
			if !ok {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			return
		}
		if strings.HasSuffix(name, ".safetensors") {
			w.Header().Set("X-Linked-Etag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
			w.Header().Set("X-Linked-Size", fmt.Sprint(len(data)))
			http.Redirect(w, r, s.cdn.URL+"/"+name, http.StatusFound)
			return
		}
		blob := append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...)
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha1.Sum(blob)))
		send(w, r, name)
	}))
	t.Cleanup(s.hub.Close)
	t.Cleanup(s.cdn.Close)
	return s
}

func tiny() map[string][]byte {
	return map[string][]byte{
		"config.json":         []byte(`{"model_type":"llama"}`),
		"model.safetensors":   bytes.Repeat([]byte("weights "), 20000),
		"tokenizer.json":      []byte("{}"),
		"pytorch_model.bin":   []byte("pickle"),
		"modeling.py":         []byte("code"),
		"onnx/model.json":     []byte("{}"),
		"chat_template.jinja": []byte("{{ x }}"),
	}
}

func (s *server) client(t *testing.T) Client {
	return Client{
		Endpoint: s.hub.URL, Token: "hf_secret", Cache: filepath.Join(t.TempDir(), "hub"),
		Tell: func(string, int64, int64) {},
	}
}

func TestAPulledModelHasTheLayoutOfHuggingFaceHub(t *testing.T) {
	s := serve(t, tiny())
	c := s.client(t)
	r, _ := ParseRepo("org/tiny")
	dir, err := c.Pull(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(c.Cache, "models--org--tiny", "snapshots", sha); dir != want {
		t.Errorf("the snapshot is %s, want %s", dir, want)
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !bytes.Equal(data, s.files[e.Name()]) {
			t.Errorf("%s differs from the file on the hub (%v)", e.Name(), err)
		}
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil ||
			!strings.HasPrefix(to, "../../blobs/") {
			t.Errorf("%s is not a link to a blob: %q (%v)", e.Name(), to, err)
		}
	}
	want := []string{"chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"}
	if !slices.Equal(names, want) {
		t.Errorf("files are %v, want %v: no code, no folders", names, want)
	}
	if found, err := r.Find(c.Cache); err != nil || found != dir {
		t.Errorf("Find gives %q (%v)", found, err)
	}
	if found, err := (Repo{"org/tiny", sha}).Find(c.Cache); err != nil || found != dir {
		t.Errorf("Find by the commit gives %q (%v)", found, err)
	}
	if s.tokens["hub"] != "Bearer hf_secret" || s.tokens["cdn"] != "" {
		t.Errorf("the hub saw the token %q, the other host %q", s.tokens["hub"], s.tokens["cdn"])
	}
	if left, _ := filepath.Glob(filepath.Join(c.Cache, "*/blobs/*.incomplete")); left != nil {
		t.Errorf("temporary files %v are left", left)
	}
}

func TestAnInterruptedDownloadIsResumed(t *testing.T) {
	s := serve(t, tiny())
	s.broken["model.safetensors"] = 3
	c := s.client(t)
	dir, err := c.Pull(context.Background(), Repo{"org/tiny", "main"})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if !bytes.Equal(data, s.files["model.safetensors"]) {
		t.Error("the file differs from that on the hub")
	}
	if len(s.ranges) < 3 {
		t.Errorf("ranges were requested %v times, want 3", s.ranges)
	}
}

func TestAFileWithAnotherHashIsRefused(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(*server)
		want  string
	}{
		"other bytes": {func(s *server) { s.bad["model.safetensors"] = true },
			"model.safetensors: the hash is"},
		"no access": {func(s *server) { s.status["config.json"] = 403 }, "set HF_TOKEN"},
		"no weights": {func(s *server) { delete(s.files, "model.safetensors") },
			"needs config.json and .safetensors files"},
		"never whole": {func(s *server) { s.broken["model.safetensors"] = 99 }, "model.safetensors: "},
	} {
		s := serve(t, tiny())
		c.spoil(s)
		client := s.client(t)
		_, err := client.Pull(context.Background(), Repo{"org/tiny", "main"})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hf_secret") {
			t.Errorf("%s: the message has the token: %v", what, err)
		}
		if _, err := (Repo{"org/tiny", "main"}).Find(client.Cache); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the model is in the cache (%v)", what, err)
		}
	}
}

func TestNamesOfRepositoriesAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"org/name": "org/name main", "org/name@v1.0": "org/name v1.0", "a/b@refs/pr/3": "a/b refs/pr/3",
		"../x": "", "a/../b": "", "org/name@../../x": "", "/abs/path": "", "models/": "", "a/b/c": "",
		"gpt2": "", "a--b/c": "", "./models/x": "", "org/name@": "",
	} {
		r, ok := ParseRepo(text)
		got := ""
		if ok {
			got = r.Name + " " + r.Revision
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestTheCacheFolderIsThatOfHuggingFaceHub(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": "/h"}, "/h/.cache/huggingface/hub"},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"},
		{map[string]string{"HOME": "/h", "HF_HOME": "/f"}, "/f/hub"},
		{map[string]string{"HF_HOME": "/f", "HF_HUB_CACHE": "/c"}, "/c"},
		{map[string]string{"HOME": "/h", "HF_HOME": "~/x"}, "/h/x/hub"},
		{map[string]string{"HOME": "/h", "HF_HUB_CACHE": "~"}, "/h"},
		{map[string]string{"HOME": "/h", "HF_HUB_CACHE": "~other/x"}, "~other/x"},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "$HOME/c"}, "/h/c/huggingface/hub"},
		{map[string]string{"HF_HOME": "${DATA}/f", "DATA": "/d"}, "/d/f/hub"},
		{map[string]string{"HF_HOME": "/a$b"}, "/a$b/hub"},
	} {
		if got, err := CacheDir(func(k string) string { return c.env[k] }); got != c.want || err != nil {
			t.Errorf("%v: %q (%v), want %q", c.env, got, err, c.want)
		}
	}
}

func TestTheEnvironmentDescribesTheClient(t *testing.T) {
	home := t.TempDir()
	saved := filepath.Join(home, ".cache", "huggingface", "token")
	if err := os.MkdirAll(filepath.Dir(saved), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(saved, []byte("hf_saved\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(home, ".cache", "huggingface", "hub")
	for _, c := range []struct {
		env  map[string]string
		want Client
	}{
		{nil, Client{Endpoint: "https://huggingface.co", Token: "hf_saved", Cache: cache}},
		{
			map[string]string{"HF_TOKEN": "hf_given", "HF_ENDPOINT": "http://mirror/",
				"HF_HUB_OFFLINE": "true"},
			Client{Endpoint: "http://mirror", Token: "hf_given", Cache: cache, Offline: true},
		},
		{
			map[string]string{"HF_TOKEN_PATH": filepath.Join(home, "none"), "HF_HUB_OFFLINE": "0"},
			Client{Endpoint: "https://huggingface.co", Cache: cache},
		},
	} {
		got, err := NewClient(func(name string) string {
			if name == "HOME" {
				return home
			}
			return c.env[name]
		})
		if err != nil || got.Endpoint != c.want.Endpoint || got.Token != c.want.Token ||
			got.Cache != c.want.Cache || got.Offline != c.want.Offline {
			t.Errorf("%v: got %+v, %v, want %+v", c.env, got, err, c.want)
		}
	}
}

func TestTheOnlySnapshotIsFoundWithoutARef(t *testing.T) {
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	for name, c := range map[string]struct {
		commits   []string
		revision  string
		want, err string
	}{
		"one":                 {[]string{a}, "main", a, ""},
		"one, by its commit":  {[]string{a, b}, b, b, ""},
		"one, another branch": {[]string{a}, "v1", "", "file does not exist"},
		"two": {[]string{a, b}, "main", "",
			"there are several snapshots; give one of org/m@" + a + ", @" + b},
		"no commit":         {[]string{"x"}, "main", "", "file does not exist"},
		"none":              {nil, "main", "", "file does not exist"},
		"one and a half":    {[]string{a, b + ".incomplete"}, "main", a, ""},
		"only one of a try": {[]string{a + ".incomplete"}, "main", "", "file does not exist"},
	} {
		cache := t.TempDir()
		folder := filepath.Join(cache, "models--org--m")
		for _, id := range c.commits {
			id, half := strings.CutSuffix(id, ".incomplete")
			err := os.MkdirAll(filepath.Join(folder, "snapshots", id), 0o755)
			if err == nil && half {
				err = os.WriteFile(filepath.Join(folder, id+".incomplete"), nil, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := (Repo{"org/m", c.revision}).Find(cache)
		if err == nil && (c.err != "" || filepath.Base(got) != c.want) ||
			err != nil && (c.err == "" || !strings.Contains(strings.ReplaceAll(err.Error(),
				"no such file or directory", "file does not exist"), c.err)) {
			t.Errorf("%s: found %s (%v), want %s%s", name, got, err, c.want, c.err)
		}
	}
}
