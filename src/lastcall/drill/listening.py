"""Where a server listens, as the kernel tells: at a port that it was told, or at one of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lastcall.drill.place import Place
from lastcall.errors import UsageError
from lastcall.kernel import procfs
from lastcall.targets.process import sockets

if TYPE_CHECKING:
    from collections.abc import Collection

    from lastcall.proc.program import Program
    from lastcall.targets.process.sockets import Socket

_IPV4 = frozenset({"0.0.0.0", "127.0.0.1"})  # noqa: S104 (compared with, never bound)
_PICKS = 20
_CONNECT_LIMIT_S = 1.0


def at_port(port: int, program: Program) -> Place | None:
    """Where a program listens on a port; None: not yet.

    A listener that strangers hold is not its own: another drill may have picked the same port.

    Raises:
        UsageError: strangers listen there as well, so that either may get a connection.
    """
    found, strange = _sorted(port, program)
    if not found:
        return None
    hosts, taken = {s.local.host for s in found}, {s.local.host for s in strange}
    if hosts & taken or (hosts & _IPV4 and taken & _IPV4):
        raise _taken(port, strange)
    if "::" in hosts and not taken & _IPV4 and _taken_on_ipv4(port):
        return Place("127.0.0.1", port)
    return Place(_host_of(hosts), port)


def strangers_at(port: int, program: Program) -> tuple[str, ...]:
    """Who else listens on a port, for people."""
    return _named(_sorted(port, program)[1])


def _sorted(port: int, program: Program) -> tuple[list[Socket], list[Socket]]:
    """The listeners on a port: those of a program, and those of strangers.

    Whose holders this user may not see (the program may have become another user) count as its own.
    """
    found = [s for s in sockets.listening() if s.local.port == port]
    if not found:
        return [], []
    inodes = {s.inode for s in found}
    own, _ = sockets.holders(inodes, program.left())
    rest = inodes - own.keys()
    others, _ = sockets.holders(rest) if rest else ({}, ())
    # Asked one by one, and now: a worker may have been born after the list was made.
    strange = {inode for inode, who in others.items() if not any(map(program.owns, who))}
    return [s for s in found if s.inode not in strange], [s for s in found if s.inode in strange]


def _taken_on_ipv4(port: int) -> bool:
    """Whether what listens on `::` takes IPv4, too. Source: ipv6(7), IPV6_V6ONLY."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def place_of(pids: list[int]) -> Place | None:
    """The one place where any of these processes listens; None: nowhere yet.

    Raises:
        UsageError: several ports.
    """
    found = {s.local for s in sockets.listening_of(pids)}
    ports = sorted({end.port for end in found})
    if not ports:
        return None
    if len(ports) > 1:
        raise UsageError(
            f"the server listens on several ports: {', '.join(map(str, ports))}",
            "say which one with --url http://127.0.0.1:PORT",
        )
    return Place(_host_of({end.host for end in found}), ports[0])


def _host_of(hosts: set[str]) -> str:
    """The address to use of those that are listened on."""
    if hosts & _IPV4:
        return "127.0.0.1"
    # Where `::` also takes IPv4 is the server's choice; IPv6 reaches it in any case.
    return "::1" if hosts & {"::", "::1"} else min(hosts)


def free_port() -> int:
    """A TCP port that nobody listens on now, at any address."""
    port = 0
    for _ in range(_PICKS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if all(s.local.port != port for s in sockets.listening()):
            break
    return port


def refuse_taken(place: Place) -> None:
    """Make sure that nobody listens at a place on this machine yet.

    Raises:
        UsageError: somebody does.
    """
    if place.unix:
        _refuse_taken_path(place.unix)
    elif place.on_this_machine:
        found = [s for s in sockets.listening() if s.local.port == place.port]
        if found:
            raise _taken(place.port, found)


def _refuse_taken_path(path: str) -> None:
    """A file that a killed server left behind takes no connection, and is no obstacle."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_LIMIT_S)
        try:
            probe.connect(path)
        except (BlockingIOError, TimeoutError):
            pass  # its queue is full: somebody listens
        except OSError:
            return
    raise UsageError(
        f"the socket {path} is taken already: the drill would talk to another server",
        "stop that one, name another path, or drill it as it runs: leave out the command",
    )


def _taken(port: int, found: Collection[Socket]) -> UsageError:
    return UsageError(
        f"port {port} is taken already: the drill would talk to another server",
        f"stop it (lastcall stop port:{port}), or drill it as it runs: --target port:{port}",
        _named(found),
    )


def acceptors(port: int, pids: list[int]) -> tuple[set[int], set[int]]:
    """The inodes of the sockets on which any of these listens at a port, and who holds them."""
    inodes = {s.inode for s in sockets.listening_of(pids) if s.local.port == port}
    found, _ = sockets.holders(inodes, pids) if inodes else ({}, ())
    return inodes, {pid for who in found.values() for pid in who}


def _named(found: Collection[Socket]) -> tuple[str, ...]:
    who, _ = sockets.holders({s.inode for s in found}) if found else ({}, ())
    names = sorted({f"pid {p} ({procfs.label(p, 48)})" for ps in who.values() for p in ps})
    return tuple(f"listening there: {name}" for name in names)
