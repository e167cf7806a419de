"""What is left of a process that was asked to end: its children, open files and threads.

Source: proc(5) (fd, fdinfo, task, wchan), Linux `Documentation/filesystems/proc.rst`.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process.condition import wchan

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_MOST_LINES = 20
_MOST_FDS = 4096
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in the kernel's hands",
    "T": "paused",
    "t": "traced",
    "I": "idle",
}
# What a kernel function that a thread waits in, uninterruptibly, usually stands for: seen names
# and the prefixes of each subsystem, as of Linux 5.10 to 6.18.
_USUAL_CAUSES = (
    (("nfs", "rpc_", "__rpc_"), "a network file system (NFS) whose server does not answer"),
    (("cifs", "smb2_", "SMB2_"), "a network share (SMB) whose server does not answer"),
    (("fuse_", "__fuse_", "request_wait_answer"), "a FUSE file system that does not answer"),
    (("kernel_clone", "_do_fork", "wait_for_vfork"), "a child of its own to start its program"),
    (("io_schedule", "folio_wait", "wait_on_page", "bio_", "blk_", "submit_bio"), "a disk"),
    (("jbd2_", "ext4_", "xfs_", "btrfs_"), "a file system, and so a disk"),
    (("balance_dirty", "writeback"), "a disk to take what was written"),
    (("rwsem_", "mutex_", "__mutex"), "a lock that something else in the kernel holds"),
)


def usual_cause(function: str) -> str:
    """What a thread in an uninterruptible wait usually waits for there; empty when unknown."""
    return next((cause for heads, cause in _USUAL_CAUSES if function.startswith(heads)), "")


def children(root: int, pids: Sequence[int], members: Collection[int]) -> Finding | None:
    """Who is left below these processes, or beside the root of the set.

    Args:
        root: the first of the set; it may have ended.
        pids: those of the set that live.
        members: all of the set: what is left of them keeps the stop from being over.
    """
    below = [p for pid in pids for p in procfs.family(pid)[1:]]
    beside = [pid for pid in pids if pid != root]
    lines, own, waits = [], 0, False
    for pid in dict.fromkeys((*beside, *below)):
        try:
            state = procfs.stat(pid).state
            if state in "ZX":
                continue
            lines.append(f"pid {pid} ({_STATES.get(state, state)})  {procfs.label(pid)}")
            own += pid in members
        except (ProcessLookupError, PermissionError):
            continue
    if not lines:
        return None
    try:
        waits = root in pids and any(wchan(root, tid) == "do_wait" for tid in procfs.tids(root))
    except (ProcessLookupError, PermissionError):
        waits = False
    if waits:
        lines.append(f"process {root} waits in do_wait: for a child to end")
    left = len(lines) - waits
    process = "process is" if left == 1 else "processes are"
    return Finding(
        "children",
        f"{left} child {process} still there" if root in pids else f"{left} {process} still there",
        Severity.BLOCKER if own or waits else Severity.WARNING,
        Confidence.CERTAIN if own else Confidence.LIKELY if waits else Confidence.POSSIBLE,
        evidence=_capped(lines),
        advice=""
        if own
        else "it may wait for them, or leave them behind: --tree stops them together with it",
    )


def open_files(pids: Sequence[int]) -> tuple[Finding, ...]:
    """Regular files that are open for writing, with their sizes."""
    lines: dict[str, None] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")[:_MOST_FDS]
        except OSError:
            continue
        for name in names:
            line = _open_file(pid, name)
            if line:
                lines.setdefault(line)
    if not lines:
        return ()
    title = f"{len(lines)} file{'s are' if len(lines) > 1 else ' is'} open for writing"
    return (Finding("open-files", title, evidence=_capped(list(lines))),)


def _open_file(pid: int, name: str) -> str:
    """One open file in words; empty when it is none, or not open for writing."""
    try:
        info = procfs.parse_status(procfs.read_bytes(f"/proc/{pid}/fdinfo/{name}"))
        if int(info.get("flags", "0"), 8) & os.O_ACCMODE == os.O_RDONLY:
            return ""
        path = os.readlink(f"/proc/{pid}/fd/{name}")
        if not path.startswith("/"):  # a pipe, a socket: nothing to ask a file system for
            return ""
        seen = os.stat(f"/proc/{pid}/fd/{name}")
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(seen.st_mode):
        return ""
    text = "".join(c if c.isprintable() else "?" for c in path)
    return f"{text}: {seen.st_size} bytes, written at {info.get('pos', '?')} (pid {pid})"


def threads(pids: Sequence[int]) -> tuple[Finding, ...]:
    """What each thread does: its name, its state, and where in the kernel it waits."""
    seen: Counter[str] = Counter()
    for pid in pids:
        try:
            tids = procfs.tids(pid)
        except (ProcessLookupError, PermissionError):
            continue
        for tid in tids:
            try:
                entry = procfs.parse_stat(procfs.read_bytes(f"/proc/{pid}/task/{tid}/stat"))
                place = wchan(pid, tid)
            except (ProcessLookupError, PermissionError):
                continue
            where = f" in {place}" if place else ""
            doing = "has ended, its other threads go on" if entry.state == "Z" else ""
            doing = doing or f"{_STATES.get(entry.state, entry.state)}{where}"
            seen[f"{entry.comm}: {doing}"] += 1
    if not seen:
        return ()
    lines = [f"{number} x {line}" if number > 1 else line for line, number in seen.most_common()]
    total = seen.total()
    title = f"what its {total} threads do" if total > 1 else "what its only thread does"
    return (Finding("threads", title, evidence=_capped(lines)),)


def _capped(lines: Sequence[str]) -> tuple[str, ...]:
    more = (f"and {len(lines) - _MOST_LINES} more",) if len(lines) > _MOST_LINES else ()
    return (*lines[:_MOST_LINES], *more)
