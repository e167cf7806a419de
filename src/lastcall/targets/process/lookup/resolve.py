"""From an address to the one process it means, its identity fixed.

A look-up races: what was found may end, and its number may pass to another, before it is held. So
each kind first finds a pid, then opens its pidfd, and then looks again whether what led there (the
holder of the socket, the name, the pidfile) still leads to it.

Source: proc(5), pidfd_open(2), start-stop-daemon(8) (which pidfiles not to believe).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from lastcall.errors import Ambiguous, BadAddress, NotRunning, Refused
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.record import record
from lastcall.targets.process.lookup.lead import HIGHEST_PID, Lead, read_pid, topmost

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.model import Address, Finding
    from lastcall.targets.process.sockets import Socket

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h
_TRIES = 5
# Among how many words of a command line the script of an interpreter is looked for.
_SCRIPT = 4


@record
class Found:
    """The process an address means.

    Args:
        handle: its open pidfd; whoever gets this closes it.
        label: what a person would call it.
        listeners: for `port:`, the listening sockets it was found by.
        notes: what was noticed on the way.
    """

    handle: Handle
    label: str
    listeners: tuple[Socket, ...] = ()
    notes: tuple[Finding, ...] = ()


def resolve(address: Address, *, allow: frozenset[str] = frozenset()) -> Found:
    """Find the process that an address means, and hold it.

    Args:
        address: of one of the kinds `pid`, `pidfile`, `port`, `name`.
        allow: what is otherwise refused: "init" (pid 1), "ancestor" (what this command runs under).

    Raises:
        BadAddress: the address makes no sense.
        NotRunning: nobody is there.
        Ambiguous: several are.
        Refused: it must not be stopped by accident, or the pidfile cannot be believed.
        NotPermitted: this user may not see who is there.
    """
    finder = _FINDERS.get(address.kind)
    if finder is None:
        raise BadAddress(f"{address} does not mean a process")
    gone: NotRunning | None = None
    for _ in range(_TRIES):
        lead = finder(address.name, allow)
        try:
            handle = Handle.open(lead.pid)
        except NotRunning as error:
            if address.kind == "pid":
                raise
            gone = error
            continue
        try:
            refuse(lead.pid, allow)
            label = procfs.label(lead.pid)
            if lead.still(handle):
                return Found(handle, label, lead.listeners, lead.notes)
        except BaseException:
            handle.close()
            raise
        handle.close()
    if gone is not None and address.kind == "pidfile":
        raise NotRunning(f"{gone.what}, which {address.name} names", "the pidfile was left behind")
    raise NotRunning(
        f"{address} means another process each time we look",
        "it seems to be restarted all the time: look at what restarts it",
    )


def refuse(pid: int, allow: frozenset[str] = frozenset()) -> None:
    """Refuse what must not be stopped, or not by accident.

    Args:
        pid: whom to stop.
        allow: as in `resolve`.

    Raises:
        Refused: it is ourselves, an ancestor, pid 1 or a kernel thread.
    """
    if pid == os.getpid():
        raise Refused(f"process {pid} is lastcall itself", "press Ctrl+C to end it")
    if is_kernel_thread(pid):
        raise Refused(f"{_who(pid)} belongs to the kernel", "no signal ends a thread of the kernel")
    if pid == 1 and "init" not in allow:
        raise Refused(
            f"{_who(pid)} is the init of this system or container: everything in it ends with it",
            "if that is what you want: --allow init",
        )
    if pid != 1 and "ancestor" not in allow and pid in procfs.ourselves():
        raise Refused(
            f"{_who(pid)} is an ancestor of this command, which would end with it",
            "if that is what you want: --allow ancestor",
        )


def _who(pid: int) -> str:
    return f"process {pid} ({procfs.label(pid, 48)})"


def is_kernel_thread(pid: int) -> bool:
    """Whether it is a thread of the kernel's own; False when it is gone.

    Its flags tell it in field 9 of its stat, where an empty command line would also fit a zombie.
    """
    try:
        raw = procfs.read_bytes(f"/proc/{pid}/stat")
    except (ProcessLookupError, PermissionError):
        return False
    return bool(int(raw.rpartition(b")")[2].split()[6]) & _KERNEL_THREAD)


def _by_pid(name: str, _allow: frozenset[str]) -> Lead:
    pid = read_pid(name)
    if pid is None:
        raise BadAddress(
            f"{name!r} is not the number of a process", f"pids go from 1 to {HIGHEST_PID}"
        )
    return Lead(pid, lambda _: True)


def _by_pidfile(name: str, _allow: frozenset[str]) -> Lead:
    from lastcall.targets.process.lookup import pidfile

    written = pidfile.read(name)
    return Lead(written.pid, lambda handle: pidfile.believe(written, handle.identity))


def _by_port(name: str, _allow: frozenset[str]) -> Lead:
    from lastcall.targets.process.lookup import port

    return port.find(name)


def names_of(pid: int) -> frozenset[str]:
    """What a process is called: its kernel name, its program, and the first word it was started by.

    Servers rewrite that word (`nginx: master process /usr/sbin/nginx`): then its part before the
    colon counts.
    """
    entry = procfs.stat(pid)
    found, words = {entry.comm}, procfs.cmdline(pid)
    if words and words[0]:
        found.add(os.path.basename(words[0].partition(": ")[0]))
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the kernel's own have none
        found.add(os.path.basename(procfs.exe(pid).removesuffix(" (deleted)")))
    return frozenset(found)


def _carries(pid: int, name: str) -> bool:
    """Whether a living process has this name."""
    try:
        return name in names_of(pid) and not procfs.over(procfs.stat(pid))
    except (ProcessLookupError, PermissionError):
        return False


def _by_name(name: str, allow: frozenset[str]) -> Lead:
    above = set(procfs.ancestors(os.getpid()))
    if "ancestor" in allow:
        above = set()
    named = [pid for pid in procfs.pids() if pid != os.getpid() and _carries(pid, name)]
    found = [pid for pid in named if pid not in above and not is_kernel_thread(pid)]
    if len(found) > 1:
        raise ambiguous(f"{len(found)} processes are called {name!r}", found)
    # What must not be stopped counts only when nothing else is called so: then it is refused.
    found = found or named
    if not found:
        raise NotRunning(f"no process is called {name!r}", _near(name))
    return Lead(
        found[0], lambda handle: _carries(handle.identity.pid, name) and not handle.exited()
    )


def ambiguous(what: str, pids: list[int]) -> Ambiguous:
    """The error for several processes at one address, with the likeliest in its advice."""
    top = topmost(pids)
    advice = (
        f"pid:{top} is the ancestor of all the others: probably the one to stop"
        if top is not None
        else "name one of them"
    )
    return Ambiguous(what, advice, tuple((f"pid:{p}", procfs.label(p)) for p in pids))


def _near(name: str) -> str:
    """Who runs a script of that name, or names that come close, for whoever mistyped."""
    import difflib

    known: set[str] = set()
    runs: list[int] = []
    for pid in procfs.pids():
        try:
            if pid == os.getpid() or is_kernel_thread(pid):
                continue
            known |= names_of(pid)
            if name in {os.path.basename(word) for word in procfs.cmdline(pid)[1:_SCRIPT]}:
                runs.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    if runs:
        which = "; ".join(f"pid:{pid} ({procfs.label(pid)})" for pid in runs[:3])
        return f"a script goes by the name of its interpreter; {name} is run by {which}"
    near = difflib.get_close_matches(name, sorted(known - {""}), 3, 0.7)
    near = near or sorted(n for n in known if name and name in n)[:3]
    return f"did you mean {' or '.join(f'name:{n}' for n in near)} ?" if near else ""


_FINDERS: dict[str, Callable[[str, frozenset[str]], Lead]] = {
    "pid": _by_pid,
    "pidfile": _by_pidfile,
    "port": _by_port,
    "name": _by_name,
}
