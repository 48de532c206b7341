#!/bin/sh
# Prints where promtool is. It is part of Prometheus, and nobody publishes it to the package index of Python: where it is
# not installed, it is taken out of Debian's package, which need not be installed for that.
set -eu
root="$(cd "$(dirname "$0")/.." && pwd)"
kept="$root/.bootstrap/promtool"

if command -v promtool; then exit; fi
if [ ! -x "$kept" ]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "error: promtool is not on the PATH: install Prometheus (it brings promtool)" >&2
        exit 2
    fi
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    apt-get download --quiet prometheus >log 2>&1 ||
        { apt-get update --quiet && apt-get download --quiet prometheus; } >log 2>&1 ||
        { cat log >&2; echo "error: promtool is not on the PATH, and apt-get has no prometheus: install it" >&2; exit 2; }
    dpkg-deb --extract prometheus_*.deb .
    mkdir -p "$(dirname "$kept")"
    mv usr/bin/promtool "$kept"
fi
echo "$kept"
