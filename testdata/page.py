"""Drive the page of `ptune serve` in headless Chromium, and make docs/serve.png.

    python testdata/page.py bin/ptune PROMPTS [--picture docs/serve.png]    (pip install websocket-client)

PROMPTS is a folder of prompts of ptune:demo with stars.st and things.st in it. The page is used as a person
does: by clicks and keys, with and without an API key, in both colour schemes. Exits with 1 if something on it
is not as it should be, or if the browser reports an error.
"""
import argparse, base64, json, os, re, subprocess, sys, tempfile, time, urllib.request

import websocket

REVIEW = "The waiters were rude and the soup was cold. We left hungry."


def until(f, seconds=30):
    """Call f until it returns something true, and return that."""
    end = time.time() + seconds
    while not (value := f()):
        assert time.time() < end, "it did not happen in time"
        time.sleep(0.05)
    return value


def serve(exe, prompts, log, *flags):
    """Start a server on a free port. Return the process and its address once it is ready."""
    with open(log, "w") as f:
        p = subprocess.Popen([exe, "serve", "--model", "ptune:demo", "--prompts", prompts, "--listen", "127.0.0.1:0", *flags], stderr=f)
    until(lambda: p.poll() is not None or "msg=ready" in open(log).read())
    assert p.poll() is None, open(log).read()
    return p, re.search(r"msg=listening address=(\S+)", open(log).read())[1]


