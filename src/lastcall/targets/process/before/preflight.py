"""Will it stop? What is known of a process before anything is sent.

`findings` reads the machine; `of_signals` and `of_shell` judge what was seen and are pure.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process import condition
from lastcall.targets.process.before import supervisor
from lastcall.targets.process.before.effect import Effect, Sight, effect, sight
from lastcall.targets.process.runtime import Runtime
from lastcall.targets.process.signals import name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.kernel.identity import ProcessIdentity

# A disk access is uninterruptible for a moment: only what still is after this counts.
_AGAIN_S = 0.1
# How long a lifecycle may take to answer.
_ANSWER_S = 0.5
# Of how many others of a tree or group to tell.
_MOST_OTHERS = 20
_GRAVEST_FIRST = (Severity.BLOCKER, Severity.WARNING, Severity.NOTE)
_STOP_SIGNALS = tuple(int(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
_INEFFECTIVE = {Effect.IGNORED, Effect.BLOCKED, Effect.DROPPED, Effect.NOTHING, Effect.PAUSES}


async def findings(
    identity: ProcessIdentity,
    asked: Sequence[int],
    others: Sequence[ProcessIdentity] | None = None,
    grace_s: float | None = None,
) -> tuple[Finding, ...]:
    """What is known before these signals are sent, most serious first. Changes nothing.

    Args:
        identity: the process; nothing is told of a later one with the same pid.
        asked: the signals of the soft stop, in order.
        others: who else is asked with it (its tree or group); None means nobody, so that what it
            leaves behind is told.
        grace_s: how long it would be given, in seconds; None: that is not known.
    """
    found = list(await _of_one(identity, asked, alone=others is None))
    found += await _of_lifecycle(identity, grace_s)
    for other in (others or ())[:_MOST_OTHERS]:
        what = f"pid {other.pid} ({procfs.label(other.pid, 40)})"
        found += [
            replace(finding, title=f"{what}: {finding.title}")
            for finding in await _of_one(other, asked, alone=False)
            if finding.severity is not Severity.NOTE and finding.code != "will-restart"
        ]
    return tuple(sorted(found, key=lambda finding: _GRAVEST_FIRST.index(finding.severity)))


async def _of_one(
    identity: ProcessIdentity, asked: Sequence[int], *, alone: bool
) -> tuple[Finding, ...]:
    pid = identity.pid
    try:
        found = await _everything(pid, asked, alone=alone)
        if procfs.stat(pid).start_ticks != identity.start_ticks:
            return ()
    except ProcessLookupError:
        return ()
    except PermissionError as error:
        return (_unreadable(pid, error.filename or f"/proc/{pid}"),)
    return tuple(found)


async def _everything(pid: int, asked: Sequence[int], *, alone: bool) -> list[Finding]:
    now, before = condition.condition(pid), None
    if now.stuck:
        import asyncio

        await asyncio.sleep(_AGAIN_S)
        now, before = condition.condition(pid), now
    held = condition.findings(now, before)
    if now.state in "ZX":
        return list(held)
    seen = sight(pid, asked)
    found = [*_permission(pid), *held]
    children = _children(pid) if alone and seen.runs_on.runtime is Runtime.SHELL else []
    found += of_shell(seen, asked, children)
    found += of_signals(seen, asked, shell_told=bool(children))
    found += await supervisor.findings(pid)
    if seen.runs_on.runtime is Runtime.UNKNOWN:
        found.append(_unreadable(pid, f"/proc/{pid}/exe"))
    return found


async def _of_lifecycle(identity: ProcessIdentity, grace_s: float | None) -> list[Finding]:
    """What its own lifecycle tells, if it has one."""
    from lastcall.targets.process.during import lifecycle

    _, told = await lifecycle.ask(identity, _ANSWER_S)
    if told is None:
        return []
    from lastcall.targets.process.during.lifecyclewords import before

    return before(identity.pid, told, grace_s)


def _children(pid: int) -> list[tuple[int, str]]:
    """(pid, label) of each living child."""
    try:
        living = [child for child in procfs.children(pid) if procfs.stat(child).state not in "ZX"]
    except (ProcessLookupError, PermissionError):
        return []
    return [(child, procfs.label(child, 40)) for child in living]


def _permission(pid: int) -> list[Finding]:
    """Signal 0 sends nothing and tells whether this user may send anything. See kill(2)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        owner = procfs.status(pid).get("Uid", "?").split()[0]
        return [
            Finding(
                "not-permitted",
                f"this user may not signal process {pid}",
                Severity.BLOCKER,
                evidence=(f"it belongs to user id {owner}, you are {os.geteuid()}",),
                advice="run lastcall as that user or as root",
            )
        ]
    return []


