#!/bin/sh
# Runs the repository's own uv with pip's settings. uv does not read those, and a mirror, a certificate or the folder
# with a CPU build of torch may be named nowhere else.
set -eu
bin="$(dirname "$0")/../.bootstrap/bin"
settings="$("$bin/pip" config list)"

setting() { # NAME: pip's value, its words separated by spaces; the environment's goes before the files'
    for section in ':env:' 'install' 'global' 'site' 'user'; do
        printf '%s\n' "$settings" | sed -n "s/^$section\.$1='\(.*\)'\$/\1/p"
    done | head -n 1 | sed 's/\\n/ /g; s/^ *//; s/ *$//'
}

export_unless_set() { # NAME VALUE
    eval "current=\${$1:-}"
    if [ -z "$current" ] && [ -n "$2" ]; then export "$1=$2"; fi
}

export_unless_set UV_DEFAULT_INDEX "$(setting index-url)"
export_unless_set SSL_CERT_FILE "$(setting cert)"
# What one machine has beside the index has no say in what is pinned for all.
if [ "$2" != compile ]; then
    export_unless_set UV_INDEX "$(setting extra-index-url)"
    # Like pip, look further where the first index that has a package lacks the version.
    export_unless_set UV_INDEX_STRATEGY unsafe-first-match
fi
# Only the CPU set takes torch from there: a CPU build would satisfy the pin of the GPU set, too.
if [ "${ACCELERATOR:-cpu}" = cpu ]; then
    export_unless_set UV_FIND_LINKS "$(setting find-links | tr -s ' ' ',')"
    if [ -z "${UV_FIND_LINKS:-}" ]; then export_unless_set UV_TORCH_BACKEND cpu; fi
fi

exec "$bin/uv" "$@"
