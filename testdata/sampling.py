"""Make sampling.json: logits after transformers' processors, in the order in which generate applies them.

    V/bin/python testdata/sampling.py OUT.json [SEED]           (torch==2.15.0 transformers==5.23.0)

Each case has the logits of one step, the tokens so far, the settings, and the probability of each token.
"""
import json, random, sys

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
r = random.Random(seed)
torch.manual_seed(seed)
V = 24
model = LlamaForCausalLM(LlamaConfig(vocab_size=V, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2))
cases = []
for i in range(60):
    logits = torch.randn(1, V) * r.choice([0.3, 1, 4])
    ids = [r.randrange(V) for _ in range(r.randrange(1, 9))]
    settings = dict(temperature=r.choice([0.5, 1.0, 1.7]), top_k=r.choice([0, 0, 3, 12]), top_p=r.choice([1.0, 1.0, 0.5, 0.9]),
                    min_p=r.choice([0.0, 0.0, 0.05, 0.3, 1.0]), repetition_penalty=r.choice([1.0, 1.0, 1.3, 0.8, 2.5]))
    config = GenerationConfig(do_sample=True, **settings)
    config._eos_token_tensor = None
    x = torch.tensor([ids])
    processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(ids), device="cpu", model_kwargs={})
    p = torch.softmax(processors(x, logits.clone()), -1)[0]
    cases.append(dict(logits=logits[0].tolist(), ids=ids, probabilities=p.tolist(), **settings))
with open(out, "w") as f:
    json.dump(cases, f)
    f.write("\n")
