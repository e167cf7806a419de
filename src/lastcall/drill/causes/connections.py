"""Causes that lie in how the server treats its connections while it stops. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from lastcall.drill.causes.scene import (
    AT_ONCE_S,
    HALF_SENT,
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
from lastcall.drill.history import Failure, Found, Kind
from lastcall.drill.judge import Fate
from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.causes.scene import Scene
    from lastcall.drill.history import Attempt
    from lastcall.drill.judge import Judged

# A connection that waited less than this for a byte met the closing of the listener.
_HELD_S = 0.1
_SERVER_ERROR, _UNAVAILABLE = 500, 503
_FIRST_OUT = (
    "take it out of the balancer first (fail its readiness check), and stop it some seconds later"
)
_KEEP_ALIVE = frozenset({Kind.IDLE_THEN_REQUEST, Kind.LOAD, Kind.HTTP2_STREAM})
_JUST_COME = frozenset({Kind.UNREAD, Kind.JUST_SENT, Kind.NEWCOMER, Kind.LOAD})


def _unanswered(judged: Judged) -> bool:
    return judged.attempt.first_byte_s is None


def _held_s(attempt: Attempt) -> float:
    return attempt.over_s - (attempt.connected_s or 0.0)


def listener_unattended(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Its port stayed open, and nobody accepted what came."""
    hit = [
        j
        for j in bad
        if _unanswered(j)
        and j.attempt.kind is not Kind.IDLE_THEN_REQUEST
        and (j.attempt.connected_s or 0.0) > 0
    ]
    # The last ones are not held for long, but have the same cause.
    if not any(_held_s(j.attempt) >= _HELD_S for j in hit):
        return None
    looks = [x for x in scene.aftermath.looks if x.at_s > 0 and x.listening and x.queued]
    most = max(looks, key=lambda x: x.queued, default=None)
    queued = (
        ()
        if most is None
        else (f"{seconds(most.at_s)} after the stop: still listening, {most.queued} queued",)
    )
    came = span(j.attempt.connected_s or 0.0 for j in hit)
    longest = max(_held_s(j.attempt) for j in hit)
    return Told(
        Finding(
            "listener-unattended",
            f"its port stayed open with nobody accepting: {count(hit, 'newcomer')} waited in vain",
            Severity.WARNING,
            Confidence.CERTAIN if queued else Confidence.LIKELY,
            (
                f"connected {came}, held up to {seconds(longest)}, no byte came",
                *queued,
                *lines(hit),
                *scene.listener(),
                scene.end(),
            ),
            scene.advice(
                "listener-unattended",
                "close the listening socket in every process at the stop, the parent too; or "
                + _FIRST_OUT,
            ),
        ),
        ids(hit),
    )


