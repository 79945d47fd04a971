"""Compare prompts trained with ptune's defaults and with a grid of PEFT settings, for docs/quality.md.

    V/bin/python testdata/quality.py bin/ptune [TASK...] [--results docs/quality.json] [--page docs/quality.md]

Four tasks use the built-in model: sentiment, topic, letters (an arbitrary letter for each topic) and both
(an arbitrary letter for each topic and sentiment). Two tasks use a real model in the folder PTUNE_SHARED
(default ../shared): spam and snips.

ptune trains with its defaults, with half the steps, and with one setting changed at a time, five seeds
each. The five prompts of the defaults also vote as an ensemble. PEFT trains as in its documentation,
with AdamW and a linear schedule: RANDOM, SAMPLE_VOCAB and TEXT initialisation, six learning rates, two
seeds; its best cell gets three more seeds. Steps, batches and rows are the same for both. `ptune eval`
measures all prompts on held-out rows.

Cells that are in --results are not measured again, so an interrupted run continues. If all cells are
there, the page is written again with its old date.
"""
import argparse, datetime, json, os, random, re, shutil, statistics, subprocess, sys, tempfile, time, warnings

warnings.filterwarnings("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("PTUNE_SHARED", os.path.join(HERE, "../../shared"))
WORK = os.path.abspath(os.path.join(HERE, "../.bench/quality"))
STARTS, RATES, SEEDS, TOKENS, BATCH = ["RANDOM", "SAMPLE_VOCAB", "TEXT"], [1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0], 5, 16, 16

VARIANTS = {  # settings of ptune, changed one at a time
    "1 virtual token": dict(prompt__tokens=1), "4 virtual tokens": dict(prompt__tokens=4), "64 virtual tokens": dict(prompt__tokens=64),
    "init: vocab": dict(prompt__init="vocab"), "init: labels": dict(prompt__init="labels"), "init: random": dict(prompt__init="random"), "init: uniform": dict(prompt__init="uniform"),
    "reparametrise: mlp": dict(train__reparametrise="mlp"), "reparametrise: low_rank": dict(train__reparametrise="low_rank"),
    "betas: [0.9, 0.999]": dict(train__betas="[0.9, 0.999]"), "optimizer: adafactor": dict(train__optimizer="adafactor"),
}

def rows(path, list_):
    with open(path, "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in list_)


def tasks():
    """Write the rows of all tasks. Return name: (base model, steps, input template, target template, label
    names or None, initial text)."""
    demo = os.path.join(HERE, "../internal/demo")
    for name in "sentiment", "topic":
        os.makedirs(os.path.join(WORK, name), exist_ok=True)
        for part in "train", "test":
            rows(os.path.join(WORK, name, part + ".jsonl"), [dict(text=r["text"], label=r[name]) for r in map(json.loads, open(os.path.join(demo, "data", part + ".jsonl")))])
    topics = ["food", "film", "travel", "phone", "book", "sport"]
    for name, letter in dict(letters=lambda r: "abcdef"[topics.index(r["topic"])], both=lambda r: "abcdefghijkl"[2 * topics.index(r["topic"]) + (r["sentiment"] == "positive")]).items():
        os.makedirs(os.path.join(WORK, name), exist_ok=True)
        for part in "train", "test":
            rows(os.path.join(WORK, name, part + ".jsonl"), [dict(text=r["text"], label=letter(r)) for r in map(json.loads, open(os.path.join(demo, "data", part + ".jsonl")))])
    real = dict(spam=[l.rstrip("\n").split("\t", 1) for l in open(os.path.join(SHARED, "data/sms_spam/sms.tsv"))],
                snips=[[l.strip(), t.strip()] for part in ("train", "test") for l, t in zip(open(os.path.join(SHARED, "data/snips", part, "label")), open(os.path.join(SHARED, "data/snips", part, "seq.in")))])
    letters = {}
    for name, list_ in real.items():
        random.Random(1234).shuffle(list_)
        letters[name] = {l: "abcdefg"[i] for i, l in enumerate(sorted({l for l, _ in list_}))}
        os.makedirs(os.path.join(WORK, name), exist_ok=True)
        words = lambda t: " ".join(t.split()[:40])
        rows(os.path.join(WORK, name, "test.jsonl"), [dict(text=words(t), label=l) for l, t in list_[:400]])
        rows(os.path.join(WORK, name, "train.jsonl"), [dict(text=words(t), label=l) for l, t in list_[1200:4400]])
    stories = os.path.join(SHARED, "models/stories260K")
    return dict(sentiment=(os.path.join(demo, "base"), 100, "{text}\nAnswer:", " {label}", None, "Is the review good or bad?"),
                topic=(os.path.join(demo, "base"), 100, "{text}\nAnswer:", " {label}", None, "What is the review about?"),
                letters=(os.path.join(demo, "base"), 100, "{text}\nAnswer:", " {label}", None, "Which letter stands for this?"),
                both=(os.path.join(demo, "base"), 100, "{text}\nAnswer:", " {label}", None, "Which letter stands for this?"),
                spam=(stories, 200, "{text}\n", "{label}", letters["spam"], "Is this message spam?"),
                snips=(stories, 200, "{text}\n", "{label}", letters["snips"], "What does the person want?"))


class Bench:
    def __init__(self, exe, name, task):
        self.exe, self.name, (self.base, self.steps, self.input, self.target, self.labels, self.text) = exe, name, task
        self.dir = os.path.join(WORK, name)
        self.torch_base = None

    def run(self, *args):
        done = subprocess.run([self.exe, *args], cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"ptune {' '.join(args)}: {done.stderr}")
        return done.stdout

    def ptune(self, seed, out, steps=None, **change):
        data = dict(train="train.jsonl", input=self.input, target=self.target, labels=self.labels or sorted({json.loads(l)["label"] for l in open(os.path.join(self.dir, "train.jsonl"))}))
        with open(os.path.join(self.dir, "task.yaml"), "w") as f:
            json.dump(dict(model=os.path.abspath(self.base), prompt=dict(tokens=TOKENS, init="text", text=self.text), data=data, train=dict(steps=steps or self.steps, batch_size=BATCH, seed=seed), output=dict(prompt=out, dir="run")), f)
        self.run("train", "task.yaml", "--force", "--quiet", *(x for k, v in change.items() for x in ("--set", f"{k.replace('__', '.')}={v}")))
        return self.measure(out)

    def trace(self, seed):
        """Accuracy on the held-out rows after each twentieth of the steps, with the defaults. It does not
        influence the run: the last step's prompt is used."""
        every = self.steps // 20
        self.ptune(seed, "trace.st", data__valid="test.jsonl", train__eval_every=every, train__patience=0)
        return [[e["step"], e["accuracy"]] for e in map(json.loads, open(os.path.join(self.dir, "run/events.jsonl"))) if e["event"] == "eval"]

    def measure(self, st):
        r = json.loads(self.run("eval", "--prompt", st, "--data", "test.jsonl", "--json", "--no-baseline"))
        return dict(loss=r["loss"], accuracy=r["accuracy"])

    def peft(self, start, rate, seed):
        import torch
        from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        more = dict(prompt_tuning_init_text=self.text, tokenizer_name_or_path=self.base) if start == "TEXT" else {}
        m = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS, prompt_tuning_init=PromptTuningInit[start], **more))
        tok, eos = Tokenizer.from_file(self.base + "/tokenizer.json"), base.config.eos_token_id
        tok.no_truncation(), tok.no_padding()
        examples = []
        for r in map(json.loads, open(os.path.join(self.dir, "train.jsonl"))):
            x = tok.encode(self.input.format(**r)).ids
            label = self.labels[r["label"]] if self.labels else r["label"]
            y = tok.encode(self.target.format(label=label), add_special_tokens=False).ids + [eos]
            examples.append((x + y, [-100] * len(x) + y))
        opt = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=rate)
        plan, r, order = get_linear_schedule_with_warmup(opt, 0, self.steps), random.Random(seed), []
        for _ in range(self.steps):
            if len(order) < BATCH:
                order = r.sample(examples, len(examples))
            batch, order = order[:BATCH], order[BATCH:]
            n = max(len(x) for x, _ in batch)
            pad = lambda xs, v: torch.tensor([x + [v] * (n - len(x)) for x in xs])
            m(input_ids=pad([x for x, _ in batch], 0), attention_mask=pad([[1] * len(x) for x, _ in batch], 0), labels=pad([y for _, y in batch], -100)).loss.backward()
            opt.step()
            plan.step()
            opt.zero_grad()
        # The same file as ptune's with other values, so that both are measured in the same way.
        with safe_open(os.path.join(self.dir, "p0.st"), "pt") as f:
            meta = f.metadata()
        values = m.prompt_encoder.default.embedding.weight.detach().clone()
        if not bool(torch.isfinite(values).all()):
            return dict(loss=float("inf"), accuracy=0.0)
        save_file(dict(prompt_embeddings=values), os.path.join(self.dir, "peft.st"), metadata=meta)
        return self.measure("peft.st")


