"""Do to `ptune serve` what clients, operators and disks do to it, and check what must come out.

    python3 testdata/serve_faults.py bin/ptune [--clients 1000] [--bodies 10000] [--replacements 100]
        [--soak SECONDS --base DIR]

It uses the built-in model, with two prompts that it trains. Every check that fails is printed, and the exit
code is 1. With --soak, `testdata/load` sends mixed requests to a server of --base for that long, and the
resident memory must stay within 2 %.
"""
import argparse, concurrent.futures, http.client, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
failures = []


def check(ok, what):
    print(("ok      " if ok else "FAILED  ") + what, flush=True)
    if not ok:
        failures.append(what)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, ptune, *args):
        self.port = free_port()
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen([ptune, "serve", "--listen", f"127.0.0.1:{self.port}", *args], stdout=self.log, stderr=self.log)
        while True:
            if self.process.poll() is not None:
                sys.exit(f"the server ended; see {self.log.name}")
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path):
        c = self.connect()
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    def post(self, path, body, timeout=60):
        c = self.connect(timeout)
        try:
            c.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), {"Content-Type": "application/json"})
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    def complete(self, model, tokens=16, prompt="The weather is"):
        status, body = self.post("/v1/completions", dict(model=model, prompt=prompt, max_tokens=tokens, temperature=0))
        return json.loads(body)["choices"][0]["text"] if status == 200 else f"{status}: {body}"

    def metric(self, name):
        return sum(float(l.rsplit(" ", 1)[1]) for l in self.get("/metrics")[1].decode().splitlines() if l.startswith(name) and l[len(name):len(name) + 1] in " {")

    def idle(self, within=10):
        """Wait until no request is running or waiting."""
        end = time.time() + within
        while time.time() < end:
            if self.metric("vllm:num_requests_running") == 0 and self.metric("vllm:num_requests_waiting") == 0:
                return True
            time.sleep(0.1)
        return False

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(60)


def raw(server, lines, receive=0):
    """Send bytes over a socket of its own; return the socket."""
    s = socket.socket()
    if receive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    s.connect(("127.0.0.1", server.port))
    s.sendall(lines)
    return s


def request(route, body):
    sent = json.dumps(body).encode()
    return f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent


def leavers(server, n):
    right = server.complete("a")
    def leave(k):
        try:
            s = raw(server, request("/v1/completions", dict(model="ab"[k % 2], prompt=f"Client {k} says", max_tokens=200, temperature=0, stream=True)))
            s.settimeout(30)
            got = s.recv(1 + k % 400)
            if k % 3 == 0:  # a reset in place of an orderly end
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            s.close()
            return got.startswith(b"H")
        except OSError:
            return False
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        begun = sum(pool.map(leave, range(n)))
    check(begun > n / 2, f"{n} clients leave in mid-stream: {begun} had begun to read")
    check(server.idle(), "then no request is running or waiting")
    check(server.complete("a") == right, "and a text is what it was before")


def slow(server):
    """Slow readers and writers beside requests of others."""
    body = dict(model="a", prompt="Once", max_tokens=400, temperature=0, stream=True)
    readers = [raw(server, request("/v1/completions", body), receive=1024) for _ in range(8)]
    writers = [raw(server, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le") for _ in range(20)]
    half = [raw(server, request("/v1/completions", body)[:-20]) for _ in range(20)]
    time.sleep(0.5)
    begin = time.time()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: server.complete("b"), range(40)))
    took = time.time() - begin
    check(len(set(texts)) == 1, "8 clients that do not read and 40 that do not write: the requests of 8 others are answered")
    check(took < 30, f"40 requests took {took:.1f} s")
    for s in readers + writers + half:
        s.close()
    check(server.idle(70), "and nothing of the slow clients stays")


