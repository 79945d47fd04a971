"""Check prompts exported to PEFT, imported from PEFT, and written into the vocabulary of a base model.

    V/bin/python testdata/exchange.py bin/ptune [--seed N]

ptune trains a few steps on several base models with the demo's tokenizer: tied and untied heads, scaled
embeddings, biased logits, learned positions. Then, with transformers and PEFT:

- PEFT loads the exported adapter and generates the same greedy ids;
- the adapter that PEFT saves again has the same bytes, and imported into ptune the same values;
- a P_TUNING adapter imported into ptune generates PEFT's greedy ids;
- the base model with the prompt in its vocabulary computes the adapter's logits and greedy ids from text.

Exits with 1 if anything differs.
"""
import argparse, json, os, subprocess, sys, tempfile, warnings

warnings.filterwarnings("ignore")
import torch
import transformers
from peft import PeftModel, PromptEncoderConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "../internal/demo/base")
TEXTS = ["The room was small, but the staff were wonderful.", "We waited for an hour", "3.5 of 10 (at most)"]
N = 40
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def bases(work):
    """Yield (name, model) for base models in F32 that use the demo's tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    sizes = dict(vocab_size=1901, hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=16,
                 max_position_embeddings=256, bos_token_id=None, eos_token_id=0, pad_token_id=None, initializer_range=0.2)
    yield "demo", model
    model.config.tie_word_embeddings = False
    untied = AutoModelForCausalLM.from_config(model.config)
    untied.load_state_dict(model.state_dict())
    untied.lm_head.weight.data += 0.02 * torch.randn_like(untied.lm_head.weight)
    yield "demo, untied", untied
    for kind in "Gemma", "Granite", "Phi", "GPT2", "Bloom", "OPT":
        sizes["vocab_size"] = 1901 if kind in ("Gemma", "GPT2", "Bloom") else 1837  # with or without spare rows for the prompt
        more = dict(Gemma={}, Granite=dict(embedding_multiplier=3.0), Phi={}, GPT2=dict(n_embd=48, n_layer=2, n_head=3), Bloom={}, OPT=dict(ffn_dim=56))[kind]
        yield kind.lower(), AutoModelForCausalLM.from_config(getattr(transformers, kind + "Config")(**sizes | more))


def greedy(model, ids):
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=N, do_sample=False, eos_token_id=None, pad_token_id=0)[0, ids.shape[1]:].tolist()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptune")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    exe, wrong = os.path.abspath(a.ptune), []

    def check(what, ok):
        if not ok:
            wrong.append(what)
            print("DIFFERS:", what)

    def run(*args):
        done = subprocess.run([exe, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"ptune {' '.join(args)}: {done.stderr}")
        return done.stdout

    def continued(prompt, base):
        """ptune's greedy ids. ptune stops at the end token, so there may be fewer than N."""
        return [json.loads(x)["ids"] for x in run("generate", "--prompt", prompt, "--model", base, "--json", "--max-tokens", str(N), *TEXTS).splitlines()]

    def same(ours, theirs):
        return all(x == y[: len(x)] and (len(x) == N or y[len(x)] == 0) for x, y in zip(ours, theirs))

    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for i, (name, model) in enumerate(bases(work)):
            base, st, adapter, served = (os.path.join(work, f"{i}-{x}") for x in ("base", "x.st", "adapter", "served"))
            model.float().save_pretrained(base)
            AutoTokenizer.from_pretrained(DEMO).save_pretrained(base)
            with open("task.yaml", "w") as f:
                json.dump(dict(model=base, prompt=dict(tokens=7, init="vocab"), data=dict(train=os.path.join(HERE, "../internal/demo/data/train.jsonl"), input="{text}", target=" {sentiment}"),
                               train=dict(steps=5, seed=a.seed), output=dict(prompt=st, dir=os.path.join(work, f"{i}-run"))), f)
            run("train", "--config", "task.yaml", "--quiet")
            run("export", st, "--peft", adapter)
            run("export", st, "--vocab-rows", served)
            read = lambda d: open(os.path.join(d, "adapter_model.safetensors"), "rb").read()
            ours = continued(st, base)

            fresh = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
            tok = AutoTokenizer.from_pretrained(base)
            ids = [tok(t, return_tensors="pt").input_ids for t in TEXTS]
            peft = PeftModel.from_pretrained(fresh(), adapter).eval()
            check(f"{name}: greedy ids behind the exported adapter", same(ours, [greedy(peft, x) for x in ids]))
            peft.save_pretrained(adapter + "-again")
            check(f"{name}: bytes that PEFT saves again", read(adapter) == read(adapter + "-again"))
            keys = lambda d: sorted(json.load(open(os.path.join(d, "adapter_config.json"))))
            check(f"{name}: keys of adapter_config.json", keys(adapter) == keys(adapter + "-again") and len(keys(adapter)) == 17)
            run("import", adapter + "-again", "-o", st + ".back")
            check(f"{name}: values imported again", torch.equal(load_file(st)["prompt_embeddings"], load_file(st + ".back")["prompt_embeddings"]))

            text = open(os.path.join(served, "prompt.txt")).read()
            tok2, model2 = AutoTokenizer.from_pretrained(served), AutoModelForCausalLM.from_pretrained(served, dtype=torch.float32).eval()
            ids2 = [tok2(text + t, add_special_tokens=False, return_tensors="pt").input_ids for t in TEXTS]
            real = min(model.config.vocab_size, ids2[0][0, 0].item())  # ids of the base model; a tied head also has logits for the prompt's ids
            with torch.no_grad():
                gap = max((peft(input_ids=x).logits[0, 7:, :real] - model2(input_ids=y).logits[0, 7:, :real]).abs().max().item() for x, y in zip(ids, ids2))
            check(f"{name}: ids of the text to serve", all(y[0, 7:].tolist() == x[0].tolist() for x, y in zip(ids, ids2)))
            check(f"{name}: logits of the served base differ by {gap:.1e}", gap < 1e-4)
            theirs = [greedy(model2, x) for x in ids2]
            known = [next((j for j, i in enumerate(x) if i >= real), N) for x in ours]  # a model with random weights may generate a spare id, which now belongs to the prompt
            check(f"{name}: greedy ids of the served base", all(x[:k] == y[:k] if k < N else same([x], [y]) for x, y, k in zip(ours, theirs, known)) and any(known))

            tuned = get_peft_model(fresh(), PromptEncoderConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=7, encoder_hidden_size=16))
            tuned.eval().save_pretrained(adapter + "-ptuning")
            run("import", adapter + "-ptuning", "-o", st + ".ptuning")
            check(f"{name}: greedy ids behind a P_TUNING adapter", same(continued(st + ".ptuning", base), [greedy(tuned, x) for x in ids]))
            print(f"{name}: adapter, vocabulary (logits within {gap:.1e}) and P_TUNING checked")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