def good(runs):
    """Sort key of a cell: mean accuracy, then mean loss."""
    return statistics.mean(r["accuracy"] for r in runs), -statistics.mean(r["loss"] for r in runs)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("tasks", nargs="*")
    p.add_argument("--results", default=os.path.join(HERE, "../docs/quality.json"))
    p.add_argument("--page", default=os.path.join(HERE, "../docs/quality.md"))
    a = p.parse_args()
    results = json.load(open(a.results)) if os.path.exists(a.results) else {}
    measured = []

    def cell(name, key, measure):
        got = results.setdefault(name, {})
        if key not in got:
            t = time.time()
            got[key] = measure()
            measured.append(key)
            print(name, key, got[key], f"{time.time() - t:.1f} s", flush=True)
            with open(a.results, "w") as f:
                json.dump(results, f, indent=1)
        return got[key]

    all_ = tasks()
    for name in a.tasks or all_:
        b = Bench(os.path.abspath(a.ptune), name, all_[name])
        for seed in range(SEEDS):
            cell(name, f"ptune {seed}", lambda: b.ptune(seed, f"p{seed}.st"))
            cell(name, f"half {seed}", lambda: b.ptune(seed, "half.st", steps=b.steps // 2))
            cell(name, f"trace {seed}", lambda: b.trace(seed))
            for variant, change in VARIANTS.items():
                cell(name, f"{variant} {seed}", lambda: b.ptune(seed, "variant.st", **change))
        if "ensemble 0" not in results[name]:
            for seed in range(SEEDS):
                b.ptune(seed, f"p{seed}.st")
        cell(name, "ensemble 0", lambda: b.measure(",".join(f"p{seed}.st" for seed in range(SEEDS))))
        for start in STARTS:
            for rate in RATES:
                for seed in range(2):
                    cell(name, f"{start} {rate:g} {seed}", lambda: b.peft(start, rate, seed))
        best = max((f"{s} {r:g}" for s in STARTS for r in RATES), key=lambda c: good([results[name][f"{c} {s}"] for s in range(2)]))
        for seed in range(2, SEEDS):
            start, rate = best.split()
            cell(name, f"{best} {seed}", lambda: b.peft(start, float(rate), seed))
    page(a.page, results, bool(measured))


def page(path, results, measured):
    """Write the tables between the page's markers, with today's date if something was measured."""
    cells = {name: {} for name in results}
    for name, got in results.items():
        for key, r in got.items():
            cells[name].setdefault(key.rsplit(" ", 1)[0], []).append(r)

    def show(name, c):
        acc, loss = [r["accuracy"] for r in cells[name][c]], statistics.mean(r["loss"] for r in cells[name][c])
        return f"{statistics.mean(acc):.3f} [{min(acc):.3f}–{max(acc):.3f}], {loss:.3f}"
    def reached(name, best):
        """The first step at which ptune's mean accuracy is at least that of PEFT's best cell after all steps."""
        traces = cells[name]["trace"]
        goal = statistics.mean(r["accuracy"] for r in cells[name][best])
        for points in zip(*traces):
            if statistics.mean(a for _, a in points) >= goal:
                return f"{points[0][0]} of {traces[0][-1][0]}"
        return f"not in {traces[0][-1][0]}"
    out = ["| task | ptune's defaults | half the steps | steps to PEFT's best | PEFT's best cell of 18 | its settings | PEFT, TEXT at 1e-3 | PEFT's median cell |", "|---|---|---|---|---|---|---|---|"]
    for name in results:
        grid = sorted((c for c in cells[name] if c.split()[0] in STARTS), key=lambda c: good(cells[name][c]))
        out.append(f"| {name} | {show(name, 'ptune')} | {show(name, 'half')} | {reached(name, grid[-1])} | {show(name, grid[-1])} | {grid[-1]} | {show(name, 'TEXT 0.001')} | {show(name, grid[len(grid) // 2])} |")
    out += ["", "With one setting changed at a time, and the vote of the five prompts of the defaults (ensemble):", "", "| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for row in ["ptune", "ensemble", *VARIANTS]:
        out.append(f"| {'defaults' if row == 'ptune' else row} | " + " | ".join(show(name, row) for name in results) + " |")
    out.append("")
    with open(path) as f:
        text = f.read()
    date = datetime.date.today() if measured else re.search(r"Measured (\S+)\.\n<!-- end", text).group(1)
    out.append(f"Accuracy on 400 held-out rows, mean [lowest–highest] over seeds, then the loss of the target's tokens.\nMeasured {date}.")
    before, rest = text.split("<!-- figures -->\n")
    with open(path, "w") as f:
        f.write(before + "<!-- figures -->\n" + "\n".join(out) + "\n<!-- end -->" + rest.split("<!-- end -->")[1])


if __name__ == "__main__":
    main()
