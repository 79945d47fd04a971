"""Write the rows of the demo's tasks: reviews with their sentiment and topic. No sentence of the test rows is in a training
or validation row.

    python internal/demo/make/rows.py internal/demo/data
"""
import json, os, sys

import corpus

out = sys.argv[1]
seen = set()
for name, seed, n in [("train", 101, 400), ("valid", 102, 100), ("test", 103, 400)]:
    rows = corpus.reviews(seed, n, seen if name == "test" else frozenset())
    for r in rows:
        seen |= corpus.sentences(r["text"]) if name != "test" else set()
    with open(os.path.join(out, name + ".jsonl"), "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
