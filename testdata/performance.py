"""Write the tables of docs/performance.md and the picture of a training step, docs/step.svg.

    python testdata/performance.py GO.txt    # add the Go benchmarks of this machine, then write
    python testdata/performance.py           # write again from docs/performance.json alone

GO.txt is the output of `make bench`. docs/performance.json has what bench.py measured. The tables are
between <!-- figures --> and <!-- end --> in docs/performance.md; the rest of the page is written by hand.
The picture shows this machine or, without GO.txt, the one that was measured last.
"""
import json, os, re, sys
import bench

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../docs")
ASKED = {"phrases": ("5", "5"), "sentences": ("4", "5"), "bf16": ("4.2", "4"), "64": ("2.8", "4"), "instruction": ("8", "5"), "gpt2": ("4", "4"), "process": ("6", ""),
         "generate": ("3", ""), "generate-16": ("2", ""), "generate-16-bf16": ("3", "")}
span = lambda r: "%.2f [%.2f–%.2f]" % tuple(r["ratio"]) if "ratio" in r else ""


def tables(machine, results):
    results = {name: results[name] for name in bench.CASES if name in results}
    out = ["| training: time per step, peak memory | PEFT | ptune | speed-up (target) | PEFT | ptune | memory, share of PEFT's (target) |", "|---|---|---|---|---|---|---|"]
    title = lambda name: bench.CASES[name][0]
    for name, r in results.items():
        if "step" not in r or name == "process":
            continue
        s, m, asked = r["step"], r["memory"], ASKED.get(name, ("", ""))
        peer = lambda x, f: f % x["peer"] if "peer" in x else ""
        out.append("| %s | %s | %.2f s | %s%s | %s | %d MiB | %s%s |" % (title(name), peer(s, "%.2f s"), s["ptune"], span(s), asked[0] and " (%s)" % asked[0],
            "%d MiB" % (m["peer"] / 2**20) if "peer" in m else "", m["ptune"] / 2**20, "1/%.2f" % m["ratio"][0] if "ratio" in m else "", asked[1] and " (1/%s)" % asked[1]))
    out += ["", "| time of the whole process | PEFT | ptune | speed-up (target) |", "|---|---|---|---|"]
    for name in ("process", "generate", "generate-bf16"):
        if name in results:
            p = results[name]["process"]
            what = title(name) if name == "process" else title(name).replace("generation, batch 1", "`generate --max-tokens 1`")
            out.append("| %s | %.2f s | %.2f s | %s%s |" % (what, p["peer"], p["ptune"], span(p), " (6)" if name == "process" else " (under 0.4 s)"))
    out += ["", "| tokens per second | transformers + PEFT | ptune | speed-up (target) |", "|---|---|---|---|"]
    for name, r in results.items():
        if "rate" in r:
            out.append("| %s | %.1f | %.1f | %s%s |" % (title(name), r["rate"]["peer"], r["rate"]["ptune"], span(r["rate"]), " (%s)" % ASKED[name][0] if name in ASKED else ""))
    runs = {}  # (date, versions of the other programs): commits of ptune
    for r in results.values():
        commit, _, versions = r["versions"].removeprefix("ptune ").partition(", ")
        runs.setdefault((r["date"], versions), set()).add(commit)
    return out + [""] + ["Measured on %s, %s;\nptune %s; %s." % (date, machine, ", ".join(sorted(commits)), versions)
                         for (date, versions), commits in sorted(runs.items())]


def step(text):
    """The Go benchmark of a step: (ms, GFLOP, MB) of each kind of operator, the peak in GFLOP/s, and the
    speed at which weights are read in GB/s."""
    line = next(x for x in text.splitlines() if x.startswith("BenchmarkOperators"))
    v = {k: float(n) for n, k in re.findall(r"([\d.e+]+) (\S+)", line)}
    kinds = sorted({k[:-3] for k in v if k.endswith("-ms")}, key=lambda k: -v[k + "-ms"])
    few = re.search(r"BenchmarkFewRows/weights=F32/rows=1\S*\s.*?([\d.]+) GB/s", text)
    return dict(kinds={k: (v[k + "-ms"], v.get(k + "-GFLOP", 0), v.get(k + "-MB", 0)) for k in kinds}, peak=v["peak-GFLOP/s"], bandwidth=float(few.group(1)))


