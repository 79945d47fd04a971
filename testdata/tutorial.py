"""Run the sessions of docs/tutorial.md, from init to a gated eval, and write the page with their output.

    python3 testdata/tutorial.py bin/ptune          (model and data: PTUNE_SHARED, default ../shared)
"""
import os, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.path.abspath(os.environ.get("PTUNE_SHARED", os.path.join(HERE, "../../shared")))
exe = os.path.abspath(sys.argv[1])
INTRO = """# From a file of rows to a prompt in CI

Four sessions with real data files, in a directory that contains only a model and the files. The
model writes children's stories and has 260,000 weights. It knows nothing of these tasks; it is used
because it is small. The output is what the program printed.
`python3 testdata/tutorial.py bin/ptune` runs the sessions and writes this page again.
"""
SESSIONS = [
    ("SMS spam: a TSV without a header", "sms_spam/sms.tsv",
     "`init` finds that the file has no header, which column is the text, and that there are two labels.\nOne row is longer than the model's maximum, so `init` sets `on_too_long: cut_input`.\n`validate` warns about it.",
     ["ptune init stories260K sms.tsv --output spam.yaml", "ptune validate spam.yaml", "ptune train --config spam.yaml --set train.steps=400 --set train.eval_every=100",
      "tail -n 300 sms.tsv > some.tsv", "ptune eval --prompt spam.st --data some.tsv --fail-under accuracy=0.85 --fail-under mcc=0.3"]),
    ("Banking questions: a CSV with CRLF and quotes, 77 labels", "banking77/train.csv",
     "77 intents are too many for this model and 40 steps.\nThe accuracy is below the gate, so the exit code is 3.",
     ["ptune init stories260K train.csv --output banking.yaml", "head -n 120 train.csv > some.csv", "ptune data stats --config banking.yaml | head -n 8",
      "ptune train --config banking.yaml --set train.steps=40 --set train.eval_every=40 --set data.valid_fraction=0 --set data.valid=some.csv", "ptune eval --prompt banking.st --data some.csv --no-baseline --json --fail-under accuracy=0.5 > banking.json"]),
    ("Film reviews: a TSV whose quotation marks are text", "sst2/dev.tsv",
     "The labels in the file are 0 and 1. Here the command line gives them names that the model should\nsay. Usually these are in the task file.",
     ["ptune init stories260K dev.tsv --output films.yaml", "ptune data show --config films.yaml --rows 1",
      "ptune train --config films.yaml --set 'data.labels={0: bad, 1: good}' --set train.steps=80 --set train.eval_every=40", "ptune eval --prompt films.st --data dev.tsv --fail-under accuracy=0.5"]),
    ("Complaints on Twitter: JSON lines with more fields than needed", "twitter_complaints/twitter_complaints_small.jsonl",
     "Ten rows are too few to learn from. `init` takes the names of the labels from the field next to\nthe numbers, and leaves out the field that contains the answer.",
     ["ptune init stories260K twitter_complaints_small.jsonl --output tweets.yaml", "ptune validate tweets.yaml --set data.valid_fraction=0.3", "ptune train --config tweets.yaml --set data.valid_fraction=0.3 --set train.steps=5",
      "ptune eval --prompt tweets.st --data twitter_complaints_small.jsonl --no-baseline"]),
]
out = [INTRO]
with tempfile.TemporaryDirectory() as work:
    os.symlink(os.path.join(SHARED, "models/stories260K"), os.path.join(work, "stories260K"))
    bin_ = os.path.join(work, "bin")
    os.mkdir(bin_)
    os.symlink(exe, os.path.join(bin_, "ptune"))
    for title, file, text, commands in SESSIONS:
        shutil.copy(os.path.join(SHARED, "data", file), work)
        out.append(f"## {title}\n\n{text}\n\n```sh")
        for c in commands:
            done = subprocess.run(["sh", "-c", c], cwd=work, env=os.environ | dict(PATH=bin_ + ":" + os.environ["PATH"]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            lines = done.stdout.rstrip("\n").split("\n") if done.stdout else []
            out.append(f"$ {c}")
            out += [l if len(l) < 300 else l[:300] + " …" for l in lines]
            if done.returncode:
                out.append(f"(exit code {done.returncode})")
        out.append("```\n")
with open(os.path.join(HERE, "../docs/tutorial.md"), "w") as f:
    f.write("\n".join(out).rstrip() + "\n")
