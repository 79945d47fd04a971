"""Check that huggingface_hub finds a model that `ptune pull` downloaded, and that ptune finds a model that
huggingface_hub downloaded. A small hub on loopback serves the built-in model.

    V/bin/python testdata/hub.py bin/ptune
"""
import hashlib, http.server, json, os, subprocess, sys, tempfile, threading

HERE = os.path.dirname(os.path.abspath(__file__))
BASE, SHA = os.path.join(HERE, "../internal/demo/base"), "0123456789abcdef0123456789abcdef01234567"
FILES = {n: open(os.path.join(BASE, n), "rb").read() for n in os.listdir(BASE)}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET(False)

    def do_GET(self, body=True):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/demo/tree"):
            data, tag = json.dumps([dict(type="file", path=n, size=len(d), oid=hashlib.sha256(d).hexdigest()) for n, d in FILES.items()]).encode(), None
        elif path.startswith("/api/models/org/demo"):
            data, tag = json.dumps(dict(id="org/demo", sha=SHA, siblings=[dict(rfilename=n) for n in FILES])).encode(), None
        elif path.rsplit("/", 1)[-1] in FILES:
            data = FILES[path.rsplit("/", 1)[-1]]
            tag = hashlib.sha256(data).hexdigest()
        else:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", SHA)
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint, exe = f"http://127.0.0.1:{server.server_port}", os.path.abspath(sys.argv[1])
with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
    run = lambda cache, *args, **env: subprocess.run([exe, *args], env=os.environ | dict(HF_ENDPOINT=endpoint, HF_HUB_CACHE=cache) | env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    got = run(ours, "pull", "org/demo", "--quiet")
    os.environ["HF_ENDPOINT"] = endpoint
    from huggingface_hub import scan_cache_dir, snapshot_download

    found = snapshot_download("org/demo", cache_dir=ours, local_files_only=True)
    assert os.path.samefile(found, got), (found, got)
    for n, data in FILES.items():
        assert open(os.path.join(found, n), "rb").read() == data, n
    info = scan_cache_dir(ours)
    assert [r.repo_id for r in info.repos] == ["org/demo"] and not info.warnings, info
    wrote = snapshot_download("org/demo", cache_dir=theirs, endpoint=endpoint)
    assert os.path.samefile(run(theirs, "pull", "org/demo", "--quiet", HF_HUB_OFFLINE="1"), wrote)
print("huggingface_hub and ptune read each other's cache")
