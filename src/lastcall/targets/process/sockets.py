"""TCP sockets of processes: who listens where, who is connected, and what is in flight.

The facts come from `/proc/PID/net/tcp` and `tcp6` (the sockets of that process' network namespace)
and `/proc/PID/fd` (who holds which, by inode); how fresh the data of a connection is comes from
`lastcall.targets.process.tcpinfo`.

What the kernel cannot tell, and so neither can we:

- whether a request is complete: half a request looks like a whole one that waits for its answer;
- whether an answer is: between two pieces of a stream a connection looks idle (two looks, a moment
  apart, see a stream that moves);
- the order of data that came and went within one tick of the kernel's timer (`Activity.UNCLEAR`);
- what the bytes mean: a ping of HTTP/2 or WebSocket, or an acknowledgement inside TLS, that is
  never answered looks like a request.

Source: proc(5), Linux `Documentation/networking/proc_net_tcp.rst`, include/net/tcp_states.h.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.record import record
from lastcall.targets.process import tcpinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from lastcall.targets.process.tcpinfo import Traffic

# A line has 150 bytes: this is more than 200,000 sockets.
_TABLE_LIMIT_BYTES = 32 * 1024 * 1024
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared with, never bound)
# Linux delays an acknowledgement by up to 200 ms (TCP_DELACK_MAX).
_DELAYED_ACK_MS = 250
_V4_MAPPED = bytes(10) + b"\xff\xff"


class TcpState(StrEnum):
    """The states of a TCP socket that matter here."""

    ESTABLISHED = "established"
    FIN_WAIT1 = "closing (we closed, unacknowledged)"
    FIN_WAIT2 = "half closed (by us)"
    TIME_WAIT = "time wait"
    CLOSE_WAIT = "half closed (by the other side)"
    LAST_ACK = "closing (last acknowledgement)"
    LISTEN = "listening"
    CLOSING = "closing (both at once)"
    OTHER = "other"


_STATES = {
    "01": TcpState.ESTABLISHED,
    "04": TcpState.FIN_WAIT1,
    "05": TcpState.FIN_WAIT2,
    "06": TcpState.TIME_WAIT,
    "08": TcpState.CLOSE_WAIT,
    "09": TcpState.LAST_ACK,
    "0A": TcpState.LISTEN,
    "0B": TcpState.CLOSING,
}
# Nobody has accepted such a connection yet: it belongs to its listening socket.
_ACCEPTABLE = frozenset({TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})


@record
class Endpoint:
    """An address and a port; a v4-mapped IPv6 address is written as the IPv4 address it means."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@record
class Socket:
    """One TCP socket.

    Args:
        uid: the user who made it.
        inode: what ties it to file descriptors; 0 when no process holds it.
    """

    local: Endpoint
    remote: Endpoint
    state: TcpState
    uid: int
    inode: int

    def pack(self) -> str:
        """A listening socket as the journal keeps it."""
        return f"{self.local.host} {self.local.port} {self.uid} {self.inode}"

    @classmethod
    def unpack(cls, packed: str) -> Socket:
        """A listening socket back from the journal.

        Raises:
            ValueError: it is not of that form.
        """
        host, port, uid, inode = packed.split(" ")
        anywhere = Endpoint("::" if ":" in host else "0.0.0.0", 0)  # noqa: S104 (nothing is bound)
        return cls(Endpoint(host, int(port)), anywhere, TcpState.LISTEN, int(uid), int(inode))

    def accepts(self, other: Socket) -> bool:
        """Whether `other` is a connection that came in through this listening socket."""
        return (
            self.local.port == other.local.port
            and (self.local.host in _WILDCARDS or self.local.host == other.local.host)
            and other.state is not TcpState.LISTEN
        )


class Activity(StrEnum):
    """What goes on on a connection, as seen from the server."""

    QUEUED = "not accepted yet"
    UNREAD = "request not read yet"
    WAITING = "request in flight"
    UNDELIVERED = "answer under way"
    STREAMING = "answer being streamed"
    IDLE = "idle"
    SILENT = "connected, no request yet"
    UNCLEAR = "probably idle"
    UNKNOWN = "open"

    @property
    def in_flight(self) -> bool:
        """Whether work was taken in and is not finished, as far as can be told."""
        return self in _IN_FLIGHT


_IN_FLIGHT = frozenset(
    {Activity.UNREAD, Activity.WAITING, Activity.UNDELIVERED, Activity.STREAMING}
)


