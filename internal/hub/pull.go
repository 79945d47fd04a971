package hub

import (
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

// Client downloads from a hub.
type Client struct {
	Endpoint string // as https://huggingface.co
	Token    string // sent to the endpoint's host and no other; empty: none
	Cache    string
	Tell     func(file string, done, size int64) // how far a file is
}

// wanted tells whether a file of a model is one that ptune reads; weights that are code, as pickles are, are never taken.
func wanted(file string) bool {
	if strings.Contains(file, "/") {
		return false // other formats' folders
	}
	switch path.Ext(file) {
	case ".safetensors", ".json", ".jinja":
		return true
	}
	return false
}

// safe is a file's name that stays in its folder.
var safe = regexp.MustCompile(`^[\w][\w.\-]*$`)

// info is what the hub says of a revision.
type info struct {
	SHA      string `json:"sha"`
	Siblings []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// Pull downloads a repository's files into the cache, those that are not there yet, and returns the snapshot's folder. Each file is
// checked by its hash and put into its place whole; a download that was broken off goes on.
func (c Client) Pull(ctx context.Context, r Repo) (string, error) {
	dir, err := c.pull(ctx, r)
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	return dir, nil
}

func (c Client) pull(ctx context.Context, r Repo) (string, error) {
	res, err := c.get(ctx, c.Endpoint+"/api/models/"+r.Name+"/revision/"+url.PathEscape(r.Revision), 0)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if err := answered(res); err != nil {
		return "", err
	}
	var i info
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(&i); err != nil {
		return "", fmt.Errorf("its description: %w", err)
	}
	if !commit.MatchString(i.SHA) {
		return "", fmt.Errorf("its commit is %.60q", i.SHA)
	}
	var names []string
	for _, s := range i.Siblings {
		if wanted(s.Name) && safe.MatchString(s.Name) {
			names = append(names, s.Name)
		}
	}
	if !slices.Contains(names, "config.json") || !slices.ContainsFunc(names, func(f string) bool { return strings.HasSuffix(f, ".safetensors") }) {
		return "", errors.New("it has no config.json with safetensors beside it, so it is no model that ptune reads")
	}
	folder := r.folder(c.Cache)
	snapshot := filepath.Join(folder, "snapshots", i.SHA)
	for _, d := range []string{filepath.Join(folder, "blobs"), snapshot, filepath.Dir(filepath.Join(folder, "refs", filepath.FromSlash(r.Revision)))} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	slices.Sort(names)
	for _, f := range names {
		if err := c.file(ctx, r, i.SHA, f, folder, snapshot); err != nil {
			return "", fmt.Errorf("%s: %w", f, err)
		}
	}
	if r.Revision != i.SHA {
		if err := files.WriteBytes(filepath.Join(folder, "refs", filepath.FromSlash(r.Revision)), []byte(i.SHA)); err != nil {
			return "", err
		}
	}
	return snapshot, nil
}

// tries is how often a file is asked for that breaks off.
const tries = 5

// file has the snapshot's file link to the blob of its contents, which is downloaded if it is not there.
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
	os.Remove(link) // one that leads nowhere
	return os.Symlink(filepath.Join("..", "..", "blobs", tag), link)
}

// etag is the hash that names a blob: SHA-256 of large files, git's SHA-1 of others.
var etag = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// head asks for a file's hash and size. Large files lie elsewhere; the hub's own answer, before any redirection to another host, names them.
func (c Client) head(ctx context.Context, from string) (tag string, size int64, err error) {
	req, err := c.request(ctx, http.MethodHead, from)
	if err != nil {
		return "", 0, err
	}
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Host != via[0].URL.Host || len(via) > 5 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	res.Body.Close()
	if res.StatusCode >= 400 {
		return "", 0, answered(res)
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
		return "", 0, fmt.Errorf("the hub names no hash to check it by (ETag %.80q)", tag)
	}
	size, err = strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("the hub does not say its size (%.40q)", length)
	}
	return tag, size, nil
}

// permanent is an error that asking again does not mend.
type permanent struct{ error }

// download writes a blob, going on from what of it is there, and checks it.
func (c Client) download(ctx context.Context, from, blob, tag, name string, size int64) error {
	part := blob + ".incomplete"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
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
		if err := answered(res); err != nil {
			return err
		}
		if res.StatusCode != http.StatusPartialContent {
			at = 0 // it was sent from the beginning
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
	if err := os.Rename(part, blob); err != nil {
		return &permanent{err}
	}
	return nil
}

// progress writes to a file and tells how far it is.
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

// check reads a file and compares its size and hash.
func check(f *os.File, tag string, size int64) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var h hash.Hash = sha256.New()
	if len(tag) == 40 { // git's hash of a blob
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", size)
	}
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("it broke off: %d bytes of %d", n, size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != tag {
		return fmt.Errorf("its hash is %.12s…, the hub says %.12s…", got, tag)
	}
	return nil
}

// request is a request with the token, if it goes to the endpoint.
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

// get asks for a URL from the byte at on. The token does not follow to another host.
func (c Client) get(ctx context.Context, from string, at int64) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, from)
	if err != nil {
		return nil, err
	}
	if at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > 10 {
			return errors.New("it is redirected in circles")
		}
		if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
			req.Header.Del("Authorization")
		}
		return nil
	}}
	return client.Do(req)
}

// answered says what the hub's refusal means.
func answered(res *http.Response) error {
	switch {
	case res.StatusCode < 300:
		return nil
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return &permanent{fmt.Errorf("the hub wants a token that may read it (%s); set HF_TOKEN", res.Status)}
	case res.StatusCode == http.StatusNotFound:
		return &permanent{fmt.Errorf("the hub does not have it (%s)", res.Status)}
	case res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusRequestTimeout:
		return &permanent{fmt.Errorf("the hub answers %s", res.Status)}
	}
	return fmt.Errorf("the hub answers %s", res.Status)
}
