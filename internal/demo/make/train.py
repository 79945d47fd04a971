"""Train the demo base on the text of corpus.py and write it as a Hugging Face model directory (BF16).

    python -m venv V && V/bin/pip install torch==2.15.0 transformers==5.23.0
    V/bin/python internal/demo/make/train.py internal/demo/base

About half an hour on two cores. Prints the perplexity on held-out text beside a unigram's and a trigram's, and the share of
held-out requests answered rightly; both are kept in base/about.json.
"""
import argparse, json, math, os, time
from collections import Counter

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import corpus

END = "<|end|>"
LENGTH = 160


def train_tokenizer(texts, size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def pack(writer, tok, end, rows):
    """Rows of LENGTH+1 ids; each begins with a document and is filled with whole ones, the last cut."""
    out = []
    for _ in range(rows):
        ids = []
        while len(ids) <= LENGTH:
            ids += tok.encode(writer.document()).ids + [end]
        out.append(ids[:LENGTH + 1])
    return torch.tensor(out)


def ngram_perplexities(train, held):
    """Unigram with add-one, and a trigram interpolated with bigram and unigram (weights fitted on half of held)."""
    uni, bi, tri = Counter(), Counter(), Counter()
    for row in train.tolist():
        uni.update(row)
        bi.update(zip(row, row[1:]))
        tri.update(zip(row, row[1:], row[2:]))
    left, n, v = Counter(), sum(uni.values()), 2048
    for (a, b, _), c in tri.items():
        left[a, b] += c
    p1 = lambda c: (uni[c] + 1) / (n + v)
    p2 = lambda b, c: bi[b, c] / uni[b] if uni[b] else 0.0
    p3 = lambda a, b, c: tri[a, b, c] / left[a, b] if left[a, b] else 0.0
    rows = held.tolist()
    points = lambda rs: [(p3(*r[i - 2:i + 1]), p2(*r[i - 1:i + 1]), p1(r[i])) for r in rs for i in range(2, len(r))]
    fit, test = points(rows[::2]), points(rows[1::2])
    w = [1 / 3] * 3
    for _ in range(30):  # expectation maximisation of the three weights
        s = [0.0] * 3
        for p in fit:
            z = sum(a * b for a, b in zip(w, p))
            for i in range(3):
                s[i] += w[i] * p[i] / z
        w = [x / len(fit) for x in s]
    mean = lambda f: math.exp(-sum(math.log(f(p)) for p in test) / len(test))
    return mean(lambda p: p[2]), mean(lambda p: sum(a * b for a, b in zip(w, p)))


@torch.no_grad()
def model_perplexity(model, held):
    loss = [model(input_ids=b[:, :-1]).logits.float().log_softmax(-1).gather(-1, b[:, 1:, None])[:, 1:] for b in held.split(16)]
    return math.exp(-torch.cat(loss).mean())


@torch.no_grad()
def answers_right(model, tok, rows, bare):
    """The share of requests (or of bare texts) whose true answer is likelier than the false one."""
    w, right, n = corpus.Writer(7), 0, 0
    opinions = [tok.encode(" positive").ids[0], tok.encode(" negative").ids[0]]
    while n < rows:
        text, about = w.text()
        if "opinion" not in about:
            continue
        ask = "" if bare else "What is the opinion of the writer?\n"
        ids = tok.encode(f"{ask}{text}\n{corpus.ANSWER}").ids
        z = model(input_ids=torch.tensor([ids])).logits[0, -1, opinions]
        right += (z.argmax().item() == 0) == (about["opinion"] == "positive")
        n += 1
    return right / n


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=1600)
    p.add_argument("--batch", type=int, default=40)
    p.add_argument("--rate", type=float, default=3e-3)
    a = p.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    writer = corpus.Writer(1)
    tok = train_tokenizer((writer.document() for _ in range(30000)), 2048)
    end = tok.token_to_id(END)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=2048, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, rope_theta=10000.0, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=end, pad_token_id=None))
    print(sum(x.numel() for x in model.parameters()), "parameters", flush=True)
    opt = torch.optim.AdamW(model.parameters(), lr=a.rate, betas=(0.9, 0.98), weight_decay=0.05)
    warm = 60
    rate = lambda s: min(1, (s + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * s / a.steps)))
    t0, mean = time.time(), 0.0
    for s in range(a.steps):
        rows = pack(writer, tok, end, a.batch)
        for g in opt.param_groups:
            g["lr"] = a.rate * rate(s)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        mean = loss.item() if s == 0 else 0.95 * mean + 0.05 * loss.item()
        if s % 50 == 0 or s == a.steps - 1:
            print(f"step {s} loss {mean:.4f} {time.time() - t0:.0f} s", flush=True)
    model = model.to(torch.bfloat16)
    model.save_pretrained(a.out)
    tok.save(os.path.join(a.out, "tokenizer.json"))
    with open(os.path.join(a.out, "tokenizer_config.json"), "w") as f:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", eos_token=END, add_bos_token=False, model_max_length=512), f, indent=2)
        f.write("\n")
    model = model.float().eval()
    held = pack(corpus.Writer(2), tok, end, 400)
    uni, tri = ngram_perplexities(pack(corpus.Writer(3), tok, end, 20000), held)
    about = dict(
        parameters=sum(x.numel() for x in model.parameters()), steps=a.steps, tokens_seen=a.steps * a.batch * LENGTH,
        perplexity=round(model_perplexity(model, held[1::2]), 3), trigram_perplexity=round(tri, 3), unigram_perplexity=round(uni, 3),
        opinion_asked_accuracy=answers_right(model, tok, 400, False), opinion_unasked_accuracy=answers_right(model, tok, 400, True))
    with open(os.path.join(a.out, "about.json"), "w") as f:
        json.dump(about, f, indent=2)
        f.write("\n")
    print(json.dumps(about))


main()
