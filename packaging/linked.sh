#!/bin/sh
# Prints all libraries that are linked into ptune, with versions and licences, as Markdown. The
# licence of a Go module is recognised from its licence file, that of a Rust crate is in its manifest.
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
echo "# Linked libraries"
echo
echo "All libraries in the ptune program. \`make linked\` writes this page, and \`make dist\` puts the texts of"
echo "the licences into the archive."
echo
echo "| Go module | version | licence |"
echo "|---|---|---|"
modules='{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}'
go list -deps -f "$modules" ./cmd/ptune | sort -u | while read -r module version dir; do
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
CARGO_TARGET_DIR=lib/target cargo tree --locked --manifest-path "$manifest" \
	--edges normal --prefix none --format '{p}|{l}' |
	sed 's/ (\/[^)]*)//; s/ (\*)//' | sort -u | grep -v '^tokenizers-ffi ' |
	sed 's/^\([^ ]*\) v\([^|]*\)|\(.*\)$/| \1 | \2 | \3 |/'
