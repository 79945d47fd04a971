#!/bin/sh
# Runs one fuzzer. Go sometimes reports its own deadline as a failure of the fuzzer. A run that fails
# without a failing input is therefore repeated once.
#
#   sh testdata/fuzz.sh DIR FUZZER TIME WORKERS
run() { "${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 20x -parallel "$4" "./$1" >"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run "$@" || { ! grep -q 'Failing input written' "$log" && run "$@"; } || { cat "$log"; exit 1; }
echo "$1 $2: $(grep -E '^fuzz: elapsed' "$log" | tail -1)"