def malformed(server, n):
    r = random.Random(1)
    valid = [("/v1/completions", dict(model="a", prompt="x", max_tokens=1)),
             ("/v1/chat/completions", dict(model="a", messages=[dict(role="user", content="x")], max_tokens=1)),
             ("/classify", dict(model="a", input=["x"])),
             ("/v1/decisions", dict(model="a", input="x", questions=[dict(type="choice", name="q", choices=[dict(value="good")])])),
             ("/v1/systemone", dict(model="a", state="x", questions=dict(q=dict(type="choice", instructions="q", criteria=dict(good=None)))))]
    odd = [None, True, -1, 1e400, 2**70, "", "\u0000", "\ud83d", [], {}, [[[[]]]], 0.5, "x" * 1000, ["a"] * 50]

    def damage(k):
        rnd = random.Random(k)
        route, body = valid[k % len(valid)]
        kind = k // len(valid) % 4
        if kind == 0:  # bytes
            b = bytearray(json.dumps(body).encode())
            for _ in range(rnd.randint(1, 4)):
                b[rnd.randrange(len(b))] = rnd.randrange(256)
            return route, bytes(b)
        if kind == 1:  # cut off
            b = json.dumps(body).encode()
            return route, b[:rnd.randrange(len(b))]
        if kind == 2:  # a value of another type
            body = dict(body, **{rnd.choice([*body, "temperature", "n", "stop", "seed", "logprobs", "stream"]): rnd.choice(odd)})
            return route, json.dumps(body).encode()
        return route, json.dumps(dict(body, **{rnd.choice(["tools", "prompt_embeds", "x", "logit_bias", "suffix"]): rnd.choice(odd)})).encode()

    def send(k):
        route, body = damage(k)
        try:
            status, answer = server.post(route, body)
        except (OSError, http.client.HTTPException) as e:
            return f"{route} {body!r}: {e}"
        if status == 200:
            return None
        try:
            error = json.loads(answer)
            ok = 400 <= status < 500 and ("error" in error)
        except ValueError:
            ok = False
        return None if ok else f"{route} {body!r}: {status} {answer!r}"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        wrong = [w for w in pool.map(send, range(n)) if w]
    check(not wrong, f"{n} damaged bodies: an answer or an error of 4xx with a body" + "".join("\n  " + w for w in wrong[:5]))
    status, answer = server.post("/v1/completions", b'{"model": "a", "prompt": "' + b"x" * (4 << 20) + b'"}')
    check(status == 413 and b"error" in answer, f"a body over the limit: {status}")
    status, _ = server.post("/v1/completions", b"[" * 500_000)
    check(400 <= status < 500, f"a body of 500,000 opening brackets: {status}")
    check(server.idle(), "then no request is running or waiting")


def replacements(server, folder, files, n):
    """Replace one prompt's file n times, half of the files damaged, while others ask for it."""
    want = {server.complete("a"), server.complete("b")}
    wrong, asked, done = [], [0], threading.Event()

    def ask():
        while not done.is_set():
            text = server.complete("a")
            asked[0] += 1
            if text not in want:
                wrong.append(text)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for k in range(n):
        new = os.path.join(folder, ".new")
        with open(new, "wb") as f:
            f.write(files[k % 2] if k % 4 < 2 else files[k % 2][:200 + k])
        os.replace(new, os.path.join(folder, "a.st"))
        time.sleep(0.15)
    with open(os.path.join(folder, ".new"), "wb") as f:
        f.write(files[1])
    os.replace(os.path.join(folder, ".new"), os.path.join(folder, "a.st"))
    time.sleep(3)
    done.set()
    for t in threads:
        t.join()
    check(not wrong, f"a prompt's file replaced {n} times, half of them damaged: {asked[0]} texts are one or the other's" + "".join("\n  " + w for w in wrong[:3]))
    check(server.complete("a") == server.complete("b"), "in the end the new file is served")


