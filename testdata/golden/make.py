"""Make the goldens of this folder with transformers and PEFT: tiny random models and their results.

    V/bin/python testdata/golden/make.py [NAME...]           (torch==2.15.0 transformers==5.23.0 peft==0.21.2)
    V/bin/python testdata/golden/make.py --out DIR --seed N [NAME...]

The second form makes other models for a live comparison. A NAME is a folder's name or a model_type.

Each folder is a model directory with two more files. golden.json has rows of different lengths and their
greedy continuations. golden.safetensors has the prompt, the logits that predict each target, the gradient
of the mean loss, and the losses and the final prompt of ten steps with torch's AdamW (learning rate 0.05,
no weight decay). Batches are right-padded, because PEFT's left-padded batches are wrong for models with
rotary positions. BF16 and F16 files are computed in float32, as in ptune.
"""
import argparse, json, os, random, shutil

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import save_file
import transformers
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

REWRITE = {}


def forget(*keys):
    """Remove keys from config.json, as in a checkpoint older than these keys."""
    return lambda c: [c.pop(k) for k in keys]


def old_rope(c, theta="rope_theta", part="partial_rotary_factor", scaling="rope_type"):
    """Write rotary settings as in checkpoints from before transformers 5."""
    r = c.pop("rope_parameters")
    c[theta] = r.pop("rope_theta")
    if "partial_rotary_factor" in r:
        c[part] = r.pop("partial_rotary_factor")
    kind = r.pop("rope_type")
    c["rope_scaling"] = None if kind == "default" else {scaling: kind, **r}


def old_gemma3(c):
    r = c.pop("rope_parameters")
    full = r["full_attention"]
    c.update(rope_theta=full.pop("rope_theta"), rope_local_base_freq=r["sliding_attention"]["rope_theta"], rope_scaling=full, sliding_window_pattern=2)
    del c["layer_types"]


def more(name, kind, dtype=torch.float32, rewrite=None, **options):
    """Add a model with odd sizes. kind names its config class; rewrite makes its config.json an older one."""
    REWRITE[name] = rewrite
    base = dict(vocab_size=99, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=64,
                bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)
    MODELS[name] = (getattr(transformers, kind + "Config")(**base | options), dtype, None)


rope = lambda kind, **more: dict(rope_parameters=dict(rope_type=kind, rope_theta=500.0, **more))
more("llama-rope-linear", "Llama", rewrite=lambda c: old_rope(c, scaling="type"), **rope("linear", factor=4.0))
more("llama-rope-dynamic", "Llama", **rope("dynamic", factor=4.0))
more("llama-rope-llama3", "Llama", rewrite=old_rope, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))
more("llama-rope-yarn", "Llama", **rope("yarn", factor=4.0, original_max_position_embeddings=40))
more("llama-rope-yarn-mscale-f16", "Llama", torch.float16, head_dim=12,
     **rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=20, beta_slow=2, mscale=0.7, mscale_all_dim=0.3, truncate=False))
more("smollm3", "SmolLM3", rewrite=forget("no_rope_layers", "layer_types"), num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, hidden_size=48, rope_parameters=dict(rope_type="default", rope_theta=900.0))
more("smollm3-windows", "SmolLM3", rewrite=forget("layer_types"), num_hidden_layers=4, num_key_value_heads=1, no_rope_layers=[1, 0, 0, 1], use_sliding_window=True, sliding_window=5, tie_word_embeddings=False)
more("mistral-window", "Mistral", num_attention_heads=4, num_key_value_heads=2, head_dim=14, sliding_window=6)
more("mistral-no-window-bf16", "Mistral", torch.bfloat16, num_attention_heads=4, num_key_value_heads=4, sliding_window=None)
more("qwen2", "Qwen2", num_key_value_heads=1, tie_word_embeddings=True)
more("qwen2-windows", "Qwen2", rewrite=forget("layer_types"), num_key_value_heads=5, use_sliding_window=True, sliding_window=4, max_window_layers=1)
more("qwen3", "Qwen3", num_attention_heads=6, num_key_value_heads=3, head_dim=10, tie_word_embeddings=True)
more("qwen3-biases-bf16", "Qwen3", torch.bfloat16, num_attention_heads=3, num_key_value_heads=3, head_dim=16, attention_bias=True)
more("gemma", "Gemma", rewrite=lambda c: c.update(hidden_act="gelu"), num_attention_heads=3, num_key_value_heads=1, head_dim=18)
more("gemma2", "Gemma2", rewrite=forget("layer_types"), num_attention_heads=4, num_key_value_heads=2, head_dim=14, sliding_window=5, query_pre_attn_scalar=11, attn_logit_softcapping=3.0, final_logit_softcapping=2.0)
more("gemma2-no-caps", "Gemma2", num_attention_heads=5, num_key_value_heads=1, head_dim=6, sliding_window=7, attn_logit_softcapping=None, final_logit_softcapping=None)
more("gemma3", "Gemma3Text", num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=14, sliding_window=5, query_pre_attn_scalar=11,
     rewrite=old_gemma3, layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
     rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=5000.0, factor=8.0), sliding_attention=dict(rope_type="default", rope_theta=100.0)))
