"""Why a stop lost work, from what the drill saw, and what to change. Pure.

Each cause looks at what no cause before it has explained, the surest first: where the signal itself
ended the server, nothing else need be said of its connections. What is lost and fits no cause is
said to be unexplained, not left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill import known
from lastcall.drill.causes import connections, outcome, server
from lastcall.drill.causes.scene import Scene, count, ids, lines
from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lastcall.drill.causes.scene import Told
    from lastcall.drill.judge import Judged, Judgement
    from lastcall.drill.result import Aftermath, Subject

    Cause = Callable[[Scene, Sequence[Judged]], Told | None]

_GRAVEST_FIRST = (Severity.BLOCKER, Severity.WARNING, Severity.NOTE)
# In this order they explain, and within one severity they are told.
_CAUSES: tuple[Cause, ...] = (
    outcome.half_executed,
    outcome.executed_twice,
    server.in_the_way,
    server.no_handler,
    server.websocket_holds_exit,
    server.worker_killed,
    server.asked_twice,
    server.ended_with_error,
    server.cut_at_limit,
    server.cut_at_once,
    connections.listener_unattended,
    connections.reset_after_accept,
    connections.queue_reset,
    connections.half_sent_dropped,
    connections.unread_dropped,
    connections.pipelined_dropped,
    connections.keep_alive_reset,
    connections.websocket_cut,
    connections.websocket_unanswered,
    connections.answered_with_error,
    connections.rolling_gap,
    server.not_ended,
    outcome.children_left,
    outcome.port_still_held,
)
_REMARKS: tuple[Cause, ...] = (
    outcome.executed_unanswered,
    outcome.exit_hides_loss,
    outcome.keep_alive_closed,
    outcome.no_close_announced,
    outcome.readiness_unchanged,
)
# What `check` foretold of the signal: the drill has seen what came of it.
_PUT_TO_THE_TEST = frozenset(
    {
        "no-handler",
        "handled",
        "handled-by-runtime",
        "python-keyboardinterrupt",
        "shell-between",
        "signal-ignored",
        "signal-blocked",
        "signal-pending",
        "init-without-handler",
        "pauses",
    }
)


def explain(
    subject: Subject,
    judgement: Judgement,
    aftermath: Aftermath,
    beforehand: tuple[Finding, ...] = (),
) -> tuple[Finding, ...]:
    """The reasons behind a judgement, gravest first.

    Args:
        subject: what was drilled, and how it was stopped.
        judgement: what became of every attempt.
        aftermath: what became of the server.
        beforehand: what `lastcall check` says of its processes.
    """
    told = [line for f in beforehand for line in (f.title, *f.evidence)]
    this = known.recognise(subject, aftermath.output, told)
    scene = Scene(subject, judgement, aftermath, beforehand, this)
    bad = scene.bad
    found: list[Finding] = []
    for cause in _CAUSES:
        if (seen := cause(scene, bad)) is not None:
            found.append(seen.finding)
            bad = tuple(j for j in bad if j.attempt.id not in seen.explains)
    if bad:
        found.append(_unexplained(scene, bad))
    remarks = (remark(scene, scene.bad) for remark in _REMARKS)
    found += [seen.finding for seen in remarks if seen is not None]
    found += _still_true(scene, found)
    return tuple(sorted(found, key=lambda finding: _GRAVEST_FIRST.index(finding.severity)))


def _unexplained(scene: Scene, bad: Sequence[Judged]) -> Finding:
    others = len(scene.bad) - len(ids(bad))
    return Finding(
        "unexplained-loss",
        f"{count(bad, 'loss', 'losses')} fit no cause that is known here",
        Severity.WARNING,
        Confidence.POSSIBLE,
        (*lines(bad), *((f"{others} others are explained",) if others else ()), scene.end()),
        "look at their times in the report beside what the server printed, and repeat the drill "
        "with --sweep to see when it happens",
    )


def _still_true(scene: Scene, found: Sequence[Finding]) -> list[Finding]:
    """What `check` had said and the drill neither confirmed nor refuted."""
    told = {finding.code for finding in found}
    kept = [
        finding
        for finding in scene.beforehand
        if finding.code not in _PUT_TO_THE_TEST and finding.code not in told
    ]
    if scene.bad or not scene.ended:
        return kept
    return [replace(finding, severity=Severity.NOTE) for finding in kept]
