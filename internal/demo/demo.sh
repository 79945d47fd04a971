#!/bin/sh
# The main job, as a user would run it: train a sentiment prompt and a topic prompt on the embedded base, measure the first
# beside the base without it, then switch between both on one loaded base. Run by make demo from the project's root.
set -e
rm -f runs/sentiment.st runs/topic.st # of an earlier demo
say() { printf '\n%s\n' "$*"; }
ptune() { # shows the command line, with quotes where they are needed
  line='$ ptune'
  for word; do case $word in *[!A-Za-z0-9_.:/=-]*) line="$line \"$word\"" ;; *) line="$line $word" ;; esac; done
  echo "$line" >&2
  bin/ptune "$@"
}

say "A base of 2.8 million weights, and 16 virtual tokens that make it tell whether a review is positive:"
ptune train --config configs/sentiment.yaml

say "On 400 reviews that share no sentence with what it was trained on, with the prompt and without:"
ptune eval --prompt runs/sentiment.st --data internal/demo/data/test.jsonl --fail-under accuracy=0.9

say "The same text, without the prompt and with it:"
text="The room was small and the pool was dirty, but the staff were wonderful and I would go back."
ptune generate --model ptune:demo --max-tokens 5 "$text
Answer:"
ptune generate --prompt runs/sentiment.st "$text"

say "A second task on the same base, and both prompts on one loaded base:"
ptune train --config configs/topic.yaml --quiet
ptune generate --prompt runs/sentiment.st --prompt runs/topic.st \
  "The soup was cold and the waiters were rude." "I loved the story and the last chapter was brilliant." \
  "The battery was slow and the screen was scratched."