@record
class Connection:
    """One connection to a listening port.

    Args:
        pids: who holds it, in ascending order; empty when unknown, or when nobody accepted it.
        traffic: None when the kernel does not tell (another network namespace, netlink refused).
    """

    socket: Socket
    pids: tuple[int, ...]
    activity: Activity
    traffic: Traffic | None = None


def parse_table(raw: bytes, wanted: Callable[[str, str], bool]) -> list[Socket]:
    """Read `/proc/net/tcp` or `tcp6`.

    Args:
        raw: the file.
        wanted: takes the local port and the state, both in capital hexadecimal digits, and says
            whether to keep the line; there may be very many.
    """
    found = []
    for line in raw.decode("ascii", errors="replace").splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or not wanted(fields[1].rpartition(":")[2], fields[3]):  # noqa: PLR2004
            continue
        state = _STATES.get(fields[3], TcpState.OTHER)
        ends = (_endpoint(fields[1]), _endpoint(fields[2]))
        found.append(Socket(*ends, state, int(fields[7]), int(fields[9])))
    return found


def _endpoint(text: str) -> Endpoint:
    """`0100007F:1F90`: each 32 bits of the address as a number in the machine's byte order."""
    digits, _, port = text.rpartition(":")
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if packed[:12] == _V4_MAPPED:
        packed = packed[12:]
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6  # noqa: PLR2004 (bytes of IPv4)
    return Endpoint(socket.inet_ntop(family, packed), int(port, 16))


def table(pid: int | None, wanted: Callable[[str, str], bool]) -> list[Socket]:
    """The sockets of a process' network namespace; None means our own.

    Raises:
        ProcessLookupError: the process is gone.
        PermissionError: this user may not read it.
    """
    found = []
    for name in ("tcp", "tcp6"):
        path = f"/proc/{'self' if pid is None else pid}/net/{name}"
        try:
            raw = procfs.read_bytes(path, _TABLE_LIMIT_BYTES)
        except ProcessLookupError:  # a kernel without IPv6 has no tcp6
            if name == "tcp":
                raise
            continue
        except OSError as error:  # EINVAL: a zombie has no network namespace any more
            raise ProcessLookupError(error.errno, "no such process", path) from error
        found += parse_table(raw, wanted)
    return found


def listening(pid: int | None = None) -> list[Socket]:
    """Every listening TCP socket of a process' network namespace. Raises as `table`."""
    return table(pid, lambda _, state: state == "0A")


def held_by(pid: int) -> frozenset[int]:
    """The inodes of the sockets a process holds.

    Raises:
        ProcessLookupError: the process is gone.
        PermissionError: it is another user's, or guards itself.
    """
    place = f"/proc/{pid}/fd"
    found = set()
    try:
        names = os.listdir(place)
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", place) from error
    for name in names:
        try:
            link = os.readlink(f"{place}/{name}")
        except OSError:  # closed meanwhile
            continue
        if link.startswith("socket:["):
            found.add(int(link[8:-1]))
    return frozenset(found)


def holders(
    inodes: Collection[int], pids: Iterable[int] | None = None
) -> tuple[dict[int, tuple[int, ...]], tuple[int, ...]]:
    """Who holds these sockets.

    Args:
        inodes: the sockets.
        pids: where to look; None means every process.

    Returns:
        The pids in ascending order for each inode that has any, and the pids that this user may
        not look into.
    """
    wanted = frozenset(inodes)
    found: dict[int, list[int]] = {}
    closed = []
    for pid in sorted(procfs.pids() if pids is None else pids):
        try:
            mine = held_by(pid) & wanted
        except ProcessLookupError:
            continue
        except PermissionError:
            closed.append(pid)
            continue
        for inode in mine:
            found.setdefault(inode, []).append(pid)
    return {inode: tuple(who) for inode, who in found.items()}, tuple(closed)


def listening_of(pids: Iterable[int]) -> tuple[Socket, ...]:
    """The listening TCP sockets that any of these processes holds.

    What cannot be seen (a process that is gone, another user's) is left out.
    """
    found: dict[Socket, None] = {}
    for pid in pids:
        try:
            inodes = held_by(pid)
            if inodes and not inodes <= {s.inode for s in found}:
                found.update(dict.fromkeys(s for s in listening(pid) if s.inode in inodes))
        except (ProcessLookupError, PermissionError):
            continue
    return tuple(found)


