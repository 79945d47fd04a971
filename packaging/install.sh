#!/bin/sh
# Installs the program, its manual pages and its completions for bash, zsh and fish.
#
#   sh packaging/install.sh bin/ptune PREFIX      # DESTDIR: a folder to put before PREFIX, for packages
set -e
exe=$1
prefix=$DESTDIR$2
share=$prefix/share
complete() { # SHELL FOLDER FILE
	mkdir -p "$share/$2"
	"$exe" completion "$1" > "$share/$2/$3"
}
mkdir -p "$prefix/bin"
install -m 755 "$exe" "$prefix/bin/ptune"
"$exe" man "$share/man/man1"
complete bash bash-completion/completions ptune
complete zsh zsh/site-functions _ptune
complete fish fish/vendor_completions.d ptune.fish
echo "ptune: $prefix/bin/ptune, manual pages and completions are installed"
test -n "$DESTDIR" && exit # a package is not used from there
case :$PATH: in *":$prefix/bin:"*) ;; *) echo "ptune: $prefix/bin is not on the PATH" ;; esac