class Browser:
    """A page in headless Chromium, driven over the DevTools protocol."""

    def __init__(self, profile):
        self.process = subprocess.Popen(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*",
                                         f"--user-data-dir={profile}", "--window-size=1000,760", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = profile + "/DevToolsActivePort"
        until(lambda: os.path.exists(port) and open(port).read().count("\n"))
        host = "127.0.0.1:" + open(port).readline().strip()
        pages = json.load(urllib.request.urlopen(f"http://{host}/json"))
        self.socket = websocket.create_connection(next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"], timeout=20)
        self.number, self.errors, self.urls = 0, [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps(dict(id=self.number, method=method, params=params)))
        while True:
            m = json.loads(self.socket.recv())
            if m.get("method") == "Network.requestWillBeSent":
                self.urls.append(m["params"]["request"]["url"])
            if m.get("method") == "Runtime.exceptionThrown" or m.get("method") == "Log.entryAdded" and m["params"]["entry"]["level"] == "error":
                self.errors.append(json.dumps(m["params"]))
            if m.get("id") == self.number:
                assert "error" not in m, m
                return m["result"]

    def js(self, code):
        r = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in r, r
        return r["result"].get("value")

    def until(self, code, seconds=30):
        end = time.time() + seconds
        while not (value := self.js(code)):
            assert time.time() < end, f"{code} did not become true; the page shows:\n{self.js('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && document.querySelector('.model') !== null")

    def type(self, selector, text):
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def choose(self, side, model):
        self.js(f"{{ const s = document.querySelectorAll('.model')[{side}]; s.value = {json.dumps(model)}; s.dispatchEvent(new Event('change')); }}")

    def ask(self):
        self.js("document.querySelector('#go').click()")
        self.until("!document.querySelector('#go').disabled")
        return [self.js(f"document.querySelectorAll('.answer')[{i}].innerText") for i in (0, 1)]

    def picture(self, path, scheme="light"):
        self.call("Emulation.setEmulatedMedia", features=[dict(name="prefers-color-scheme", value=scheme)])
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("prompts")
    p.add_argument("--picture")
    p.add_argument("--folder", help="keep further screenshots here")
    a = p.parse_args()
    work = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    shots = a.folder or work.name
    with open(work.name + "/keys", "w") as f:
        f.write("a-key\n")
    browser = Browser(work.name + "/profile")
    server, address = serve(a.ptune, a.prompts, work.name + "/log")
    try:
        browser.open(f"http://{address}/")
        browser.until("document.querySelectorAll('.model')[0].options.length === 3")
        browser.choose(0, "stars"), browser.choose(1, "things")
        browser.type("#input", REVIEW)
        left, right = browser.ask()
        assert "one star" in left and "%" in left and "confidence" in left, left
        assert "%" in right and "confidence" in right, right
        sent = json.dumps(dict(model="stars", input=REVIEW, questions=[dict(type="choice", instructions="?")])).encode()
        r = json.load(urllib.request.urlopen(urllib.request.Request(f"http://{address}/v1/decisions", sent, {"Content-Type": "application/json"})))
        shown = f"{100 * max(x['probability'] for x in r['answers'][0]['probabilities']):.1f} %"
        assert shown in left, (shown, left)
        width = browser.js("document.querySelector('.option.best .bar').getBoundingClientRect().width / document.querySelector('.option.best .track').getBoundingClientRect().width")
        assert abs(100 * width - float(shown[:-2])) < 1, (width, shown)
        browser.picture(a.picture or shots + "/light.png"), browser.picture(shots + "/dark.png", "dark")

        browser.choose(0, "ptune:demo"), browser.choose(1, "")
        browser.js("document.querySelector('#more').open = true")
        browser.type("#question", "What is it about?"), browser.type("#options", "food\nrooms\n")
        left, right = browser.ask()
        assert "food" in left and "rooms" in left and right == "", (left, right)
        browser.type("#options", " ")
        browser.type("#tokens", "12")
        left, _ = browser.ask()
        assert re.search(r"\d+ tokens", left), left
        browser.picture(shots + "/text.png")
        browser.type("#input", "The")
        browser.js("window.changes = 0; new MutationObserver(all => { changes += all.filter(x => x.target.className === 'text').length; }).observe(document.querySelector('.answer'), { childList: true, characterData: true, subtree: true })")
        browser.ask()
        assert browser.js("changes") > 1  # the text came in pieces
        browser.js("document.querySelector('#go').click(); document.querySelector('#stop').click()")
        browser.until("document.querySelectorAll('.answer')[0].innerText.includes('stopped')")
        browser.js("document.querySelector('#tokens').min = ''")
        browser.type("#tokens", "-1")
        left, _ = browser.ask()
        assert "max_tokens" in left, left  # the server's error
        browser.errors = [e for e in browser.errors if "400" not in e]
        assert not browser.errors, browser.errors
        hosts = {u.split("/")[2] for u in browser.urls if u.startswith("http")}
        assert hosts == {address}, hosts
        # The policy stops what is not the page's own.
        blocked = browser.js("new Promise(done => { addEventListener('securitypolicyviolation', e => done(e.violatedDirective)); const s = document.createElement('script'); s.textContent = 'window.injected = 1'; document.body.append(s); setTimeout(() => done('nothing'), 2000); })")
        assert blocked.startswith("script-src") and browser.js("window.injected === undefined"), blocked
    finally:
        server.terminate()
    assert server.wait() == 0
    server, address = serve(a.ptune, a.prompts, work.name + "/log", "--api-key-file", work.name + "/keys")
    try:
        browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": "Bearer a-key"})
        browser.call("Page.navigate", url=f"http://{address}/")
        browser.until("document.querySelector('.model')?.options.length === 3")
        browser.call("Network.setExtraHTTPHeaders", headers={})
        browser.js("load().catch(e => document.querySelector('#problem').textContent = e.message)")
        browser.until("!document.querySelector('#keyForm').hidden")
        browser.picture(shots + "/key.png")
        browser.type("#key", "a-key")
        browser.js("document.querySelector('#keyForm').requestSubmit()")
        browser.until("document.querySelector('#keyForm').hidden")
        browser.choose(0, "stars")
        browser.type("#input", REVIEW)
        assert "one star" in browser.ask()[0]
        assert browser.js("Object.keys(localStorage).length + Object.keys(sessionStorage).length + document.cookie.length") == 0
    finally:
        browser.close()
        server.terminate()
    assert server.wait() == 0
    print("the page: decisions, options, streaming, stop, errors, the key and the policy are right")


main()
