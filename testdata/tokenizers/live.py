"""Write golden.json and tokenizers to OUT, for a live comparison: random texts and their ids in transformers.

    V/bin/python testdata/tokenizers/live.py [--texts 2000] [--seed N] OUT [DIR...]

DIR is a directory with tokenizer.json; the default is every folder beside this script. The ids are those of
PreTrainedTokenizerFast, which follows tokenizer.json and the tokens in the files beside it. docs/models.md says where AutoTokenizer does not.
"""
import argparse, glob, json, os, random, shutil

from transformers import PreTrainedTokenizerFast

from make import decoded

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "the soup was cold , and I said: don't you'll we'VE naïve café e\u0301te\u0301 ﬁn ① Ω İstanbul straße 日本語 한국어 עברית हिन्दी 🦙 👩‍👩‍👧 12 345 3.14 1,000 — … “q” <s> </s> <|endoftext|> <|x|> <|y|> <|pad|> room [INST] http://x.y/z?a=b a_b camelCase XML".split()
GAPS = ["", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u200b", "▁", "\u3000"]


def text(r):
    return "".join(r.choice(GAPS) + (r.choice(WORDS) if r.random() < 0.85 else chr(r.choice([r.randrange(33, 127), r.randrange(0xA1, 0x500), r.randrange(0x2000, 0x3000), r.randrange(0x1F300, 0x1F700)])))
                   for _ in range(r.randrange(1, 12))) + r.choice(GAPS)


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("out")
p.add_argument("dirs", nargs="*")
p.add_argument("--texts", type=int, default=2000)
p.add_argument("--seed", type=int, default=1)
a = p.parse_args()
golden = {}
for d in a.dirs or sorted(os.path.dirname(x) for x in glob.glob(HERE + "/*/tokenizer.json")):
    name, r = os.path.basename(os.path.normpath(d)), random.Random(a.seed)
    os.makedirs(os.path.join(a.out, name), exist_ok=True)
    for f in "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json":
        if os.path.exists(os.path.join(d, f)):
            shutil.copyfile(os.path.join(d, f), os.path.join(a.out, name, f))
    fast = PreTrainedTokenizerFast.from_pretrained(os.path.join(a.out, name))
    texts = [text(r) for _ in range(a.texts)]
    ids = [fast(t, add_special_tokens=False).input_ids for t in texts]
    bos = fast("a").input_ids[: len(fast("a").input_ids) - len(fast("a", add_special_tokens=False).input_ids)]
    golden[name] = dict(bos=bos, texts=[dict(text=t, ids=i, decoded=decoded(fast, i)) for t, i in zip(texts, ids)])
with open(os.path.join(a.out, "golden.json"), "w") as f:
    json.dump(golden, f)
