"""What a stop did to the work itself, what it left behind, and what is worth knowing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.causes.scene import (
    PASSING,
    TOGETHER_S,
    WEBSOCKET,
    Told,
    count,
    ids,
    lines,
    seconds,
    span,
)
from lastcall.drill.history import Failure, Kind
from lastcall.drill.judge import Fate, Work
from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.causes.scene import Scene
    from lastcall.drill.judge import Judged

_SHOWN = 5
_UNAVAILABLE = 503
# A balancer that checks once a second has noticed by then.
_NOTICED_S = 1.0
_TWICE_ADVICE = (
    "give each request a key that its client chose, and let the server remember what it did for "
    "it (an idempotency key)"
)


def _keys(judged: Sequence[Judged]) -> str:
    names = ", ".join(j.attempt.key for j in judged[:_SHOWN])
    return f"keys: {names}" + (", ..." if len(judged) > _SHOWN else "")


def half_executed(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Paid, and no order made."""
    del bad
    hit = [j for j in scene.judgement.judged if j.work is Work.HALF]
    if not hit:
        return None
    return Told(
        Finding(
            "half-executed",
            f"{count(hit, 'request')} half executed: the payment was taken, no order made",
            Severity.WARNING,
            Confidence.CERTAIN,
            (_keys(hit), f"over {span(j.attempt.over_s for j in hit)}"),
            "do both in one transaction, or write the second step down with the first (an outbox) "
            f"and finish it at the next start; and {_TWICE_ADVICE}",
        )
    )


def executed_twice(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """The same request was executed twice."""
    del bad
    hit = [j for j in scene.judgement.judged if j.work is Work.TWICE]
    if not hit:
        return None
    return Told(
        Finding(
            "executed-twice",
            f"{count(hit, 'request')} executed twice",
            Severity.WARNING,
            Confidence.CERTAIN,
            (_keys(hit),),
            _TWICE_ADVICE,
        )
    )


def executed_unanswered(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """The work was done, and its client does not know."""
    del scene
    hit = [j for j in bad if j.fate in {Fate.LOST, Fate.HUNG} and j.work is Work.EXECUTED]
    if not hit:
        return None
    return Told(
        Finding(
            "executed-unanswered",
            f"{count(hit, 'request')} executed whose answer never came: a client that repeats "
            "them has them executed twice",
            Severity.WARNING,
            Confidence.CERTAIN,
            (_keys(hit), *lines(hit)),
            _TWICE_ADVICE,
        )
    )


# -- what it left behind


def children_left(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Its processes live on without it."""
    left, at = scene.aftermath.left, scene.aftermath.ended_s
    if not left or at is None or scene.rolling:
        return None
    served = [
        j
        for j in scene.judgement.judged
        if j.fate is Fate.ACKNOWLEDGED and (j.attempt.connected_s or 0.0) > at
    ]
    serving = (f"{count(served, 'newcomer')} answered after that",) if served else ()
    hung = [j for j in bad if j.fate is Fate.HUNG]
    return Told(
        Finding(
            "children-left",
            f"{count(left, 'process', 'processes')} of it outlived the main process"
            + (", and still serve" if served else ""),
            Severity.WARNING,
            Confidence.CERTAIN,
            (*left[:_SHOWN], scene.end(), *serving, *lines(hung)),
            scene.advice(
                "children-left",
                "let the main process hand the signal on and wait for its children; or stop all of "
                "it: lastcall stop --tree",
            ),
        ),
        ids(hung),
    )


def port_still_held(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Somebody listens on its port after its end."""
    del bad
    at, last = scene.aftermath.ended_s, scene.aftermath.looks[-1:]
    known = scene.aftermath.left or scene.rolling  # that is why, and it is told
    if at is None or scene.aftermath.listening_s is not None or known:
        return None
    still = [look for look in last if look.at_s > at and look.listening]
    if not still:
        return None
    return Told(
        Finding(
            "port-still-held",
            "its port is still listened on after its end: the next start may fail",
            Severity.WARNING,
            Confidence.CERTAIN,
            (f"{seconds(still[0].at_s)} after the stop: still listened on", scene.end()),
            "see who: lastcall check port:PORT; a child was left behind, or a supervisor has "
            "started it again",
        )
    )


# -- what to know


def exit_hides_loss(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Nobody who looks at the exit status would know."""
    hit = [j for j in bad if j.fate in {Fate.LOST, Fate.HUNG}]
    if scene.exit_status != 0 or not hit:
        return None
    return Told(
        Finding(
            "exit-hides-loss",
            f"its exit status was 0 over {count(hit, 'lost request')}",
            Severity.NOTE,
            Confidence.CERTAIN,
            (scene.end(),),
            "do not take the exit status of a stop for proof that nothing was lost",
        )
    )


def keep_alive_closed(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Idle connections were closed in order, without notice: safe but for a race."""
    del bad
    end = scene.aftermath.ended_s
    hit = [
        j
        for j in scene.judgement.judged
        if j.fate is Fate.LET_GO
        and j.attempt.kind in {Kind.IDLE_THEN_REQUEST, Kind.LOAD}
        and (end is None or j.attempt.over_s < end)
    ]
    if not hit:
        return None
    return Told(
        Finding(
            "keep-alive-closed",
            f"{count(hit, 'idle connection')} closed without notice: a client that sends at that "
            "very moment loses its request",
            Severity.NOTE,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice(
                "keep-alive-closed",
                "announce `Connection: close` on the last answer, and keep idle connections open a "
                "little longer than clients do",
            ),
        )
    )


def no_close_announced(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Answers during the stop did not say that the connection ends."""
    del bad
    answers = [
        j
        for j in scene.judgement.judged
        if j.fate is Fate.ACKNOWLEDGED
        and j.attempt.kind not in WEBSOCKET | {Kind.HTTP2_STREAM}
        and (j.attempt.first_byte_s or 0.0) > 0
        and (j.attempt.connected_s or 0.0) <= 0
    ]
    if not answers or any(j.attempt.close for j in answers):
        return None
    return Told(
        Finding(
            "no-close-announced",
            f"none of {count(answers, 'answer')} after the stop said `Connection: close`",
            Severity.NOTE,
            Confidence.CERTAIN,
            (f"answered {span(j.attempt.first_byte_s or 0.0 for j in answers)}",),
            scene.advice(
                "no-close-announced",
                "set it once the stop has come: clients then open their next connection elsewhere",
            ),
        )
    )


def readiness_unchanged(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Newcomers were sent away at once, with no time for a balancer to notice."""
    del bad
    later = [
        j for j in scene.judgement.judged if j.attempt.kind in PASSING and j.attempt.attempted_s > 0
    ]
    refused = [j for j in later if j.attempt.failure is Failure.REFUSED]
    told = any(j.attempt.status == _UNAVAILABLE for j in later)
    if scene.rolling or told or not refused:
        return None
    first, end = min(j.attempt.attempted_s for j in refused), scene.aftermath.ended_s
    if first > _NOTICED_S or (end is not None and end <= first + TOGETHER_S):
        return None
    return Told(
        Finding(
            "readiness-unchanged",
            f"newcomers were refused {seconds(first)} after the stop: a balancer had no time to "
            "notice",
            Severity.NOTE,
            Confidence.CERTAIN,
            (f"{len(refused)} of {count(later, 'newcomer')} refused, none answered with 503",),
            scene.advice(
                "readiness-unchanged",
                "fail the readiness check first and go on serving for some seconds (Kubernetes: a "
                "preStop hook that sleeps)",
            ),
        )
    )
