"""Make the goldens of this folder with transformers and PEFT: LoRA and full fine-tuning of the tiny models
in ../golden.

    V/bin/python testdata/lora/make.py [NAME...]             (torch==2.15.0 transformers==5.23.0 peft==0.21.2)

Each folder is a PEFT adapter with random A and B, and golden.safetensors. For LoRA it has the logits that
predict each target, the gradient of the mean loss for each A and B, the losses of ten AdamW steps
(learning rate 0.01, no weight decay), and A and B after them. For full fine-tuning it has the gradients
(a matrix's gradient is multiplied by the vector sin(1), sin(2), … to keep the file small) and the losses of
ten steps (learning rate 0.001). Rows and batches are those of ../golden.
"""
import json, os, shutil, sys

import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../golden")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODELS = {"llama-gqa-tied-f32": ALL, "gpt2-f32": None, "falcon-40b": None, "gemma3": ["k_proj", "o_proj"], "phi3": ["qkv_proj", "gate_up_proj"],
          "gpt_neox": None, "stablelm-parallel": None, "bloom": ["query_key_value", "dense_h_to_4h"]}


def collate(batch):
    n = max(len(r["ids"]) for r in batch)
    pad = lambda xs, v: torch.tensor([x + [v] * (n - len(x)) for x in xs])
    return dict(input_ids=pad([r["ids"] for r in batch], 0), attention_mask=pad([[1] * len(r["ids"]) for r in batch], 0),
                labels=pad([[-100] * r["inputs"] + r["ids"][r["inputs"]:] for r in batch], -100))


def load(name):
    return AutoModelForCausalLM.from_pretrained(os.path.join(GOLDEN, name), dtype=torch.float32, attn_implementation="eager").eval()


def steps(model, batches, rate):
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0)
    losses = []
    for s in range(10):
        opt.zero_grad()
        loss = model(**collate(batches[s % len(batches)])).loss
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def make(name, targets):
    torch.manual_seed(7)
    with open(os.path.join(GOLDEN, name, "golden.json")) as f:
        batches = json.load(f)["batches"]
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    model = get_peft_model(load(name), LoraConfig(task_type=TaskType.CAUSAL_LM, r=3, lora_alpha=5, target_modules=targets))
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.data = 0.2 * torch.randn_like(p)
    model.save_pretrained(out)
    os.remove(os.path.join(out, "README.md"))
    path = os.path.join(out, "adapter_config.json")
    with open(path) as f:
        config = json.load(f)
    config["target_modules"].sort()  # a set, in PEFT
    config["base_model_name_or_path"] = name
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    batch = collate(batches[0])
    done = model(**batch)
    done.loss.backward()
    rows = [(b, k) for b, r in enumerate(batches[0]) for k in range(max(r["inputs"], 1), len(r["ids"]))]
    g = dict(logits=torch.stack([done.logits[b, k - 1] for b, k in rows]))
    g |= {"grad." + n: p.grad.clone() for n, p in trained.items()}
    g["losses"] = steps(model, batches, 0.01)
    g |= {"last." + n: p.data.clone() for n, p in trained.items()}

    model = load(name)
    model(**batch).loss.backward()
    for n, p in model.named_parameters():
        d = p.grad
        g["full." + n] = d.clone() if d.dim() == 1 else d @ torch.sin(torch.arange(1, d.shape[1] + 1, dtype=torch.float32))
    g["full_losses"] = steps(load(name), batches, 0.001)
    save_file({k: v.detach().contiguous() for k, v in g.items()}, os.path.join(out, "golden.safetensors"))


for name, targets in MODELS.items():
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        make(name, targets)
        print(name)
