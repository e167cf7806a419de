"""What a program with a `lastcall.Lifecycle` tells of its own end, through its status socket.

The socket is an abstract one, `lastcall/PID/START` with the pid as the program knows it and field
22 of its stat. Abstract names belong to whoever takes them first, so the kernel is asked who is at
the other end: another process's word does not count. What comes is somebody else's text all the
same: each line is limited in size, and each field is checked.

The form is `lastcall 1`: one JSON object a line, at once and with each change; see
`lastcall.app.snapshot`, which is not imported: this is all that both have in common.

Source: unix(7), "Abstract sockets" and SO_PEERCRED; proc_pid_stat(5), proc_pid_status(5) (NSpid).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.kernel.run import printable
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.kernel.identity import ProcessIdentity

VERSION = 1
LINE_BYTES = 65536
_CHUNK_BYTES = 65536
_MOST = 100
_WORDS, _NAME, _LONGEST_S = 600, 160, 1e9
_ASK = b'{"ask": "look"}\n'


@record
class HookState:
    """One hook of a phase.

    Args:
        where: `file:line` of its registration; empty when not known.
        inner: whether it is the library's own ("work in flight").
        outcome: waiting, running, done, failed, cut off, loop gone.
    """

    phase: str
    name: str
    where: str
    inner: bool
    outcome: str
    took_s: float
    detail: str


@record
class StuckState:
    """What a hook or thread sits in.

    Args:
        what: `hook 'close_pool'`, `thread 'pump'`.
        where: `file:line` of its registration; empty for threads.
        since_s: for how long, in seconds.
        waiting_for: in words; empty when not known.
        stack: innermost last.
    """

    what: str
    where: str
    since_s: float
    waiting_for: str
    stack: tuple[str, ...]


@record
class Plea:
    """A hook asked for more time; `number` counts them from 1."""

    number: int
    hook: str
    asked_s: float
    reason: str
    left_s: float


@record
class Snapshot:
    """What a lifecycle tells at one moment.

    Args:
        state: running, stopping, ended.
        grace_s: how long its stop may take, in seconds.
        ceiling_s: how far its hooks may move that; None: not at all.
        since_s: for how long it has been stopping.
        left_s: how long it still may take; None when it does not stop.
        phase: the one that is on; empty: none.
        phase_left_s: until that is cut off.
        looks: how often it looked at what is stuck.
        in_flight: how many pieces of work.
        oldest: the oldest of them, with their ages in seconds.
        objections: hook, reason, and whether the stop was called off for it.
        previous: how the last run ended; empty when it does not tell.
    """

    name: str
    state: str
    grace_s: float
    ceiling_s: float | None
    reason: str
    since_s: float
    left_s: float | None
    phase: str
    phase_left_s: float
    hooks: tuple[HookState, ...]
    stuck: tuple[StuckState, ...]
    deadlocks: tuple[str, ...]
    looks: int
    in_flight: int
    oldest: tuple[tuple[str, float], ...]
    pleas: tuple[Plea, ...]
    objections: tuple[tuple[str, str, bool], ...]
    previous: str

    @property
    def running(self) -> tuple[HookState, ...]:
        """The program's own hooks that are running."""
        return tuple(h for h in self.hooks if h.outcome == "running" and not h.inner)


def parse(line: bytes) -> Snapshot | None:
    """Read a line; None: it is not of this form. What is odd in it becomes empty or 0."""
    if len(line) > LINE_BYTES:
        return None
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("lastcall") != VERSION:
        return None
    state = _text(data.get("state"))
    if state not in {"running", "stopping", "ended"}:
        return None
    phase, flight = _table(data.get("phase")), _table(data.get("in_flight"))
    return Snapshot(
        name=_text(data.get("name"), _NAME),
        state=state,
        grace_s=_seconds(data.get("grace_s")),
        ceiling_s=_maybe(data.get("ceiling_s")),
        reason=_text(data.get("reason")),
        since_s=_seconds(data.get("since_s")),
        left_s=_maybe(data.get("left_s")),
        phase=_text(phase.get("name"), _NAME),
        phase_left_s=_seconds(phase.get("left_s")),
        hooks=tuple(_hook(each) for each in _tables(data.get("hooks"))),
        stuck=tuple(_stuck(each) for each in _tables(data.get("stuck"))),
        deadlocks=_texts(data.get("deadlocks")),
        looks=_count(data.get("looks")),
        in_flight=_count(flight.get("count")),
        oldest=tuple(
            (_text(each.get("work"), _NAME), _seconds(each.get("age_s")))
            for each in _tables(flight.get("oldest"))
        ),
        pleas=tuple(_plea(each) for each in _tables(data.get("extensions"))),
        objections=tuple(
            (_text(each.get("hook"), _NAME), _text(each.get("reason")), each.get("heard") is True)
            for each in _tables(data.get("objections"))
        ),
        previous=_text(data.get("previous")),
    )


