#!/usr/bin/env bash
# Two real virtual machines: one stops, one will not hear the power button, and that is told before
# it is pressed. Each is a boot sector of 512 bytes on a real QEMU, up in a quarter of a second.
#
# Needs qemu-system-x86 and nasm; without them it says so and does nothing.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for program in qemu-system-x86_64:qemu-system-x86 nasm:nasm; do
  command -v "${program%%:*}" >/dev/null || {
    echo "skipped: two virtual machines (${program%%:*} is not installed: apt-get install ${program#*:})"
    exit 0
  }
done
folder=$(mktemp -d)
cd "$folder"
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

start() { # a guest that says "up" once it is in its loop
  nasm -f bin -I "$here/../tests/guests/zoo-guests/" -o "$1.img" "$here/../tests/guests/zoo-guests/$1.asm"
  truncate -s 510 "$1.img"
  printf '\x55\xaa' >>"$1.img"
  truncate -s 2M "$1.img"
  qemu-system-x86_64 -accel tcg -M pc -m 16 -nodefaults -display none -device VGA \
    -drive "file=$1.img,format=raw,if=ide" -debugcon "file:$1.said" \
    -qmp "unix:$1.sock,server=on,wait=off" -name "$1" </dev/null 2>>errors &
  pids+=($!)
  until grep -q up "$1.said" 2>/dev/null; do sleep 0.05; done
}

start stops
start deaf

echo "A virtual machine that hears the power button:"
lastcall stop qmp:stops.sock
echo
echo "One that does not, told before anything is pressed:"
lastcall check qmp:deaf.sock || echo "exit code $?"
echo
echo "And what a stop of it comes to:"
lastcall stop qmp:deaf.sock --grace 2s --press-again never || echo "exit code $?"
