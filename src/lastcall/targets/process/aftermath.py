"""After the end: is what it held really free, and has nobody been left behind?"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Finding, Severity
from lastcall.targets.process import sockets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lastcall.model import Address
    from lastcall.targets.process.sockets import Socket

_SHOWN = 5


def held_ports(address: Address, listeners: Collection[Socket]) -> tuple[Finding, ...]:
    """Whoever listens now where it listened."""
    holders = sockets.holders_of_ports(listeners)
    if not holders:
        return ()
    return (
        Finding(
            code="port-still-held",
            title=f"{address} is still listened on, by another process",
            severity=Severity.WARNING,
            evidence=tuple(f"pid {pid}  {procfs.label(pid)}" for pid in holders[:_SHOWN]),
            advice="a supervisor may have started it again, or a child was left behind: "
            f"lastcall check pid:{holders[0]}",
        ),
    )


def left_behind(below: Mapping[int, int]) -> tuple[Finding, ...]:
    """Which of its descendants live on.

    Args:
        below: pid and start time of each, as they were seen while it lived.
    """
    left = []
    for pid, start_ticks in below.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            entry = procfs.stat(pid)
            if entry.start_ticks == start_ticks and not procfs.over(entry):
                left.append(pid)
    if not left:
        return ()
    return (
        Finding(
            code="children-left",
            title=f"{len(left)} of its descendants live on without it",
            severity=Severity.WARNING,
            evidence=tuple(f"pid {pid}  {procfs.label(pid)}" for pid in left[:_SHOWN]),
            advice=f"lastcall stop pid:{left[0]}; next time: --tree",
        ),
    )
