#!/bin/sh
# Compares the results of two builds of ptune byte for byte: prompts, events and JSON of the demo's
# tasks, of a sweep, of a comparison with LoRA and full fine-tuning, and of a resumed run, for each
# of the given kernel sets. Times and memory in events and JSON are ignored.
#
#   sh testdata/bytes.sh OLD NEW [KERNELS...]     # default: avx2 plain; needs python3
#
# Build both with the same version, because prompts contain it: make build VERSION=same
# Exits with 0 if all bytes are equal, with 1 if not.
set -eu
old=$1 new=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# run PTUNE OUT: write all results of one build to the folder OUT.
run() {
  ptune=$1 out=$2
  mkdir -p "$out"
  $ptune train --config configs/stars.yaml --set train.steps=30 --set output.prompt="$out/a.st" --set output.dir="$out/a" --quiet --json >"$out/a.json"
  $ptune train --config configs/things.yaml --set train.steps=20 --set prompt.anchor=0.1 --set train.reparametrise=mlp --set train.micro_batch_tokens=64 \
    --set output.prompt="$out/b.st" --set output.dir="$out/b" --quiet --json >"$out/b.json"
  # Interrupted by SIGTERM, then resumed.
  $ptune train --config configs/things.yaml --set train.steps=40 --set train.eval_every=5 --set output.prompt="$out/c.st" --set output.dir="$out/c" --quiet &
  pid=$!
  while ! grep -q '"step":7' "$out/c/events.jsonl" 2>/dev/null; do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
  kill -TERM $pid 2>/dev/null || true
  wait $pid || true
  rm -f "$out/c/interrupted.st"
  $ptune train --config configs/things.yaml --set train.steps=40 --set train.eval_every=5 --set output.prompt="$out/c.st" --set output.dir="$out/c" --quiet --resume --json >"$out/c.json"
  $ptune eval --prompt "$out/a.st" --data internal/demo/data/test.jsonl --exact-match --samples "$out/a.samples" --junit "$out/a.xml" --fail-under accuracy=0.1 --json >"$out/eval.json"
  $ptune eval --prompt "$out/b.st,$out/c.st" --json >"$out/vote.json"
  $ptune eval --prompt "$out/a.st" >"$out/eval.txt"
  head -5 internal/demo/data/valid.jsonl | $ptune generate --prompt "$out/a.st" --prompt "$out/b.st" --jsonl - --json >"$out/generate.json"
  $ptune generate --prompt "$out/a.st" --temperature 0.9 --seed 3 --max-tokens 40 "We tried this cafe" "The" "A film" >"$out/generate.txt"
  $ptune generate --model ptune:demo --max-tokens 60 "We tried this cafe" >"$out/alone.txt"
  $ptune inspect "$out/a.st" --json >"$out/inspect.json"
  printf 'task: configs/stars.yaml\ngrid:\n  train.learning_rate: [0.03, 0.3]\n  train.seed: [0, 1]\nhalving: 2\nrungs: 1\noutput: %s/sweep\n' "$out" >"$out/sweep.yaml"
  $ptune sweep "$out/sweep.yaml" --set train.steps=20 --quiet --json >"$out/sweep.json"
  $ptune compare configs/stars.yaml --set train.steps=6 --set output.prompt="$out/d.st" --set output.dir="$out/d" --quiet --json >"$out/compare.json"
  $ptune export "$out/a.st" --peft "$out/peft" >/dev/null
  $ptune data show --config configs/stars.yaml --rows 2 >"$out/show.txt"
  $ptune data stats --config configs/stars.yaml --json >"$out/stats.json"
}

status=0
for kernels in "${@:-avx2 plain}"; do
  for k in $kernels; do
    export PTUNE_KERNELS="$k" GITHUB_STEP_SUMMARY=
    rm -rf "$work/run" "$work/old" "$work/new"
    # Both builds write to the same path, because paths are part of some results.
    run "$old" "$work/run" && mv "$work/run" "$work/old"
    run "$new" "$work/run" && mv "$work/run" "$work/new"
    python3 - "$work/old" "$work/new" "$k" <<'PY' || status=1
import json, os, re, sys
old, new, kernels = sys.argv[1:]
TIMES = {"seconds", "step_seconds", "switch_seconds", "peak_memory_bytes"}
def plain(x):
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items() if k not in TIMES}
    return [plain(v) for v in x] if isinstance(x, list) else x
def read(path):
    data = open(path, "rb").read()
    if path.endswith((".json", ".jsonl", ".samples")):
        try:
            lines = [plain(json.loads(line)) for line in data.splitlines() if line.strip()]
            # A resumed run has one start event for each attempt.
            return [x for x in lines if x.get("event") != "start"]
        except ValueError:
            return plain(json.loads(data))
    if ".safetensors" in path:  # a resume state: its scalars contain seconds, and a hash of them
        n = int.from_bytes(data[:8], "little")
        head = json.loads(data[8:8 + n])
        meta = {k: plain(json.loads(v)) if v.startswith("{") else v for k, v in head.pop("__metadata__", {}).items() if k != "sha256"}
        return head, meta, data[8 + n:]
    return data
# state.safetensors.before exists only if a slow run saved its state between two evaluations.
files = lambda root: {os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs if not f.endswith(".before")}
a, b = files(old), files(new)
bad = sorted(a ^ b) + sorted(f for f in a & b if not f.endswith(".svg") and read(os.path.join(old, f)) != read(os.path.join(new, f)))
print("%s: %d files, %s" % (kernels, len(a & b), "all equal" if not bad else "different: " + ", ".join(bad)))
sys.exit(bool(bad))
PY
  done
done
exit $status
