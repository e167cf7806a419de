"""Where a monitor is, how it is reached, and which process listens there.

Source: unix(7) (SO_PEERCRED: who called listen(2)); Linux 6.5 SO_PEERPIDFD
(include/uapi/asm-generic/socket.h).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct

from lastcall.errors import BadAddress, LastcallError, NotPermitted, NotRunning
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.kernel.run import printable
from lastcall.record import record
from lastcall.targets.guest.machine import Fault, Trouble

CONNECT_S = 3.0
_AGAIN_S = 0.05
_SO_PEERPIDFD = 77
_CRED = struct.Struct("=iII")  # pid, uid, gid
_LONGEST_PATH = 107  # bytes of sun_path, without the closing zero
_LARGEST_PORT = 65535


@record
class Place:
    """Where a monitor listens: a Unix socket's path, or a host and its port.

    Args:
        path: absolute; empty: it is reached over TCP.
        host: name or number of the host.
        port: of the host.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def place_of(name: str) -> Place:
    """Read `PATH` or `HOST:PORT`.

    Raises:
        BadAddress: it is neither.
    """
    host, colon, port = name.rpartition(":")
    if not colon or "/" in name or not port.isdecimal():
        return Place(path=os.path.abspath(name))
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 < int(port[:6]) <= _LARGEST_PORT:
        raise BadAddress(f"qmp:{name} names no port of a host", "such as qmp:127.0.0.1:4444")
    return Place(host=host, port=int(port))


async def connect(place: Place, limit_s: float = CONNECT_S) -> socket.socket:
    """A connected socket; nothing is said yet.

    Raises:
        NotRunning: nothing listens there.
        NotPermitted: this user may not.
        BadAddress: there is no such host, or the path is no socket.
        Trouble: HUNG (it does not accept in time), BROKEN.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await (_connect_unix(place.path) if place.path else _connect_tcp(place))
    except TimeoutError:
        raise Trouble(
            Fault.HUNG,
            f"QEMU's monitor at {place} did not take the connection within {limit_s:g} s",
            "QEMU hangs, or another program holds its monitor and others wait for it already"
            if place.path
            else "the way to the host is cut, or QEMU hangs",
        ) from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise _nobody(place) from error
    except PermissionError as error:
        raise NotPermitted(
            f"this user may not talk to the monitor at {place}", "ask as QEMU's user, or as root"
        ) from error
    except socket.gaierror as error:
        raise BadAddress(f"there is no host {place.host!r}", error.strerror or "") from error
    except OSError as error:
        why = error.strerror or str(error)  # Python's own "AF_UNIX path too long" has no number
        raise Trouble(Fault.BROKEN, f"{place} cannot be reached: {why}") from error


def _nobody(place: Place) -> LastcallError:
    import stat

    try:
        mode = os.stat(place.path).st_mode if place.path else stat.S_IFSOCK
    except OSError:
        return NotRunning(f"there is no monitor at {place}", "start QEMU with -qmp, or look there")
    if not stat.S_ISSOCK(mode):
        return BadAddress(f"{place} is no socket", "name the path given to QEMU's -qmp unix:PATH")
    if not place.path:
        return NotRunning(f"nothing listens at {place}", "its QEMU has ended, or listens elsewhere")
    return NotRunning(f"nothing listens at {place}: its QEMU has ended")


async def _connect_unix(path: str) -> socket.socket:
    """Connect, waiting while the queue of those who wait is full.

    Not by `loop.sock_connect`: it takes the EAGAIN of a full queue for a connection under way.
    """
    folder = -1
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        name = path
        if len(os.fsencode(path)) > _LONGEST_PATH:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
            name = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        while True:
            try:
                sock.connect(name)
            except BlockingIOError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)


async def _connect_tcp(place: Place) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty or overlong part of the name
        raise BadAddress(f"{printable(place.host)!r} is not the name of a host") from error
    failed: OSError = ConnectionRefusedError()
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed


def listener(sock: socket.socket) -> tuple[Handle | None, str]:
    """The QEMU that listens at the other end, and why it is not known where it is not.

    Only a QEMU is taken: behind a forwarder (`socat`, a service manager) stands another process,
    and to end the forwarder would not end the guest.
    """
    if sock.family != socket.AF_UNIX:
        return None, "over TCP its process is not known"
    pid, _, _ = _CRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CRED.size))
    if pid <= 0:
        return None, "its process is hidden from us (another PID namespace)"
    try:
        handle = Handle.open(pid)
    except LastcallError as error:
        return None, error.what
    try:
        if not _same(sock, handle):
            reason = f"process {pid}, which made its socket, has ended"
        elif not is_qemu(pid):
            reason = f"process {pid} ({procfs.label(pid, 40)}) listens there, which is no QEMU"
        else:
            return handle, ""
    except BaseException:
        handle.close()
        raise
    handle.close()
    return None, reason


def _same(sock: socket.socket, handle: Handle) -> bool:
    """Whether the handle means the process that listens, and no later one of the same number."""
    try:
        fd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        # An older kernel does not know the question; any other answer means that it has ended.
        return error.errno == errno.ENOPROTOOPT
    try:
        return handle.identity.inode is None or os.fstat(fd).st_ino == handle.identity.inode
    finally:
        os.close(fd)


def is_qemu(pid: int) -> bool:
    """Whether a process runs QEMU, by its program's file or its name."""
    try:
        program = os.path.basename(procfs.exe(pid))
    except (ProcessLookupError, PermissionError):
        program = ""
    try:
        comm = procfs.stat(pid).comm
    except (ProcessLookupError, PermissionError):
        comm = ""
    return "qemu" in program or "qemu" in comm or program == "kvm" or comm == "kvm"