def _hook(data: dict[str, object]) -> HookState:
    return HookState(
        _text(data.get("phase"), _NAME),
        _text(data.get("hook"), _NAME),
        _text(data.get("where")),
        data.get("inner") is True,
        _text(data.get("outcome"), _NAME),
        _seconds(data.get("took_s")),
        _text(data.get("detail")),
    )


def _stuck(data: dict[str, object]) -> StuckState:
    return StuckState(
        _text(data.get("what"), _NAME),
        _text(data.get("where")),
        _seconds(data.get("since_s")),
        _text(data.get("waiting_for")),
        _texts(data.get("stack")),
    )


def _plea(data: dict[str, object]) -> Plea:
    return Plea(
        _count(data.get("number")),
        _text(data.get("hook"), _NAME),
        _seconds(data.get("asked_s")),
        _text(data.get("reason")),
        _seconds(data.get("left_s")),
    )


def _text(value: object, most: int = _WORDS) -> str:
    return printable(value, most) if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in value[:_MOST]) if isinstance(value, list) else ()


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        return []
    return [each for each in value[:_MOST] if isinstance(each, dict)]


def _maybe(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return min(max(number, 0.0), _LONGEST_S) if isfinite(number) else None


def _seconds(value: object) -> float:
    return _maybe(value) or 0.0


def _count(value: object) -> int:
    return int(_seconds(value))


# -- the socket


def connect(identity: ProcessIdentity) -> socket.socket | None:
    """A connection to this very process; None: it has no status socket that we can reach.

    Never blocks. Another process that took the name, or a later one with the same pid, is refused.
    """
    try:
        inner = procfs.status_line(identity.pid, "NSpid").split()[-1:] or [str(identity.pid)]
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        link.setblocking(False)
        link.connect(f"\0lastcall/{inner[0]}/{identity.start_ticks}")
        raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", raw)[0] == identity.pid:
            return link
    except OSError:  # nobody listens, or so many that there is no room
        pass
    link.close()
    return None


async def ask(
    identity: ProcessIdentity, limit_s: float, *, look: bool = False
) -> tuple[bool, Snapshot | None]:
    """What a process tells now.

    Args:
        identity: which one.
        limit_s: how long to wait for it, in seconds.
        look: whether to have it look at what is stuck first.

    Returns:
        Whether it has a status socket, and what came of it: None when it says nothing of use, or
        nothing at all because it does not get to run.
    """
    link = connect(identity)
    if link is None:
        return False, None
    told: list[Snapshot] = []
    try:
        async with asyncio.timeout(limit_s):
            if look:
                await asyncio.get_running_loop().sock_sendall(link, _ASK)
            await _listen(link, told, look=look)
    except (TimeoutError, OSError):
        pass
    finally:
        link.close()
    return True, told[-1] if told else None


async def _listen(link: socket.socket, told: list[Snapshot], *, look: bool) -> None:
    """Read lines until one is enough, or nothing more comes."""
    loop, rest = asyncio.get_running_loop(), b""
    while chunk := await loop.sock_recv(link, _CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if (snapshot := parse(line)) is None:
                return
            told.append(snapshot)
            if not look or snapshot.looks > told[0].looks or snapshot.state != "stopping":
                return
        if len(rest) > LINE_BYTES:
            return


class Follower:
    """Follows one process on the running loop, until it ends or falls silent for good.

    Args:
        link: to it; the follower owns it.
        told: called with each change.
    """

    def __init__(self, link: socket.socket, told: Callable[[Snapshot], None]) -> None:
        self._link = link
        self._told = told
        self._rest = b""
        self.closed: bool = False
        asyncio.get_running_loop().add_reader(link, self._ready)

    def _ready(self) -> None:
        try:
            chunk = self._link.recv(_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            snapshot = parse(line)
            if snapshot is None:
                self.close()
                return
            self._told(snapshot)
        if not chunk or len(self._rest) > LINE_BYTES:
            self.close()

    def drain(self) -> None:
        """Take what has come, up to the end: it has ended, so no more will."""
        for _ in range(_MOST):
            if self.closed:
                return
            self._ready()

    def close(self) -> None:
        """Listen no more. Harmless to repeat."""
        if not self.closed:
            self.closed = True
            with suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()