def _unreadable(pid: int, path: str) -> Finding:
    return Finding(
        "not-readable",
        f"this user may not look closely at process {pid}: less is known than could be",
        evidence=(f"not readable: {path}",),
        advice="run lastcall as the user it belongs to, or as root",
    )


# -- what the signals would do


def of_signals(seen: Sight, asked: Sequence[int], *, shell_told: bool = False) -> list[Finding]:
    """What the asked signals would do, one finding for all that would do the same.

    Args:
        seen: what could be seen of the process.
        asked: the signals of the soft stop, in order.
        shell_told: whether `of_shell` has told already how this shell takes them.
    """
    groups: dict[Effect, list[int]] = {}
    for signum in asked:
        groups.setdefault(effect(seen, signum), []).append(signum)
    hopeless = all(kind in _INEFFECTIVE for kind in groups)
    found = [
        _finding(seen, kind, signums, hopeless=hopeless)
        for kind, signums in groups.items()
        if not (shell_told and kind in {Effect.KILLS, Effect.HANDLED, Effect.RUNTIME})
    ]
    waiting = [s for s in asked if seen.states[s].pending and effect(seen, s) is not Effect.BLOCKED]
    if waiting:
        found.append(_pending(seen.pid, waiting))
    return found


def _finding(seen: Sight, kind: Effect, signums: list[int], *, hopeless: bool) -> Finding:
    match kind:
        case Effect.KILLS:
            return _no_handler(seen, signums)
        case Effect.RUNTIME if seen.runs_on.runtime is Runtime.CPYTHON:
            return _keyboard_interrupt(seen)
        case Effect.RUNTIME:
            return _by_runtime(seen, signums)
        case Effect.HANDLED | Effect.READ:
            return _handled(seen, kind, signums)
    return _no_effect(seen, kind, signums, hopeless=hopeless)


def _names(signums: Sequence[int]) -> str:
    return " and ".join(name(signum) for signum in signums)


def _status(seen: Sight) -> str:
    return f"/proc/{seen.pid}/status"


def _no_handler(seen: Sight, signums: list[int]) -> Finding:
    runs_on = seen.runs_on
    if runs_on.runtime is Runtime.GO and all(seen.states[s].handled for s in signums):
        evidence = [f"{runs_on.evidence}, and contains no signal.Notify: only Go itself takes it"]
        sure = Confidence.LIKELY
    else:
        evidence = [f"{_status(seen)}: SigCgt shows no handler for {_names(signums)}"]
        sure = Confidence.CERTAIN
    unseen = seen.waits_unseen or (
        runs_on.runtime is Runtime.UNKNOWN and any(seen.states[s].part_blocked for s in signums)
    )
    if unseen:
        evidence.append("a thread may fetch it with sigwait: this user may not see that")
        sure = Confidence.POSSIBLE
    return Finding(
        "no-handler",
        f"{_names(signums)} would end it at once: work in hand would be lost",
        Severity.WARNING,
        sure,
        tuple(evidence),
        _better(seen, signums)
        or f"let its work finish first, or give the program a handler for {name(signums[0])}",
    )


def _better(seen: Sight, signums: Sequence[int]) -> str:
    """Another stop signal that reaches code of the program; empty when there is none."""
    for signum in _STOP_SIGNALS:
        kind = effect(seen, signum) if signum not in signums else Effect.NOTHING
        python = kind is Effect.RUNTIME and seen.runs_on.runtime is Runtime.CPYTHON
        if kind in {Effect.HANDLED, Effect.READ} or python:
            so = "raises KeyboardInterrupt, so `finally` blocks run" if python else "is handled"
            short = name(signum).removeprefix("SIG")
            return f"{name(signum)} {so}: lastcall stop --signal {short} pid:{seen.pid}"
    return ""


def _by_runtime(seen: Sight, signums: list[int]) -> Finding:
    runs_on = seen.runs_on
    evidence = [f"{_status(seen)}: SigCgt shows {_names(signums)}; {runs_on.evidence}"]
    may = runs_on.asks_for_signals is True
    if may:
        evidence.append("it contains signal.Notify: the program may take it itself")
    return Finding(
        "handled-by-runtime",
        f"{_names(signums)}: caught by the runtime ({runs_on.runtime.value}); "
        "what the program does with it is unknown",
        Severity.NOTE if may else Severity.WARNING,
        Confidence.POSSIBLE,
        tuple(evidence),
        "make sure that the program has a handler or shutdown hook of its own: "
        "without one its work dies with it",
    )


