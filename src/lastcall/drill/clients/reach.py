"""Sockets, how they are connected, and what the kernel says when they are not."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from itertools import count
from typing import TypeAlias

from lastcall.kernel.ready import ready

_RETRY_S = 0.01
_NO_PORT = errno.EADDRNOTAVAIL
# No files, no memory for sockets, no port: the server had no part in it (connect(2), socket(2)).
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, _NO_PORT}
Address: TypeAlias = str | tuple[object, ...]
unix_number: count[int] = count(1)
"""For connections to a Unix socket, which have no port of their own."""


def prepared(family: socket.AddressFamily) -> socket.socket:
    """A socket of our kind, not connected.

    Raises:
        OSError: there is none to be had, such as when this process has too many.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def connect(sock: socket.socket, address: Address) -> str:
    """Connect, or go on with a connect that was begun without waiting.

    Returns:
        What a reset was called that came right behind the connection; empty: it stands. Only a
        connection that stood can be reset: one that was never there is refused (`tcp_reset`).

    Raises:
        OSError: it failed.
    """
    if sock.family == socket.AF_UNIX:
        await _connect_unix(sock, address)
        return ""
    try:
        sock.connect(address)
    except BlockingIOError:
        await ready(sock, write=True)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        failed = error.errno or errno.ECONNREFUSED
    else:
        failed = 0
    if failed == errno.ECONNRESET:
        return errno.errorcode[failed]
    if failed:
        raise OSError(failed, os.strerror(failed))
    if is_itself(sock):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens (it met itself)")
    return ""


async def _connect_unix(sock: socket.socket, address: Address) -> None:
    """EAGAIN says that the backlog is full, and nothing wakes us when it no longer is (unix(7))."""
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_RETRY_S)
        else:
            return


def is_itself(sock: socket.socket) -> bool:
    """Whether a socket is connected to itself.

    On one machine a connect to a port that nobody listens on succeeds when the kernel happens to
    pick that very port for our own end (TCP's simultaneous open, RFC 9293, section 3.5).
    """
    try:
        return sock.family != socket.AF_UNIX and bool(sock.getsockname() == sock.getpeername())
    except OSError:  # its peer is gone again, so it had one
        return False


def is_shortage(error: OSError, family: socket.AddressFamily | int, address: Address = ()) -> bool:
    """Whether this machine had no socket, or no port, to connect with.

    EADDRNOTAVAIL also says that there is no address here to reach that one from, as with `::1`
    where IPv6 is switched off. A UDP socket takes its address from the same table and its port from
    another (Linux, `ip_route_connect` and `udp_v4_get_port`), and sends nothing by a connect: it
    tells the two apart.
    """
    if error.errno != _NO_PORT or not address:
        return error.errno in _SHORTAGES
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except OSError as same:
        return same.errno != _NO_PORT
    return True


def errno_name(error: OSError) -> str:
    """The error's short name: `ECONNRESET`."""
    return errno.errorcode.get(error.errno or 0, f"{error}")
