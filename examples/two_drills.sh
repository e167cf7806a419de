#!/usr/bin/env bash
# Two servers under the same work, stopped in the middle of it: one loses it, one keeps its word.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
lastcall=${LASTCALL:-../.venv/bin/lastcall}
python=${PYTHON:-../.venv/bin/python}
reports=${REPORTS:-$(mktemp -d)}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
drill() {
  printf '$ lastcall drill http --probe -- %s\n' "python -m lastcall.drill.probe.$1 {port}"
  "$lastcall" drill http --probe --count 10 --html "$reports/$1.html" -- \
    "$python" -m "lastcall.drill.probe.$1" "{port}" || printf '(exit code %d)\n' $?
}

say "A server as it is often written. It is stopped with work in every state."
drill careless

say "One that keeps its word, under the same work."
drill careful

say "Every connection, on a timeline: open these pages in a browser."
printf '%s\n' "$reports/careless.html" "$reports/careful.html"