more("gemma3-new-config", "Gemma3Text", num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, head_dim=10, sliding_window=4,
     layer_types=["full_attention", "sliding_attention", "full_attention"],
     rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=700.0), sliding_attention=dict(rope_type="default", rope_theta=50.0)))
more("phi3", "Phi3", num_key_value_heads=1, sliding_window=9)
more("phi3-longrope", "Phi3", rewrite=old_rope, hidden_size=48, num_attention_heads=4, num_key_value_heads=2, original_max_position_embeddings=60, max_position_embeddings=240,
     rope_parameters=dict(rope_type="longrope", rope_theta=300.0, partial_rotary_factor=0.5, short_factor=[1.0, 1.1, 1.5], long_factor=[2.0, 3.0, 7.0]))
more("phi", "Phi", rewrite=old_rope, hidden_size=36, num_attention_heads=3, rope_parameters=dict(rope_type="default", rope_theta=400.0, partial_rotary_factor=0.5))
more("phi-grouped-bf16", "Phi", torch.bfloat16, hidden_size=48, num_attention_heads=6, num_key_value_heads=2, rope_parameters=dict(rope_type="default", rope_theta=400.0, partial_rotary_factor=0.5))
more("gpt_neo", "GPTNeo", num_hidden_layers=3, attention_types=[[["local", "global"], 1], [["local"], 1]], window_size=5)
more("gpt_neox", "GPTNeoX", rewrite=lambda c: old_rope(c, "rotary_emb_base", "rotary_pct"), hidden_size=48, num_attention_heads=3, rope_parameters=dict(rope_type="default", rope_theta=300.0, partial_rotary_factor=0.5))
more("gpt_neox-sequential", "GPTNeoX", use_parallel_residual=False, attention_bias=False, rope_parameters=dict(rope_type="default", rope_theta=300.0, partial_rotary_factor=1.0))
more("opt", "OPT", ffn_dim=56)
more("bloom", "Bloom", rewrite=lambda c: c.update(n_embed=c.pop("hidden_size"), num_attention_heads=c.pop("n_head")))
more("bloom-f16", "Bloom", torch.float16, hidden_size=48, num_attention_heads=12)
more("stablelm", "StableLm", hidden_size=48, num_attention_heads=3, num_key_value_heads=1, use_qkv_bias=True)
more("stablelm-parallel", "StableLm", hidden_size=48, num_attention_heads=3, num_key_value_heads=3, use_parallel_residual=True, tie_word_embeddings=True)
more("olmo2", "Olmo2", num_attention_heads=4, num_key_value_heads=2)
more("granite", "Granite", num_key_value_heads=1, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5, tie_word_embeddings=True)
more("falcon-rw", "Falcon", hidden_size=48, num_attention_heads=12, ffn_hidden_size=72, alibi=True, multi_query=False, parallel_attn=False, bias=True)
more("falcon-7b", "Falcon", ffn_hidden_size=72)
more("falcon-40b", "Falcon", ffn_hidden_size=72, num_attention_heads=6, hidden_size=48, num_kv_heads=2, new_decoder_architecture=True)
more("falcon-11b-bf16", "Falcon", torch.bfloat16, num_attention_heads=6, hidden_size=48, num_kv_heads=3, new_decoder_architecture=True, num_ln_in_parallel_attn=1, tie_word_embeddings=False)
more("starcoder2", "Starcoder2", num_attention_heads=4, num_key_value_heads=2, sliding_window=7)
P, BATCHES, STEPS, RATE, GREEDY = 5, 2, 10, 0.05, 40


def rows(r):
    """Rows of different lengths, each (ids, number of input ids). The first two share a prefix."""
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


def make(name, config, dtype, shard, folder=HERE, seed=0):
    out = os.path.join(folder, name)
    shutil.rmtree(out, ignore_errors=True)
    seed += list(MODELS).index(name)
    torch.manual_seed(seed)
    r = random.Random(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for n, w in model.named_parameters():  # norms and biases start at one and zero, which would hide mistakes
        if w.dim() == 1:
            w.data += 0.3 * torch.randn_like(w)
    model.to(dtype).save_pretrained(out, **(dict(max_shard_size=shard) if shard else {}))
    if rewrite := REWRITE.get(name):
        path = os.path.join(out, "config.json")
        with open(path) as f:
            old = json.load(f)
        rewrite(old)
        with open(path, "w") as f:
            json.dump(old, f, indent=2)
            f.write("\n")
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
        greedy.append(peft.generate(input_ids=x, attention_mask=torch.ones_like(x), max_new_tokens=GREEDY, do_sample=False, eos_token_id=None,
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
    p = argparse.ArgumentParser()
    p.add_argument("names", nargs="*")
    p.add_argument("--out", default=HERE)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    chosen = [n for n, m in MODELS.items() if not a.names or n in a.names or m[0].model_type in a.names]
    if not chosen:
        p.error("no golden or model_type is named " + ", ".join(a.names))
    for name in chosen:
        make(name, *MODELS[name], a.out, a.seed)
