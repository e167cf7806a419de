#!/usr/bin/env bash
# Four real processes, four ways to end: in order, told beforehand that work would be lost,
# hanging and explained, forced with consent. Then what the journal keeps of them.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
lastcall=${LASTCALL:-../.venv/bin/lastcall}
python=${PYTHON:-../.venv/bin/python}
pid=
# Only the last one can still run, and only as our own child does its number still mean it.
trap 'if [ -n "$pid" ] && jobs -p | grep -qx "$pid"; then kill -KILL "$pid"; fi' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ lastcall %s\n' "$*"; "$lastcall" "$@" || printf '(exit code %d)\n' $?; }

# Starts a program and waits for its first line; its pid is in $pid then.
start() {
  local said
  exec 3< <(exec "$python" -u "programs/$1")
  pid=$!
  read -r said <&3
  [ "$said" = ready ]
}

say "1. It finishes what it has in hand, and ends in order."
start orderly.py
show stop "pid:$pid"
printf 'Its last words: '
cat <&3

say "2. It would lose its work, and lastcall says so before anything is sent."
start careless.py
show check "pid:$pid"
show stop "pid:$pid"

say "3. It hangs, and lastcall says why. Without consent it is left alone."
start stuck.py
show stop "pid:$pid" --grace 2

say "4. The same one, forced, with consent and a reason."
show stop "pid:$pid" --grace 1 --force --reason "the deadlock is known, see above"

say "What the journal keeps."
show log