def holders_of_ports(listeners: Collection[Socket]) -> list[int]:
    """Who listens now, in our own network namespace, where these sockets listened."""
    places = {s.local for s in listeners}
    inodes = {s.inode for s in listening() if s.local in places}
    found, _ = holders(inodes) if inodes else ({}, ())
    return sorted({pid for who in found.values() for pid in who})


def connections(
    listeners: Collection[Socket], pids: Collection[int], *, namespace_of: int | None = None
) -> tuple[Connection, ...]:
    """The open connections that came in through these listening sockets, to these processes.

    The listeners may be closed by now: a server that ends in order closes them first, so they
    have to be remembered from before.

    Args:
        listeners: the sockets they came in through.
        pids: who may hold them. Where one of them cannot be looked into, connections that nobody
            visible holds are told as well.
        namespace_of: the process whose network namespace is meant; None means our own.

    Raises:
        ProcessLookupError: the process of the namespace is gone.
        PermissionError: its sockets may not be read.
    """
    ports = {f"{s.local.port:04X}" for s in listeners}
    if not ports:
        return ()
    rows = table(namespace_of, lambda port, _: port in ports)
    still_listening = {s.inode for s in rows if s.state is TcpState.LISTEN}
    rows = [s for s in rows if any(listener.accepts(s) for listener in listeners)]
    owners, closed = holders({s.inode for s in rows} - {0}, pids)
    told = _traffic(rows)
    found = []
    for row in rows:
        if row.inode == 0:
            # Left over in the kernel's hands, unless it waits in the queue of a listening socket.
            doors = [s for s in listeners if s.accepts(row) and s.inode in still_listening]
            if row.state not in _ACCEPTABLE or not doors:
                continue
        elif row.inode not in owners and not closed:
            continue
        traffic = told.get((row.inode, row.remote.port if row.inode == 0 else 0))
        found.append(
            Connection(row, owners.get(row.inode, ()), activity(row, traffic), traffic),
        )
    return tuple(found)


def _traffic(rows: Iterable[Socket]) -> dict[tuple[int, int], Traffic]:
    """The traffic by inode; those that nobody has accepted (inode 0) also by their peer's port.

    An inode is unique on the whole machine, so a socket of another network namespace finds nothing.
    """
    told = tcpinfo.traffic(s.local.port for s in rows) or ()
    return {(t.inode, t.peer_port if t.inode == 0 else 0): t for t in told}


def activity(row: Socket, traffic: Traffic | None) -> Activity:
    """What goes on on a connection, by what the kernel remembers of its data."""
    if row.inode == 0:
        return Activity.QUEUED
    if traffic is None:
        return Activity.UNKNOWN
    # A close that the program has not noticed counts as one byte.
    ends = 1 if row.state is TcpState.CLOSE_WAIT else 0
    if traffic.unread_bytes > ends:
        return Activity.UNREAD
    if traffic.undelivered_bytes and traffic.sent_segments != 0:
        return Activity.UNDELIVERED
    if traffic.received_bytes == 0 and not traffic.sent_segments:
        return Activity.SILENT
    if traffic.sent_segments == 0 or traffic.received_ms < traffic.sent_ms:
        return Activity.WAITING
    if traffic.received_ms > traffic.sent_ms:
        return Activity.IDLE
    # Both in one tick. An acknowledgement that came a little later, without data, was for the
    # answer; one that came much later may be no more than a probe whether we are still there.
    late_ms = traffic.received_ms - traffic.acked_ms
    return Activity.IDLE if 0 < late_ms <= _DELAYED_ACK_MS else Activity.UNCLEAR


def streaming(before: Iterable[Connection], after: Iterable[Connection]) -> tuple[Connection, ...]:
    """The connections of the later look, with those told as streaming whose answer goes on.

    Args:
        before: an earlier look, a moment ago.
        after: the later look at the same listening sockets.
    """
    seen = {c.socket: c.traffic for c in before}

    def judged(now: Connection) -> Connection:
        then = seen.get(now.socket)
        moved = (
            then is not None
            and now.traffic is not None
            and then.received_bytes == now.traffic.received_bytes
            and then.sent_segments != now.traffic.sent_segments
        )
        waits = now.activity in {Activity.IDLE, Activity.UNCLEAR, Activity.UNDELIVERED}
        return replace(now, activity=Activity.STREAMING) if moved and waits else now

    return tuple(judged(connection) for connection in after)
