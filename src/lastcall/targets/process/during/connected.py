"""Open connections as a finding: who is connected, and what is in flight.

Source: see `lastcall.targets.process.sockets`, which also says what cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record
from lastcall.targets.process import sockets
from lastcall.targets.process.sockets import Activity, TcpState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.targets.process.sockets import Connection, Socket

_MOST_LINES = 20
_ORDER = (
    Activity.WAITING,
    Activity.UNREAD,
    Activity.STREAMING,
    Activity.UNDELIVERED,
    Activity.QUEUED,
    Activity.UNKNOWN,
    Activity.UNCLEAR,
    Activity.IDLE,
    Activity.SILENT,
)


@record
class Look:
    """One look at the connections of some processes.

    Args:
        namespace_of: the process whose network namespace was looked at.
        listeners: the listening sockets they came in through.
        open: the connections.
    """

    namespace_of: int
    listeners: tuple[Socket, ...]
    open: tuple[Connection, ...]


def look(pids: Sequence[int], listeners: Sequence[Socket]) -> Look:
    """The open connections that came in through these sockets, or what is listened on now.

    Workers may hold them, so all processes below count as well.

    Raises:
        ProcessLookupError: the first process is gone.
        PermissionError: its sockets may not be read.
    """
    everyone = list(dict.fromkeys(p for pid in pids for p in procfs.family(pid)))
    doors = dict.fromkeys((*listeners, *sockets.listening_of(everyone)))
    found = sockets.connections(tuple(doors), everyone, namespace_of=pids[0])
    return Look(pids[0], tuple(doors), found)


def finding(first: Look, second: Look) -> tuple[Finding, ...]:
    """The connections in words; nothing when none is open.

    Args:
        first: an earlier look; the same as `second` when there was only one.
        second: the look that counts.
    """
    found = sockets.streaming(first.open, second.open)
    if not found:
        return ()
    found = tuple(sorted(found, key=_urgency))
    busy = [c for c in found if c.activity.in_flight]
    unknown = [c for c in found if c.activity is Activity.UNKNOWN]
    shown = found[:_MOST_LINES]
    peers = _peers([c.socket for c in shown], second.namespace_of)
    lines = [_line(c, peers) for c in shown]
    if len(found) > len(shown):
        lines.append(f"and {len(found) - len(shown)} more")
    return (
        Finding(
            "connections",
            _title(found, len(busy), len(unknown)),
            Severity.BLOCKER,
            Confidence.LIKELY if busy else Confidence.POSSIBLE,
            evidence=tuple(lines),
            advice=_advice(len(busy), len(unknown)),
        ),
    )


def _urgency(one: Connection) -> tuple[int, int]:
    """What is in flight first, and the longest waiting first."""
    waited_ms = one.traffic.received_ms if one.traffic is not None else 0
    return _ORDER.index(one.activity), -waited_ms


def _title(found: Sequence[Connection], busy: int, unknown: int) -> str:
    ports = sorted({c.socket.local.port for c in found})
    where = f"port {', '.join(map(str, ports[:3]))}" + (" …" if len(ports) > 3 else "")  # noqa: PLR2004 (a line)
    if unknown == len(found):
        return f"{_count(unknown, 'connection')} open on {where}"
    rest = len(found) - busy
    if not busy:
        return f"no request in flight on {where}, {_count(rest, 'connection')} open"
    others = f", {_count(rest, 'other connection')} open" if rest else ""
    return f"{_count(busy, 'request')} in flight on {where}{others}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _advice(busy: int, unknown: int) -> str:
    if busy:
        return "it probably waits for these: give it more time, or see what they wait for"
    if unknown:
        return "it may wait for these: close them from the other side, or give it more time"
    return "some servers wait until idle connections are closed: close them from the other side"


def _line(one: Connection, peers: dict[Socket, str]) -> str:
    said = f"{one.socket.remote} -> {one.socket.local}: {one.activity.value}{_since(one)}"
    if one.socket.state is TcpState.CLOSE_WAIT:
        said += ", and the other side has hung up"
    elif one.socket.state is not TcpState.ESTABLISHED:
        said += f", {one.socket.state.value}"
    peer = peers.get(one.socket)
    return f"{said}; from {peer}" if peer else said


def _since(one: Connection) -> str:
    traffic = one.traffic
    if traffic is None:
        return ""
    came, went = _ago(traffic.received_ms), _ago(traffic.sent_ms)
    match one.activity:
        case Activity.WAITING:
            return f", received {came} ago, nothing sent since"
        case Activity.UNREAD:
            return f", {_count(traffic.unread_bytes, 'byte')} received {came} ago wait to be read"
        case Activity.UNDELIVERED:
            waiting = _count(traffic.undelivered_bytes, "byte")
            return f", {waiting} not taken by the other side, last sent {went} ago"
        case Activity.STREAMING:
            return f", last sent {went} ago, request received {came} ago"
        case Activity.IDLE:
            return f" since {went} (answered last)"
        case Activity.UNCLEAR:
            return f" since {went} (data came and went in the same moment)"
        case Activity.SILENT:
            return f", made {came} ago"
        case Activity.QUEUED:
            return f", received {came} ago" if traffic.received_bytes else f", made {came} ago"
        case _:
            return ""


def _ago(ms: int) -> str:
    if ms < 10_000:  # noqa: PLR2004 (a tenth of a second means nothing beyond that)
        return f"{ms / 1000:.1f} s"
    seconds = ms // 1000
    if seconds < 120:  # noqa: PLR2004 (people think in minutes from there on)
        return f"{seconds} s"
    return f"{seconds // 60} min"


def _peers(connections: Sequence[Socket], namespace_of: int) -> dict[Socket, str]:
    """The process on the other side of each connection, where it runs on this machine."""
    ports = {f"{s.remote.port:04X}" for s in connections}
    wanted = {(s.remote, s.local): s for s in connections}
    try:
        rows = sockets.table(namespace_of, lambda port, _: port in ports)
    except (ProcessLookupError, PermissionError):
        return {}
    ends = {s.inode: wanted[s.local, s.remote] for s in rows if (s.local, s.remote) in wanted}
    held, _ = sockets.holders(set(ends) - {0}) if ends else ({}, ())
    return {
        ends[inode]: f"pid {who[0]} ({procfs.label(who[0], 40)})" for inode, who in held.items()
    }
