"""What keeps processes from ending now, with evidence, the most telling first.

Each part of the look runs in a thread of its own and is left behind when its time is over: a file
in `/proc` can hang with its process (its memory map locked, its network file system dead).

Source: proc(5), signal(7), bash(1) ("SIGNALS"), dash(1) (trap), tcp(7).
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from lastcall.kernel import procfs
from lastcall.kernel.identity import ProcessIdentity
from lastcall.model import Confidence, Depth, Finding, Severity
from lastcall.targets.process import condition, signals
from lastcall.targets.process.during import connected
from lastcall.targets.process.during.remains import children, open_files, threads, usual_cause
from lastcall.targets.process.runtime import Runtime, recognise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lastcall.kernel.identity import Handle
    from lastcall.targets.process.sockets import Socket

_T = TypeVar("_T")
LIMIT_S = 3.0
_STACKS_LIMIT_S = 2.5
_THREADS_LIMIT_S = 0.5
_ANSWER_S = 1.5
# An ordinary disk access is over by then; two looks this far apart also see a stream that moves.
_MOMENT_S = 0.25
_MOST_MEMBERS = 50
_SEVERITY = (Severity.BLOCKER, Severity.WARNING, Severity.NOTE)


async def findings(
    members: Sequence[Handle],
    listeners: Sequence[Socket],
    asked: Sequence[int],
    depth: Depth,
    since_s: float | None = None,
) -> tuple[Finding, ...]:
    """What keeps these processes from ending now.

    Takes at most about 3 s, changes nothing, and says less rather than raise: what vanished has
    nothing to tell, what this user may not read is left out, and a part that took too long is
    named.

    Args:
        members: the processes, the root first.
        listeners: what they listened on before they were asked; a server that ends in order closes
            these first, so they cannot be found any more.
        asked: the signals that they were sent.
        depth: QUICK leaves out stacks, open files and threads.
        since_s: when they were first asked (boot-time clock); None when that is not known.
    """
    living = [handle.identity.pid for handle in members if _lives(handle)]
    ended = [handle for handle in members if handle.exited() and not handle.reaped()]
    shown = living[:_MOST_MEMBERS]
    deep = depth is Depth.DEEP
    parts: list[tuple[str, Awaitable[tuple[Finding, ...]]]] = [
        ("states and signals", _held(shown, ended, asked)),
        ("lifecycle", _lifecycles([handle for handle in members if _lives(handle)])),
        ("connections", _connections(shown, listeners, deep=deep)),
        ("children", aside(lambda: _children(members, shown, asked, since_s))),
    ]
    if deep:
        parts.append(("stacks", _stacks(shown)))
        parts.append(("open files", aside(lambda: open_files(shown))))
        parts.append(("threads", aside(lambda: threads(shown))))
    found = await _in_time(parts, LIMIT_S)
    if not found:
        found = await _in_time([("threads", aside(lambda: threads(shown)))], _THREADS_LIMIT_S)
    return tuple(sorted(found, key=_gravity))


def _gravity(finding: Finding) -> tuple[int, int]:
    """What blocks before what informs; among equals the order in which they were looked for."""
    sure = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)
    return _SEVERITY.index(finding.severity), sure.index(finding.confidence)


def _lives(handle: Handle) -> bool:
    """Whether it has not ended, and its number is still its own."""
    if handle.exited():
        return False
    try:
        return procfs.stat(handle.identity.pid).start_ticks == handle.identity.start_ticks
    except (ProcessLookupError, PermissionError):
        return False


async def aside(look: Callable[[], _T]) -> _T:
    """Do blocking work in a thread that nobody waits for when it hangs.

    Not `asyncio.to_thread`: its threads are joined when the program ends, so one that hangs would
    hang the whole command.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(value: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value, error = None, None
        try:
            value = look()
        except BaseException as caught:  # noqa: BLE001 (handed on to whoever waits)
            error = caught
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:  # the loop has ended: nobody waits any more
            return

    threading.Thread(target=work, name="lastcall-look", daemon=True).start()
    return await done


async def _in_time(
    parts: Sequence[tuple[str, Awaitable[tuple[Finding, ...]]]], limit_s: float
) -> list[Finding]:
    """Do the parts side by side; name those that did not come back in time."""
    tasks = [asyncio.ensure_future(part) for _, part in parts]
    try:
        done, pending = await asyncio.wait(tasks, timeout=limit_s)
    finally:
        for task in tasks:
            task.cancel()
    if pending:  # lets what they started be ended
        await asyncio.wait(pending, timeout=_MOMENT_S)
    found: list[Finding] = []
    late = []
    for (name, _), task in zip(parts, tasks, strict=True):
        if task not in done:
            late.append(name)
        elif (error := task.exception()) is None:
            found += task.result()
        elif not isinstance(error, OSError):
            raise error
    if late:
        found.append(
            Finding(
                "look-cut-short",
                f"looking at its {' and '.join(late)} took too long and was left out",
                evidence=(f"limit: {limit_s:g} s",),
            )
        )
    return found


async def _held(
    pids: Sequence[int], ended: Sequence[Handle], asked: Sequence[int]
) -> tuple[Finding, ...]:
    """What keeps each from reacting at all: paused, frozen, stuck, dead, its signal blocked."""
    before = await aside(lambda: _conditions(pids))
    if any(one.stuck for one in before):
        await asyncio.sleep(_MOMENT_S)
    earlier = {one.pid: one for one in before}
    return await aside(lambda: _unable(earlier, ended, asked))


def _unable(
    before: dict[int, condition.Condition], ended: Sequence[Handle], asked: Sequence[int]
) -> tuple[Finding, ...]:
    found = [finding for handle in ended for finding in _uncollected(handle)]
    for now in _conditions(list(before)):
        # A main thread that has ended while others go on looks like a zombie and is none.
        held = () if now.state in "ZX" else condition.findings(now, before[now.pid])
        found += [_with_usual_cause(finding, now) for finding in held]
        blocked = any(finding.severity is Severity.BLOCKER for finding in held)
        found += _signals(now.pid, asked, explained=blocked)
    return tuple(found)


def _with_usual_cause(finding: Finding, now: condition.Condition) -> Finding:
    causes = dict.fromkeys(usual_cause(function) for _, function in now.stuck)
    lines = tuple(f"that is usually a wait for {cause}" for cause in causes if cause)
    if finding.code != "uninterruptible" or not lines:
        return finding
    return replace(finding, evidence=(*finding.evidence, *lines))


def _uncollected(handle: Handle) -> tuple[Finding, ...]:
    try:
        now = condition.condition(handle.identity.pid)
    except (ProcessLookupError, PermissionError):
        return ()
    return condition.findings(now) if now.state in "ZX" else ()


def _conditions(pids: Sequence[int]) -> list[condition.Condition]:
    found = []
    for pid in pids:
        try:
            found.append(condition.condition(pid))
        except (ProcessLookupError, PermissionError):
            continue
    return found


def _signals(pid: int, asked: Sequence[int], *, explained: bool) -> tuple[Finding, ...]:
    """Asked signals that have not arrived, or were thrown away.

    Args:
        pid: whose.
        asked: the signals.
        explained: something graver was found already that lets every signal wait.
    """
    found = []
    try:
        states = signals.states(pid)
        for signum in asked:
            if states[signum].pending and not explained:
                found.append(_pending(pid, signum))
            elif states[signum].ignored:
                found.append(_ignored(pid, signum))
    except (ProcessLookupError, PermissionError):
        return ()
    return tuple(found)


def _ignored(pid: int, signum: int) -> Finding:
    name = signals.name(signum)
    return Finding(
        "signal-ignored",
        f"process {pid} ignores {name}: the kernel discarded it",
        Severity.BLOCKER,
        evidence=(f"/proc/{pid}/status: SigIgn has {name}",),
        advice="ask with another signal: `lastcall check` tells which it handles",
    )


def _pending(pid: int, signum: int) -> Finding:
    name, bit = signals.name(signum), 1 << (signum - 1)
    blocking, open_to = [], 0
    for tid in procfs.tids(pid):
        try:
            status = procfs.status(pid, tid)
        except ProcessLookupError:
            continue
        if int(status.get("SigBlk", "0"), 16) & bit:
            blocking.append(f"{tid} ({status.get('Name', '?')})")
        else:
            open_to += 1
    if open_to:
        title = f"process {pid} has not taken {name} yet: it did not get to run since"
    else:
        title = f"process {pid} blocks {name}: it waits until a thread lets it in"
    lines = [f"{name} is pending (SigPnd, ShdPnd in /proc/{pid}/status)"]
    if blocking:
        more = f" and {len(blocking) - 8} more" if len(blocking) > 8 else ""  # noqa: PLR2004 (a line)
        lines.append(f"blocked by thread {', '.join(blocking[:8])}{more}")
    if blocking and open_to:
        lines.append(f"{open_to} other threads would take it")
    return Finding(
        "signal-pending",
        title,
        Severity.BLOCKER,
        Confidence.LIKELY if open_to else Confidence.CERTAIN,
        evidence=tuple(lines),
        advice="" if open_to else "ask with another signal: `lastcall check` tells which it takes",
    )


async def _lifecycles(members: Sequence[Handle]) -> tuple[Finding, ...]:
    """What their own lifecycles tell, and those of their descendants."""
    from lastcall.targets.process.during import lifecycle
    from lastcall.targets.process.during.lifecyclewords import holdups, silent

    known = [handle.identity for handle in members]
    kin = await aside(lambda: _kin(known))
    answers = await asyncio.gather(
        *(lifecycle.ask(identity, _ANSWER_S, look=True) for identity in kin)
    )
    found: list[Finding] = []
    for identity, (there, told) in zip(kin, answers, strict=True):
        if told is not None:
            tells = holdups(identity.pid, told)
            who = "" if identity == known[0] else f"pid {identity.pid}: "
            found += [replace(each, title=f"{who}{each.title}") for each in tells]
        elif there and not _paused(identity.pid):
            found.append(silent(identity.pid))
    return tuple(found)


def _kin(known: Sequence[ProcessIdentity]) -> list[ProcessIdentity]:
    """These, and what is below the first."""
    found = list(known[:_MOST_MEMBERS])
    for pid in procfs.family(known[0].pid) if known else []:
        if len(found) < _MOST_MEMBERS and all(identity.pid != pid for identity in found):
            with suppress(ProcessLookupError, PermissionError):
                ticks = procfs.stat(pid).start_ticks
                found.append(ProcessIdentity(pid, ticks, known[0].boot_id, None))
    return found


def _paused(pid: int) -> bool:
    try:
        return procfs.stat(pid).state in "TtZX"
    except (ProcessLookupError, PermissionError):
        return True


async def _connections(
    pids: Sequence[int], listeners: Sequence[Socket], *, deep: bool
) -> tuple[Finding, ...]:
    """Connections that are open, and what is in flight on them."""
    if not pids:
        return ()
    first = await aside(lambda: connected.look(pids, listeners))
    second = first
    if deep and first.open:
        await asyncio.sleep(_MOMENT_S)
        second = await aside(lambda: connected.look(pids, first.listeners))
    return await aside(lambda: connected.finding(first, second))


def _children(
    members: Sequence[Handle], pids: Sequence[int], asked: Sequence[int], since_s: float | None
) -> tuple[Finding, ...]:
    found = (_shell_waits(pid, asked, since_s) for pid in pids)
    shell = next((finding for finding in found if finding is not None), None)
    own = {handle.identity.pid for handle in members}
    below = children(members[0].identity.pid if members else 0, pids, own)
    return tuple(f for f in (shell, below) if f is not None)


def _shell_waits(pid: int, asked: Sequence[int], since_s: float | None) -> Finding | None:
    """A shell runs its trap only when the program it waits for has ended.

    Once it waits for one that was started after the ask, it has run its trap and gone on.
    """
    try:
        if recognise(pid) is not Runtime.SHELL:
            return None
        states = signals.states(pid)
        trapped = [signum for signum in asked if states[signum].handled]
        below = [c for c in procfs.children(pid) if procfs.stat(c).state not in "ZX"]
        waits = condition.wchan(pid)
    except (ProcessLookupError, PermissionError):
        return None
    if not trapped or not below or waits not in {"", "do_wait"}:
        return None
    names = ", ".join(signals.name(signum) for signum in trapped)
    if since_s is not None and all(_started_s(child) > since_s for child in below):
        return Finding(
            "shell-goes-on",
            f"the shell {pid} took {names}, ran its trap, and went on with the next program",
            Severity.BLOCKER,
            Confidence.LIKELY,
            evidence=tuple(f"started since: {c}  {procfs.label(c)}" for c in below[:5]),
            advice="let the trap end the script: trap 'exit 0' TERM; or ask with another signal",
        )
    return Finding(
        "shell-waits",
        f"the shell {pid} took {names}, and waits for its child to end before it does anything",
        Severity.BLOCKER,
        Confidence.LIKELY,
        evidence=(
            f"/proc/{pid}/status: SigCgt has {names}",
            *(f"child {child}  {procfs.label(child)}" for child in below[:5]),
        ),
        advice=f"stop the child: lastcall stop pid:{below[-1]}, or the whole tree: --tree. In the "
        "script: start it with `exec`, or in the background and then `wait`",
    )


def _started_s(pid: int) -> float:
    """When it was started (boot-time clock), a tick late; 0 when it is gone."""
    try:
        return (procfs.stat(pid).start_ticks + 1) / procfs.TICKS_PER_S
    except (ProcessLookupError, PermissionError):
        return 0.0


async def _stacks(pids: Sequence[int]) -> tuple[Finding, ...]:
    """The stacks of the root's runtime, where there is a tool that reads them."""
    if not pids:
        return ()
    from lastcall.targets.process.during import stacks

    runtime = await aside(lambda: recognise(pids[0]))
    if runtime is Runtime.JVM:
        return await stacks.jvm(pids[0], _STACKS_LIMIT_S)
    if runtime is Runtime.CPYTHON:
        return await stacks.cpython(pids[0], _STACKS_LIMIT_S)
    return ()
