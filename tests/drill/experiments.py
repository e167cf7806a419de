"""Whole drills of planted servers: what the tests of the experiment and `repeat.py` share."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import PROGRAMS
from lastcall.drill import presets
from lastcall.drill.experiment import drill
from lastcall.drill.history import Kind
from lastcall.drill.judge import BAD, Verdict
from lastcall.drill.scenario import Newcomers, Request
from lastcall.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.drill.plan import Plan
    from lastcall.drill.result import Result
    from lastcall.drill.scenario import Scenario

_SOON_S = 0.2
_TRIES = 8


def faulty(*words: str) -> tuple[str, ...]:
    """The command of a server with a planted fault."""
    return (sys.executable, "-u", str(PROGRAMS / "drill_faulty.py"), "{port}", *words)


def traffic(
    kinds: Iterable[Kind] | None = None, slow_s: float = 0.8, count: int = 4, rate: float = 20.0
) -> Scenario:
    """Few connections in each state, and what comes after the stop comes soon.

    Args:
        kinds: only these states; None: all that the probe application has.
        slow_s: how long its slow answers take, in seconds.
        count: how many are in a handler.
        rate: of newcomers, a second.
    """
    paths = presets.probe_paths(slow_s)
    whole = presets.scenario(paths, count, Newcomers(Request(paths.path), rate))
    wanted = set(Kind) if kinds is None else set(kinds)
    states = tuple(
        replace(s, after_s=min(s.after_s, _SOON_S) if s.after_s < 1 else s.after_s)
        for s in whole.states
        if s.kind in wanted
    )
    return replace(whole, states=states)


def run(plan: Plan) -> Result:
    """One drill, with a ledger of its own when it has a command and names none."""
    with tempfile.TemporaryDirectory(prefix="lastcall-drill-") as folder:
        if plan.command and not plan.ledger:
            ledger = str(Path(folder) / "ledger")
            plan = replace(plan, ledger=ledger, env=(*plan.env, ("LASTCALL_LEDGER", ledger)))
        return asyncio.run(drill(plan)).result


def sound(plan: Plan) -> Result:
    """One drill; again when all that is wrong with it is that this machine was busy just then."""
    for _ in range(_TRIES):
        result = run(plan)
        if not only_slow(result):
            break
    return result


def only_slow(result: Result) -> bool:
    """Whether a drill proved nothing for no other reason than a slow machine."""
    judgement = result.judgement  # the doubts come first in its reasons
    return judgement.verdict is Verdict.INCONCLUSIVE and judgement.reasons[0].startswith(
        "the machine was too slow"
    )


def bad(result: Result) -> Counter[str]:
    """How many of which kind were lost, badly refused or left hanging after the stop."""
    return Counter(
        j.attempt.kind.key
        for j in result.judgement.judged
        if j.fate in BAD and j.attempt.over_s > 0
    )


def blamed(result: Result) -> list[str]:
    """The codes of what a drill blames, without mere remarks; gravest first."""
    return [f.code for f in result.findings if f.severity is not Severity.NOTE]


def told(result: Result) -> str:
    """All that one wants to know of a drill that went otherwise than expected."""
    fates = Counter(
        (j.attempt.kind.key, f"{j.fate}", f"{j.attempt.failure}", j.attempt.note, f"{j.work}")
        for j in result.judgement.judged
    )
    return "\n".join(
        (
            f"{result.judgement.verdict}: {'; '.join(result.judgement.reasons)}",
            *(f"{count} x {', '.join(words)}" for words, count in fates.items()),
            *(f"{f.severity} {f.code}: {f.title}" for f in result.findings),
            *(f"{m.at_s} {m.what}" for m in result.moments),
            f"clock error {result.clock_error_s:.4f} s",
            *result.aftermath.output,
        )
    )
