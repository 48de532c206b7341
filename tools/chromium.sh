#!/bin/sh
# Has Chromium here, in which the tests look at reports: where it is missing, the Debian package manager brings it.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null; then
    echo "error: the tests look at reports in Chromium, which is not here: install it, as chromium on the PATH" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo"; fi
if [ -n "$as_root" ] && ! command -v sudo > /dev/null; then
    echo "error: the tests look at reports in Chromium, which only root can install here: apt-get install chromium" >&2
    exit 1
fi
$as_root apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive $as_root apt-get install --quiet=2 --yes --no-install-recommends chromium