def ends(ptune, folder):
    """SIGTERM under load: what is answered is answered whole."""
    server = Server(ptune, "--prompts", folder)
    cut, whole, refused = [0], [0], [0]

    def ask(k):
        while True:
            try:
                s = raw(server, request("/v1/completions", dict(model="ab"[k % 2], prompt=f"Text {k}", max_tokens=60, temperature=0, stream=k % 2 == 0)))
                s.settimeout(60)
                got = b""
                while piece := s.recv(1 << 16):
                    got += piece
                    if got.endswith(b"0\r\n\r\n") or b"\r\n\r\n" in got and b"Content-Length" in got and len(got.split(b"\r\n\r\n", 1)[1]) >= int(got.split(b"Content-Length: ")[1].split(b"\r\n")[0]):
                        break
            except OSError:
                refused[0] += 1
                return
            if not got:
                refused[0] += 1
                return
            complete = b"[DONE]" in got if k % 2 == 0 else b'"finish_reason"' in got
            (whole if complete else cut)[0] += 1
    threads = [threading.Thread(target=ask, args=(k,)) for k in range(16)]
    for t in threads:
        t.start()
    time.sleep(1)
    code = server.end()
    for t in threads:
        t.join()
    check(code == 0, f"SIGTERM under load: exit code {code}")
    check(cut[0] == 0, f"{whole[0]} answers are whole, {cut[0]} cut, {refused[0]} connections refused")


def soak(ptune, base, folder, seconds):
    server = Server(ptune, "--model", base, "--prompts", folder)
    texts = os.path.join(folder, "texts.txt")
    with open(texts, "w") as f:
        f.writelines(f"The {k}th text is about {w}\n" for k in range(50) for w in ("soup", "a train that was late", "the sea " * (k % 20)))
    names = ",".join(sorted(n[:-3] for n in os.listdir(folder) if n.endswith(".st")))
    done = subprocess.run(["go", "run", ".", "--url", f"http://127.0.0.1:{server.port}", "--kind", "mixed", "--models", names, "--clients", "4",
                           "--seconds", str(seconds), "--texts", texts, "--pid", str(server.process.pid), "--pause", "100ms"], cwd=os.path.join(HERE, "load"), capture_output=True, text=True)
    got = json.loads(done.stdout)
    print(got)
    low, median, high = got["resident_mib"]
    check(got["failed"] == 0, f"{got['requests']} mixed requests in {seconds:.0f} s: {got['failed']} failed {got.get('first_error', '')}")
    check((high - low) / median < 0.02, f"resident memory from {low:.1f} to {high:.1f} MiB")
    server.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("--clients", type=int, default=1000)
    p.add_argument("--bodies", type=int, default=10000)
    p.add_argument("--replacements", type=int, default=100)
    p.add_argument("--soak", type=float, default=0)
    p.add_argument("--base")
    p.add_argument("--prompts", help="prompts of --base")
    a = p.parse_args()
    ptune = os.path.abspath(a.ptune)
    if a.soak:
        soak(ptune, a.base, a.prompts, a.soak)
        sys.exit(bool(failures))
    folder = tempfile.mkdtemp()
    files = []
    for name, seed in (("a", 1), ("b", 2)):
        path = os.path.join(folder, name + ".st")
        subprocess.run([ptune, "train", "configs/stars.yaml", "--quiet", "--set", "train.steps=3", "--set", f"train.seed={seed}",
                        "-o", path], check=True, cwd=os.path.join(HERE, ".."), capture_output=True)
        files.append(open(path, "rb").read())
    try:
        server = Server(ptune, "--prompts", folder)
        leavers(server, a.clients)
        slow(server)
        malformed(server, a.bodies)
        replacements(server, folder, files, a.replacements)
        code = server.end()
        check(code == 0, f"SIGTERM without load: exit code {code}")
        check("panic" not in open(server.log.name).read(), "no panic in the log")
        ends(ptune, folder)
    finally:
        shutil.rmtree(folder)
    print("all well" if not failures else f"{len(failures)} checks failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
