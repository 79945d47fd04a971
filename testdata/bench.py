"""Measure ptune and PEFT in turn, for the tables of docs/performance.md.

    python testdata/bench.py bin/ptune [CASE...] [--rounds 5] [--results docs/performance.json]

Each case runs PEFT and then ptune, --rounds times, each run in a process of its own with two threads.
The result is the median, and the median and range of the ratios of all rounds. It replaces the result
of this case and machine in --results. Models have the real shapes and random weights, and are made
once, in .bench/. Tokenizers and SST-2 are read from the folder PTUNE_SHARED (default ../shared).
"""
import argparse, datetime, json, os, platform, shutil, statistics, subprocess, sys, time
import peer

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(HERE, "../.bench")
SHARED = os.environ.get("PTUNE_SHARED", os.path.join(HERE, "../../shared"))
INSTRUCTION = ("You are a careful critic of films. Read the review below and decide whether the person who wrote it liked the film or "
               "not. Answer with one word and nothing else, in lower case letters, please.\n\n")
PEER = dict(check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def shape(name):
    from transformers import GPT2Config, LlamaConfig
    llama = lambda d, i, n, q, kv, theta: LlamaConfig(vocab_size=49152, hidden_size=d, intermediate_size=i, num_hidden_layers=n, num_attention_heads=q,
        num_key_value_heads=kv, max_position_embeddings=8192, tie_word_embeddings=True, rms_norm_eps=1e-5, rope_theta=theta, bos_token_id=1, eos_token_id=2)
    return {"smollm2-135m": lambda: llama(576, 1536, 30, 9, 3, 1e5), "smollm2-1.7b": lambda: llama(2048, 8192, 24, 32, 32, 1.3e5), "gpt2": GPT2Config}[name]()


def model(name, dtype):
    """Return a model directory with a real shape and random weights."""
    path = os.path.join(WORK, name + "-" + dtype)
    if not os.path.exists(path + "/tokenizer.json"):
        import torch
        from transformers import AutoModelForCausalLM
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(shape(name), dtype=getattr(torch, dtype)).save_pretrained(path)
        shutil.copy(os.path.join(SHARED, "tokenizers", "gpt2" if name == "gpt2" else "smollm2", "tokenizer.json"), path)
    return path


def tokens(path, text):
    from tokenizers import Tokenizer
    return len(Tokenizer.from_file(path + "/tokenizer.json").encode(text, add_special_tokens=False).ids)


def rows(kind, path):
    """Write a file of rows and return its path. Kinds: train (phrases of SST-2), dev (sentences),
    instruction (phrases after an instruction), "of N" (texts of N tokens)."""
    lines = [x.rstrip("\n").split("\t") for x in open(os.path.join(SHARED, "data/sst2", "dev.tsv" if kind == "dev" else "train_full.tsv"))][1:400]
    out = [("Review: %s\nSentiment:" % s.strip(), " " + ("negative", "positive")[int(y)]) for s, y in lines]
    if kind == "instruction":
        out = [(INSTRUCTION + x, y) for x, y in out]
    if kind.startswith("of "):  # N tokens with the target and EOS
        want, out, words = int(kind[3:]), [], " ".join(s for s, _ in lines).split() * 40
        from tokenizers import Tokenizer
        count = lambda x: len(tok.encode(x, add_special_tokens=False).ids)
        tok, at = Tokenizer.from_file(path + "/tokenizer.json"), 0
        while len(out) < (8 if want < 1000 else 1):
            text, step = words[at], 64
            at += 1
            while count(text) < want - 2:
                add = " ".join(words[at:at + max(1, min(step, (want - 2 - count(text)) // 3))])
                text, at = text + " " + add, at + len(add.split())
            if count(text) == want - 2:
                out.append((text, " good"))
    file = os.path.join(WORK, kind.replace(" ", "-") + ".jsonl")
    with open(file, "w") as f:
        f.writelines(json.dumps(dict(input=x, target=y)) + "\n" for x, y in out)
    return file


def training(name, dtype, kind, batch=16, steps=6, rounds=None, compute="f32", with_peer=True, recompute="auto", part=4096):
    """A case that measures seconds per step, peak memory and seconds of the whole process."""
    def case(a):
        path = model(name, dtype)
        x = argparse.Namespace(ptune=a.ptune, model=path, rows=rows(kind, path), steps=steps, batch=batch, adapter=os.path.join(WORK, "adapter-" + name))
        me = [sys.executable, os.path.join(HERE, "peer.py"), a.ptune, "--model", x.model, "--rows", x.rows, "--steps", str(steps), "--batch", str(batch), "--dtype", dtype]
        if not os.path.exists(x.adapter):
            subprocess.run(me + ["--start", x.adapter], **PEER)
        for _ in range(rounds or a.rounds):
            pair = []
            if with_peer:
                t = time.perf_counter()
                r = json.loads(subprocess.run(me + ["--peft", "--adapter", x.adapter], **PEER).stdout)
                pair.append(dict(step=statistics.median(r["seconds"][1:]), memory=r["peak"], process=time.perf_counter() - t))
            t = time.perf_counter()
            r = peer.ptune(x, WORK, "--compute", compute, "--set", "train.recompute=" + recompute, "--set", "train.micro_batch_tokens=%d" % part)
            pair.append(dict(step=statistics.median(r["seconds"][1:]), memory=r["peak"], process=time.perf_counter() - t))
            yield pair
    return case


def generating(dtype, batch, n, compute="f32", guess="false"):
    """A case that measures tokens per second (from the times of n+1 tokens and of one) and seconds of
    the whole process for one token."""
    def case(a):
        path = model("smollm2-135m", dtype)
        texts = ["Review: a fine film , number %d\nSentiment:" % i for i in range(batch)]
        x = argparse.Namespace(ptune=a.ptune, model=path, rows=rows("train", path), steps=1, batch=2, adapter=os.path.join(WORK, "adapter-smollm2-135m"))
        if not os.path.exists(x.adapter):
            subprocess.run([sys.executable, os.path.join(HERE, "peer.py"), a.ptune, "--model", path, "--rows", x.rows, "--start", x.adapter], **PEER)
        peer.ptune(x, WORK, "--set", "train.learning_rate=1e-12")  # write the adapter's prompt as a prompt file: a trained prompt may end its texts early
        def ours(n):
            t = time.perf_counter()
            out = subprocess.run([a.ptune, "generate", "--prompt", WORK + "/x.st", "--model", path, "--max-tokens", str(n), "--threads", "2", "--json", "--compute", compute, "--guess=" + guess] + texts, **PEER).stdout
            if any(len(json.loads(line)["ids"]) < n for line in out.splitlines()):
                sys.exit("a text ended early")
            return time.perf_counter() - t
        for _ in range(a.rounds):
            t = time.perf_counter()
            one, many = json.loads(subprocess.run([sys.executable, __file__, a.ptune, "--generate", json.dumps([path, x.adapter, dtype, texts, n])], **PEER).stdout)
            theirs = dict(process=time.perf_counter() - t - many, rate=batch * n / (many - one))
            first = ours(1)
            yield [theirs, dict(process=first, rate=batch * n / (ours(n + 1) - first))]
    return case


def peer_generates(path, adapter, dtype, texts, n):
    import torch
    from peft import PeftModel
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(2)
    m = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)), adapter)
    ids = [x.ids for x in Tokenizer.from_file(path + "/tokenizer.json").encode_batch(texts)]
    ids = torch.tensor([x[:min(map(len, ids))] for x in ids])
    def timed(n):
        t = time.perf_counter()
        m.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
        return time.perf_counter() - t
    print(json.dumps([timed(1), timed(n + 1)]))


CASES = {
    "phrases": ("SmolLM2-135M, f32, SST-2 phrases, 16 per batch", training("smollm2-135m", "float32", "train")),
    "sentences": ("the same with sentences of SST-2 dev", training("smollm2-135m", "float32", "dev")),
    "bf16": ("SmolLM2-135M in BF16, phrases, `--compute bf16`, PEFT in bf16", training("smollm2-135m", "bfloat16", "train", compute="bf16")),
    "bf16-f32": ("SmolLM2-135M in BF16, phrases, f32 arithmetic, PEFT in bf16", training("smollm2-135m", "bfloat16", "train")),
    "recompute": ("SmolLM2-135M, f32, phrases, `train.recompute: on`", training("smollm2-135m", "float32", "train", recompute="on")),
    "kept": ("SmolLM2-135M, f32, phrases, `train.recompute: off`", training("smollm2-135m", "float32", "train", recompute="off")),
    "64": ("SmolLM2-135M, f32, 8 rows of exactly 64 tokens", training("smollm2-135m", "float32", "of 64", batch=8)),
    "64-recompute": ("the same with `train.recompute: on`", training("smollm2-135m", "float32", "of 64", batch=8, recompute="on")),
    "64-parts": ("the same in four micro-batches, `train.micro_batch_tokens: 128`", training("smollm2-135m", "float32", "of 64", batch=8, part=128)),
    "instruction": ("SmolLM2-135M, f32, phrases after an instruction of 40 tokens", training("smollm2-135m", "float32", "instruction")),
    "gpt2": ("gpt2, f32, phrases, 16 per batch", training("gpt2", "float32", "train")),
    "process": ("SmolLM2-135M, f32, phrases: load, 10 steps, save", training("smollm2-135m", "float32", "train", steps=10)),
    "1.7b": ("SmolLM2-1.7B in BF16, 8 rows of 64 tokens, f32 arithmetic, PEFT in bf16", training("smollm2-1.7b", "bfloat16", "of 64", batch=8, steps=3, rounds=2)),
    "1.7b-bf16": ("the same with `--compute bf16`", training("smollm2-1.7b", "bfloat16", "of 64", batch=8, steps=3, rounds=2, compute="bf16")),
    "row-1024": ("SmolLM2-135M, f32, one row of 1,024 tokens", training("smollm2-135m", "float32", "of 1024", batch=1, steps=2, rounds=1, with_peer=False)),
    "row-2048": ("one row of 2,048 tokens", training("smollm2-135m", "float32", "of 2048", batch=1, steps=2, rounds=1, with_peer=False)),
    "row-4096": ("one row of 4,096 tokens", training("smollm2-135m", "float32", "of 4096", batch=1, steps=2, rounds=1, with_peer=False)),
    "generate": ("generation, batch 1, f32", generating("float32", 1, 60)),
    "generate-guess": ("generation, batch 1, f32, speculative, a text that repeats itself", generating("float32", 1, 60, guess="true")),
    "generate-bf16": ("generation, batch 1, BF16 file", generating("bfloat16", 1, 60)),
    "generate-bf16-guess": ("generation, batch 1, BF16 file, speculative, a text that repeats itself", generating("bfloat16", 1, 60, guess="true")),
    "generate-16": ("generation, batch 16, f32", generating("float32", 16, 60)),
    "generate-16-bf16": ("generation, batch 16, BF16 file, `--compute bf16`", generating("bfloat16", 16, 60, compute="bf16")),
}
BETTER_IF_MORE = {"rate"}


def machine():
    """The name of this machine in the results."""
    cpu = [x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")]
    flags = next(x for x in open("/proc/cpuinfo") if x.startswith("flags")).split()
    return "%d × %s (%s)" % (len(cpu), cpu[0], ", ".join(x for x in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if x in flags))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("cases", nargs="*", help=", ".join(CASES))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--results", default=os.path.join(HERE, "../docs/performance.json"))
    p.add_argument("--generate", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.generate:
        return peer_generates(*json.loads(a.generate))
    a.ptune = os.path.abspath(a.ptune)
    if not os.path.exists(os.path.join(SHARED, "data/sst2")):
        sys.exit("bench: %s has no data/sst2 and tokenizers: set PTUNE_SHARED to their folder" % SHARED)
    unknown = set(a.cases) - set(CASES)
    if unknown:
        sys.exit("bench: unknown case %s; the cases are %s" % (", ".join(unknown), ", ".join(CASES)))
    os.makedirs(WORK, exist_ok=True)
    results = json.load(open(a.results)) if os.path.exists(a.results) else {}
    here = results.setdefault(machine(), {}).setdefault("cases", {})
    for name in a.cases or CASES:
        title, case = CASES[name]
        got = list(case(a))
        ours, r = [x[-1] for x in got], dict(title=title, rounds=len(got))
        for what in ours[0]:
            r[what] = dict(ptune=statistics.median(x[what] for x in ours))
            if len(got[0]) == 2:
                ratios = sorted(o[what] / t[what] if what in BETTER_IF_MORE else t[what] / o[what] for t, o in got)
                r[what].update(peer=statistics.median(t[what] for t, _ in got), ratio=[statistics.median(ratios), ratios[0], ratios[-1]])
        import torch, transformers, peft
        r["versions"] = "ptune %s, torch %s, transformers %s, peft %s, Linux %s" % (subprocess.run(["git", "-C", HERE, "describe", "--always"], **PEER).stdout.decode().strip(),
            torch.__version__.split("+")[0], transformers.__version__, peft.__version__, platform.release().split("-")[0])
        r["date"] = datetime.date.today().isoformat()
        here[name] = r
        print(name, json.dumps({k: v for k, v in r.items() if isinstance(v, dict)}), flush=True)
        with open(a.results, "w") as f:
            json.dump(results, f, indent=1, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
