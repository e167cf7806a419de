"""The door of a server: its listening sockets, whoever made them, and how to close them in order.

A client whose connection stands is reset if the listening socket is closed before the server has
accepted it. So: turn newcomers away, wait until handshakes under way have ended and the queue is
empty, then let the server close its socket.

Newcomers are turned away by binding the listening socket to a network interface that does not
exist: the kernel finds nobody for a new connection and refuses it, at once. What was begun before
goes on. It needs no rights (Linux 5.7), and cannot be taken back without CAP_NET_RAW. Where it
cannot be had, a packet filter on the socket drops the first packet of each newcomer, who sends it
again after 1 s. (It used to need no rights either; kernels since 2026 want CAP_NET_ADMIN for it.)

- Both belong to the socket, and so hold in every process that shares it, and for as long as it
  lives. So do this only to a socket that ends with this service: one that systemd keeps for the
  next start (socket activation), or that new workers go on using, would never let anybody in
  again.
- With SO_REUSEPORT the kernel picks one of several sockets for each client. Whom it picks for
  ours hears nothing until that is closed; the packet that his kernel sends again after 1 s goes
  to another socket. The handshakes of the other sockets look like ours, but only those begun
  before are waited for.
- Connections accepted from now on inherit the filter. It never drops anything of theirs.
- A `Listener` keeps the socket listening, even when the server has closed its own: close it.

Source: socket(7), SO_ATTACH_FILTER; tcp(7), TCP_DEFER_ACCEPT; Linux net/core/sock.c
(sock_bindtoindex_locked; commit c427bfec18f2 lets everybody bind an unbound socket; commit
5d39580f68e6 asks for CAP_NET_ADMIN, see https://github.com/google/gvisor/pull/14478),
net/ipv4/inet_hashtables.c (compute_score), net/ipv4/tcp_ipv4.c (tcp_v4_syn_recv_sock: a
connection has the interface of its handshake), net/ipv4/inet_connection_sock.c
(inet_csk_listen_stop resets the queue), net/ipv4/tcp.c (tcp_get_info: of a listening socket
tcpi_unacked is the accept queue).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

from lastcall.app.http import descriptors, diag
from lastcall.app.http.descriptors import (
    SO_ACCEPTCONN,
    SO_BINDTOIFINDEX,
    SO_DOMAIN,
    SO_FILTER,
    SO_NETNS_COOKIE,
    SO_TYPE,
    SOL_SOCKET,
    SOL_TCP,
    TCP_DEFER_ACCEPT,
    TCP_INFO,
    Kernel,
    supported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Listener", "own_listeners", "supported", "wait_until_empty"]

# Where it is unknown which handshakes are under way: a round trip of most places on this planet.
BLIND_LEAST_S = 0.25
_PAUSE_S = 0.001
_TCP_LISTEN = 10
_QUEUE_END = 28  # tcpi_unacked are the four bytes before
# The index of no interface: they are counted from 1, and this is some 1.8 thousand million.
_NOWHERE = 0x6C617374
# Loads a number that nobody else loads (so that the program is known as ours), then the TCP
# header's byte of flags: a packet with SYN is dropped, all else is let through.
_MARK = _NOWHERE
_LOAD, _LOAD_BYTE, _IF_ANY, _GIVE = 0x00, 0x30, 0x45, 0x06
_SYN, _FLAGS_BYTE, _WHOLE = 0x02, 13, 0xFFFFFFFF
_STEPS = (
    (_LOAD, 0, 0, _MARK),
    (_LOAD_BYTE, 0, 0, _FLAGS_BYTE),
    (_IF_ANY, 0, 1, _SYN),
    (_GIVE, 0, 0, 0),
    (_GIVE, 0, 0, _WHOLE),
)
_PROGRAM = b"".join(struct.pack("=HBBI", *step) for step in _STEPS)


class Listener:
    """One listening socket of this process; a copy of its descriptor is held until `close`.

    Args (attributes):
        address: `127.0.0.1:8000`, `[::]:8000`, `unix:/run/app.sock`, `unix:@name`.
        port: of TCP; None for Unix.
        path: of a Unix socket, `@name` for an abstract one; None for TCP.
        inode: what ties it to the descriptors of any process.
    """

    __slots__ = ("_fd", "address", "inode", "path", "port")

    def __init__(self, fd: int, name: bytes) -> None:
        self._fd = fd
        # No Python socket: making one would switch the shared descriptor to non-blocking where
        # the program has called socket.setdefaulttimeout().
        self.inode: int = os.fstat(fd).st_ino
        self.port: int | None = None
        self.path: str | None = None
        where = descriptors.address(name)
        if isinstance(where, str):
            self.path = where
            self.address: str = f"unix:{where}"
        else:
            host, self.port = where
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def __del__(self) -> None:
        self.close()

    def queued(self) -> int:
        """How many connections wait to be accepted; 0 when it does not listen any more.

        Where the kernel does not tell the number, 1 means one or more.
        """
        kernel = descriptors.kernel()
        if kernel is None or self._fd < 0:
            return 0
        if self.port is None:
            waiting = diag.unix_queue(self.inode)
            return self._readable() if waiting is None else waiting
        if kernel.option(self._fd, SOL_TCP, TCP_INFO) < _QUEUE_END:
            return self._readable()
        if kernel.buffer[0] != _TCP_LISTEN:
            return 0
        return int(struct.unpack_from("=I", kernel.buffer, _QUEUE_END - 4)[0])

    def _readable(self) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return int(any(event & select.POLLIN for _, event in poll.poll(0)))

    def turn_newcomers_away(self) -> bool:
        """Let the kernel let in nobody who comes from now on; what was begun goes on.

        Not for a socket that outlives this service: see above. Clients that TCP_DEFER_ACCEPT holds
        back until they send something are let in: the option is switched off, and they come within
        about a second.

        Returns:
            False where it cannot be had: a Unix socket (see `end`), another system, no rights, a
            filter of somebody else's, which is left in place.
        """
        if self.port is None or (kernel := descriptors.kernel()) is None:
            return False
        nowhere = _NOWHERE.to_bytes(4, sys.byteorder)
        if not (
            self.turned_away()
            or kernel.set_option(self._fd, SOL_SOCKET, SO_BINDTOIFINDEX, nowhere)
            or (self._filter(kernel) == b"" and kernel.filter(self._fd, _PROGRAM))
        ):
            return False
        if kernel.number_option(self._fd, SOL_TCP, TCP_DEFER_ACCEPT) > 0:
            kernel.set_option(self._fd, SOL_TCP, TCP_DEFER_ACCEPT, bytes(4))
        return True

    def turned_away(self) -> bool:
        """Whether newcomers are turned away, by this process or by another that shares the socket.

        Another interface, or a filter of somebody else's, does not count.
        """
        kernel = descriptors.kernel()
        return kernel is not None and (
            kernel.number_option(self._fd, SOL_SOCKET, SO_BINDTOIFINDEX) == _NOWHERE
            or self._filter(kernel) == _PROGRAM
        )

    def _filter(self, kernel: Kernel) -> bytes | None:
        """The filter's program, empty without one, None if it cannot be read (an eBPF program).

        Not to be asked with Python's `getsockopt`, which crashes: the length is one of
        instructions, and the kernel writes eight times as many bytes as Python has made room for.
        Source: sk_get_filter() in net/core/filter.c.
        """
        steps = kernel.option(self._fd, SOL_SOCKET, SO_FILTER, 0)
        if steps == len(_STEPS):
            # With room for as many: should it change meanwhile, a longer one is an error.
            steps = kernel.option(self._fd, SOL_SOCKET, SO_FILTER, len(_STEPS))
            return bytes(kernel.buffer[: steps * 8]) if steps >= 0 else None
        if steps > 0:
            return b"not ours"
        return b"" if steps == 0 else None

    def end(self) -> None:
        """Stop listening, in every process that shares the socket, without waiting for them.

        TCP: newcomers are refused, and who still waits in the queue is reset: empty it first.
        Unix: newcomers are refused, and who waits in the queue can still be accepted. After
        that, in both, `accept` fails with EINVAL at once, and the socket polls as readable: a
        server that does not expect it may spin or complain, so this is for one that no longer
        accepts.

        Source: inet_shutdown() in net/ipv4/af_inet.c, unix_stream_connect() and unix_accept() in
        net/unix/af_unix.c.
        """
        if (kernel := descriptors.kernel()) is not None:
            kernel.end_listening(self._fd)

    def close(self) -> None:
        """Give back the copy; the server's own descriptor is left alone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def own_listeners(ports: Iterable[int] | None = None) -> list[Listener]:
    """Every listening TCP and Unix stream socket of this process, each once; close them all.

    Sockets made by Rust or C code are found as well, as they are found by their descriptors.

    Args:
        ports: TCP sockets on these ports only; None: all, Unix sockets too.

    Returns:
        In the order of their descriptors; empty where `supported()` is False.
    """
    kernel = descriptors.kernel()
    if kernel is None:
        return []
    wanted = None if ports is None else frozenset(ports)
    found: dict[int, Listener] = {}
    for fd in descriptors.numbers():
        if kernel.number_option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1:
            continue
        made = _listener(kernel, fd)
        if made is None:
            continue
        if made.inode in found or not (wanted is None or made.port in wanted):
            made.close()
        else:
            found[made.inode] = made
    return list(found.values())


