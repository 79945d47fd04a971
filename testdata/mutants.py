"""Prints what gremlins found: mutants.py PACKAGE OUTPUT.

The rate is that of the mutants that tests run into and find; an endless loop is found. mutants.txt lists
those that no test can find. The exit code is 1 if others live and more than a twentieth of all do.
"""

import collections
import pathlib
import re
import sys

package, output = sys.argv[1:]
root = pathlib.Path(__file__).parent.parent


def listed():
    """The entries of mutants.txt: file, kind of mutant and line of code, with its operator in « »."""
    entries = set()
    for entry in (root / "testdata/mutants.txt").read_text().split("\n\n"):
        lines = [line.strip() for line in entry.splitlines() if not line.startswith("#")]
        if lines:
            entries.add((*lines[0].split(), lines[1]))
    return entries


def code(file, line, column):
    """The line of a mutant, with its operator in « »."""
    text = (root / file).read_bytes().splitlines()[line - 1]
    operator = re.match(rb"[<>=!]=|\+\+|--|.", text[column - 1 :]).group()
    end = column - 1 + len(operator)
    return (text[: column - 1] + "«".encode() + operator + "»".encode() + text[end:]).decode().strip()


results = collections.Counter()
other, known = [], listed()
found = r"^ *(KILLED|LIVED|TIMED OUT) (\w+) at (\S+):(\d+):(\d+)"
for status, kind, file, line, column in re.findall(found, pathlib.Path(output).read_text(), re.M):
    file = f"internal/{package}/{file}"
    text = code(file, int(line), int(column))
    if status == "LIVED" and (file, kind, text) in known:
        status = "listed"
    elif status == "LIVED":
        other.append(f"  {file}:{line} {kind} {text}")
    results[status] += 1
killed = results["KILLED"] + results["TIMED OUT"]
print(
    f"{package:9} {100 * killed / results.total():.1f} % of {results.total()} killed "
    f"({results['TIMED OUT']} in an endless loop); of {results['LIVED'] + results['listed']} that live, "
    f"{results['listed']} cannot change a result",
    *other,
    sep="\n",
)
sys.exit(killed < 0.95 * (results.total() - results["listed"]))
