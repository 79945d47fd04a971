"""Write the figures of docs/performance.md and the picture of a step from what bench.py and the Go benchmarks measured.

    python testdata/performance.py OPERATORS.txt    # the output of: go test -bench 'Operators' ./internal/model

The tables stand between <!-- figures --> and <!-- end --> of docs/performance.md, the rest of that file is written by hand.
"""
import json, os, re, sys
import bench

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../docs")
ASKED = {"phrases": ("5", "5"), "sentences": ("4", "5"), "bf16": ("4.2", "4"), "64": ("2.8", "4"), "instruction": ("8", "5"), "gpt2": ("4", "4"), "process": ("6", ""),
         "generate": ("3", ""), "generate-16": ("2", ""), "generate-16-bf16": ("3", "")}
span = lambda r: "%.2f [%.2f–%.2f]" % tuple(r["ratio"]) if "ratio" in r else ""


def tables(machine, results):
    results = {name: results[name] for name in bench.CASES if name in results}
    out = ["| training | PEFT | ptune | times as fast (asked) | PEFT | ptune | part of the memory (asked) |", "|---|---|---|---|---|---|---|"]
    for name, r in results.items():
        if "step" not in r or name == "process":
            continue
        s, m, asked = r["step"], r["memory"], ASKED.get(name, ("", ""))
        peer = lambda x, f: f % x["peer"] if "peer" in x else ""
        out.append("| %s | %s | %.2f s | %s%s | %s | %d MiB | %s%s |" % (r["title"], peer(s, "%.2f s"), s["ptune"], span(s), asked[0] and " (%s)" % asked[0],
            "%d MiB" % (m["peer"] / 2**20) if "peer" in m else "", m["ptune"] / 2**20, "1/%.2f" % m["ratio"][0] if "ratio" in m else "", asked[1] and " (1/%s)" % asked[1]))
    out += ["", "| whole process | PEFT | ptune | times as fast (asked) |", "|---|---|---|---|"]
    for name in ("process", "generate", "generate-bf16"):
        if name in results:
            p = results[name]["process"]
            title = results[name]["title"] if name == "process" else results[name]["title"].replace("generation, batch 1", "`generate --max-tokens 1`")
            out.append("| %s | %.2f s | %.2f s | %s%s |" % (title, p["peer"], p["ptune"], span(p), " (6)" if name == "process" else " (under 0.4 s)"))
    out += ["", "| tokens a second | transformers + PEFT | ptune | times as fast (asked) |", "|---|---|---|---|"]
    for name, r in results.items():
        if "rate" in r:
            out.append("| %s | %.1f | %.1f | %s%s |" % (r["title"], r["rate"]["peer"], r["rate"]["ptune"], span(r["rate"]), " (%s)" % ASKED[name][0] if name in ASKED else ""))
    heads = {(machine, r["versions"], r["date"]) for r in results.values()}
    return out + [""] + ["Measured on %s; %s; %s." % h for h in sorted(heads)]


def step(text):
    """What the Go benchmarks say of a step: kind → (ms, GFLOP, MB), the peak, and at what pace weights are read."""
    line = next(x for x in text.splitlines() if x.startswith("BenchmarkOperators"))
    v = {k: float(n) for n, k in re.findall(r"([\d.e+]+) (\S+)", line)}
    kinds = sorted({k[:-3] for k in v if k.endswith("-ms")}, key=lambda k: -v[k + "-ms"])
    few = re.search(r"BenchmarkFewRows/weights=F32/rows=1\S*\s.*?([\d.]+) GB/s", text)
    return dict(kinds={k: (v[k + "-ms"], v.get(k + "-GFLOP", 0), v.get(k + "-MB", 0)) for k in kinds}, peak=v["peak-GFLOP/s"], bandwidth=float(few.group(1)))


def operators(kinds, peak, bandwidth):
    total = sum(ms for ms, _, _ in kinds.values())
    flops = sum(g for _, g, _ in kinds.values())
    lines = ["", "| of a step of 16 texts of 20 tokens, SmolLM2-135M f32 | ms | GFLOP | GFLOP/s, share of the peak | MB of values |", "|---|---|---|---|---|"]
    for kind, (ms, g, mb) in kinds.items():
        lines.append("| %s | %.0f | %s | %s | %.0f |" % (kind, ms, "%.1f" % g if g else "", "%.0f, %.0f %%" % (g / ms * 1e3, 100 * g / ms * 1e3 / peak) if g else "", mb))
    return lines + ["", "The peak of f32 multiply-adds in the same run was %.0f GFLOP/s on all threads, weights were read at %.0f GB/s; the step took %.2f times its FLOPs at that peak." % (peak, bandwidth, total / 1e3 * peak / flops)]


def picture(machine, kinds, peak, bandwidth):
    """Bars: the milliseconds of each kind of operator, and beside each its bound."""
    width, left, row = 800, 110, 44
    top = max(ms for ms, _, _ in kinds.values())
    x = lambda ms: left + (width - left - 240) * ms / top
    svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">' % (width, row * len(kinds) + 60),
           "<style>text{fill:#222}.b{fill:#8a8a8a}.t{fill:#2f6fb2}svg{background:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}svg{background:#161616}}</style>",
           '<text x="%d" y="18">Milliseconds of a step by kind of operator (blue), beside its bound (grey); %s</text>' % (left, machine.split(" (")[0])]
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
    here = bench.machine()
    if here not in results:
        sys.exit("performance: %s has nothing of this machine: run testdata/bench.py first" % path)
    results[here]["step"] = step(open(sys.argv[1]).read())
    with open(path, "w") as f:
        json.dump(results, f, indent=1, ensure_ascii=False)
        f.write("\n")
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
