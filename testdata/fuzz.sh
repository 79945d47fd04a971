#!/bin/sh
# fuzz.sh DIR FUZZER TIME WORKERS: run one fuzzer. Go's own deadline is sometimes taken for a failure of the fuzzer; a run that fails
# without an input that made it fail is run once more.
run() { "${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 20x -parallel "$4" "./$1" >"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run "$@" || { ! grep -q 'Failing input written' "$log" && run "$@"; } || { cat "$log"; exit 1; }
echo "$1 $2: $(grep -E '^fuzz: elapsed' "$log" | tail -1)"
