"""Make the goldens of this folder with transformers and PEFT: tiny random models, and what they compute.

    V/bin/python testdata/golden/make.py        (torch==2.15.0 transformers==5.23.0 peft==0.21.2)

Each folder is a model directory with golden.json (rows of different lengths, the greedy continuation) and
golden.safetensors: the prompt, the logits that predict each target, the gradient of the mean loss, and the losses and the
last prompt of ten AdamW steps (torch's; learning rate 0.05, no weight decay). Batches are right-padded: PEFT's left-padded ones are
wrong for rotary models. BF16 and F16 files are computed in float32, as ptune does.
"""
import json, os, random, shutil, sys

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA = dict(vocab_size=99, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=6, max_position_embeddings=64,
             bos_token_id=1, eos_token_id=2, initializer_range=0.2)
GPT2 = dict(vocab_size=99, n_embd=40, n_layer=3, n_head=5, n_positions=64, bos_token_id=1, eos_token_id=2, initializer_range=0.2)
MODELS = {
    "llama-gqa-tied-f32": (LlamaConfig(**LLAMA, num_key_value_heads=2, tie_word_embeddings=True), torch.float32, None),
    "llama-mha-untied-bf16": (LlamaConfig(**LLAMA, num_key_value_heads=6, tie_word_embeddings=False, rope_theta=500.0, head_dim=10), torch.bfloat16, None),
    "llama-gqa-untied-sharded-f16": (LlamaConfig(**LLAMA, num_key_value_heads=3, tie_word_embeddings=False, attention_bias=True, mlp_bias=True), torch.float16, "30KB"),
    "llama-one-layer-f32": (LlamaConfig(**LLAMA | dict(num_hidden_layers=1), num_key_value_heads=1, tie_word_embeddings=True), torch.float32, None),
    "gpt2-f32": (GPT2Config(**GPT2), torch.float32, None),
    "gpt2-bf16": (GPT2Config(**GPT2 | dict(n_inner=72), scale_attn_by_inverse_layer_idx=True), torch.bfloat16, None),
}
P, BATCHES, STEPS, RATE = 5, 2, 10, 0.05


def rows(r):
    """Ragged rows of (ids, how many of them are input); the first two begin alike."""
    out, stem = [], [r.randrange(3, 99) for _ in range(7)]
    for i in range(4):
        ids = (stem if i < 2 else []) + [r.randrange(3, 99) for _ in range(r.randrange(2, 9))]
        out.append(([1] + ids + [2], r.randrange(1, len(ids)) if i != 3 else 0))
    return out


def collate(batch):
    n = max(len(ids) for ids, _ in batch)
    pad = lambda xs, v: torch.tensor([x + [v] * (n - len(x)) for x in xs])
    return dict(input_ids=pad([ids for ids, _ in batch], 0), attention_mask=pad([[1] * len(ids) for ids, _ in batch], 0),
                labels=pad([[-100] * k + ids[k:] for ids, k in batch], -100))


def make(name, config, dtype, shard):
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    seed = list(MODELS).index(name)
    torch.manual_seed(seed)
    r = random.Random(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for n, w in model.named_parameters():  # norms and biases start at one and zero, where mistakes do not show
        if w.dim() == 1:
            w.data += 0.3 * torch.randn_like(w)
    model.to(dtype).save_pretrained(out, **(dict(max_shard_size=shard) if shard else {}))
    base = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    peft = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=P))
    prompt = peft.prompt_encoder.default.embedding.weight
    prompt.data = 0.3 * torch.randn_like(prompt)
    tensors = dict(prompt=prompt.data.clone())
    batches = [rows(r) for _ in range(BATCHES)]
    logits = peft(**{k: v for k, v in collate(batches[0]).items() if k != "labels"}).logits
    tensors["logits"] = torch.cat([logits[i, P + k - 1:P + len(ids) - 1] for i, (ids, k) in enumerate(batches[0])]).detach().contiguous()
    bare = base(**{k: v for k, v in collate(batches[0]).items() if k != "labels"}).logits
    tensors["logits_without_prompt"] = torch.cat([bare[i, max(k, 1) - 1:len(ids) - 1] for i, (ids, k) in enumerate(batches[0])]).detach().contiguous()
    peft(**collate(batches[0])).loss.backward()
    tensors["gradient"] = prompt.grad.clone()
    greedy = []
    for ids, _ in batches[0]:
        x = torch.tensor([ids[:-1]])
        greedy.append(peft.generate(input_ids=x, attention_mask=torch.ones_like(x), max_new_tokens=20, do_sample=False, eos_token_id=None,
                                    pad_token_id=0)[0, x.shape[1]:].tolist())
    opt, losses = torch.optim.AdamW([prompt], lr=RATE, weight_decay=0), []
    prompt.grad = None
    for s in range(STEPS):
        loss = peft(**collate(batches[s % BATCHES])).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    tensors["losses"], tensors["last_prompt"] = torch.tensor(losses), prompt.data.clone()
    save_file(tensors, os.path.join(out, "golden.safetensors"))
    with open(os.path.join(out, "golden.json"), "w") as f:
        json.dump(dict(made_by="testdata/golden/make.py, torch %s, transformers %s, peft %s" % tuple(__import__(m).__version__ for m in ("torch", "transformers", "peft")),
                       learning_rate=RATE, batches=[[dict(ids=ids, inputs=k) for ids, k in b] for b in batches], greedy=greedy), f)
        f.write("\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name, *MODELS[name])
