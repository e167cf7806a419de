"""The sockets of this very process, asked by file descriptor, whoever made them.

libc is called with the interpreter's lock held (`ctypes.PyDLL`): every call here returns at once,
and giving the lock up for each of some ten thousand calls would mean to wait for a busy thread
each time, up to 5 ms (`sys.getswitchinterval`). `os.listdir` does so for each entry: over 10,000
descriptors, beside one busy thread, it took 2.2 s; the numbers themselves, tried one after the
other, 0.06 s.

Linux only: see `supported`.

Source: socket(7), getsockopt(2), proc(5) (FDSize), Linux include/uapi/asm-generic/socket.h.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SOL_SOCKET, SOL_TCP = 1, 6
SO_FILTER = 26  # SO_ATTACH_FILTER to set, SO_GET_FILTER to get; not in Python's socket module
SO_TYPE, SO_ACCEPTCONN, SO_DOMAIN = 3, 30, 39
SO_COOKIE = 57
SO_BINDTOIFINDEX = 62
SO_NETNS_COOKIE = 71
TCP_DEFER_ACCEPT, TCP_INFO = 9, 11
SIOCINQ, SIOCOUTQ = 0x541B, 0x5411
_F_DUPFD_CLOEXEC = 1030
_SHUT_WR, _SHUT_RDWR = 1, 2
_MSG_PEEK, _MSG_DONTWAIT, _MSG_NOSIGNAL = 0x02, 0x40, 0x4000
_V4_MAPPED = bytes(10) + b"\xff\xff"
_BUFFER_BYTES = 256
_NAME_BYTES = 112  # struct sockaddr_un has 110


class Kernel:
    """libc, with one buffer: make one for each use, and keep it to one thread.

    Every method answers with what the call answered, -1 for a failure.

    Args (attributes):
        buffer: what the last `option`, `own_name` or `peer_name` wrote.
    """

    __slots__ = ("_address", "_count", "_count_address", "_libc", "_number", "buffer")

    def __init__(self) -> None:
        import ctypes

        self._libc = _libc()
        self.buffer: bytearray = bytearray(_BUFFER_BYTES)
        self._address = ctypes.addressof((ctypes.c_char * _BUFFER_BYTES).from_buffer(self.buffer))
        self._count = ctypes.c_int(0)
        self._count_address = ctypes.addressof(self._count)

    def option(self, fd: int, level: int, name: int, size: int = _BUFFER_BYTES) -> int:
        """getsockopt(2). Returns the length the kernel tells (of what stands in the buffer)."""
        self._count.value = size
        failed = self._libc.getsockopt(fd, level, name, self._address, self._count_address)
        return -1 if failed else self._count.value

    def set_option(self, fd: int, level: int, name: int, value: bytes) -> bool:
        """setsockopt(2)."""
        return bool(self._libc.setsockopt(fd, level, name, value, len(value)) == 0)

    def filter(self, fd: int, program: bytes) -> bool:
        """Give a socket this packet filter (classic BPF), of 8 bytes an instruction."""
        import ctypes

        code = ctypes.create_string_buffer(program, len(program))
        given = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        return self.set_option(fd, SOL_SOCKET, SO_FILTER, given)

    def number_option(self, fd: int, level: int, name: int) -> int:
        """An option that is a number; -1 for a failure."""
        if self.option(fd, level, name, 4) != 4:  # noqa: PLR2004 (a C int)
            return -1
        return int.from_bytes(self.buffer[:4], sys.byteorder, signed=True)

    def own_name(self, fd: int) -> int:
        """getsockname(2). Returns the length of the address in the buffer."""
        self._count.value = _NAME_BYTES
        failed = self._libc.getsockname(fd, self._address, self._count_address)
        return -1 if failed else self._count.value

    def peer_name(self, fd: int) -> int:
        """getpeername(2). Returns the length of the address in the buffer."""
        self._count.value = _NAME_BYTES
        failed = self._libc.getpeername(fd, self._address, self._count_address)
        return -1 if failed else self._count.value

    def queue(self, fd: int, request: int) -> int:
        """The bytes in a queue of a socket: SIOCINQ (unread) or SIOCOUTQ (not delivered)."""
        return -1 if self._libc.ioctl(fd, request, self._count_address) else self._count.value

    def cookie(self, fd: int) -> int:
        """A number that no other socket of this machine ever has until the next boot; 0: unknown.

        Source: sock_gen_cookie() in net/core/sock_diag.c.
        """
        if self.option(fd, SOL_SOCKET, SO_COOKIE, 8) != 8:  # noqa: PLR2004 (a 64 bit number)
            return 0
        return int.from_bytes(self.buffer[:8], sys.byteorder)

    def other_side_ended(self, fd: int) -> bool:
        """Whether everything is read and the other side sends no more; nothing is taken out."""
        return bool(self._libc.recv(fd, self._address, 1, _MSG_PEEK | _MSG_DONTWAIT) == 0)

    def can_write(self, fd: int) -> bool:
        """Whether our side of a Unix stream is open; nothing is sent.

        Source: unix_stream_sendmsg() in net/unix/af_unix.c looks before it asks how many bytes.
        """
        return bool(
            self._libc.send(fd, self._address, 0, _MSG_NOSIGNAL | _MSG_DONTWAIT) == 0,
        )

    def end_listening(self, fd: int) -> bool:
        """shutdown(2), both ways."""
        return bool(self._libc.shutdown(fd, _SHUT_RDWR) == 0)

    def copy(self, fd: int) -> int:
        """A copy of the descriptor, which no program that is started inherits."""
        return int(self._libc.fcntl(fd, _F_DUPFD_CLOEXEC, 0))

    def end_writing(self, fd: int, cookie: int, *, reading: bool = False) -> bool:
        """Send FIN on this connection, if that is what the descriptor still stands for.

        Reading ends as well if `reading`: a thread that waits for more wakes up, and finds the end.
        The descriptor is copied first: between the look and the act nobody can swap the copy.
        """
        copy = self.copy(fd)
        if copy < 0:
            return False
        try:
            if cookie == 0 or self.cookie(copy) != cookie:
                return False
            how = _SHUT_RDWR if reading else _SHUT_WR
            return bool(self._libc.shutdown(copy, how) == 0)
        finally:
            self._libc.close(copy)


@functools.cache
def _libc() -> PyDLL:  # type: ignore[name-defined]  # noqa: F821 (ctypes loads when needed)
    import ctypes

    libc = ctypes.PyDLL(None)
    number, place, length = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
    libc.getsockopt.argtypes = [number, number, number, place, place]
    libc.setsockopt.argtypes = [number, number, number, ctypes.c_char_p, number]
    libc.getsockname.argtypes = libc.getpeername.argtypes = [number, place, place]
    libc.ioctl.argtypes = [number, ctypes.c_ulong, place]
    libc.recv.argtypes = libc.send.argtypes = [number, place, length, number]
    libc.recv.restype = libc.send.restype = ctypes.c_ssize_t
    return libc


def address(name: bytes) -> tuple[str, int] | str:
    """Host and port, or the path of a Unix socket (`@name` for an abstract one, empty for none).

    Args:
        name: a `struct sockaddr` of its right length. A v4-mapped IPv6 address is told as IPv4.
    """
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8]), struct.unpack_from("!H", name, 2)[0]
    if family == socket.AF_INET6:
        port = struct.unpack_from("!H", name, 2)[0]
        if name[8:20] == _V4_MAPPED:
            return socket.inet_ntop(socket.AF_INET, name[20:24]), port
        return socket.inet_ntop(family, name[8:24]), port
    path = name[2:]
    return "@" + os.fsdecode(path[1:]) if path[:1] == b"\0" else os.fsdecode(path.rstrip(b"\0"))


def kernel() -> Kernel | None:
    """A way to ask; None where `supported()` is False."""
    return Kernel() if supported() else None


@functools.cache
def supported() -> bool:
    """Whether this process can look at its own sockets; if not, every list is empty.

    It cannot on systems other than Linux, without /proc, or without ctypes.
    """
    if sys.platform != "linux" or _numbers() == 0:
        return False
    try:
        Kernel()
    except (ImportError, OSError, AttributeError):
        return False
    return True


def numbers() -> Iterator[int]:
    """Every number that may be a file descriptor of this process now."""
    return iter(range(_numbers()))


def _numbers() -> int:
    """How many descriptors the process' table has room for; 0 when it cannot be read."""
    try:
        status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(status, 8192)
    except OSError:
        return 0
    finally:
        os.close(status)
    _, found, rest = text.partition(b"\nFDSize:")
    return int(rest.split(None, 1)[0]) if found else 0
