"""Compare the memory estimate of `train --dry-run` with the measured peak, for thirty shapes of models and
batches, and write docs/memory.json.

    V/bin/python testdata/memory.py bin/ptune          (needs PyTorch and transformers to make the models)
"""
import itertools, json, os, random, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
exe = os.path.abspath(sys.argv[1])
BASE = os.path.join(HERE, "../internal/demo/base")


def model(out, hidden, layers, vocab=2048):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=vocab, hidden_size=hidden, intermediate_size=hidden * 8 // 3 // 8 * 8, num_hidden_layers=layers, num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64,
                         max_position_embeddings=4096, tie_word_embeddings=True, eos_token_id=0, bos_token_id=0)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(out)
    for name in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(os.path.join(BASE, name), out)


results, r = [], random.Random(0)
words = "the room was small but clean and we liked it very much indeed".split()
with tempfile.TemporaryDirectory() as work:
    for (hidden, layers), (batch, length), recompute in itertools.product([(256, 4), (512, 8), (768, 6)], [(4, 40), (16, 40), (8, 200), (32, 100), (2, 1500)], ["off", "on"]):
        base = os.path.join(work, f"m{hidden}")
        if not os.path.exists(base):
            model(base, hidden, layers)
        with open(os.path.join(work, "rows.jsonl"), "w") as f:
            for _ in range(batch * 3):
                f.write(json.dumps(dict(text=" ".join(r.choice(words) for _ in range(length - r.randrange(length // 4))), label=r.choice(["good", "bad"]))) + "\n")
        task = dict(model=base, prompt=dict(tokens=16, text="good or bad?"), data=dict(train=os.path.join(work, "rows.jsonl"), input="{text}\n", target=" {label}", max_tokens=4000),
                    train=dict(steps=3, batch_size=batch, micro_batch_tokens=1 << 20, recompute=recompute), output=dict(prompt=os.path.join(work, "x.st")))
        path = os.path.join(work, "task.yaml")
        with open(path, "w") as f:
            json.dump(task, f)
        run = lambda *args: json.loads(subprocess.run([exe, "train", path, "--force", "--json", "--quiet", *args], check=True, stdout=subprocess.PIPE, text=True).stdout)
        estimate, peak = run("--dry-run")["memory_bytes"], run()["peak_memory_bytes"]
        results.append(dict(hidden=hidden, layers=layers, batch=batch, length=length, recompute=recompute, estimated_mb=estimate >> 20, measured_mb=peak >> 20, ratio=round(estimate / peak, 3)))
        print(results[-1], flush=True)
ratios = [x["ratio"] for x in results]
print(f"{len(results)} shapes: estimate / measured peak is {min(ratios)} to {max(ratios)}")
with open(os.path.join(HERE, "../docs/memory.json"), "w") as f:
    json.dump(results, f, indent=1)
