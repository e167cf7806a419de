"""Which process is meant, for all time: pid, start time, boot, and the pidfd's inode.

A pid is reused; a pidfd is not. Once a `Handle` is open, nothing done through it can reach a later
process with the same pid.

Source: pidfd_open(2), pidfd_send_signal(2); Linux 6.9 gives each pidfd an inode of its own
(fs/pidfs.c); Linux 6.15 keeps the exit status for it (PIDFD_GET_INFO with PIDFD_INFO_EXIT,
include/uapi/linux/pidfd.h).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
from functools import cache

from lastcall.clock import boot_id
from lastcall.errors import LastcallError, NotPermitted, NotRunning
from lastcall.kernel import procfs
from lastcall.model import Identity
from lastcall.record import record

# struct pidfd_info: u64 mask, u64 cgroup id, eleven u32 ids, s32 exit code.
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_GET_INFO = (3 << 30) | (_PIDFD_INFO.size << 16) | (0xFF << 8) | 11
_WANT_PID, _WANT_CGROUP, _WANT_EXIT = 1, 4, 8


@record
class ProcessIdentity:
    """One process of one boot.

    Args:
        inode: the pidfd's own inode; None where the kernel gives none (before Linux 6.9).
    """

    pid: int
    start_ticks: int
    boot_id: str
    inode: int | None

    def as_model(self) -> Identity:
        """The identity as the journal keeps it."""
        return Identity(
            key=f"process:{self.boot_id}/{self.pid}/{self.start_ticks}/{self.inode or '-'}",
            facts={
                "pid": self.pid,
                "start_ticks": self.start_ticks,
                "boot_id": self.boot_id,
                "inode": self.inode,
            },
        )

    @classmethod
    def from_facts(cls, facts: dict[str, str | int | None]) -> ProcessIdentity:
        """The identity back from the journal."""
        inode = facts["inode"]
        return cls(
            pid=int(facts["pid"] or 0),
            start_ticks=int(facts["start_ticks"] or 0),
            boot_id=str(facts["boot_id"]),
            inode=None if inode is None else int(inode),
        )


class Handle:
    """An open pidfd with its identity. Close it."""

    def __init__(self, identity: ProcessIdentity, fd: int) -> None:
        self.identity = identity
        self.fd: int = fd

    @classmethod
    def open(cls, pid: int) -> Handle:
        """Fix the identity of whatever runs under `pid` now.

        Raises:
            NotRunning: nothing runs under it, or it ended while we looked.
            NotPermitted: this user may not see it.
            LastcallError: too many files are open.
        """
        gone = NotRunning(f"no process {pid} is running")
        try:
            before = procfs.stat(pid)
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise gone from None
        except PermissionError as error:  # hidepid=1 of proc(5)
            raise NotPermitted(
                f"this user may not look at process {pid}", "ask as its owner, or as root"
            ) from error
        except OSError as error:  # the id of a thread: EINVAL, on newer kernels ENOENT
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                raise NotRunning(f"{pid} is a thread, not a process") from None
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise LastcallError(
                    f"process {pid} cannot be watched: {error.strerror}",
                    "raise the limit on open files (ulimit -n), or name fewer targets at once",
                ) from error
            raise
        try:
            if procfs.stat(pid).start_ticks != before.start_ticks or _hung_up(fd):
                raise gone
        except ProcessLookupError:
            os.close(fd)
            raise gone from None
        except BaseException:
            os.close(fd)
            raise
        return cls(ProcessIdentity(pid, before.start_ticks, boot_id(), _inode(fd)), fd)

    @classmethod
    def reopen(cls, identity: ProcessIdentity) -> Handle:
        """Find the very same process again.

        Raises:
            NotRunning: it is gone; whatever runs under its pid now is another.
        """
        if identity.boot_id != boot_id():
            raise NotRunning(f"process {identity.pid} ran before the machine was restarted")
        handle = cls.open(identity.pid)
        if handle.identity != identity:
            handle.close()
            raise NotRunning(f"process {identity.pid} is gone; its number belongs to another now")
        return handle

    def send(self, signum: int) -> None:
        """Signal this process and no other.

        Raises:
            ProcessLookupError: it has ended and was reaped.
            PermissionError: this user may not signal it.
        """
        signal.pidfd_send_signal(self.fd, signum)

    def exited(self) -> bool:
        """Whether it has ended (it may still be a zombie)."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return bool(poller.poll(0))

    def reaped(self) -> bool:
        """Whether its parent has taken its status: nothing more will be known after that."""
        return _hung_up(self.fd)

    def wait_status(self) -> int | None:
        """How it ended, as `waitpid` would say; None when that cannot be known (yet).

        While it is a zombie the status stands in field 52 of its stat (readable with ptrace
        permission); after that the kernel keeps it for the pidfd.
        """
        if _hung_up(self.fd):
            return _exit_info(self.fd)
        if not self.exited():
            return None
        try:
            entry = procfs.stat(self.identity.pid)
        except (ProcessLookupError, PermissionError):
            return _exit_info(self.fd)
        same = entry.start_ticks == self.identity.start_ticks and entry.state in "ZX"
        # 0 also stands for "not readable": only believed of a process we may look into. That look
        # fails as well when it was reaped a moment ago: then the pidfd has it.
        if same and (entry.exit_code or _may_look(entry.pid)):
            return entry.exit_code
        return _exit_info(self.fd)

    @property
    def closed(self) -> bool:
        """Whether there is no pidfd (any more)."""
        return self.fd < 0

    def close(self) -> None:
        """Let go of the pidfd. The process is left alone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _may_look(pid: int) -> bool:
    """Whether the kernel shows us all of a zombie: it belongs to us, or we are root.

    Source: ptrace(2), "Ptrace access mode checking" (a zombie has no memory left to guard).
    """
    if os.geteuid() == 0:
        return True
    try:
        lines = procfs.status(pid)
    except (ProcessLookupError, PermissionError):
        return False
    uids, gids = set(lines.get("Uid", "").split()), set(lines.get("Gid", "").split())
    return uids == {str(os.geteuid())} and gids == {str(os.getegid())}


def _inode(fd: int) -> int | None:
    """The pidfd's own inode, or None where all anonymous descriptors share one."""
    here = os.fstat(fd)
    return here.st_ino if here.st_dev != _anonymous_device() else None


@cache
def _anonymous_device() -> int:
    """The device of all anonymous descriptors."""
    other = os.eventfd(0)
    try:
        return os.fstat(other).st_dev
    finally:
        os.close(other)


def _hung_up(fd: int) -> bool:
    """Whether the process was reaped (POLLHUP), not merely ended (POLLIN)."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


def _exit_info(fd: int) -> int | None:
    buffer = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(buffer, 0, _WANT_PID | _WANT_CGROUP | _WANT_EXIT, *[0] * 13)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(buffer)
    return int(status) if mask & _WANT_EXIT else None
