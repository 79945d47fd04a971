#!/bin/sh
# List everything that is linked into ptune, with its version and licence, as Markdown: Go modules by their licence files, Rust crates by
# their manifests.
set -e
licence() {
	case "$(tr -s '\n\t ' ' ' < "$1")" in
	*"Apache License"*"Version 2.0"*) echo Apache-2.0 ;;
	*"Permission is hereby granted, free of charge"*) echo MIT ;;
	*"Redistribution and use in source and binary forms"*"either the name"*) echo BSD-3-Clause ;;
	*"Redistribution and use in source and binary forms"*) echo BSD-2-Clause ;;
	*"Mozilla Public License"*) echo MPL-2.0 ;;
	*) echo "see $(basename "$1")" ;;
	esac
}
echo "# What is linked in"
echo
echo "\`make linked\` writes this list; \`make dist\` puts the licences' texts into the archive. With \`TAGS=parquet\` parquet-go and what it needs come in, too."
echo
echo "| Go module | version | licence |"
echo "|---|---|---|"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/ptune | sort -u | while read -r module version dir; do
	for f in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/License*; do
		test -f "$f" || continue
		echo "| $module | $version | $(licence "$f") |"
		break
	done
done
echo
echo "| Rust crate of the tokenizer library | version | licence |"
echo "|---|---|---|"
manifest=$(go list -m -f '{{.Dir}}' github.com/daulet/tokenizers)/Cargo.toml
CARGO_TARGET_DIR=lib/target cargo tree --locked --manifest-path "$manifest" --edges normal --prefix none --format '{p}|{l}' | sed 's/ (\/[^)]*)//; s/ (\*)//' | sort -u | grep -v '^tokenizers-ffi ' |
	sed 's/^\([^ ]*\) v\([^|]*\)|\(.*\)$/| \1 | \2 | \3 |/'
