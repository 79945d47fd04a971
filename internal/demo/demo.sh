#!/bin/sh
# The main work, as a user would run it: train two prompts on the built-in model, measure each beside
# the model alone and beside plain words, then use both on one loaded model. `make demo` runs it from
# the project's root.
set -e
say() { printf '\n%s\n' "$*"; }
ptune() { # shows the command line, with quotes where they are needed
  line='$ ptune'
  for word; do case $word in *[!A-Za-z0-9_.:/=-]*) line="$line \"$word\"" ;; *) line="$line $word" ;; esac; done
  echo "$line" >&2
  bin/ptune "$@"
}

say "A model of 2.8 million weights, and 16 virtual tokens that teach it to give a review its stars:"
ptune train configs/stars.yaml --force

say "On 400 other reviews: with the prompt, without a prompt, and with the question in plain words:"
ptune eval --prompt runs/stars.st --data internal/demo/data/test.jsonl --fail-under accuracy=0.95

say "A second task on the same model: the thing that a review is about."
ptune train configs/things.yaml --force --quiet
ptune eval --prompt runs/things.st --data internal/demo/data/test.jsonl --fail-under accuracy=0.9

say "One text, by the model alone:"
text="The room was small and the pool was dirty, but the staff were wonderful and I would go back."
ptune generate --model ptune:demo --max-tokens 5 "How many stars does the writer give?
$text
Answer:"

say "The same text and two others, with both prompts on one loaded model:"
ptune generate --prompt runs/stars.st --prompt runs/things.st "$text" \
  "I loved the story and the last chapter was brilliant." \
  "The battery was slow and the screen was scratched."
