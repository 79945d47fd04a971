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


def main():
    golden, decoded = {}, {}
    for name, t, config in [("byte-level", byte_level(), None), ("byte-level-bos", byte_level(), dict(add_bos_token=True, bos_token="<s>")),
                            ("sentencepiece", sentencepiece(), None), ("sentencepiece-no-bos", sentencepiece(), dict(add_bos_token=False, bos_token=dict(content="<s>"))),
                            ("byte-level-nfc", nfc(), None), ("byte-level-added", added(), None), ("unigram", unigram(), None),
                            ("metaspace-first", metaspace("first"), None), ("metaspace-never", metaspace("never"), None)]:
        out = os.path.join(HERE, name)
        os.makedirs(out, exist_ok=True)
        t.save(os.path.join(out, "tokenizer.json"), pretty=False)
        if config:
            with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
                json.dump(config, f)
        t.no_truncation()
        t.no_padding()
        fast = PreTrainedTokenizerFast(tokenizer_object=t)
        ids = lambda x: fast(x, add_special_tokens=False).input_ids
        bos = name in ("byte-level-bos", "sentencepiece", "byte-level-added", "metaspace-first", "metaspace-never")
        decoded[name] = [dict(ids=x, text=t.decode(x)) for x in random_ids(t)]
        golden[name] = dict(bos=[t.token_to_id("<s>")] if bos else [], texts=[dict(text=x, ids=ids(x), decoded=t.decode(ids(x))) for x in TEXTS])
    with open(os.path.join(HERE, "golden.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")
    with open(os.path.join(HERE, "decoded.json"), "w") as f:
        json.dump(decoded, f)
        f.write("\n")


main()
