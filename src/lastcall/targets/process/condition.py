"""Why a process cannot react now: paused, traced, frozen, in the kernel's hands, or dead already.

`condition` reads the facts, `findings` puts them into words; both serve the check before a stop
and the look at what holds it up.

Source: proc(5), cgroups(7), Linux `Documentation/admin-guide/cgroup-v2.rst` (cgroup.freeze,
cgroup.events), `cgroup-v1/freezer-subsystem.rst` (freezer.state), `filesystems/proc.rst`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANY = 4


@record
class Condition:
    """What keeps a process from reacting, as the kernel tells it.

    Args:
        state: one letter, as in `procfs.Stat`: that of its main thread.
        parent: the pid of its parent; 0 when that lies outside our pid namespace.
        tracer: the pid of who traces it; None when nobody does.
        frozen: the cgroup that is frozen; None when none is.
        stuck: (thread, kernel function) of each thread in an uninterruptible wait; the function
            is empty when this user may not read it.
    """

    pid: int
    state: str
    parent: int
    tracer: int | None
    frozen: str | None
    stuck: tuple[tuple[int, str], ...]


@lru_cache
def parse_cgroups(raw: str) -> Mapping[str, str]:
    """Read `/proc/PID/cgroup`: the path for each controller name; cgroup v2 has the name ``."""
    found: dict[str, str] = {}
    for line in raw.splitlines():
        _, colon, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if colon:
            found.update(dict.fromkeys(names.split(","), path))
    return found


def cgroups(pid: int) -> Mapping[str, str]:
    """The cgroup of a process in each hierarchy. Raises as `procfs.read_bytes`."""
    return parse_cgroups(procfs.read_bytes(f"/proc/{pid}/cgroup").decode(errors="replace"))


def parse_cgroup_mounts(raw: str) -> dict[str, tuple[str, str]]:
    """Read `/proc/self/mountinfo`: (mount point, its root) for each controller; v2 is ``."""
    found: dict[str, tuple[str, str]] = {}
    for line in raw.splitlines():
        fields = line.split()
        if "-" not in fields[6:]:
            continue
        dash = fields.index("-", 6)
        if len(fields) <= dash + 3 or fields[dash + 1] not in {"cgroup", "cgroup2"}:
            continue
        place = (_unescape(fields[4]), _unescape(fields[3]))
        names = [""] if fields[dash + 1] == "cgroup2" else fields[dash + 3].split(",")
        for name in names:
            found.setdefault(name, place)
    return found


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def frozen(pid: int) -> str | None:
    """The folder of the frozen cgroup the process is in; None when none is, or none can be seen.

    Where a cgroup above froze it, that one is named: it is the one to thaw.

    Raises:
        ProcessLookupError: the process is gone.
    """
    paths = cgroups(pid)
    mounts = _mounts()
    if "freezer" in paths and "freezer" in mounts:
        folder = _folder(paths["freezer"], *mounts["freezer"])
        if _text(f"{folder}/freezer.state").strip() not in {"", "THAWED"}:
            return _origin(folder, mounts["freezer"][0], "freezer.self_freezing")
    if "" in paths and "" in mounts:
        folder = _folder(paths[""], *mounts[""])
        if "frozen 1" in _text(f"{folder}/cgroup.events").splitlines() or (
            _text(f"{folder}/cgroup.freeze").strip() == "1"
        ):
            return _origin(folder, mounts[""][0], "cgroup.freeze")
    return None


@cache
def _mounts() -> dict[str, tuple[str, str]]:
    """Where the cgroup trees are mounted: read once, for they stay where they are."""
    return parse_cgroup_mounts(_text("/proc/self/mountinfo"))


def _folder(path: str, mount: str, root: str) -> str:
    if root not in {"", "/"} and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return mount + path.rstrip("/")


def _origin(folder: str, mount: str, flag: str) -> str:
    """The highest cgroup from `folder` upwards that was itself told to freeze."""
    origin, here = folder, folder
    while here.startswith(mount):
        if _text(f"{here}/{flag}").strip() == "1":
            origin = here
        here = here.rpartition("/")[0]
    return origin


def _text(path: str) -> str:
    """A small file of the cgroup tree; empty when it cannot be read."""
    try:
        return procfs.read_bytes(path).decode(errors="replace")
    except OSError:
        return ""


def condition(pid: int) -> Condition:
    """What keeps the process from reacting now.

    Raises:
        ProcessLookupError: the process is gone.
    """
    entry = procfs.stat(pid)
    if entry.state in "ZX" and not procfs.over(entry):
        entry = replace(entry, state="S")  # its main thread has ended, and others go on
    tracer = int(procfs.status_line(pid, "TracerPid") or 0)
    ice = frozen(pid) if entry.state not in "ZX" else None
    # The v1 freezer parks its tasks in state D: that is told as frozen, not as stuck.
    stuck = () if ice else tuple(_stuck(entry))
    return Condition(pid, entry.state, entry.ppid, tracer or None, ice, stuck)


def _stuck(main: procfs.Stat) -> list[tuple[int, str]]:
    found, pid = [], main.pid
    for tid in procfs.tids(pid):
        try:
            thread = main if tid == pid else procfs.stat(pid, tid)
            if thread.state == "D":
                found.append((tid, wchan(pid, tid)))
        except ProcessLookupError:
            continue
    return found


def wchan(pid: int, tid: int | None = None) -> str:
    """The kernel function it waits in; empty when it runs or this user may not know.

    Raises:
        ProcessLookupError: the process or thread is gone.
    """
    place = f"/proc/{pid}" if tid is None else f"/proc/{pid}/task/{tid}"
    try:
        text = procfs.read_bytes(f"{place}/wchan").decode(errors="replace").strip("\0\n ")
    except PermissionError:
        return ""
    # A compiler's copy of a function carries a suffix such as `.isra.0` that tells nobody anything.
    return "" if text in {"", "0"} else text.partition(".")[0]


def findings(now: Condition, before: Condition | None = None) -> tuple[Finding, ...]:
    """The condition in words, gravest first; nothing when nothing is in the way.

    Args:
        now: what was read last.
        before: what was read a moment earlier: only threads that were stuck then too count, for
            every disk access is uninterruptible for a moment. None takes `now` at its word.
    """
    if now.state in "ZX":
        return (_zombie(now),)
    found = []
    if now.frozen is not None:
        found.append(_frozen(now.pid, now.frozen))
    if now.state == "T":
        found.append(
            Finding(
                "stopped",
                f"process {now.pid} is paused: it takes a signal only when it is woken",
                Severity.BLOCKER,
                evidence=(f"/proc/{now.pid}/stat: state T",),
                advice=f"wake it: kill -CONT {now.pid}",
            )
        )
    if now.tracer is not None:
        found.append(_traced(now, now.tracer))
    lasting = now.stuck if before is None else _lasting(now.stuck, dict(before.stuck))
    if lasting:
        found.append(_uninterruptible(now.pid, lasting))
    return tuple(found)


def _lasting(
    stuck: tuple[tuple[int, str], ...], before: dict[int, str]
) -> tuple[tuple[int, str], ...]:
    """Those that were stuck in the same place before; the kernel does not name it every time."""
    return tuple(
        (tid, function or before[tid])
        for tid, function in stuck
        if tid in before and (function == before[tid] or not function or not before[tid])
    )


def _zombie(now: Condition) -> Finding:
    parent = f"{now.parent} ({procfs.label(now.parent, 48)})" if now.parent else "outside our view"
    return Finding(
        "zombie",
        f"process {now.pid} has ended already; its parent has not collected it",
        Severity.BLOCKER,
        evidence=(f"/proc/{now.pid}/stat: state {now.state}", f"parent: {parent}"),
        advice="no signal can do more: look at the parent, which does not wait for its children",
    )


def _frozen(pid: int, folder: str) -> Finding:
    v1 = os.path.exists(f"{folder}/freezer.state")
    thaw = f"echo THAWED > {folder}/freezer.state" if v1 else f"echo 0 > {folder}/cgroup.freeze"
    return Finding(
        "frozen",
        f"process {pid} is frozen by its cgroup: it takes no signal until it is thawed",
        Severity.BLOCKER,
        evidence=(f"frozen cgroup: {folder}",),
        advice=f"thaw it: {thaw} (or `docker unpause`, `systemctl thaw`, whoever froze it)",
    )


def _traced(now: Condition, tracer: int) -> Finding:
    held = now.state == "t"
    return Finding(
        "traced",
        f"process {now.pid} is held by a debugger: it takes signals only when that lets it go"
        if held
        else f"process {now.pid} is traced: every signal passes through the tracer first",
        Severity.BLOCKER if held else Severity.NOTE,
        evidence=(
            f"tracer: {tracer} ({procfs.label(tracer, 48)})",
            f"/proc/{now.pid}/stat: state {now.state}",
        ),
        advice=f"let it go on in the debugger, or end the tracer: lastcall stop pid:{tracer}"
        if held
        else "",
    )


def _uninterruptible(pid: int, stuck: tuple[tuple[int, str], ...]) -> Finding:
    shown = [
        f"thread {tid} waits in the kernel" + (f" ({function})" if function else "")
        for tid, function in stuck[:_MANY]
    ]
    if len(stuck) > _MANY:
        shown.append(f"and {len(stuck) - _MANY} more threads")
    return Finding(
        "uninterruptible",
        f"process {pid} waits for the kernel and cannot be interrupted: it takes a signal only "
        "when that comes back",
        Severity.BLOCKER,
        Confidence.CERTAIN if any(tid == pid for tid, _ in stuck) else Confidence.LIKELY,
        evidence=tuple(shown),
        advice="look at what it waits for (dmesg, mount): a dead file server, a failing disk",
    )
