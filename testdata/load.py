"""Measure `ptune serve` beside a Python server of PEFT and llama.cpp's server, in turn on this machine.

    PEER/bin/python testdata/load.py bin/ptune BASE [--llama LLAMA_SERVER --gguf BASE.gguf] [--rounds 3]
        [--seconds 15] [--results docs/load.json] [--page docs/serving.md]

BASE is a model directory of SmolLM2-135M's shape. Fifty prompts with the six labels of TREC are trained for
two steps each in one sweep; how good they are does not matter here. Each round asks every server for each number of clients; the
table has the medians of the rounds. Without --llama its rows are left out, and this is said.
"""
import argparse, datetime, json, os, shutil, signal, socket, statistics, subprocess, sys, time, urllib.request

import real

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.abspath(os.path.join(HERE, "../.bench/load"))
CLIENTS = [1, 8, 32]
PROMPTS = 50


def prepare(ptune, base):
    """Train the prompts and export one for each name; return the folders of prompts and of adapters."""
    os.makedirs(WORK, exist_ok=True)
    prompts, adapters, one = (os.path.join(WORK, d) for d in ("prompts", "adapters", "one"))
    texts = os.path.join(WORK, "texts.txt")
    if os.path.exists(texts):
        return prompts, adapters, one, texts
    for d in (prompts, adapters, one):
        os.makedirs(d, exist_ok=True)
    rows, template, text = real.TASKS["trec"]
    train, test = rows()
    with open(os.path.join(WORK, "train.jsonl"), "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in train[:64])
    labels = sorted({r["label"] for r in train})
    task = dict(model=os.path.abspath(base), prompt=dict(tokens=16, init="text", text=text),
                data=dict(train="train.jsonl", input=template, target=" {label}", labels=labels),
                train=dict(steps=2, batch_size=8), output=dict(prompt="p.st", dir="run"))
    with open(os.path.join(WORK, "task.yaml"), "w") as f:
        json.dump(task, f)
    for k in range(PROMPTS):
        subprocess.run([ptune, "train", "task.yaml", "--quiet", "--force", "--set", f"train.seed={k}", "--set",
                        f"output.prompt=prompts/p{k:02}.st"], cwd=WORK, check=True, capture_output=True)
        if k < 8:
            out = os.path.join(adapters, f"p{k:02}")
            subprocess.run([ptune, "export", os.path.join(prompts, f"p{k:02}.st"), "--peft", out], check=True)
            with open(os.path.join(out, "labels.json"), "w") as f:
                json.dump(labels, f)
    shutil.copy(os.path.join(prompts, "p00.st"), one)
    with open(texts, "w") as f:
        f.writelines(r["text"].replace("\n", " ") + "\n" for r in test)
    return prompts, adapters, one, texts


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, args, port):
        self.port = port
        self.log = open(os.path.join(WORK, f"server-{port}.log"), "w")
        self.process = subprocess.Popen(args, stdout=self.log, stderr=subprocess.STDOUT)
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{args[0]} ended; see {self.log.name}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                return
            except OSError:
                time.sleep(0.2)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def ask(generator, server, texts, kind, models, clients, seconds):
    done = subprocess.run([generator, "--url", f"http://127.0.0.1:{server.port}", "--kind", kind, "--models", ",".join(models),
                           "--clients", str(clients), "--seconds", str(seconds), "--texts", texts], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("base")
    p.add_argument("--llama")
    p.add_argument("--gguf")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=15)
    p.add_argument("--dtype", default="float32", help="of the server of PEFT")
    p.add_argument("--results", default=os.path.join(HERE, "../docs/load.json"))
    p.add_argument("--page", default=os.path.join(HERE, "../docs/serving.md"))
    a = p.parse_args()
    prompts, adapters, one, texts = prepare(os.path.abspath(a.ptune), a.base)
    generator = os.path.join(WORK, "load")
    subprocess.run(["go", "build", "-o", generator, "."], cwd=os.path.join(HERE, "load"), check=True)
    names = [f"p{k:02}" for k in range(PROMPTS)]
    base = os.path.basename(os.path.normpath(a.base))

    def ptune(folder):
        port = free_port()
        return Server([a.ptune, "serve", "--model", a.base, "--prompts", folder, "--listen", f"127.0.0.1:{port}"], port)

    def peft(_):
        port = free_port()
        return Server([sys.executable, os.path.join(HERE, "peft_server.py"), "--model", a.base, "--adapters", adapters,
                       "--port", str(port), "--dtype", a.dtype, "--template", real.TASKS["trec"][1]], port)

    def llama(_):
        port = free_port()
        return Server([a.llama, "-m", a.gguf, "--port", str(port), "-np", "8", "-c", "8192", "-t", str(os.cpu_count())], port)

    # name: (server, its folder, kind, models, clients)
    cells = {
        "decisions, 8 prompts: ptune": (ptune, prompts, "classify", names[:8], CLIENTS),
        "decisions, 8 prompts: PEFT": (peft, None, "classify", names[:8], CLIENTS),
        "decisions, 1 prompt loaded: ptune": (ptune, one, "classify", names[:1], [8]),
        "decisions, 50 prompts loaded, 1 asked: ptune": (ptune, prompts, "classify", names[:1], [8]),
        "decisions, 50 prompts loaded, 50 asked: ptune": (ptune, prompts, "classify", names, [8]),
        "text, 8 prompts: ptune": (ptune, prompts, "text", names[:8], CLIENTS),
        "text, 8 prompts: PEFT": (peft, None, "text", names[:8], CLIENTS),
        "text, base alone: ptune": (ptune, prompts, "text", [base], CLIENTS),
    }
    if a.llama:
        cells["text, base alone: llama.cpp"] = (llama, None, "text", [base], CLIENTS)
    runs = {}
    for _ in range(a.rounds):
        for name, (start, folder, kind, models, clients) in cells.items():
            server = start(folder)
            for n in clients:
                ask(generator, server, texts, kind, models, n, 2)  # warm
                got = ask(generator, server, texts, kind, models, n, a.seconds)
                if got["failed"]:
                    sys.exit(f"{name}: {got['first_error']}")
                runs.setdefault(f"{name} | {n}", []).append(got)
                print(name, n, got, flush=True)
            server.close()
    machine = f"{real.machine()}, {datetime.date.today()}"
    with open(a.results, "w") as f:
        json.dump(dict(machine=machine, rounds=a.rounds, seconds=a.seconds, peft_dtype=a.dtype, runs=runs), f, indent=1)
    page(a.page, json.load(open(a.results)))


def page(path, results):
    """Write the table between the page's markers."""
    out = ["| what, who | clients | requests a second | tokens a second | p50 (s) | p99 (s) |", "|---|---|---|---|---|---|"]
    for key, runs in results["runs"].items():
        name, clients = key.split(" | ")
        median = lambda field: statistics.median(r[field] for r in runs)
        tokens = f"{median('tokens_per_second'):.0f}" if name.startswith("text") else ""
        out.append(f"| {name} | {clients} | {median('requests_per_second'):.2f} | {tokens} | {median('p50_seconds'):.3f} | {median('p99_seconds'):.3f} |")
    out += ["", f"Medians of {results['rounds']} runs of {results['seconds']:.0f} s in turn; {results['machine']}. PEFT computes in {results['peft_dtype']}."]
    with open(path) as f:
        text = f.read()
    before, rest = text.split("<!-- load -->\n")
    with open(path, "w") as f:
        f.write(before + "<!-- load -->\n" + "\n".join(out) + "\n<!-- end of load -->" + rest.split("<!-- end of load -->")[1])


if __name__ == "__main__":
    main()