def _listener(kernel: Kernel, fd: int) -> Listener | None:
    """A copy of this descriptor, if it still is a listening stream socket of a family we know."""
    copy = kernel.copy(fd)
    if copy < 0:
        return None
    if (
        kernel.number_option(copy, SOL_SOCKET, SO_ACCEPTCONN) == 1
        and kernel.number_option(copy, SOL_SOCKET, SO_TYPE) == socket.SOCK_STREAM
        and kernel.number_option(copy, SOL_SOCKET, SO_DOMAIN)
        in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
        and (length := kernel.own_name(copy)) > 0
    ):
        return Listener(copy, bytes(kernel.buffer[:length]))
    os.close(copy)
    return None


def wait_until_empty(
    listeners: Sequence[Listener],
    least_s: float = 0.01,
    quiet_s: float = 0.005,
    most_s: float = 1.5,
) -> bool:
    """Wait until handshakes under way have ended and nobody is left in the queues.

    The server has to go on accepting meanwhile. Blocks; looks once a millisecond, as the kernel
    has no event for this. Waited for are the handshakes that were under way within the first
    `least_s`; later ones belong to other sockets on the same port (SO_REUSEPORT), or nobody was
    turned away. How long a handshake takes is the client's round trip; if its last packet is lost,
    the kernel asks for it again after 1 s.

    Args:
        listeners: those that newcomers are turned away from.
        least_s: how long to wait at the least, for packets that are being worked on right now;
            0.25 s at the least where the handshakes cannot be counted.
        quiet_s: for how long all queues have to be empty without a break.
        most_s: when to give up: clients that began and never went on (a port scan, or a network
            that loses packets) are in nobody's interest.

    Returns:
        Whether it is empty; False: not within `most_s`.
    """
    ports = sorted({one.port for one in listeners if one.port is not None})
    began_s = time.monotonic()
    begun = diag.handshakes(ports) if _in_our_network(listeners) else None
    if begun is None:
        least_s = min(max(least_s, BLIND_LEAST_S), most_s)
    pending = set(begun or ())
    empty_s: float | None = None
    while True:
        now_s = time.monotonic()
        collecting = now_s - began_s < least_s
        if begun is not None and (collecting or pending):
            # Before the queues, as that is the way they take.
            under_way = diag.handshakes(ports) or frozenset()
            pending = pending | under_way if collecting else pending & under_way
        if (pending and not collecting) or any(one.queued() for one in listeners):
            empty_s = None
        elif empty_s is None:
            empty_s = now_s
        if not collecting and empty_s is not None and now_s - empty_s >= quiet_s:
            return True
        if now_s - began_s >= most_s:
            return False
        time.sleep(_PAUSE_S)


def _in_our_network(listeners: Sequence[Listener]) -> bool:
    """Whether the kernel counts their handshakes for us: not for an inherited socket of another.

    Source: socket(7), SO_NETNS_COOKIE (Linux 5.14); before, they are taken to be in ours.
    """
    kernel = descriptors.kernel()
    if kernel is None:
        return False
    try:
        here = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return False
    with here:
        places = [here.fileno(), *(one._fd for one in listeners if one.port is not None)]  # noqa: SLF001 (same module)
        seen = set()
        for fd in places:
            told = kernel.option(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8)
            seen.add(bytes(kernel.buffer[:8]) if told == 8 else b"")  # noqa: PLR2004 (64 bits)
    return len(seen) == 1
