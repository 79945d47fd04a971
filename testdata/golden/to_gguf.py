"""Converts golden models to GGUF with llama.cpp's own converter, for the tests of package gguf.

    python testdata/golden/to_gguf.py LLAMA_CPP NAME...

LLAMA_CPP is a folder of llama.cpp with convert_hf_to_gguf.py; its source is also in PyPI's
llama-cpp-python 0.3.36. The values stay those of model.safetensors (F32), so the values in golden.json and
golden.safetensors hold for the GGUF file, too. The goldens have no tokenizer: tokens are t0, t1, ….
"""

import pathlib
import sys

llama_cpp, names = sys.argv[1], sys.argv[2:]
sys.path[:0] = [llama_cpp, llama_cpp + "/gguf-py"]
import gguf  # noqa: E402
import torch  # noqa: E402
from conversion import get_model_class  # noqa: E402
from conversion.base import ModelBase, ModelType, get_model_architecture  # noqa: E402


def set_vocab(self):
    n = self.hparams["vocab_size"]
    w = self.gguf_writer
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([f"t{i}" for i in range(n)])
    w.add_token_types([gguf.TokenType.NORMAL] * n)
    w.add_token_merges(["t 1"])
    w.add_eos_token_id(self.hparams["eos_token_id"])


here = pathlib.Path(__file__).parent
for name in names:
    source = here / name
    hparams = ModelBase.load_hparams(source, False)
    model = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    model.set_vocab = set_vocab
    if name.startswith("gemma3"):  # the converter cuts the embedding to the tokenizer, which is not there
        base = model.__mro__[1]

        def modify_tensors(self, data, name, bid, base=base):
            return base.modify_tensors(self, data + self.norm_shift(name), name, bid)

        model.modify_tensors = modify_tensors
    with torch.inference_mode():
        try:
            out = model(source, gguf.LlamaFileType.ALL_F32, source / "model.gguf")
            out.write()
        except Exception as e:  # the converter does not take every golden
            print(name, "failed:", repr(e)[:300])
            (source / "model.gguf").unlink(missing_ok=True)
