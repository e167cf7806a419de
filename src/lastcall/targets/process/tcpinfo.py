"""What the kernel remembers of each TCP connection: when data came and went, and how much of it.

Asked over netlink, which answers for our own network namespace only and needs no rights. Where it
is refused (seccomp, a kernel without it) there is no answer, and the caller says less.

The times are kept in ticks of the kernel's timer (CONFIG_HZ: 1 to 10 ms), so data that came and
went within one tick cannot be put in order.

Source: sock_diag(7), netlink(7), Linux include/uapi/linux/inet_diag.h, include/uapi/linux/tcp.h
(struct tcp_info), net/ipv4/tcp_diag.c (the queues), net/ipv4/tcp.c (tcp_get_info).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_FLAG, _DUMP = 0x001, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO = 2
# Every state but TIME_WAIT, NEW_SYN_RECV and LISTEN: those are nobody's connection.
_STATES = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))
_LISTEN = 1 << 10
_HEADER = struct.Struct("=IHHII")
# struct inet_diag_req_v2: family, protocol, extensions, pad, states; then struct inet_diag_sockid:
# ports, addresses, interface, cookie.
_REQUEST = struct.Struct("=BBBBI")
_SOCKID = struct.Struct("!HH16s16s4s8s")
# struct inet_diag_msg: four bytes, the socket id, then expires, rqueue, wqueue, uid, inode.
_MESSAGE_BYTES = 4 + _SOCKID.size + 20
_QUEUES = struct.Struct("=IIIII")
_ATTRIBUTE = struct.Struct("=HH")
_LIMIT_S = 1.0
_BUFFER_BYTES = 256 * 1024


@record
class Traffic:
    """The data of one connection, as the kernel of the server's side saw it.

    Args:
        inode: the socket's; 0 while nobody has accepted the connection.
        peer_port: the other side's port, to tell connections that nobody has accepted apart.
        received_ms: since data last came; since the connection was made if none ever did.
        sent_ms: since data last went; since the connection was made if none ever did.
        acked_ms: since the other side last acknowledged anything.
        received_bytes: how much ever came; None before Linux 4.1.
        sent_segments: how many packets with data ever went; None before Linux 4.6.
        unread_bytes: came, and the program has not read it.
        undelivered_bytes: the program wrote it, and the other side has not acknowledged it.
    """

    inode: int
    peer_port: int
    received_ms: int
    sent_ms: int
    acked_ms: int
    received_bytes: int | None
    sent_segments: int | None
    unread_bytes: int
    undelivered_bytes: int


def parse_info(
    info: bytes, inode: int = 0, peer_port: int = 0, queues: tuple[int, int] = (0, 0)
) -> Traffic | None:
    """Read a `struct tcp_info`, which grows at its end with each kernel; None if it is too short.

    Args:
        info: the bytes as the kernel gave them.
        inode: of the socket.
        peer_port: of the socket.
        queues: unread and undelivered bytes.
    """
    if len(info) < 60:  # noqa: PLR2004 (tcpi_last_ack_recv ends there)
        return None
    sent, _, received, acked = struct.unpack_from("=IIII", info, 44)
    (received_bytes,) = struct.unpack_from("=Q", info, 128) if len(info) >= 136 else (None,)  # noqa: PLR2004
    (sent_segments,) = struct.unpack_from("=I", info, 156) if len(info) >= 160 else (None,)  # noqa: PLR2004
    return Traffic(
        inode, peer_port, received, sent, acked, received_bytes, sent_segments, queues[0], queues[1]
    )


def traffic(ports: Iterable[int]) -> tuple[Traffic, ...] | None:
    """The traffic of each connection to these local ports, in our own network namespace.

    Returns:
        None when the kernel does not tell.
    """
    found: list[Traffic] = []
    try:
        with _link() as link:
            for port in sorted(set(ports)):
                for family in (socket.AF_INET, socket.AF_INET6):
                    found.extend(_dump(link, family, port))
    except OSError:
        return None
    return tuple(found)


def between(host: str, port: int, peer_ports: Iterable[int]) -> dict[int, Traffic]:
    """Single connections of this host with itself, by the port of their peer.

    The kernel looks each up by its ends, in microseconds, where `traffic` goes through all.

    Args:
        host: the address of both ends, such as `127.0.0.1`.
        port: the server's.
        peer_ports: the clients'; those that the kernel does not know are left out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.inet_pton(family, host).ljust(16, b"\0")
    found: dict[int, Traffic] = {}
    try:
        with _link() as link:
            for peer in peer_ports:
                sockid = _SOCKID.pack(port, peer, address, address, bytes(4), b"\xff" * 8)
                with contextlib.suppress(FileNotFoundError):  # ENOENT: there is none
                    found.update((t.peer_port, t) for t in _ask(link, family, sockid, peer, 0))
    except OSError:
        pass
    return found


def listeners(port: int) -> dict[int, int] | None:
    """The sockets that listen on a port, and how many connections wait in each to be accepted.

    Returns:
        The queue by inode; None when the kernel does not tell.
    """
    found: dict[int, int] = {}
    try:
        with _link() as link:
            for family in (socket.AF_INET, socket.AF_INET6):
                for one in _dump(link, family, port, _LISTEN):
                    # The receive queue of a listening socket is its accept queue.
                    found[one.inode] = one.unread_bytes
    except OSError:
        return None
    return found


@contextlib.contextmanager
def _link() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_LIMIT_S)
        link.bind((0, 0))
        yield link


def _dump(link: socket.socket, family: int, port: int, states: int = _STATES) -> Iterator[Traffic]:
    sockid = _SOCKID.pack(port, 0, bytes(16), bytes(16), bytes(4), b"\xff" * 8)
    return _ask(link, family, sockid, port, _DUMP, states)


def _ask(
    link: socket.socket, family: int, sockid: bytes, number: int, flags: int, states: int = _STATES
) -> Iterator[Traffic]:
    """Ask for one socket, or for all that fit; `number` tells the answers to this question."""
    extensions = 1 << (_INET_DIAG_INFO - 1)
    ask = _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, states) + sockid
    size = _HEADER.size + len(ask)
    link.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_FLAG | flags, number, 0) + ask)
    while True:
        raw = link.recv(_BUFFER_BYTES)
        while len(raw) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(raw)
            if length < _HEADER.size:
                raise OSError("the kernel's answer makes no sense")
            body, raw = raw[_HEADER.size : length], raw[(length + 3) & ~3 :]
            if kind == _NLMSG_ERROR:
                raise OSError(-int.from_bytes(body[:4], sys.byteorder, signed=True), "sock_diag")
            if kind == _NLMSG_DONE:
                return
            if sequence == number and (one := _parse(body)) is not None:
                yield one
        if flags != _DUMP:
            return


def _parse(body: bytes) -> Traffic | None:
    if len(body) < _MESSAGE_BYTES:
        return None
    _, peer_port, *_ = _SOCKID.unpack_from(body, 4)
    _, unread, undelivered, _, inode = _QUEUES.unpack_from(body, 4 + _SOCKID.size)
    place = _MESSAGE_BYTES
    while place + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, place)
        if length < _ATTRIBUTE.size:
            return None
        if kind == _INET_DIAG_INFO:
            info = body[place + _ATTRIBUTE.size : place + length]
            return parse_info(info, inode, peer_port, (unread, undelivered))
        place += (length + 3) & ~3
    return None
