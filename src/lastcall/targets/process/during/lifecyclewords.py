"""What a lifecycle's snapshot means for a stop, as findings. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from lastcall.targets.process.during.lifecycle import HookState, Snapshot, StuckState

# A hook that has run for less is not what a stop waits for.
_LONG_S = 0.5
_STACK_LINES = 6
_SHOWN = 5
_TEN_S = 10.0


def before(pid: int, now: Snapshot, grace_s: float | None) -> list[Finding]:
    """What is to be known before it is asked.

    Args:
        pid: which process.
        now: what its lifecycle tells.
        grace_s: what the stop would give it, in seconds; None: that is not known.
    """
    name = f" {now.name!r}" if now.name else ""
    if now.state != "running":
        title = f"it is ending already, for {_s(now.since_s)}: {now.reason or 'no reason given'}"
        return [Finding("lifecycle-stopping", title, evidence=(so_far(now), *_flight_lines(now)))]
    whole_s = max(now.grace_s, now.ceiling_s or 0.0)
    longer = f", with pleas for more up to {_s(whole_s)}" if whole_s > now.grace_s else ""
    lines = [f"status socket of process {pid}: grace_s {now.grace_s:g}", *_flight_lines(now)]
    if now.previous:
        lines.append(f"before: {now.previous}")
    found = [
        Finding(
            "lifecycle",
            f"its lifecycle{name} ends it in order, within {_s(now.grace_s)}{longer}",
            evidence=tuple(lines),
        )
    ]
    if grace_s is not None and grace_s < now.grace_s:
        found.append(_short(now, grace_s))
    return found


def _short(now: Snapshot, grace_s: float) -> Finding:
    return Finding(
        "lifecycle-grace",
        f"its own shutdown may take {_s(now.grace_s)}, and it is given {_s(grace_s)}",
        Severity.WARNING,
        Confidence.LIKELY,
        (f"grace_s of its lifecycle: {now.grace_s:g}; the grace of this stop: {grace_s:g}",),
        f"give it at least --grace {now.grace_s + 1:.0f}s, or its lifecycle a shorter grace_s",
    )


def holdups(pid: int, now: Snapshot) -> tuple[Finding, ...]:
    """What keeps it from ending, as it tells itself.

    Args:
        pid: which process.
        now: what its lifecycle tells.
    """
    if now.state == "running":
        return _called_off(pid, now)
    if now.state == "ended":
        return (Finding("lifecycle-ended", "its shutdown is over, and the process has not left"),)
    stuck = {one.what for one in now.stuck}
    found = [_deadlock(ring) for ring in now.deadlocks]
    found += [_stuck(one, now) for one in now.stuck if one.since_s >= _LONG_S]
    found += [
        _running(hook, now)
        for hook in now.running
        if hook.took_s >= _LONG_S and f"hook {hook.name!r}" not in stuck
    ]
    if now.in_flight and now.phase in {"announce", "drain"}:
        found.append(
            Finding(
                "lifecycle-in-flight",
                flights(now),
                Severity.BLOCKER,
                evidence=tuple(_flight_lines(now)),
                advice=_until(now, "what is in flight"),
            )
        )
    where = f"its shutdown is in phase {now.phase!r}, for {_s(now.since_s)} in all"
    lines = (f"status socket of process {pid}: {so_far(now)}", _left(now))
    return (*found, Finding("lifecycle-phase", where, evidence=lines))


def silent(pid: int) -> Finding:
    """It has a status socket, and does not answer."""
    return Finding(
        "lifecycle-silent",
        f"the lifecycle of process {pid} does not answer: none of its Python code gets to run",
        Severity.BLOCKER,
        Confidence.LIKELY,
        ("its status socket takes connections, and nothing comes: C code may hold the GIL",),
        "see its stacks (py-spy); its own deadline ends it all the same",
    )


def so_far(now: Snapshot) -> str:
    """Where its stop is, in a line: without times, so that it changes only when that does."""
    names = [hook.name for hook in now.running]
    if now.in_flight and now.phase in {"announce", "drain"}:
        names.append(f"{now.in_flight} in flight")
    if not names:
        inner = [h.name for h in now.hooks if h.inner and h.outcome == "running"]
        names = [f"waits for {name}" for name in inner if name != "work in flight"]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    said = f"phase {now.phase}" if now.phase else now.state
    return f"{said}: {', '.join(names[:_SHOWN])}{more}" if names else said


def flights(now: Snapshot) -> str:
    """What is in flight, with the oldest of it."""
    if not now.oldest:
        return f"{now.in_flight} in flight"
    name, age_s = now.oldest[0]
    return f"{now.in_flight} in flight, the oldest {name!r} for {_s(age_s)}"


def _flight_lines(now: Snapshot) -> list[str]:
    lines = [f"in flight for {_s(age_s)}: {name}" for name, age_s in now.oldest[:_SHOWN]]
    more = now.in_flight - len(lines)
    return [*lines, f"{more} more in flight"] if more > 0 else lines


def _stuck(one: StuckState, now: Snapshot) -> Finding:
    hook = one.what.startswith("hook ")
    at = f" ({one.where.rpartition('/')[2]})" if one.where else ""
    waits = f": waits for {one.waiting_for}" if one.waiting_for else ""
    did = "has run" if hook else "has been waited for"
    place = [f"registered at {one.where}"] if one.where else []
    title = f"{one.what}{at} {did} for {_s(one.since_s)}{waits}"
    lines, advice = (*place, *one.stack[-_STACK_LINES:]), _until(now, "it")
    if hook:
        return Finding("lifecycle-hook", title, Severity.BLOCKER, evidence=lines, advice=advice)
    return Finding("lifecycle-thread", title, Severity.BLOCKER, evidence=lines, advice=advice)


def _running(hook: HookState, now: Snapshot) -> Finding:
    at = f" ({hook.where.rpartition('/')[2]})" if hook.where else ""
    return Finding(
        "lifecycle-hook",
        f"hook {hook.name!r}{at} has run for {_s(hook.took_s)}",
        Severity.BLOCKER,
        evidence=(f"registered at {hook.where}",) if hook.where else (),
        advice=_until(now, "it"),
    )


def _deadlock(ring: str) -> Finding:
    return Finding(
        "lifecycle-deadlock",
        f"a deadlock: {ring}",
        Severity.BLOCKER,
        advice="its own limits end it; take the locks in the same order everywhere",
    )


def _called_off(pid: int, now: Snapshot) -> tuple[Finding, ...]:
    heard = [(hook, why) for hook, why, off in now.objections if off]
    if not heard:
        return ()
    hook, why = heard[-1]
    return (
        Finding(
            "lifecycle-called-off",
            f"it called the stop off: hook {hook!r} objects: {why}",
            Severity.BLOCKER,
            evidence=(f"status socket of process {pid}: it is running, and takes work again",),
            advice="ask once more: an objection is heard only once",
        ),
    )


def _until(now: Snapshot, what: str) -> str:
    return f"its phase {now.phase!r} has {_s(now.phase_left_s)} left; then {what} is cut off"


def _left(now: Snapshot) -> str:
    return f"left of the phase: {_s(now.phase_left_s)}, of all of it: {_s(now.left_s or 0.0)}"


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _TEN_S else f"{seconds:.0f} s"
