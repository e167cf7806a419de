"""Reading `/proc`: one small function for each file, each with a size limit.

A process may vanish at any moment: then these raise `ProcessLookupError`, whatever the kernel
said (ENOENT for the folder, ESRCH for a read from a dying one). What this user may not read raises
`PermissionError`.

Source: proc(5), Linux `Documentation/filesystems/proc.rst`.
"""

from __future__ import annotations

import os
from functools import cache

from lastcall.record import record

_LIMIT_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@record
class Stat:
    """The fields of `/proc/PID/stat` that matter here.

    Args:
        comm: the kernel's name of it, at most 15 characters.
        state: one letter: R, S, D, T, t, Z, X, I.
        start_ticks: when it started, in clock ticks since boot.
        exit_code: the wait status of a zombie; 0 when not readable or not ended.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    pgrp: int
    session: int
    start_ticks: int
    exit_code: int


def read_bytes(path: str, limit_bytes: int = _LIMIT_BYTES, *, at_once: bool = False) -> bytes:
    """The file's first bytes.

    Args:
        path: the file.
        limit_bytes: how many to read at most.
        at_once: the kernel makes its text in one piece: what is less than asked for is all.

    Raises:
        ProcessLookupError: the process (or thread) is gone.
        PermissionError: this user may not read it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", path) from error
    try:
        chunks = []
        while limit_bytes > 0 and (chunk := os.read(fd, min(limit_bytes, _CHUNK_BYTES))):
            chunks.append(chunk)
            limit_bytes -= len(chunk)
            if at_once and len(chunk) < _CHUNK_BYTES:
                break
        return b"".join(chunks)
    finally:
        os.close(fd)


def parse_stat(raw: bytes) -> Stat:
    """Read a line of `/proc/PID/stat`; the name in it may contain anything, even `) R 1`."""
    head, _, tail = raw.partition(b"(")
    comm, _, rest = tail.rpartition(b")")
    fields = rest.split()
    return Stat(
        pid=int(head),
        comm=comm.decode(errors="replace"),
        state=fields[0].decode(),
        ppid=int(fields[1]),
        pgrp=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        exit_code=int(fields[49]) if len(fields) > 49 else 0,  # noqa: PLR2004 (field 52 of proc(5))
    )


def stat(pid: int, tid: int | None = None) -> Stat:
    """`/proc/PID/stat`, or that of one of its threads. Raises as `read_bytes`."""
    place = f"/proc/{pid}" if tid is None else f"/proc/{pid}/task/{tid}"
    return parse_stat(read_bytes(f"{place}/stat", at_once=True))


def over(entry: Stat) -> bool:
    """Whether a process has ended: all of it, for its main thread may end before the others."""
    if entry.state not in "ZX":
        return False
    try:
        return all(stat(entry.pid, tid).state in "ZX" for tid in tids(entry.pid))
    except (ProcessLookupError, PermissionError):
        return True


def parse_status(raw: bytes) -> dict[str, str]:
    """Read `/proc/PID/status` as a dictionary of its lines."""
    found = {}
    for line in raw.decode(errors="replace").splitlines():
        key, _, value = line.partition(":")
        found[key] = value.strip()
    return found


def status(pid: int, tid: int | None = None) -> dict[str, str]:
    """`/proc/PID/status`, or that of one of its threads. Raises as `read_bytes`."""
    place = f"/proc/{pid}" if tid is None else f"/proc/{pid}/task/{tid}"
    return parse_status(read_bytes(f"{place}/status", at_once=True))


def status_line(pid: int, key: str) -> str:
    """One line of `/proc/PID/status`, for less than all of them; empty without it.

    Raises as `read_bytes`.
    """
    _, _, rest = read_bytes(f"/proc/{pid}/status", at_once=True).partition(f"\n{key}:".encode())
    return rest.partition(b"\n")[0].decode(errors="replace").strip()


def cmdline(pid: int) -> list[str]:
    """The command line; empty for zombies and kernel threads. Raises as `read_bytes`."""
    raw = read_bytes(f"/proc/{pid}/cmdline")
    return [part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")] if raw else []


def environ(pid: int) -> dict[str, str]:
    """The environment it was started with. Raises as `read_bytes`."""
    raw = read_bytes(f"/proc/{pid}/environ")
    pairs = (part.decode(errors="replace").partition("=") for part in raw.split(b"\0") if part)
    return {key: value for key, _, value in pairs}


def exe(pid: int) -> str:
    """The path of its program. Raises as `read_bytes`."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", str(pid)) from error


def pids() -> list[int]:
    """Every process this user can see, in ascending order."""
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal())


def tids(pid: int) -> list[int]:
    """The threads of a process. Raises as `read_bytes`."""
    try:
        return sorted(int(entry) for entry in os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", str(pid)) from error


def children(pid: int) -> list[int]:
    """The children of a process, from the kernel's own list where it keeps one.

    Quick, but a child may be missed while others end: good for showing, not for signalling.
    Raises as `read_bytes`.

    Source: proc(5), `/proc/PID/task/TID/children` (CONFIG_PROC_CHILDREN).
    """
    if not os.path.exists("/proc/thread-self/children"):
        return [entry.pid for entry in every_stat().values() if entry.ppid == pid]
    found: list[int] = []
    for tid in tids(pid):
        try:
            raw = read_bytes(f"/proc/{pid}/task/{tid}/children")
        except ProcessLookupError:  # that thread is gone; its children went to another
            continue
        found += [int(word) for word in raw.split()]
    return found


def family(pid: int) -> list[int]:
    """A process and all below it, as `children` tells; only itself when it vanishes meanwhile."""
    found, queue = [pid], [pid]
    while queue:
        try:
            below = children(queue.pop(0))
        except (ProcessLookupError, PermissionError):
            continue
        found += below
        queue += below
    return found


def every_stat() -> dict[int, Stat]:
    """The stat of every process there is; those that vanish meanwhile are left out."""
    found = {}
    for pid in pids():
        try:
            found[pid] = stat(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def descendants(root: int, table: dict[int, Stat]) -> list[int]:
    """The pids below `root`, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.ppid, []).append(entry.pid)
    found: list[int] = []
    queue = list(children.get(root, ()))
    while queue:
        pid = queue.pop(0)
        found.append(pid)
        queue.extend(children.get(pid, ()))
    return found


def ancestors(pid: int) -> list[int]:
    """The pids above `pid`, nearest first, up to pid 1."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = stat(pid).ppid
        except (ProcessLookupError, PermissionError):
            break
        if pid:
            found.append(pid)
    return found


def label(pid: int, limit: int = 72) -> str:
    """What a person would call it: its command line, or its kernel name in brackets."""
    try:
        words = cmdline(pid)
        text = " ".join(words) if words else f"[{stat(pid).comm}]"
    except (ProcessLookupError, PermissionError):
        return "?"
    if len(text) > limit:  # where it lies matters less than what it is called with
        text = " ".join(os.path.basename(w) or w if w.startswith("/") else w for w in words)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def ourselves() -> frozenset[int]:
    """Never part of any set: we, and those we run under.

    Read once: an orphan goes to one of its ancestors, so nobody can join them later.
    """
    return _with_ancestors(os.getpid())


@cache
def _with_ancestors(pid: int) -> frozenset[int]:
    return frozenset({pid, *ancestors(pid)})
