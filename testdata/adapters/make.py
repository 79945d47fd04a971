"""Make the adapters of this folder with PEFT, for the model golden/llama-gqa-tied-f32. ptune imports and
exports some and refuses the others.

    V/bin/python testdata/adapters/make.py        (torch==2.15.0 transformers==5.23.0 peft==0.21.2)
"""
import os

import torch
from peft import LoraConfig, MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = "testdata/golden/llama-gqa-tied-f32"
os.chdir(os.path.join(HERE, "../.."))
task = dict(task_type=TaskType.CAUSAL_LM)
for name, config in {
    "prompt": PromptTuningConfig(**task, num_virtual_tokens=3),
    "p-tuning": PromptEncoderConfig(**task, num_virtual_tokens=3, encoder_hidden_size=8),
    "multitask": MultitaskPromptTuningConfig(**task, num_virtual_tokens=3, num_tasks=2),
    "prefix": PrefixTuningConfig(**task, num_virtual_tokens=3),
    "lora": LoraConfig(**task, r=1, target_modules=["q_proj"]),
}.items():
    torch.manual_seed(len(name))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config)
    out = os.path.join("testdata/adapters", name)
    model.save_pretrained(out)
    os.remove(os.path.join(out, "README.md"))
