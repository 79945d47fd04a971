"""Check that TensorBoard reads the event files that ptune writes.

    V/bin/python testdata/board.py bin/ptune
"""
import glob, json, os, subprocess, sys, tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

exe = os.path.abspath(sys.argv[1])
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
with tempfile.TemporaryDirectory() as out:
    subprocess.run([exe, "train", "--config", "configs/stars.yaml", "--quiet", "--set", "train.steps=30", "--set", "output.tensorboard=true", "--set", f"output.prompt={out}/s.st", "--set", f"output.dir={out}"],
                   check=True, stdout=subprocess.DEVNULL)
    events = [json.loads(l) for l in open(f"{out}/events.jsonl")]
    (path,) = glob.glob(f"{out}/events.out.tfevents.*")
    board = EventAccumulator(path)
    board.Reload()
    for tag, key, kind in [("train/loss", "loss", "step"), ("train/grad_norm", "grad_norm", "step"), ("valid/loss", "loss", "eval"), ("valid/accuracy", "accuracy", "eval")]:
        got = [(e.step, e.value) for e in board.Scalars(tag)]
        want = [(e["step"], e[key]) for e in events if e["event"] == kind]
        assert len(got) == len(want) > 1 and all(a[0] == b[0] and abs(a[1] - b[1]) <= 1e-6 * abs(b[1]) for a, b in zip(got, want)), (tag, got[:3], want[:3])
print("TensorBoard reads ptune's event files")
