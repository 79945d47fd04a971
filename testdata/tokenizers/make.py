"""Make the tokenizers of this folder with Hugging Face's tokenizers, and golden.json: the ids they give texts.

    V/bin/python testdata/tokenizers/make.py        (tokenizers as transformers==5.23.0 installs it)
"""
import json, os

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
TRAIN = ["the soup was cold and the waiters were rude", "she said that the soup was the best she had", "what a view from the room"] * 20
TEXTS = ["the soup was best", " the soup", "Héllo 🦙 2024\n\ttabs  and  spaces ", "<s> the </s>", "naïve café — “quotes”", "a", "日本語", "\u00a0x\u200by"]


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.enable_truncation(4)  # a file may ask for it; ptune must not cut
    t.enable_padding(length=12)
    return t


def sentencepiece():
    """BPE over ▁-marked words with byte fallback and a BOS template, as Llama 2's."""
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


def main():
    golden = {}
    for name, t, config in [("byte-level", byte_level(), None), ("byte-level-bos", byte_level(), dict(add_bos_token=True, bos_token="<s>")),
                            ("sentencepiece", sentencepiece(), None), ("sentencepiece-no-bos", sentencepiece(), dict(add_bos_token=False, bos_token=dict(content="<s>")))]:
        out = os.path.join(HERE, name)
        os.makedirs(out, exist_ok=True)
        t.save(os.path.join(out, "tokenizer.json"), pretty=False)
        if config:
            with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
                json.dump(config, f)
        t.no_truncation()
        t.no_padding()
        bos = name in ("byte-level-bos", "sentencepiece")
        golden[name] = dict(bos=[t.token_to_id("<s>")] if bos else [], texts=[
            dict(text=x, ids=t.encode(x, add_special_tokens=False).ids, decoded=t.decode(t.encode(x, add_special_tokens=False).ids)) for x in TEXTS])
    with open(os.path.join(HERE, "golden.json"), "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


main()
