"""Train prompts on real base models and write the tables of docs/quality.md about them.

    python3 testdata/real.py bin/ptune BASE [BASE...] [--tasks trec,sst2] [--seeds 5] [--compute f32,bf16]
        [--set "max_decrease=1" ...] [--results docs/real.json] [--page docs/quality.md]

BASE is a model directory. The tasks use the data in the folder PTUNE_SHARED (default ../shared). Each
prompt has ptune's default settings, 200 steps of 16 rows, and is measured on the first 300 held-out rows.
Each --set adds a column of runs with other settings of `train`, separated by spaces.

Runs that are in --results are not repeated, so an interrupted measurement continues.
"""
import argparse, csv, datetime, json, os, platform, random, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("PTUNE_SHARED", os.path.join(HERE, "../../shared"))
WORK = os.path.abspath(os.path.join(HERE, "../.bench/real"))
STEPS, BATCH, TEST = 200, 16, 300


def lines(name):
    return [json.loads(l) for l in open(os.path.join(SHARED, "data", name))]


def table(name, delimiter):
    with open(os.path.join(SHARED, "data", name), newline="") as f:
        return list(csv.DictReader(f, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL))


def snips(part):
    read = lambda file: open(os.path.join(SHARED, "data/snips", part, file)).read().splitlines()
    return [dict(text=t.strip(), label=l.strip()) for t, l in zip(read("seq.in"), read("label"))]


def sms():
    read = [l.rstrip("\n").split("\t", 1) for l in open(os.path.join(SHARED, "data/sms_spam/sms.tsv"))]
    all_ = shuffled([dict(text=" ".join(t.split()[:40]), label=l) for l, t in read])
    return all_[TEST:], all_[:TEST]


def shuffled(rows):
    random.Random(1234).shuffle(rows)
    return rows


def banking(part):
    return shuffled([dict(text=r["text"], label=r["category"].replace("_", " ")) for r in table(f"banking77/{part}.csv", ",")])


def sst2(file):
    return [dict(text=r["sentence"].strip(), label=["negative", "positive"][int(r["label"])]) for r in table(f"sst2/{file}.tsv", "\t")]


# name: (training rows, held-out rows, input, initial text)
TASKS = {
    "trec": (lambda: (lines("trec/train.jsonl"), lines("trec/test.jsonl")), "Question: {text}\nThe answer is a:", "Say what kind of answer this question wants:"),
    "sst2": (lambda: (shuffled(sst2("train_full")), sst2("dev")), "Review: {text}\nThe review is:", "Say whether this review is good or bad:"),
    "snips": (lambda: (shuffled(snips("train")), shuffled(snips("test"))), "Request: {text}\nThe person wants:", "Say what this person wants the assistant to do:"),
    "sms_spam": (sms, "Message: {text}\nThis message is:", "Say whether this message is spam:"),
    "banking77": (lambda: (banking("train"), banking("test")), "Question: {text}\nIt is about:", "Say what this customer's question is about:"),
}


def machine():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return f"{os.cpu_count()} × {line.split(':', 1)[1].strip()}"
    return platform.processor()


def measure(exe, base, name, compute, change, seed):
    """Train one prompt with ptune. Return its accuracy and loss on the held-out rows, the prompt's largest
    norm, and the norm and the loss at step 30, where runs that go wrong are already lost."""
    rows, template, text = TASKS[name]
    folder = os.path.join(WORK, name)
    os.makedirs(folder, exist_ok=True)
    train, test = rows()
    for part, list_ in dict(train=train[:STEPS * BATCH], test=test[:TEST]).items():
        with open(os.path.join(folder, part + ".jsonl"), "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in list_)
    task = dict(model=os.path.abspath(base), prompt=dict(tokens=16, init="text", text=text),
                data=dict(train="train.jsonl", input=template, target=" {label}", labels=sorted({r["label"] for r in train})),
                train=dict(steps=STEPS, batch_size=BATCH, seed=seed), output=dict(prompt="p.st", dir="run"))
    with open(os.path.join(folder, "task.yaml"), "w") as f:
        json.dump(task, f)

    def run(*args):
        done = subprocess.run([exe, *args, "--compute", compute], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"ptune {' '.join(args)}: {done.stderr}")
        return done.stdout

    begin = time.time()
    run("train", "task.yaml", "--quiet", "--force", *(x for s in change.split() for x in ("--set", "train." + s)))
    took = time.time() - begin
    events = [json.loads(l) for l in open(os.path.join(folder, "run/events.jsonl"))]
    steps = [e for e in events if e["event"] == "step"]
    result = json.loads(run("eval", "--prompt", "p.st", "--data", "test.jsonl", "--json", "--no-baseline"))
    return dict(accuracy=result["accuracy"], loss=result["loss"], norm30=steps[29]["prompt_norm"], loss30=steps[29]["loss"],
                norm=max(e["prompt_norm"] for e in steps), stuck=[e["step"] for e in events if e["event"] == "stuck"],
                seconds=took, machine=machine(), date=str(datetime.date.today()))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("bases", nargs="*")
    p.add_argument("--tasks", default=",".join(TASKS))
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--compute", default="f32")
    p.add_argument("--set", action="append", default=[], dest="changes")
    p.add_argument("--results", default=os.path.join(HERE, "../docs/real.json"))
    p.add_argument("--page", default=os.path.join(HERE, "../docs/quality.md"))
    a = p.parse_args()
    results = json.load(open(a.results)) if os.path.exists(a.results) else {}
    for seed in range(a.seeds):
        for base in a.bases:
            for name in a.tasks.split(","):
                for compute in a.compute.split(","):
                    for change in ["", *a.changes]:
                        cell = results.setdefault(" | ".join([os.path.basename(os.path.normpath(base)), name, compute, change or "defaults"]), {})
                        if str(seed) in cell:
                            continue
                        cell[str(seed)] = measure(os.path.abspath(a.ptune), base, name, compute, change, seed)
                        print(base, name, compute, change, seed, cell[str(seed)], flush=True)
                        with open(a.results, "w") as f:
                            json.dump(results, f, indent=1)
    page(a.page, results)


def page(path, results):
    """Write the table between the page's markers."""
    out = ["| base | task | arithmetic | settings | accuracy by seed | worst | median | loss | norm at step 30 |", "|---|---|---|---|---|---|---|---|---|"]
    for key, cell in sorted(results.items()):
        runs = [cell[s] for s in sorted(cell, key=int)]
        if not runs:
            continue
        accuracy = [r["accuracy"] for r in runs]
        by_seed = ", ".join(f"{s}: {cell[s]['accuracy']:.3f}" for s in sorted(cell, key=int))
        out.append(f"| {key} | {by_seed} | {min(accuracy):.3f} | {statistics.median(accuracy):.3f} | "
                   f"{statistics.mean(r['loss'] for r in runs):.3f} | {min(r['norm30'] for r in runs):.0f}–{max(r['norm30'] for r in runs):.0f} |")
    places = sorted({(r["date"], r["machine"]) for cell in results.values() for r in cell.values()})
    out += ["", "Measured " + "; ".join(f"{date} on {machine}" for date, machine in places) + "."]
    with open(path) as f:
        text = f.read()
    before, rest = text.split("<!-- real bases -->\n")
    with open(path, "w") as f:
        f.write(before + "<!-- real bases -->\n" + "\n".join(out) + "\n<!-- end of real bases -->" + rest.split("<!-- end of real bases -->")[1])


if __name__ == "__main__":
    main()