def reset_after_accept(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Its port stayed open, and what came was thrown out at once, long before the port closed."""
    hit = [
        j
        for j in bad
        if _unanswered(j)
        and j.fate is not Fate.HUNG
        and j.attempt.kind in PASSING
        and (j.attempt.connected_s or 0.0) > 0
    ]
    closings = _closings(scene)
    # The last ones come to their end near the closing, but have the same cause.
    if not any(all(abs(j.attempt.over_s - t) > TOGETHER_S for t in closings) for j in hit):
        return None
    came = span(j.attempt.connected_s or 0.0 for j in hit)
    return Told(
        Finding(
            "reset-after-accept",
            f"its port stayed open, and {count(hit, 'newcomer')} were thrown out at once",
            Severity.WARNING,
            Confidence.LIKELY,
            (f"connected {came}", *lines(hit), *scene.listener(), scene.end()),
            scene.advice(
                "reset-after-accept",
                "close the listening socket as soon as nobody is served any more; or " + _FIRST_OUT,
            ),
        ),
        ids(hit),
    )


def _closings(scene: Scene) -> list[float]:
    """When a listening socket was closed, or its process ended."""
    looks = scene.aftermath.looks
    fewer = [b.at_s for a, b in pairwise(looks) if b.listening < a.listening]
    known = (scene.aftermath.listening_s, scene.aftermath.ended_s)
    return [*fewer, *(t for t in known if t is not None)]


def queue_reset(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """What waited in the accept queue was reset when the listener closed."""
    closed = [t for t in (scene.aftermath.listening_s, scene.aftermath.ended_s) if t is not None]

    def at_close(judged: Judged) -> bool:
        return any(abs(judged.attempt.over_s - t) <= TOGETHER_S for t in closed)

    # The kernel resets what nobody accepted; what is closed in order had been accepted.
    hit = [
        j
        for j in bad
        if _unanswered(j)
        and j.attempt.failure is Failure.RESET
        and (_queued(j.attempt) or (_came_before(j.attempt) and at_close(j)))
    ]
    if not hit:
        return None
    fits = all(at_close(j) for j in hit)
    found = all(j.attempt.found is Found.QUEUED for j in hit)
    return Told(
        Finding(
            "queue-reset",
            f"it reset {count(hit, 'connection')} in the accept queue when its listener closed",
            Severity.WARNING,
            Confidence.CERTAIN if fits and found else Confidence.LIKELY,
            (*lines(hit), *scene.listener(), scene.end()),
            scene.advice(
                "queue-reset",
                f"accept what waits before the listener is closed; or {_FIRST_OUT}; a proxy before "
                "it may try another server, but not for a POST",
            ),
        ),
        ids(hit),
    )


def _queued(attempt: Attempt) -> bool:
    """Whether it stood in the accept queue, or cannot have stood elsewhere."""
    if attempt.found is Found.UNKNOWN:
        came_after = (attempt.connected_s or 0.0) > 0
        return attempt.kind is Kind.BACKLOG or (attempt.kind in PASSING and came_after)
    return attempt.found is Found.QUEUED


def _came_before(attempt: Attempt) -> bool:
    """Whether it was new at the stop, and was left waiting for long."""
    return (
        attempt.kind is Kind.NEWCOMER
        and attempt.found is Found.UNKNOWN
        and attempt.over_s >= AT_ONCE_S
    )


def half_sent_dropped(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Requests that had not come whole were given up."""
    hit = [j for j in bad if j.attempt.kind in HALF_SENT]
    if not hit:
        return None
    return Told(
        Finding(
            "half-sent-dropped",
            f"it gave up {count(hit, 'connection')} whose request had not come whole",
            Severity.WARNING,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice(
                "half-sent-dropped",
                "let it read a request that has begun to its end, and answer it; or " + _FIRST_OUT,
            ),
        ),
        ids(hit),
    )


def unread_dropped(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Whole requests on accepted connections were closed unread."""
    hit = [
        j
        for j in bad
        if _unanswered(j)
        and j.fate is not Fate.HUNG
        and (
            j.attempt.found in {Found.UNREAD, Found.QUEUED}
            or (j.attempt.kind in _JUST_COME and (j.attempt.connected_s or 0.0) <= 0)
        )
        and not _late_on_keep_alive(j)
    ]
    if not hit:
        return None
    sure = all(j.attempt.found is Found.UNREAD for j in hit)
    return Told(
        Finding(
            "unread-dropped",
            f"it closed {count(hit, 'connection')} that it had accepted and not read",
            Severity.WARNING,
            Confidence.CERTAIN if sure else Confidence.LIKELY,
            lines(hit),
            scene.advice(
                "unread-dropped",
                "let it read what it has accepted once more before it closes it; or " + _FIRST_OUT,
            ),
        ),
        ids(hit),
    )


def pipelined_dropped(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """The request behind the one in hand was not answered."""
    hit = [j for j in bad if j.attempt.kind is Kind.PIPELINED]
    if not hit:
        return None
    return Told(
        Finding(
            "pipelined-dropped",
            f"{count(hit, 'request')} behind the one in hand got no answer",
            Severity.WARNING,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice(
                "pipelined-dropped",
                "announce `Connection: close` on the answer before it: a client knows then that "
                "what it sent behind was not executed (RFC 9112, section 9.6)",
            ),
        ),
        ids(hit),
    )


def _late_on_keep_alive(judged: Judged) -> bool:
    """Whether it was sent after the stop, on a connection from before it."""
    attempt = judged.attempt
    late = attempt.sent_s is not None and attempt.sent_s > 0
    return attempt.kind in _KEEP_ALIVE and late and (attempt.connected_s or 0.0) <= 0


def keep_alive_reset(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """A request came on a connection kept alive, and was thrown away."""
    hit = [j for j in bad if _late_on_keep_alive(j) or j.attempt.kind is Kind.IDLE_THEN_REQUEST]
    if not hit:
        return None
    sent = [j.attempt.sent_s for j in hit if j.attempt.sent_s is not None]
    when = (f"sent {span(sent)}",) if sent else ()
    return Told(
        Finding(
            "keep-alive-reset",
            f"{count(hit, 'request')} on open connections came after the stop and got no answer",
            Severity.WARNING,
            Confidence.CERTAIN,
            (*when, *lines(hit)),
            scene.advice(
                "keep-alive-reset",
                "answer what comes on open connections for a while, with `Connection: close`; or "
                + _FIRST_OUT,
            ),
        ),
        ids(hit),
    )


def websocket_cut(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """A WebSocket ended without a close frame."""
    hit = [
        j
        for j in bad
        if j.attempt.kind in WEBSOCKET and j.attempt.failure not in {Failure.HUNG, Failure.CLOSED}
    ]
    if not hit:
        return None
    return Told(
        Finding(
            "websocket-cut",
            f"{count(hit, 'WebSocket')} ended without a close frame",
            Severity.WARNING,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice(
                "websocket-cut",
                "send a close frame (code 1001, going away): the client then knows that it is to "
                "come back",
            ),
        ),
        ids(hit),
    )


def websocket_unanswered(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """A WebSocket was closed in order, but over a message that had no answer yet."""
    hit = [j for j in bad if j.attempt.kind in WEBSOCKET and j.attempt.failure is Failure.CLOSED]
    if not hit:
        return None
    return Told(
        Finding(
            "websocket-unanswered",
            f"it closed {count(hit, 'WebSocket')} with a message that had no answer yet",
            Severity.WARNING,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice(
                "websocket-unanswered",
                "answer what has been received before the close frame is sent",
            ),
        ),
        ids(hit),
    )


def answered_with_error(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """It answered with an error in place of a result."""
    del bad  # what it was cut off for stands beside the error that its client got
    hit = [
        j
        for j in scene.judgement.judged
        if j.fate is Fate.LOST
        and j.attempt.over_s > 0
        and (j.attempt.status or 0) >= _SERVER_ERROR
        and j.attempt.complete_s is not None
    ]
    if not hit:
        return None
    codes = ", ".join(str(code) for code in sorted({j.attempt.status or 0 for j in hit}))
    otherwise = (
        "let what the application needs (its pools, its tasks) outlive its requests; what it "
        f"cannot do any more it should answer with {_UNAVAILABLE} and Retry-After, before it "
        "begins: that is safe to try elsewhere"
    )
    return Told(
        Finding(
            "answered-with-error",
            f"it answered {count(hit, 'request')} with {codes} while it stopped",
            Severity.WARNING,
            Confidence.CERTAIN,
            lines(hit),
            scene.advice("answered-with-error", otherwise) if scene.at_limit(hit) else otherwise,
        ),
        ids(hit),
    )


def rolling_gap(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Newcomers noticed a replacement that nobody should notice."""
    if not scene.rolling:
        return None
    newcomers = [
        j for j in scene.judgement.judged if j.attempt.kind in PASSING and j.attempt.over_s > 0
    ]
    hit = [j for j in newcomers if j.fate not in {Fate.ACKNOWLEDGED, Fate.LET_GO}]
    if not hit:
        return None
    tried = [j.attempt.attempted_s for j in hit]
    return Told(
        Finding(
            "rolling-gap",
            f"{len(hit)} of {count(newcomers, 'newcomer')} failed while it was replaced",
            Severity.WARNING,
            Confidence.CERTAIN,
            (f"tried {span(tried)}", *lines(hit)),
            scene.advice(
                "rolling-gap",
                "let the new one serve before the old one is stopped, on the same listening socket "
                "handed over, so that it is never closed",
            ),
        ),
        ids(j for j in bad if j.attempt.kind in PASSING),
    )
