#!/bin/sh
# Makes a release archive: the program, completions for four shells, manual pages, and the licences
# of all linked libraries.
#
#   sh packaging/dist.sh bin/ptune VERSION
set -e
exe=$1
name=ptune-$2-linux-$(go env GOARCH)
out=dist/$name
rm -rf "$out" && mkdir -p "$out/completions" "$out/licences"
cp "$exe" "$out/ptune"
strip "$out/ptune"
cp README.md LICENSE "$out/"
for shell in bash zsh fish powershell; do "$exe" completion $shell > "$out/completions/ptune.$shell"; done
"$exe" man "$out/man"

# Go modules: copy each module's licence files.
modules='{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}'
go list -deps -f "$modules" ./cmd/ptune | sort -u | while read -r module version dir; do
	found=
	for f in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/License*; do
		test -f "$f" || continue
		to=$out/licences/$(echo "$module" | tr / _)
		mkdir -p "$to" && cp "$f" "$to/" && chmod -R u+w "$to" && found=1
	done
	test -n "$found" || { echo "dist: $module $version has no licence file" >&2; exit 1; }
	echo "$module $version"
done > "$out/licences/go-modules.txt"

# Rust crates of the tokenizer library: names, versions and licences, from their manifests.
manifest=$(go list -m -f '{{.Dir}}' github.com/daulet/tokenizers)/Cargo.toml
CARGO_TARGET_DIR=lib/target cargo tree --locked --manifest-path "$manifest" \
	--edges normal --prefix none --format '{p} {l}' |
	sed 's/ (\/[^)]*)//; s/ (\*)//' | sort -u > "$out/licences/rust-crates.txt"

tar -C dist -czf "dist/$name.tar.gz" "$name"
echo "dist/$name.tar.gz"
