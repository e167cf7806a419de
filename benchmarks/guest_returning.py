"""From a guest's end to the command's return: lastcall against virsh with what is put around it."""

from __future__ import annotations

import os
import random
import select
import time
from typing import TYPE_CHECKING

from guests import zoo
from guests.libvirtd import libvirtd
from measure import Effort, Row, in_turns
from stage import LASTCALL, PATIENCE_S, Stage, program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guests.libvirtd import Libvirtd

NAME = "guests: from the end of QEMU to the command's return"
LOOP = "virsh shutdown, then virsh domstate every 1 s"
EVENTS = "virsh shutdown, and virsh event --loop until it says Stopped"
# Of varying length, so that the loop is not always met at the same point; long enough that all of
# them wait by then.
DELAYS_S = (1.0, 1.25, 1.5, 1.75)

LOOP_SCRIPT = """\
virsh -q -c "$1" shutdown "$2" >/dev/null
until [ "$(virsh -q -c "$1" domstate "$2")" = "shut off" ]; do sleep 1; done
"""
# One that waits for the first event only comes back before the guest's end: "Shutdown Finished"
# is told when the guest is off and its QEMU still runs.
EVENT_SCRIPT = """\
exec 3< <(exec virsh -c "$1" event --domain "$2" --event lifecycle --loop)
watching=$!
virsh -q -c "$1" shutdown "$2" >/dev/null
while read -r line <&3; do
  case "$line" in *Stopped*) kill "$watching"; exit 0 ;; esac
done
exit 1
"""


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about returning."""
    for name in ("virsh", "bash"):
        program(name)
    with libvirtd() as daemon:

        def by_libvirt(*words: str) -> Callable[[], float]:
            return lambda: _libvirt_ms(stage, daemon, words)

        taken = in_turns(
            effort.fewer(3),
            "ms",
            {
                "libvirt": by_libvirt(LASTCALL, "stop", "--connect", "URI", "libvirt:NAME"),
                LOOP: by_libvirt("bash", "-c", LOOP_SCRIPT, "bash", "URI", "NAME"),
                EVENTS: by_libvirt("bash", "-c", EVENT_SCRIPT, "bash", "URI", "NAME"),
                "qmp": lambda: _qmp_ms(stage),
            },
        )
    ours = taken["libvirt"]
    return [
        Row(
            f"{NAME}, libvirt:",
            ours,
            other,
            taken[other],
            aim="not later",
            reached=ours.median <= taken[other].median,
        )
        for other in (LOOP, EVENTS)
    ] + [Row(f"{NAME}, qmp:", taken["qmp"])]


def _libvirt_ms(stage: Stage, daemon: Libvirtd, words: Sequence[str]) -> float:
    delay_s = random.choice(DELAYS_S)  # noqa: S311 (no secret)
    with daemon.guest("slow", keep=True, delay_s=delay_s, writes=0) as guest:
        guest.wait_up()
        given = [word.replace("URI", daemon.uri).replace("NAME", guest.name) for word in words]
        return _return_ms(stage, guest.pid, given)


def _qmp_ms(stage: Stage) -> float:
    delay_s = random.choice(DELAYS_S)  # noqa: S311 (no secret)
    with zoo.start("slow", delay_s=delay_s, writes=0) as guest:
        guest.wait_up()
        words = (LASTCALL, "stop", f"qmp:{guest.qmp}")
        return _return_ms(stage, guest.pid, words, reap=guest.process.poll)


def _return_ms(
    stage: Stage, pid: int, words: Sequence[str], reap: Callable[[], object] = lambda: None
) -> float:
    """How long after the end of that QEMU the command came back.

    Args:
        stage: runs the command.
        pid: of the QEMU.
        words: the command.
        reap: takes its end, where it is a child of ours.
    """
    fd = os.pidfd_open(pid)
    try:
        running = stage.start(*words)
        ready, _, _ = select.select([fd], [], [], PATIENCE_S)
        ended_ns = time.monotonic_ns()
    finally:
        os.close(fd)
    if not ready:
        raise RuntimeError("a guest of the benchmark did not end")
    reap()
    ran = stage.expected(running.finish(), words)
    if ran.returned_ns < ended_ns:
        raise RuntimeError(f"{words[0]} came back before its guest's end: what did it wait for?")
    return (ran.returned_ns - ended_ns) / 1e6
