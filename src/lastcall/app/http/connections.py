"""The accepted connections of this process, whoever made them, and whether they can be ended now.

What the kernel remembers of a TCP connection is how many bytes came and went, and when the last
did. From that follows what a server owes. The limits of this view:

- The times are counted in ticks of the kernel's timer (CONFIG_HZ: 1 to 10 ms). Data that came and
  went within one tick cannot be put in order: it counts as answered (QUIET). A client that sends
  its next request right behind an answer is in that tick. So count the work in flight as well
  (the middleware does), and give QUIET ones a moment.
- Between two pieces of a streamed answer a connection looks QUIET, and so does a request whose
  answer the server still holds in its own buffers after the kernel's took a part of it.
- TLS: what follows the last request may come from the client (the end of a handshake, a key
  update): PARTIAL, although nobody asks for anything. Session tickets, sent by the server, make a
  connection without a request QUIET.
- HTTP/2 and WebSocket: an acknowledgement of SETTINGS or of a ping, or a WINDOW_UPDATE, behind the
  last answer looks like a request begun: PARTIAL, until patience is over. End those by their own
  means first (GOAWAY, a close frame).
- A FIN from here ends a TLS connection without close_notify.
- Of a Unix stream the kernel tells the bytes unread and undelivered and who has ended it, not what
  went before: OPEN where nothing is known.

Source: tcp(7), TCP_INFO; Linux include/uapi/linux/tcp.h (struct tcp_info grows at its end only),
net/ipv4/tcp_minisocks.c (tcp_create_openreq_child: both times begin when the handshake ends),
net/ipv4/tcp_input.c (tcp_event_data_recv), net/ipv4/tcp_output.c (tcp_event_data_sent; what is
sent again counts as sent), net/ipv4/tcp.c (tcp_ioctl), net/unix/af_unix.c.
"""

from __future__ import annotations

import socket
import struct
import sys

from lastcall.app.http import descriptors
from lastcall.app.http.descriptors import (
    SIOCINQ,
    SIOCOUTQ,
    SO_ACCEPTCONN,
    SOL_SOCKET,
    SOL_TCP,
    TCP_INFO,
    Kernel,
    supported,
)
from lastcall.app.http.verdict import State, Verdict, Why, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Connection",
    "State",
    "Verdict",
    "Why",
    "end_all",
    "own_connections",
    "supported",
    "verdict",
]

# struct tcp_info: state, unacked segments, ms since data was sent and received, bytes received,
# bytes not sent, segments with data sent (the last of them since Linux 4.6).
_INFO = struct.Struct("=B23xI16xI4xI72xQ8xI8xI")
_ESTABLISHED, _CLOSE_WAIT, _LISTEN = 1, 8, 10
# FIN_WAIT2 and TIME_WAIT: our FIN has arrived. CLOSE: reset.
_OVER = frozenset({5, 6, 7})
_INET = frozenset({socket.AF_INET, socket.AF_INET6})
_LITTLE = sys.byteorder == "little"


class Connection:
    """One accepted connection, as it was at the moment of the snapshot.

    Args (attributes):
        fd: its descriptor then; another thread may have closed it since.
        cookie: what no other socket has; 0: unknown, and it cannot be ended.
        state: what the server owes.
        unread: bytes that came and the server has not read.
        unsent: bytes that the server wrote and the other side has not acknowledged.
        received: bytes that ever came; None: unknown.
        last_received_s: since data last came, or since it was made; None: unknown.
        last_sent_s: since data last went (also again), or since it was made; None: unknown.
    """

    __slots__ = (
        "_local",
        "cookie",
        "fd",
        "last_received_s",
        "last_sent_s",
        "received",
        "state",
        "unread",
        "unsent",
    )

    def __init__(  # noqa: PLR0913, PLR0917 (made thousands at a time)
        self,
        state: State,
        fd: int = -1,
        cookie: int = 0,
        unread: int = 0,
        unsent: int = 0,
        received: int | None = None,
        last_received_s: float | None = None,
        last_sent_s: float | None = None,
        name: bytes = b"",
    ) -> None:
        self.fd: int = fd
        self.cookie: int = cookie
        self.state: State = state
        self.unread: int = unread
        self.unsent: int = unsent
        self.received: int | None = received
        self.last_received_s: float | None = last_received_s
        self.last_sent_s: float | None = last_sent_s
        self._local = name

    def __repr__(self) -> str:
        return f"<Connection from {self.peer} {self.state.name}>"

    @property
    def local(self) -> tuple[str, int] | str:
        """Our address: host and port, or the path of a Unix socket."""
        return descriptors.address(self._local)

    @property
    def peer(self) -> tuple[str, int] | str:
        """The other side's address; mostly empty for Unix sockets, and once it is gone."""
        kernel = descriptors.kernel()
        length = kernel.peer_name(self.fd) if kernel else -1
        name = bytes(kernel.buffer[:length]) if kernel and length > 0 else b""
        return descriptors.address(name) if kernel and kernel.cookie(self.fd) == self.cookie else ""

    def end(self) -> bool:
        """Send FIN: no more answers; what was written before still arrives.

        The server keeps its descriptor, and closes it when the other side has ended too. False: it
        is not the same connection any more, or is ended already.
        """
        return bool(end_all((self,)))


