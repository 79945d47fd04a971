"""Make the tokenizers of this folder, and golden.json: texts and their ids in transformers.

    V/bin/python testdata/tokenizers/make.py        (transformers==5.23.0 and the tokenizers it installs)
"""
import json, os, random

from transformers import PreTrainedTokenizerFast
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
TRAIN = ["the soup was cold and the waiters were rude", "she said that the soup was the best she had", "what a view from the room"] * 20
TEXTS = ["the soup was best", " the soup", "Héllo 🦙 2024\n\ttabs  and  spaces ", "<s> the </s>", "naïve café — “quotes”", "a", "日本語", "\u00a0x\u200by", "e\u0301te\u0301 ﬁn ①", "the  soup   was    cold", "don't 12345 it's",
         "room<|mask|> the <|endoftext|>soup", "\r\n the\r\n", "…", "🦙🦙", "ÀÉ İ ß"]
TEXTS += ["".join(r.choice(["the", " soup", " ", "  ", "\n", "x", "é", "e\u0301", "日", "🦙", "<s>", "1", "23", ".", "'s", "\t", "▁", "Ω", "ﬁ", "-"]) for _ in range(r.randrange(1, 14)))
          for r in [random.Random(i) for i in range(40)]]


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.enable_truncation(4)  # a file may ask for truncation; ptune must ignore it
    t.enable_padding(length=12)
    return t


def sentencepiece():
    """As in Llama 2: BPE on words marked with ▁, with byte fallback and a BOS template."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=340, special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)], show_progress=False))
    j = json.loads(t.to_str())
    for a in j["added_tokens"][3:]:
        a["special"] = False
    j["added_tokens"] = j["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(j))
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def nfc():
    """As in Qwen 2: byte-level BPE after NFC and a splitting pattern."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


def added():
    """Byte-level BPE with added tokens, some of them runs of spaces, as in Pythia, and BOS after a
    byte-level post-processor, as in Llama 3."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)] + [AddedToken("Ω", single_word=True)])
    t.add_special_tokens([AddedToken("<|mask|>", lstrip=True, rstrip=True)])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])])
    return t


def unigram():
    """As in XLM-R and T5: Unigram on words marked with ▁, after NFKC."""
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    t.train_from_iterator(TRAIN, trainers.UnigramTrainer(vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    return t


def metaspace(scheme):
    """BPE with byte fallback. Scheme first marks the first word of a text; never, as in Gemma, only spaces."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if scheme == "never":
        t.normalizer = normalizers.Replace(" ", "▁")
        t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=340, special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)], show_progress=False))
    j = json.loads(t.to_str())
    j["added_tokens"] = j["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(j))
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + strip)
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def random_ids(t):
    """Sequences that a model might write but no text is encoded as: incomplete characters, NUL bytes."""
    r, vocab = random.Random(1), t.get_vocab()
    byte = [i for p, i in vocab.items() if p.startswith("<0x") or len(p) == 1]
    nul = [vocab[p] for p in ("<0x00>", "\u0100") if p in vocab]
    some = lambda: r.choice(nul if nul and r.random() < 0.1 else byte if r.random() < 0.7 else list(vocab.values()))
    return [[some() for _ in range(r.randrange(1, 9))] for _ in range(120)]


def whole(j):
    """The tokens of a tokenizer.json as added_tokens_decoder writes them."""
    return {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in j["added_tokens"]}


def beside():
    """Tokenizers whose special tokens are in other files than tokenizer.json."""
    named = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    j = json.loads(sentencepiece().to_str())
    new = lambda text, **k: dict(dict(content=text, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True), **k)
    decoder, bare = whole(j), dict(j, added_tokens=[])
    yield "added-in-config", bare, {"tokenizer_config.json": dict(named, added_tokens_decoder=decoder)}
    yield "added-in-map", bare, {"tokenizer_config.json": dict(unk_token="<unk>"), "special_tokens_map.json": dict(bos_token="<s>", eos_token=dict(content="</s>", lstrip=True, normalized=False, rstrip=False, single_word=False), additional_special_tokens=["the", "<|x|>"])}
    yield "added-in-both", j, {"tokenizer_config.json": dict(named, pad_token="<|pad|>", image_token="soup", additional_special_tokens=["room"], added_tokens_decoder={**decoder, "1": new("<s>", lstrip=True, rstrip=True), "500": new("Ω", normalized=True, special=False, single_word=True)}),
                               "special_tokens_map.json": dict(bos_token="not read")}
    yield "added-older", j, {"added_tokens.json": {"<|y|>": 341, "soup": 340, "</s>": 2}, "tokenizer_config.json": dict(named, extra_special_tokens={"y_token": "<|y|>"})}


def main():
    golden, sequences = {}, {}
    for name, t, config in [("byte-level", byte_level(), None), ("byte-level-bos", byte_level(), dict(add_bos_token=True, bos_token="<s>")),
                            ("sentencepiece", sentencepiece(), None), ("sentencepiece-no-bos", sentencepiece(), dict(add_bos_token=False, bos_token="<s>")),
                            ("byte-level-nfc", nfc(), None), ("byte-level-added", added(), None), ("unigram", unigram(), None),
                            ("metaspace-first", metaspace("first"), None), ("metaspace-never", metaspace("never"), None)]:
        golden[name] = write(name, json.loads(t.to_str()), {"tokenizer_config.json": config} if config else {})
        sequences[name] = [dict(ids=x, text=t.decode(x)) for x in random_ids(t)]
    for name, j, files in beside():
        golden[name] = write(name, j, files)
    with open(os.path.join(HERE, "golden.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")
    with open(os.path.join(HERE, "decoded.json"), "w") as f:
        json.dump(sequences, f)
        f.write("\n")


def write(name, tokenizer, files):
    """Write a directory and return the ids that transformers gives texts."""
    out = os.path.join(HERE, name)
    os.makedirs(out, exist_ok=True)
    for file, value in {**files, "tokenizer.json": tokenizer}.items():
        with open(os.path.join(out, file), "w") as f:
            json.dump(value, f, ensure_ascii=False, separators=(",", ":") if file == "tokenizer.json" else None)
    fast = PreTrainedTokenizerFast.from_pretrained(out)
    ids = lambda x: fast(x, add_special_tokens=False).input_ids
    bos = fast("a").input_ids[: len(fast("a").input_ids) - len(ids("a"))]
    return dict(bos=bos, texts=[dict(text=x, ids=ids(x), decoded=decoded(fast, ids(x))) for x in TEXTS])


def decoded(fast, ids):
    """The text of ids; None if they have an added token that is normalised with a space before it: tokenizers 0.23 decodes that space, 0.20 in ptune does not."""
    spaced = "Prepend" in str(fast._tokenizer.normalizer) and any(fast.added_tokens_decoder[i].normalized for i in ids if i in fast.added_tokens_decoder)
    return None if spaced else fast.decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    main()