def operators(kinds, peak, bandwidth):
    total = sum(ms for ms, _, _ in kinds.values())
    flops = sum(g for _, g, _ in kinds.values())
    lines = ["", "| operators in a step: 16 texts of 20 tokens, SmolLM2-135M f32 | ms | GFLOP | GFLOP/s, share of the peak | MB read and written |", "|---|---|---|---|---|"]
    for kind, (ms, g, mb) in kinds.items():
        lines.append("| %s | %.0f | %s | %s | %.0f |" % (kind, ms, "%.1f" % g if g else "", "%.0f, %.0f %%" % (g / ms * 1e3, 100 * g / ms * 1e3 / peak) if g else "", mb))
    return lines + ["", "In the same run the peak of f32 multiply-adds was %.0f GFLOP/s on all threads, and weights were read\nat %.0f GB/s. The step took %.2f times as long as its FLOPs take at that peak." % (peak, bandwidth, total / 1e3 * peak / flops)]


def picture(machine, kinds, peak, bandwidth):
    """An SVG with two bars for each kind of operator: its milliseconds, and its lower bound."""
    width, left, row = 800, 110, 44
    top = max(ms for ms, _, _ in kinds.values())
    x = lambda ms: left + (width - left - 240) * ms / top
    svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">' % (width, row * len(kinds) + 60),
           "<style>text{fill:#222}.b{fill:#8a8a8a}.t{fill:#2f6fb2}svg{background:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}svg{background:#161616}}</style>",
           '<text x="%d" y="18">Milliseconds of a step by kind of operator (blue) and lower bound (grey); %s</text>' % (left, machine.split(" (")[0])]
    for i, (kind, (ms, gflop, mb)) in enumerate(kinds.items()):
        y = 34 + i * row
        bound, what = max((gflop / peak * 1e3, "multiply-adds"), (mb / bandwidth, "memory"))
        svg += ['<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 8, y + 18, kind),
                '<rect class="t" x="%d" y="%d" width="%.1f" height="16"/>' % (left, y, x(ms) - left),
                '<rect class="b" x="%d" y="%d" width="%.1f" height="8"/>' % (left, y + 18, x(bound) - left),
                '<text x="%.1f" y="%d">%.0f ms; %s: %.0f ms</text>' % (x(max(ms, bound)) + 8, y + 16, ms, what, bound)]
    return "\n".join(svg + ["</svg>", ""])


def main():
    path = DOCS + "/performance.json"
    results = json.load(open(path))
    if len(sys.argv) > 1:
        here = bench.machine()
        if here not in results:
            sys.exit("performance: %s has no results of this machine: run testdata/bench.py first" % path)
        results[here]["step"] = step(open(sys.argv[1]).read())
        with open(path, "w") as f:
            json.dump(results, f, indent=1, ensure_ascii=False)
            f.write("\n")
    else:
        here = max(results, key=lambda m: max(case["date"] for case in results[m]["cases"].values()))
    lines = []
    for machine, r in results.items():
        lines += ["## On " + machine, ""] + tables(machine, {name: r["cases"][name] for name in bench.CASES if name in r["cases"]}) + operators(**r["step"]) + [""]
    path = DOCS + "/performance.md"
    page = open(path).read()
    head, _, rest = page.partition("<!-- figures -->")
    tail = rest.partition("<!-- end -->")[2]
    with open(path, "w") as f:
        f.write(head + "<!-- figures -->\n" + "\n".join(lines) + "<!-- end -->" + tail)
    with open(DOCS + "/step.svg", "w") as f:
        f.write(picture(here, **results[here]["step"]))


if __name__ == "__main__":
    main()