def end_all(connections: Iterable[Connection]) -> int:
    """Send FIN on each of these connections that still is there. Returns on how many."""
    kernel = descriptors.kernel()
    if kernel is None:
        return 0
    return sum(kernel.end_writing(one.fd, one.cookie) for one in connections)


def own_connections(ports: Iterable[int], paths: Iterable[str] = ()) -> list[Connection]:
    """A snapshot of the accepted connections to these listening sockets that this process holds.

    Those of other processes on the same ports are not seen, nor those in the accept queue.

    Args:
        ports: local TCP ports, as `Listener.port` tells them.
        paths: of Unix sockets, as `Listener.path` tells them.

    Returns:
        In the order of their descriptors, each connection once; empty where `supported()` is False.
    """
    kernel = descriptors.kernel()
    if kernel is None:
        return []
    wanted_ports = {port.to_bytes(2, "big") for port in ports}
    wanted_paths = frozenset(paths)
    found: dict[int, Connection] = {}
    own_name, buffer = kernel.own_name, kernel.buffer
    for fd in descriptors.numbers():
        if (length := own_name(fd)) < 2:  # noqa: PLR2004 (a family has two bytes)
            continue
        family = buffer[0] | buffer[1] << 8 if _LITTLE else buffer[1] | buffer[0] << 8
        if family in _INET:
            name = bytes(buffer[:length])
            one = _tcp(kernel, fd, name) if name[2:4] in wanted_ports else None
        elif family == socket.AF_UNIX and wanted_paths:
            name = bytes(buffer[:length])
            one = _unix(kernel, fd, name) if descriptors.address(name) in wanted_paths else None
        else:
            continue
        if one is not None:
            found.setdefault(one.cookie or -fd - 1, one)
    return list(found.values())


def _tcp(kernel: Kernel, fd: int, name: bytes) -> Connection | None:
    length = kernel.option(fd, SOL_TCP, TCP_INFO)
    if length <= 0 or (tcp_state := kernel.buffer[0]) == _LISTEN:
        return None  # gone meanwhile; UDP on the same port (HTTP/3); the listening socket
    if length < _INFO.size:
        state = State.OPEN if tcp_state == _ESTABLISHED else State.CLOSING
        return Connection(
            state, fd, kernel.cookie(fd), max(kernel.queue(fd, SIOCINQ), 0), name=name
        )
    _, unacked, sent_ms, received_ms, received, not_sent, segments = _INFO.unpack_from(
        kernel.buffer
    )
    unread = max(kernel.queue(fd, SIOCINQ), 0) if received else 0
    unsent = max(kernel.queue(fd, SIOCOUTQ), 0) if unacked or not_sent else 0
    return Connection(
        _state(tcp_state, unread, unsent, received, segments, sent_ms - received_ms),
        fd,
        kernel.cookie(fd),
        unread,
        unsent,
        received,
        received_ms / 1000,
        sent_ms / 1000,
        name,
    )


def _state(
    tcp_state: int, unread: int, unsent: int, received: int, segments: int, newer_ms: int
) -> State:
    """What the numbers mean.

    Args:
        tcp_state: as in include/net/tcp_states.h.
        unread: bytes.
        unsent: bytes.
        received: bytes, ever.
        segments: with data, that ever went out.
        newer_ms: by how much what came last is newer than what went last.
    """
    if tcp_state in _OVER:
        return State.ENDED
    if unread and tcp_state in (_ESTABLISHED, _CLOSE_WAIT):
        return State.PARTIAL  # also behind a client's FIN: a whole request may lie there
    if tcp_state != _ESTABLISHED:
        return State.CLOSING
    if received and (segments == 0 or newer_ms > 0):
        return State.PARTIAL
    if unsent:
        return State.SENDING
    return State.QUIET if received else State.SILENT


def _unix(kernel: Kernel, fd: int, name: bytes) -> Connection | None:
    if kernel.number_option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 0:
        return None
    unread = max(kernel.queue(fd, SIOCINQ), 0)
    unsent = max(kernel.queue(fd, SIOCOUTQ), 0)
    if unread:
        state = State.PARTIAL
    elif not kernel.can_write(fd):
        state = State.ENDED
    elif kernel.other_side_ended(fd):
        state = State.CLOSING
    else:
        state = State.SENDING if unsent else State.OPEN
    return Connection(state, fd, kernel.cookie(fd), unread, unsent, name=name)
