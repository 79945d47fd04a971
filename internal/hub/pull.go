package hub

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ptune/internal/files"
)

// Client downloads models from a hub.
type Client struct {
	Endpoint string                              // for example https://huggingface.co
	Token    string                              // sent only to the endpoint's host; empty: none
	Cache    string                              // folder
	Offline  bool                                // use what the cache has, download nothing
	Tell     func(file string, done, size int64) // reports progress, in bytes
}

// NewClient returns the client that the environment describes, with the variables of
// huggingface_hub. Its Tell is not set.
func NewClient(getenv func(string) string) (Client, error) {
	c := Client{
		Endpoint: strings.TrimRight(cmp.Or(getenv("HF_ENDPOINT"), "https://huggingface.co"), "/"),
		Token:    token(getenv),
	}
	switch strings.ToUpper(getenv("HF_HUB_OFFLINE")) {
	case "1", "TRUE", "YES", "ON":
		c.Offline = true
	}
	var err error
	c.Cache, err = CacheDir(getenv)
	return c, err
}

// token returns HF_TOKEN, or the token that huggingface_hub's login saved, or "".
func token(getenv func(string) string) string {
	if t := getenv("HF_TOKEN"); t != "" {
		return t
	}
	path := expand(getenv("HF_TOKEN_PATH"), getenv)
	if path == "" {
		if home(getenv) == "" {
			return ""
		}
		path = filepath.Join(home(getenv), "token")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// wanted reports whether ptune reads a file. It never downloads code, which includes pickled
// weights.
func wanted(file string) bool {
	if strings.Contains(file, "/") {
		return false // folders hold other formats
	}
	switch path.Ext(file) {
	case ".safetensors", ".json", ".jinja":
		return true
	}
	return false
}

// safe matches file names that stay in their folder.
var safe = regexp.MustCompile(`^[\w][\w.\-]*$`)

// info is the hub's description of a revision.
type info struct {
	SHA      string `json:"sha"`
	Siblings []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// Pull downloads the files of a repository that the cache does not have, and returns the snapshot
// folder. It checks the hash of each file before it moves the file to its place, and resumes
// interrupted downloads.
func (c Client) Pull(ctx context.Context, r Repo) (string, error) {
	if c.Offline {
		return r.Find(c.Cache)
	}
	dir, err := c.pull(ctx, r)
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	return dir, nil
}

func (c Client) pull(ctx context.Context, r Repo) (string, error) {
	api := c.Endpoint + "/api/models/" + r.Name + "/revision/" + url.PathEscape(r.Revision)
	res, err := c.get(ctx, api, 0)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if err := checkStatus(res); err != nil {
		return "", err
	}
	var i info
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(&i); err != nil {
		return "", fmt.Errorf("read the hub's description: %w", err)
	}
	if !commit.MatchString(i.SHA) {
		return "", fmt.Errorf("the hub names the commit %.60q, want a hash", i.SHA)
	}
	var names []string
	for _, s := range i.Siblings {
		if wanted(s.Name) && safe.MatchString(s.Name) {
			names = append(names, s.Name)
		}
	}
	isWeights := func(file string) bool { return strings.HasSuffix(file, ".safetensors") }
	isConfig := func(file string) bool { return file == "config.json" || file == "adapter_config.json" }
	if !slices.ContainsFunc(names, isConfig) || !slices.ContainsFunc(names, isWeights) {
		return "", errors.New("the repository needs config.json and .safetensors files for ptune to read it " +
			"(an adapter: adapter_config.json)")
	}
	folder := r.folder(c.Cache)
	snapshot := filepath.Join(folder, "snapshots", i.SHA)
	ref := filepath.Join(folder, "refs", filepath.FromSlash(r.Revision))
	for _, d := range []string{filepath.Join(folder, "blobs"), snapshot, filepath.Dir(ref)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	marker := r.incomplete(c.Cache, i.SHA)
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		return "", err
	}
	slices.Sort(names)
	for _, f := range names {
		if err := c.file(ctx, r, i.SHA, f, folder, snapshot); err != nil {
			return "", fmt.Errorf("%s: %w", f, err)
		}
	}
	if r.Revision != i.SHA {
		if err := files.WriteBytes(ref, []byte(i.SHA)); err != nil {
			return "", err
		}
	}
	return snapshot, os.Remove(marker)
}

// tries is the number of attempts to download a file.
const tries = 5

// file links a file of the snapshot to its blob. It downloads the blob if the cache does not have
// it.
func (c Client) file(ctx context.Context, r Repo, sha, name, folder, snapshot string) error {
	link := filepath.Join(snapshot, name)
	if _, err := os.Stat(link); err == nil {
		return nil
	}
	from := c.Endpoint + "/" + r.Name + "/resolve/" + sha + "/" + url.PathEscape(name)
	tag, size, err := c.head(ctx, from)
	if err != nil {
		return err
	}
	blob := filepath.Join(folder, "blobs", tag)
	if _, err := os.Stat(blob); err != nil {
		for try := 1; ; try++ {
			err := c.download(ctx, from, blob, tag, name, size)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if p := (*permanent)(nil); errors.As(err, &p) || try == tries {
				return err
			}
			select {
			case <-time.After(time.Duration(try*try) * 100 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	os.Remove(link) // a broken link
	return os.Symlink(filepath.Join("..", "..", "blobs", tag), link)
}

// etag matches the hash that names a blob: SHA-256 for large files, git's SHA-1 for others.
var etag = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// head returns the hash and the size of a file. The hub redirects to another host for large files;
// its own response, before that redirect, has the hash and the size.
func (c Client) head(ctx context.Context, from string) (tag string, size int64, err error) {
	req, err := c.request(ctx, http.MethodHead, from)
	if err != nil {
		return "", 0, err
	}
	stay := func(req *http.Request, via []*http.Request) error {
		if req.URL.Host != via[0].URL.Host || len(via) > 5 {
			return http.ErrUseLastResponse
		}
		return nil
	}
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: stay}
	res, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	res.Body.Close()
	if res.StatusCode >= 400 {
		return "", 0, checkStatus(res)
	}
	tag, length := res.Header.Get("X-Linked-Etag"), res.Header.Get("X-Linked-Size")
	if tag == "" {
		tag = res.Header.Get("ETag")
	}
	if length == "" {
		length = res.Header.Get("Content-Length")
	}
	tag = strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
	if !etag.MatchString(tag) {
		return "", 0, fmt.Errorf("the hub sends no hash of the file (ETag %.80q)", tag)
	}
	size, err = strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("the hub sends no size of the file (%.40q)", length)
	}
	return tag, size, nil
}

// permanent is an error that another attempt would not fix.
type permanent struct{ error }

// download writes a blob and checks it. It continues after the bytes that an earlier attempt wrote.
func (c Client) download(ctx context.Context, from, blob, tag, name string, size int64) error {
	incomplete := blob + ".incomplete"
	f, err := os.OpenFile(incomplete, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return &permanent{err}
	}
	defer f.Close()
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return &permanent{err}
	}
	if at > size {
		at = 0
	}
	if at < size {
		res, err := c.get(ctx, from, at)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if err := checkStatus(res); err != nil {
			return err
		}
		if res.StatusCode != http.StatusPartialContent {
			at = 0 // the server sends the file from the beginning
		}
		if err := f.Truncate(at); err != nil {
			return &permanent{err}
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return &permanent{err}
		}
		w := &progress{f: f, done: at, tell: func(done int64) { c.Tell(name, done, size) }}
		if _, err := io.Copy(w, io.LimitReader(res.Body, size-at+1)); err != nil {
			if w.failed != nil {
				return &permanent{w.failed}
			}
			return err
		}
	}
	if err := check(f, tag, size); err != nil {
		f.Truncate(0)
		return err
	}
	if err := f.Sync(); err != nil {
		return &permanent{err}
	}
	if err := os.Rename(incomplete, blob); err != nil {
		return &permanent{err}
	}
	return nil
}

// progress writes to a file and reports the number of bytes.
type progress struct {
	f      *os.File
	done   int64
	failed error
	tell   func(int64)
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.done += int64(n)
	if p.failed = err; err == nil {
		p.tell(p.done)
	}
	return n, err
}

// check compares the size and hash of a file with those that the hub sent.
func check(f *os.File, tag string, size int64) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var h hash.Hash = sha256.New()
	if len(tag) == 40 { // git hashes a header before the content
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", size)
	}
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("the download ended early: %d of %d bytes", n, size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != tag {
		return fmt.Errorf("the hash is %.12s…, want the hub's %.12s…", got, tag)
	}
	return nil
}

// request returns a request with the token.
func (c Client) request(ctx context.Context, method, to string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "ptune")
	req.Header.Set("Accept-Encoding", "identity")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return req, nil
}

// get requests a URL from byte at on. Redirects to another host do not get the token.
func (c Client) get(ctx context.Context, from string, at int64) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, from)
	if err != nil {
		return nil, err
	}
	if at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	follow := func(req *http.Request, via []*http.Request) error {
		if len(via) > 10 {
			return errors.New("more than 10 redirects")
		}
		if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
			req.Header.Del("Authorization")
		}
		return nil
	}
	return (&http.Client{CheckRedirect: follow}).Do(req)
}

// checkStatus returns an error that explains a status of 300 or more, permanent if the request is
// at fault.
func checkStatus(res *http.Response) error {
	err := fmt.Errorf("the hub answers %s", res.Status)
	switch code := res.StatusCode; {
	case code < 300:
		return nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return &permanent{fmt.Errorf("%w: access needs a token; set HF_TOKEN", err)}
	case code == http.StatusNotFound:
		return &permanent{fmt.Errorf("%w: no such repository, revision or file", err)}
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return err
	}
	return &permanent{err}
}
