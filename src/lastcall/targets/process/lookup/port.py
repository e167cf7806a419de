"""Who listens on a port.

All who hold one listening socket are one server: one process made the socket and its children
inherited it, so the server is the holder that stands above all others. Where that one has let go
of the socket, it is the nearest process above them all, if that has no other business.

Source: proc(5), socket(7) (SO_REUSEPORT), unix(7) (SCM_RIGHTS), systemd.socket(5), ip(7), ipv6(7).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from lastcall.errors import Ambiguous, BadAddress, NotPermitted, NotRunning
from lastcall.kernel import procfs
from lastcall.model import Finding, Severity
from lastcall.record import record
from lastcall.targets.process import sockets
from lastcall.targets.process.lookup.lead import Lead, topmost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.kernel.identity import Handle
    from lastcall.targets.process.sockets import Socket

_HIGHEST = 65535
_V4_ANY, _V6_ANY = "0.0.0.0", "::"  # noqa: S104 (compared with, never bound)
_MANAGER = "systemd"


@record
class _Server:
    """One server: its process, those who hold its sockets, and the sockets.

    Args:
        activator: who else holds them and would start it again; None when nobody does.
    """

    pid: int
    holders: frozenset[int]
    listeners: tuple[Socket, ...]
    activator: int | None


def parse(name: str) -> tuple[str | None, int]:
    """Read `8080`, `127.0.0.1:8080` or `[::1]:8080`: the address (None: any) and the port.

    Raises:
        BadAddress: it is none of these.
    """
    advice = "write it as port:8080, port:127.0.0.1:8080 or port:[::1]:8080"
    host, colon, digits = name.rpartition(":")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0  # noqa: PLR2004 (longer ones are no port either)
    if not 0 < number <= _HIGHEST:
        raise BadAddress(f"{name!r} names no port between 1 and {_HIGHEST}", advice)
    if not colon:
        return None, number
    v6 = host.startswith("[") and host.endswith("]")
    family = socket.AF_INET6 if v6 else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host[1:-1] if v6 else host)
    except (OSError, ValueError):
        raise BadAddress(f"{host!r} is not an address of this machine", advice) from None
    return socket.inet_ntop(family, packed), number


def find(name: str) -> Lead:
    """The process that listens there.

    Raises:
        BadAddress: it is no port.
        NotRunning: nobody listens there.
        Ambiguous: several servers do.
        NotPermitted: somebody does, and this user may not see who.
    """
    host, port = parse(name)
    listeners = _listeners(host, port)
    if not listeners:
        raise NotRunning(f"nobody listens on port {name}", _elsewhere(port) if host else "")
    held, closed = sockets.holders({s.inode for s in listeners})
    unseen = [s for s in listeners if s.inode not in held]
    if unseen and len(unseen) == len(listeners):
        raise _not_visible(name, unseen[0], closed)
    servers = _merge([_server(s, held[s.inode]) for s in listeners if s.inode in held])
    if len(servers) > 1:
        raise _several(name, servers)
    server = servers[0]
    return Lead(
        server.pid,
        lambda handle: _still(handle, server),
        server.listeners,
        (*_notes(name, server), *_unseen_notes(unseen)),
    )


def _listeners(host: str | None, port: int) -> list[Socket]:
    """Who takes connections to this address: the socket bound to it, or else to all addresses."""
    there = [s for s in sockets.listening() if s.local.port == port]
    if host is None:
        return there
    wider = [host, _V4_ANY, _V6_ANY] if ":" not in host else [host, _V6_ANY]
    for candidate in wider:
        if found := [s for s in there if s.local.host == candidate]:
            return found
    return []


def _elsewhere(port: int) -> str:
    found = sorted({str(s.local) for s in sockets.listening() if s.local.port == port})
    return f"but somebody does on {', '.join(found)}" if found else ""


def _server(listener: Socket, pids: Sequence[int]) -> _Server:
    """The server behind one listening socket.

    Raises:
        Ambiguous: its holders have nobody in common who could be stopped.
        NotRunning: only a service manager holds it, for a service that does not run.
    """
    activators = [pid for pid in pids if _is_manager(pid)]
    holders = [pid for pid in pids if pid not in activators]
    activator = activators[0] if activators else None
    if not holders and activator is not None:
        raise NotRunning(
            f"only {_who(activator)} holds {listener.local}: no service runs there now",
            "stop its socket unit: `systemctl list-sockets` names it",
        )
    top = topmost(holders)
    if top is None:
        top = _common(holders)
    if top is None:
        raise _shared(listener, holders)
    return _Server(top, frozenset(holders), (listener,), activator)


def _is_manager(pid: int) -> bool:
    """Whether it holds sockets for services that it starts: systemd, of the system or a user.

    Any other pid 1 is a server like all: in a container it often is.
    """
    try:
        return procfs.stat(pid).comm == _MANAGER
    except (ProcessLookupError, PermissionError):
        return False


def _common(holders: Sequence[int]) -> int | None:
    """The nearest process above all holders, if it can only be their server.

    It must be in their session and all its children must lead to holders: a shell, a terminal or
    a supervisor that merely started them has other business, or is a shell.
    """
    lines = [[pid, *procfs.ancestors(pid)] for pid in holders]
    shared = [pid for pid in lines[0] if all(pid in line for line in lines[1:])]
    if not shared or shared[0] in {1, os.getpid(), *procfs.ancestors(os.getpid())}:
        return None
    from lastcall.targets.process.runtime import Runtime, recognise

    on_the_way = {pid for line in lines for pid in line}
    try:
        above = procfs.stat(shared[0])
        sessions = {procfs.stat(pid).session for pid in holders}
        strangers = set(procfs.children(above.pid)) - on_the_way
        if strangers or sessions != {above.session} or recognise(above.pid) is Runtime.SHELL:
            return None
    except (ProcessLookupError, PermissionError):
        return None
    return above.pid


def _merge(servers: Sequence[_Server]) -> list[_Server]:
    """Servers on several sockets that are one: the same process, or one above the others."""
    top = topmost(sorted({s.pid for s in servers}))
    if top is None:
        groups = {s.pid: [t for t in servers if t.pid == s.pid] for s in servers}
    else:
        groups = {top: list(servers)}
    return [
        _Server(
            pid,
            frozenset().union(*(s.holders for s in group)),
            tuple(s.listeners[0] for s in group),
            next((s.activator for s in group if s.activator is not None), None),
        )
        for pid, group in groups.items()
    ]


def _still(handle: Handle, server: _Server) -> bool:
    """Whether the process that is held now still is that server."""
    pid = handle.identity.pid
    inodes = {s.inode for s in server.listeners}
    if not inodes <= {s.inode for s in sockets.listening()}:
        return False
    held, _ = sockets.holders(inodes, server.holders)
    if set(held) != inodes:
        return False
    return not handle.exited() and all(
        pid == holder or pid in procfs.ancestors(holder) for who in held.values() for holder in who
    )


def _who(pid: int) -> str:
    return f"process {pid} ({procfs.label(pid, 48)})"


def _several(name: str, servers: Sequence[_Server]) -> Ambiguous:
    shown = tuple(
        (
            f"pid:{s.pid}",
            f"{procfs.label(s.pid)}, on {', '.join(str(one.local) for one in s.listeners)}",
        )
        for s in servers
    )
    places = {one.local for s in servers for one in s.listeners}
    advice = "name one of them by pid:"
    if len(places) > 1:
        advice = "name one of them by pid:, or its address: port:ADDRESS:PORT"
    elif (above := _common([s.pid for s in servers])) is not None:
        advice = f"they all run below pid:{above} ({procfs.label(above, 48)}): probably that one"
    return Ambiguous(f"{len(servers)} servers listen on port {name}", advice, shown)


def _shared(listener: Socket, holders: Sequence[int]) -> Ambiguous:
    return Ambiguous(
        f"{len(holders)} processes listen on {listener.local} together, and none stands above all",
        "whoever started them has ended or has other business: name one of them by pid:",
        tuple((f"pid:{pid}", procfs.label(pid)) for pid in holders),
    )


def _not_visible(name: str, listener: Socket, closed: Sequence[int]) -> NotPermitted:
    import pwd

    try:
        user = f"{pwd.getpwuid(listener.uid).pw_name} (uid {listener.uid})"
    except KeyError:
        user = f"uid {listener.uid}"
    if not closed:
        return NotPermitted(
            f"port {name} is listened on for user {user}, by no process that can be seen from here",
            "it belongs to the kernel or to a container: look from the machine itself, as root",
        )
    return NotPermitted(
        f"port {name} belongs to user {user}, and this user may not see which process holds it",
        "ask again as root (sudo) or as that user",
        (f"{len(closed)} processes may not be looked into",),
    )


def _notes(name: str, server: _Server) -> tuple[Finding, ...]:
    if server.activator is None:
        return ()
    return (
        Finding(
            "socket-activated",
            f"the socket of port {name} also belongs to {_who(server.activator)}, which starts the "
            "service again at the next connection",
            Severity.NOTE,
            evidence=(f"{server.listeners[0].local} is held by pid {server.activator} as well",),
            advice="to keep it stopped, stop its socket unit: `systemctl list-sockets` names it",
        ),
    )


def _unseen_notes(unseen: Sequence[Socket]) -> tuple[Finding, ...]:
    if not unseen:
        return ()
    return (
        Finding(
            "listeners-unseen",
            "others listen on the same port, whom this user may not see",
            Severity.WARNING,
            evidence=tuple(f"{s.local}, of uid {s.uid}" for s in unseen[:5]),
            advice="ask again as root to see them",
        ),
    )
