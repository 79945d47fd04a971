"""Train the same soft prompt with PEFT and with ptune, and compare numbers, time and memory.

    python testdata/peer.py bin/ptune [--model DIR] [--rows FILE.jsonl] [--steps 10] [--batch 16] [--rounds 1] [--seed N]

Rows are {"input": …, "target": …}. The default is the built-in model with the demo's rows. Both programs
start from the same adapter, saved by PEFT, and read the rows in file order, with AdamW at a constant
rate. PEFT's batches are right-padded.

Exits with 1 if a loss differs by more than 1e-4 of the largest loss (a loss near zero has few correct
digits in f32), or the final prompts by more than 1e-2 of the largest value.
"""
import argparse, json, os, random, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
RATE, TOKENS = 0.03, 16


def peft(a):
    """Train with PEFT as a user's script would, in a process of its own, and print the results as JSON."""
    import torch
    from peft import PeftModel, PromptTuningConfig, TaskType, get_peft_model
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(2)
    torch.manual_seed(a.seed)
    base = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype))
    if a.start:  # only make the adapter that both start from, at the scale of the embedding
        m = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS))
        m.prompt_encoder.default.embedding.weight.data *= base.get_input_embeddings().weight.std()
        m.save_pretrained(a.start)
        return
    tok, eos = Tokenizer.from_file(a.model + "/tokenizer.json"), base.config.eos_token_id
    m = PeftModel.from_pretrained(base, a.adapter)
    prompt = m.prompt_encoder.default.embedding.weight
    rows = []
    for line in open(a.rows):
        r = json.loads(line)
        x, y = tok.encode(r["input"]).ids, tok.encode(r["target"], add_special_tokens=False).ids + [eos]
        rows.append((x + y, [-100] * len(x) + y))
    opt, losses, times = torch.optim.AdamW([prompt.requires_grad_()], lr=RATE, weight_decay=0), [], []
    for s in range(a.steps):
        b = [rows[(s * a.batch + i) % len(rows)] for i in range(a.batch)]
        n = max(len(x) for x, _ in b)
        pad = lambda xs, v: torch.tensor([x + [v] * (n - len(x)) for x in xs])
        t = time.perf_counter()
        loss = m(input_ids=pad([x for x, _ in b], 0), attention_mask=pad([[1] * len(x) for x, _ in b], 0), labels=pad([y for _, y in b], -100)).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        times.append(time.perf_counter() - t)
        losses.append(loss.item())
    m.save_pretrained(a.adapter + "-trained")
    print(json.dumps(dict(losses=losses, seconds=times, peak=int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) << 10, last=prompt.detach().float().flatten().tolist())))


def ptune(a, work, *flags):
    """Train with ptune on the same rows from the same adapter."""
    from safetensors.torch import load_file
    task = dict(model=a.model, prompt=dict(tokens=TOKENS, init="file", file=a.adapter),
                data=dict(train=a.rows, input="{input}", target="{target}", max_tokens=100000),
                train=dict(steps=a.steps, batch_size=a.batch, learning_rate=RATE, betas=[0.9, 0.999], schedule="constant", warmup=0, clip_norm=0, max_decrease=0, shuffle=False),
                output=dict(prompt=work + "/x.st", dir=work + "/run"))
    with open(work + "/task.yaml", "w") as f:
        json.dump(task, f)  # JSON is YAML
    out = json.loads(subprocess.run([a.ptune, "train", work + "/task.yaml", "--force", "--quiet", "--json", "--threads", "2", *flags], check=True, stdout=subprocess.PIPE).stdout)
    steps = [e for e in map(json.loads, open(work + "/run/events.jsonl")) if e["event"] == "step"]
    return dict(losses=[e["loss"] for e in steps], seconds=[e["seconds"] for e in steps], peak=out["peak_memory_bytes"],
                last=load_file(work + "/x.st")["prompt_embeddings"].flatten().tolist())


def demo_rows(seed, path):
    rows = [json.loads(x) for x in open(os.path.join(HERE, "../internal/demo/data/train.jsonl"))]
    random.Random(seed).shuffle(rows)
    with open(path, "w") as f:
        f.writelines(json.dumps(dict(input=r["text"] + "\nAnswer:", target=" " + r["sentiment"])) + "\n" for r in rows)
    return path


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("--model", default=os.path.join(HERE, "../internal/demo/base"))
    p.add_argument("--rows")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--seed", type=int, default=int(time.time()) % 100000)
    p.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    p.add_argument("--adapter", help=argparse.SUPPRESS)
    p.add_argument("--start", help=argparse.SUPPRESS)
    p.add_argument("--peft", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    a.model = os.path.abspath(a.model)
    if a.peft or a.start:
        return peft(a)
    print("seed", a.seed)
    with tempfile.TemporaryDirectory() as work:
        a.rows = os.path.abspath(a.rows) if a.rows else demo_rows(a.seed, work + "/rows.jsonl")
        a.adapter = work + "/adapter"
        me = [sys.executable, os.path.abspath(__file__), a.ptune, "--model", a.model, "--rows", a.rows, "--steps", str(a.steps), "--batch", str(a.batch), "--seed", str(a.seed)]
        quiet = dict(check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subprocess.run(me + ["--start", a.adapter], **quiet)
        theirs, ours = [], []
        for _ in range(a.rounds):
            theirs.append(json.loads(subprocess.run(me + ["--peft", "--adapter", a.adapter], **quiet).stdout))
            ours.append(ptune(a, work))
        loss = max(abs(x - y) for x, y in zip(ours[0]["losses"], theirs[0]["losses"])) / max(theirs[0]["losses"])
        last = max(abs(x - y) for x, y in zip(ours[0]["last"], theirs[0]["last"])) / max(map(abs, theirs[0]["last"]))
        print(f"the losses of {a.steps} steps differ by at most {loss:.1e} of the largest loss, the final prompts by {last:.1e} of the largest value")
        seconds = lambda runs: [statistics.median(r["seconds"][1:] or r["seconds"]) for r in runs]
        t, o = seconds(theirs), seconds(ours)
        ratios = sorted(x / y for x, y in zip(t, o))
        memory = statistics.median(r["peak"] for r in theirs) / statistics.median(r["peak"] for r in ours)
        print(f"PEFT  {statistics.median(t):.3f} s per step, peak {statistics.median(r['peak'] for r in theirs) / 2**20:.0f} MiB")
        print(f"ptune {statistics.median(o):.3f} s per step, peak {statistics.median(r['peak'] for r in ours) / 2**20:.0f} MiB")
        print(f"ptune is {statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}] times as fast, with 1/{memory:.2f} of the memory ({a.rounds} rounds in turn)")
        if loss > 1e-4 or last > 1e-2:
            sys.exit("the numbers differ by more than the tolerance")


if __name__ == "__main__":
    main()