def _keyboard_interrupt(seen: Sight) -> Finding:
    return Finding(
        "python-keyboardinterrupt",
        "SIGINT would raise KeyboardInterrupt wherever the Python program stands: "
        "work in hand is broken off",
        Severity.WARNING,
        Confidence.LIKELY,
        (f"{_status(seen)}: SigCgt shows SIGINT but not SIGTERM, as Python sets it by default",),
        "make sure that `finally` blocks leave the work in order, or handle SIGTERM",
    )


def _handled(seen: Sight, kind: Effect, signums: list[int]) -> Finding:
    if kind is Effect.READ:
        evidence = tuple(f"{name(s)}: fetched by {seen.read[s]}" for s in signums)
    else:
        evidence = (f"{_status(seen)}: SigCgt shows {_names(signums)}",)
    unknown = seen.runs_on.runtime is Runtime.UNKNOWN
    return Finding(
        "handled",
        f"the program handles {_names(signums)} itself; whether work survives is up to it",
        Severity.NOTE,
        Confidence.LIKELY if unknown else Confidence.CERTAIN,
        evidence,
    )


def _pending(pid: int, signums: list[int]) -> Finding:
    return Finding(
        "signal-pending",
        f"{_names(signums)} was sent already and has not been taken yet",
        evidence=(f"/proc/{pid}/status: SigPnd or ShdPnd shows it",),
        advice="sending it again adds nothing: see what keeps the process from taking it",
    )


_NO_EFFECT: dict[Effect, tuple[str, str, str]] = {
    Effect.IGNORED: ("signal-ignored", "{names}: ignored", "SigIgn shows {names}"),
    Effect.BLOCKED: (
        "signal-blocked",
        "{names}: blocked by every thread, so it waits until one lets it in",
        "SigBlk of every thread shows {names}",
    ),
    Effect.DROPPED: (
        "init-without-handler",
        "{names}: dropped by the kernel, for it is PID 1 of its namespace and has no handler",
        "NSpid ends in 1, and SigCgt does not show {names}",
    ),
    Effect.NOTHING: (
        "signal-ignored",
        "{names}: does nothing unless handled",
        "no handler for {names}",
    ),
    Effect.PAUSES: ("pauses", "{names}: would only pause it", "no handler for {names}"),
}


def _no_effect(seen: Sight, kind: Effect, signums: list[int], *, hopeless: bool) -> Finding:
    code, title, evidence = _NO_EFFECT[kind]
    facts = [f"{_status(seen)}: " + evidence.format(names=_names(signums))]
    if kind is Effect.IGNORED and {signal.SIGINT, signal.SIGQUIT} & set(signums):
        facts.append("shells start background jobs (`&`) with SIGINT and SIGQUIT ignored")
    sent = [s for s in signums if seen.states[s].pending]
    if sent:
        facts.append(f"{_names(sent)} was sent already and waits")
    advice = _better(seen, signums)
    if kind is Effect.DROPPED:
        advice = advice or (
            "give it a handler, or run it below an init (docker run --init, tini); "
            "only force ends it now"
        )
    return Finding(
        code,
        title.format(names=_names(signums)),
        Severity.BLOCKER if hopeless else Severity.NOTE,
        evidence=tuple(facts),
        advice=advice
        or f"ask with a signal that the program handles: lastcall signals pid:{seen.pid}",
    )


def of_shell(
    seen: Sight, asked: Sequence[int], children: Sequence[tuple[int, str]]
) -> list[Finding]:
    """How a shell that waits for a child takes the signals: never as the child would.

    Args:
        seen: what could be seen of the shell.
        asked: the signals of the soft stop, in order.
        children: (pid, label) of each of its living children.
    """
    if not children or seen.runs_on.runtime is not Runtime.SHELL:
        return []
    kinds = {effect(seen, signum) for signum in asked}
    first = children[0][0]
    shown = ", ".join(f"{child} ({label})" for child, label in children[:3])
    if Effect.KILLS in kinds:
        says = "the signal ends the shell, and the child goes on without it"
    elif kinds & {Effect.HANDLED, Effect.RUNTIME}:
        says = "a shell runs its trap only when its child has ended (or while it runs `wait`)"
    else:
        return []
    return [
        Finding(
            "shell-between",
            f"it is a shell around process {first}: {says}",
            Severity.WARNING,
            Confidence.CERTAIN if Effect.KILLS in kinds else Confidence.LIKELY,
            (f"{seen.runs_on.evidence}; its child: {shown}",),
            f"stop the child: lastcall stop pid:{first}, or both: --tree; "
            "for good: start the program with `exec` in the script",
        )
    ]
