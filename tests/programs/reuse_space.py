# A pid namespace with a tiny range of pids, and children at a chosen pid. For programs that run as
# its pid 1: unshare --pid --fork --mount-proc python reuse_....py
from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

_PID_MAX = "/proc/sys/kernel/pid_max"
_LAST_PID = "/proc/sys/kernel/ns_last_pid"
# After the first round the kernel gives no pid below this (RESERVED_PIDS, kernel/pid.c).
LOWEST = 300
_CLONE3 = 435  # the same number on every architecture
_libc = ctypes.PyDLL(None, use_errno=True)  # it keeps the GIL, as os.fork does
_pidfd_open = os.pidfd_open  # for `own_identity`, whatever a case puts in its place


def has_own_pid_max() -> bool:
    """Since Linux 6.14 each pid namespace has its own; before, writing it changes the machine's."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdecimal()))) >= (6, 14)


def shrink(size: int) -> None:
    """Leave so many pids for all who come now; only where `has_own_pid_max`."""
    if os.getpid() != 1 or not has_own_pid_max():
        raise SystemExit("this would change pid_max for the whole machine")
    with open(_PID_MAX, "w") as file:
        file.write(str(LOWEST + size))


def rewind(last: int = LOWEST - 1) -> None:
    """Let the next pid be the one after `last`, or the first free one above."""
    with open(_LAST_PID, "w") as file:
        file.write(str(last))


def fork_at(pid: int) -> int:
    """fork(), with the child's pid chosen: 0 in the child. See clone3(2), set_tid."""
    wanted = ctypes.c_int(pid)
    arguments = struct.pack(
        "11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0
    )
    # As os.fork does: the child has one thread and one Python of its own.
    ctypes.pythonapi.PyOS_BeforeFork()
    made = int(_libc.syscall(_CLONE3, ctypes.c_char_p(arguments), len(arguments)))
    if made == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if made < 0:
        raise OSError(error, f"clone3 with set_tid {pid}: {os.strerror(error)}")
    return made


def own_identity() -> tuple[int, int, int]:
    """Of the process that asks: pid, inode of its pidfd, start time in ticks."""
    with open("/proc/self/stat", "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[19])
    pid = os.getpid()
    fd = _pidfd_open(pid)
    try:
        return pid, os.fstat(fd).st_ino, start
    finally:
        os.close(fd)
