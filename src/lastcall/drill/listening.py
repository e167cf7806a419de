"""Where a server listens, as the kernel tells: at a port that it was told, or at one of its own."""

from __future__ import annotations

import socket

from lastcall.drill.place import Place
from lastcall.errors import UsageError
from lastcall.targets.process import procfs, sockets


def at_port(port: int) -> Place | None:
    """Where somebody listens on a port; None: nobody yet."""
    hosts = {s.local.host for s in sockets.listening() if s.local.port == port}
    if not hosts:
        return None
    if "::" in hosts and _taken_on_ipv4(port):
        return Place("127.0.0.1", port)
    return Place(_host_of(hosts), port)


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
    if hosts & {"0.0.0.0", "127.0.0.1"}:  # noqa: S104 (compared with, never bound)
        return "127.0.0.1"
    # Where `::` also takes IPv4 is the server's choice; IPv6 reaches it in any case.
    return "::1" if hosts & {"::", "::1"} else min(hosts)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refuse_taken(port: int) -> None:
    """Make sure that nobody listens on a port yet.

    Raises:
        UsageError: somebody does.
    """
    found = [s for s in sockets.listening() if s.local.port == port]
    if not found:
        return
    who, _ = sockets.holders({s.inode for s in found})
    names = sorted({f"pid {p} ({procfs.label(p, 48)})" for ps in who.values() for p in ps})
    raise UsageError(
        f"port {port} is taken already: the drill would talk to another server",
        f"stop it (lastcall stop port:{port}), or drill it as it runs: --target port:{port}",
        tuple(f"listening there: {name}" for name in names),
    )
