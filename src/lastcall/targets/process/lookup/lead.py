"""Where a look-up points, and what all kinds of look-ups share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.kernel.identity import Handle
    from lastcall.model import Finding
    from lastcall.targets.process.sockets import Socket

# The kernel never gives a higher one (PID_MAX_LIMIT, include/linux/threads.h).
HIGHEST_PID = 4 * 1024 * 1024


@record
class Lead:
    """Where a look-up points, before anybody is held.

    Args:
        pid: the process it points to.
        still: whether it still points there; asked once the process is held.
        listeners: as in `Found`.
        notes: as in `Found`.
    """

    pid: int
    still: Callable[[Handle], bool]
    listeners: tuple[Socket, ...] = ()
    notes: tuple[Finding, ...] = ()


def read_pid(text: str) -> int | None:
    """The pid a text names; None when it names none."""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(HIGHEST_PID)):
        return None
    pid = int(text)
    return pid if 1 <= pid <= HIGHEST_PID else None


def topmost(pids: list[int]) -> int | None:
    """The one of these processes that is an ancestor of all the others; None when none is."""
    for pid in pids:
        others = [p for p in pids if p != pid]
        if all(pid in procfs.ancestors(other) for other in others):
            return pid
    return None
