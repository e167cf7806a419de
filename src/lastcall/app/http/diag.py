"""What the kernel tells about sockets that no program holds yet: handshakes, and Unix queues.

Asked over netlink, which answers for our own network namespace and needs no rights. Where it is
refused (seccomp, gVisor) the table in /proc/net answers; where that is missing too, nobody does.

Source: sock_diag(7), Linux include/uapi/linux/inet_diag.h, unix_diag.h, net/ipv4/inet_diag.c
(a question for SYN_RECV is answered with the requests of listening sockets), proc(5).
"""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_FLAG, _DUMP_FLAGS = 0x001, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_SYN_RECV = 3
# struct inet_diag_req_v2 up to the addresses, which are left open: family, protocol, extensions,
# pad, states, then the ports in the order of the network.
_INET_ASK = struct.Struct("=BBBBI")
_ANY_SOCKET = struct.Struct("!HH36s8s")
_ENDS = slice(4, 40)  # of struct inet_diag_msg: both ports, both addresses
# struct unix_diag_req: family, protocol, pad, states, inode, what to show, cookie.
_UNIX_ASK = struct.Struct("=BBHIIIQ")
_SHOW_QUEUE, _UNIX_QUEUE = 0x10, 4
_UNIX_MESSAGE_BYTES = 16
_LIMIT_S = 1.0
_BUFFER_BYTES = 64 * 1024


def handshakes(ports: Iterable[int]) -> frozenset[bytes] | None:
    """The connections to these ports that are being made: answered SYNs without the last ACK.

    Among them are those that TCP_DEFER_ACCEPT holds back until data comes. Not among them are
    clients who got a SYN cookie (a flood is on): of those the kernel keeps nothing.

    Returns:
        One opaque key each; the same connection has the same key next time. None: unknown.
    """
    wanted = sorted(set(ports))
    try:
        return frozenset(_from_netlink(wanted))
    except OSError:
        pass
    try:
        return frozenset(_from_table({b"%04X" % port for port in wanted}))
    except OSError:
        return None


def _from_netlink(ports: list[int]) -> Iterator[bytes]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for port in ports:
            ask = _INET_ASK.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _SYN_RECV)
            ask += _ANY_SOCKET.pack(port, 0, bytes(36), b"\xff" * 8)
            for answer in _ask(ask, _DUMP_FLAGS):
                yield answer[_ENDS]


def _from_table(ports: set[bytes]) -> Iterator[bytes]:
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{name}", "rb") as table:
                lines = table.read().splitlines()[1:]
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        for line in lines:
            _, own, other, state, *_ = line.split(None, 4)
            if state == b"03" and own.rpartition(b":")[2] in ports:
                yield own + other


def unix_queue(inode: int) -> int | None:
    """How many connections wait in a listening Unix socket to be accepted; None: unknown."""
    ask = _UNIX_ASK.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, _SHOW_QUEUE, 2**64 - 1)
    try:
        for answer in _ask(ask, 0):
            place = _UNIX_MESSAGE_BYTES
            while place + 8 <= len(answer):
                length, kind, waiting = struct.unpack_from("=HHI", answer, place)
                if kind == _UNIX_QUEUE:
                    return int(waiting)
                place += max((length + 3) & ~3, 4)
    except OSError:
        pass
    return None


def _ask(question: bytes, flags: int) -> Iterator[bytes]:
    """Put one question to the kernel, and give its answers, each without the header."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_LIMIT_S)
        size = _HEADER.size + len(question)
        header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_FLAG | flags, 1, 0)
        link.sendto(header + question, (0, 0))
        while True:
            raw = link.recv(_BUFFER_BYTES)
            while len(raw) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(raw)
                if length < _HEADER.size or kind == _NLMSG_ERROR:
                    raise OSError("sock_diag: the kernel does not answer")
                if kind == _NLMSG_DONE:
                    return
                yield raw[_HEADER.size : length]
                raw = raw[(length + 3) & ~3 :]
            if not flags:
                return
