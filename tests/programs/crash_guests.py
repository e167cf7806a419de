# As crash_lastcall.py, for stops of guests: its points are also those just before a QMP command
# that acts on a guest and just after QEMU's answer to it. The ledger has a line "doing COMMAND
# PATH" for each, where PATH is the monitor's socket.
#
# Nobody dies while a command is under way, so that QEMU has either been told or not.
import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import crash_lastcall

import lastcall.cli.guests
import lastcall.targets.guest.before
import lastcall.targets.guest.during
import lastcall.targets.guest.opening
import lastcall.targets.guest.qmp.client
import lastcall.targets.guest.qmp.machine  # noqa: F401 (all loaded before the forks)
from lastcall.model import Depth, Finding
from lastcall.targets.guest import following, ladder, press
from lastcall.targets.guest.qmp.session import COMMAND_S, Session
from lastcall.targets.guest.target import GuestTarget

ACTING = {"system_powerdown", "system_wakeup", "cont", "quit"}
POINTS = crash_lastcall.patch


class Under:
    """Counts the commands that are under way, one at a time."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def way(self) -> AsyncIterator[None]:
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


def patch(points: Any, *, blind: bool) -> None:
    POINTS(points, blind=blind)
    execute, point, under = Session.execute, points.point, Under()
    look_closely = GuestTarget.look
    loops_own = threading.get_ident()

    def waiting_point(label: str) -> None:
        if threading.get_ident() != loops_own:
            under.free.wait()
        point(label)

    async def counted(
        session: Session, command: str, arguments: Any = None, limit_s: float = COMMAND_S
    ) -> object:
        if command not in ACTING:
            return await execute(session, command, arguments, limit_s)
        async with under.turn:
            points.point(f"before {command}")
            try:
                async with under.way():
                    points.write(f"doing {command} {session._sock.getpeername()}")
                    return await execute(session, command, arguments, limit_s)
            finally:
                points.point(f"after {command}")

    async def look(target: GuestTarget, depth: Depth) -> tuple[Finding, ...]:
        # A deep look takes its time, as in crash_lastcall.py; a quick one finds what was dropped.
        return await look_closely(target, depth) if depth is Depth.QUICK else ()

    points.point = waiting_point
    Session.execute = counted
    GuestTarget.look = look
    # What is waited for by rule would only make the suite long.
    press.STILL_S, press.SETTLE_S = 0.5, 0.3
    following._GLANCE_S = following._FINISH_S = 0.2
    ladder.END_WAIT_S = ladder.KILL_WAIT_S = 1.5


if __name__ == "__main__":
    crash_lastcall.patch = patch
    crash_lastcall.main()
