#!/bin/sh
# Walks three journeys of a new user in a fresh clone: from a CSV file to a gate in CI, free text with
# exact match, and PEFT there and back. The clone's docs/tutorial.md and docs/peft.md then have the
# output.
#
#   sh testdata/journeys.sh MODEL      # a directory with SmolLM2-135M-Instruct
#
# Needs what `make test` needs, the environment of `make peer` in VENV, and PTUNE_SHARED for the data.
# Exits with 0 if all commands ended as the pages say.
set -eu
model=$(realpath "$1") root=$(realpath "$(dirname "$0")/..")
python=$(realpath -s "${VENV:-$root/.venv}")/bin/python
export PTUNE_SHARED="$(realpath "${PTUNE_SHARED:-$root/../shared}")"
work=$(mktemp -d)
echo "the clone is in $work/ptune"
git clone -q "$root" "$work/ptune"
cd "$work/ptune"
make install PREFIX="$work/local"
"$python" testdata/tutorial.py "$work/local/bin/ptune" "$model"
git diff --stat
