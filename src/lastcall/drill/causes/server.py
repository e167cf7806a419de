"""Causes that lie in how the server as a whole takes the stop. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from lastcall.drill import known
from lastcall.drill.causes.scene import (
    AT_ONCE_S,
    HALF_SENT,
    TOGETHER_S,
    WEBSOCKET,
    WORKING,
    Told,
    count,
    ids,
    lines,
    seconds,
)
from lastcall.drill.history import Failure, Found, Kind
from lastcall.drill.judge import Fate
from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.causes.scene import Scene
    from lastcall.drill.judge import Judged

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"})
_RUNNERS = frozenset({"npm", "npx", "yarn", "pnpm"})
# They hand the signal on, to the shell below them.
_INITS = frozenset({"tini", "dumb-init", "docker-init", "catatonit"})
# A process without a handler is gone in some 10 ms; a large one takes longer to be cleared away.
_DEAD_S, _DEAD_AS_FORETOLD_S = 0.3, 2.0
_SOON_S = 0.05
_SERVES_ON_S = 1.0
# What lasts so much longer than everything else is what it waited for.
_LONGER_S = 1.5
# The losses of one limit may be spread by as much as this part of it.
_SPREAD = 0.05
# Whether these had been accepted by then is not asked of the kernel one by one.
_JUST_COME = frozenset({Kind.NEWCOMER, Kind.LOAD, Kind.JUST_SENT})
_WHOLE_ADVICE = "; the signal went to its workers, too: systemd's KillMode=mixed spares them"


def in_the_way(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """A shell or npm gets the signal in place of the server."""
    between, below_init = _between(scene.subject.command)
    told = scene.before("shell-between")
    left = scene.aftermath.left
    at_once = [j for j in bad if _at_once(j)]
    broken_off = any(j.attempt.kind in WORKING for j in at_once)
    if not between and not told:
        return None
    if not left and scene.ended and not (broken_off and (told or below_init)):
        return None
    where = f"the command begins with {between}" if between else "a shell waits for the server"
    said = f"{scene.signal or 'the stop'} reached {between or 'the shell'}, not the server"
    if left:
        said += ", which lives on"
    return Told(
        Finding(
            "shell-between",
            said,
            Severity.BLOCKER if left or not scene.ended else Severity.WARNING,
            Confidence.CERTAIN if told or left else Confidence.LIKELY,
            (where, scene.end(), *_left(scene), *_evidence(told), *lines(at_once)),
            "start the server itself: node server.js in place of npm start"
            if between in _RUNNERS
            else "start the server with `exec` (sh -c 'exec server ...'), or without a shell; "
            "`tini -g` would signal all of them",
        ),
        ids(at_once) if not left else frozenset(),
    )


def _between(command: Sequence[str]) -> tuple[str, bool]:
    """The shell or the like that a command begins with, and whether it is below an init."""
    bases = [word.rpartition("/")[2] for word in command]
    below_init = bool(bases) and bases[0] in _INITS
    if below_init:
        bases = [base for base in bases[1:] if not base.startswith("-")]
    first = bases[0] if bases else ""
    return (first if first in _SHELLS | _RUNNERS else "", below_init)


def _left(scene: Scene) -> tuple[str, ...]:
    return tuple(f"still there: {who}" for who in scene.aftermath.left)


def _evidence(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(f"check: {line}" for finding in findings for line in finding.evidence)


def no_handler(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """The signal itself ended it, at once."""
    at = scene.aftermath.ended_s
    of_runtime = scene.left_as_if_killed and scene.server.family != "spring"
    if at is None or not bad or not (scene.died_of_the_ask or of_runtime):
        return None
    foretold = scene.before("no-handler", "handled-by-runtime")
    if scene.before("handled") or at > (_DEAD_AS_FORETOLD_S if foretold else _DEAD_S):
        return None
    if scene.answered_after(_SOON_S):
        return None
    taken = [j for j in bad if (j.attempt.connected_s or 0.0) <= at + _SOON_S]
    sure = Confidence.LIKELY if at <= _SOON_S else Confidence.POSSIBLE
    if scene.before("no-handler"):
        sure = Confidence.CERTAIN
    return Told(
        Finding(
            "no-handler",
            f"{scene.signal} ended it after {seconds(at)}: nothing in it waits for work in hand",
            Severity.WARNING,
            sure,
            (scene.end(), *_evidence(foretold), *lines(taken)),
            scene.advice(
                "no-handler",
                f"give it a handler for {scene.signal} that takes no new work and lets what it has "
                "finish; or stop it with a signal that it handles",
            ),
        ),
        ids(taken),
    )


def worker_killed(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """Its main process took a worker away."""
    said = known.says_killed(scene.aftermath.output)
    hit = [j for j in bad if _in_hand(j) and j.attempt.over_s >= AT_ONCE_S]
    if not said or not hit:
        return None
    by = scene.limit_said(scene.at_limit(hit))
    return Told(
        Finding(
            "worker-killed",
            f"its main process killed a worker that still had {count(hit, 'request')} in hand",
            Severity.WARNING,
            Confidence.CERTAIN,
            (*(f"it printed: {line}" for line in said), *by, *lines(hit)),
            scene.advice("worker-killed", "let its workers have longer than the longest request"),
        ),
        ids(hit),
    )


def asked_twice(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """The second signal broke off what the first had let finish."""
    again_s = scene.again_s
    if again_s is None:
        return None
    hit = [j for j in bad if 0 <= j.attempt.over_s - again_s < TOGETHER_S]
    if not any(_in_hand(j) for j in hit):
        return None
    return Told(
        Finding(
            "asked-twice",
            f"the second {scene.signal} broke off what the first had let go on",
            Severity.WARNING,
            Confidence.LIKELY,
            (f"it was asked again after {again_s:g} s", *lines(hit), scene.end()),
            scene.advice(
                "asked-twice", "ask once; or let it ignore the signal once it is stopping"
            ),
        ),
        ids(hit),
    )


def ended_with_error(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """It crashed, or something else took it away."""
    at = scene.aftermath.ended_s
    if at is None or scene.aftermath.status is None or scene.as_asked or scene.rolling:
        return None
    hit = [j for j in bad if at - TOGETHER_S <= j.attempt.over_s <= at + TOGETHER_S]
    if not hit:
        return None
    printed = tuple(f"it printed: {x}" for x in known.says_broken(scene.aftermath.output))
    return Told(
        Finding(
            "ended-with-error",
            f"it ended with an error, and took {count(hit, 'request')} with it",
            Severity.WARNING,
            Confidence.CERTAIN if printed else Confidence.LIKELY,
            (scene.end(), *printed, *lines(hit)),
            "see what it printed; something outside (the kernel's OOM killer, a supervisor) may "
            "have ended it, too",
        ),
        ids(hit),
    )


def cut_at_limit(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """It waited for its work, but not long enough."""
    late = [
        j
        for j in bad
        if _in_hand(j)
        and j.fate is Fate.LOST
        and j.attempt.over_s >= AT_ONCE_S
        # It was not cut off, but answered with what is no answer.
        and j.attempt.failure not in {Failure.GARBAGE, Failure.TOO_LONG}
    ]
    at_limit = scene.at_limit(late)
    hit = at_limit or _densest(late)
    by = scene.limit_said(at_limit)
    printed = tuple(f"it printed: {line}" for line in known.says_cut(scene.aftermath.output))
    if not hit:
        return None
    at = median(j.attempt.over_s for j in hit)
    # Errors that the application answered with need no limit; losses at all times, before what was
    # answered, or one among many answered, have none.
    answered = all(j.attempt.status is not None for j in hit)
    last = max(j.attempt.over_s for j in hit)
    kept = scene.answered_after(last + _SOON_S if len(hit) > 1 else at - TOGETHER_S)
    scattered = len(hit) * 2 < len(late) or bool(kept)
    if not by and not printed and (answered or scattered):
        return None
    sure = Confidence.LIKELY if len(hit) > 1 else Confidence.POSSIBLE
    return Told(
        Finding(
            "cut-at-limit",
            f"it cut off work at a limit of its own, about {at:.1f} s after the stop",
            Severity.WARNING,
            Confidence.CERTAIN if by or printed else sure,
            (*lines(hit), *by, *printed, *_answered(scene), scene.end()),
            scene.advice("cut-at-limit", "give it longer than its longest request takes"),
        ),
        ids(hit),
    )


def cut_at_once(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """It takes the signal, and gives up what it works on."""
    hit = [j for j in bad if j.attempt.kind in WORKING and _in_hand(j) and _at_once(j)]
    if not hit:
        return None
    kept = scene.answered_after(AT_ONCE_S)
    with_it = hit if kept else [j for j in bad if _at_once(j) and not _reset_in_queue(j)]
    how = scene.signal or "the stop"
    foretold = scene.before("handled", "handled-by-runtime", "python-keyboardinterrupt")
    return Told(
        Finding(
            "cut-at-once",
            f"it broke off {len(hit)} of {len(hit) + len(kept)} running requests at {how}"
            if kept
            else f"it takes {how}, but breaks off what it is working on at once",
            Severity.WARNING,
            Confidence.LIKELY if len(hit) > 1 or not kept else Confidence.POSSIBLE,
            (*lines(with_it), *_answered(scene), *_evidence(foretold), scene.end()),
            scene.advice(
                "cut-at-once",
                "let it wait for what it works on before it ends; or stop it with the signal that "
                "means that to it" + (_WHOLE_ADVICE if scene.to_all else ""),
            ),
        ),
        ids(with_it),
    )


def _at_once(judged: Judged) -> bool:
    return judged.attempt.over_s < AT_ONCE_S


def _reset_in_queue(judged: Judged) -> bool:
    attempt = judged.attempt
    return attempt.found is Found.QUEUED and attempt.failure is Failure.RESET


def _in_hand(judged: Judged) -> bool:
    """Whether the server had taken it when the stop came, whole."""
    attempt = judged.attempt
    if attempt.found in {Found.QUEUED, Found.UNREAD}:
        return False
    if attempt.kind in HALF_SENT or attempt.kind is Kind.PIPELINED:
        return False
    if attempt.connected_s is None or attempt.connected_s > 0:
        return False
    if attempt.kind in _JUST_COME and attempt.found is not Found.TAKEN:
        return attempt.first_byte_s is not None
    sent = attempt.sent_s is not None and attempt.sent_s <= 0
    return attempt.kind is Kind.WEBSOCKET_IDLE or sent


def _answered(scene: Scene) -> tuple[str, ...]:
    """What shows that it did let work finish for a while."""
    kept = scene.answered_after(AT_ONCE_S)
    if not kept:
        return ()
    last = max(j.attempt.complete_s or 0.0 for j in kept)
    return (f"{count(kept, 'request')} finished, the last {seconds(last)} after the stop",)


def _densest(judged: Sequence[Judged]) -> list[Judged]:
    """The largest group that came to its end at about the same time."""
    ordered = sorted(judged, key=lambda j: j.attempt.over_s)
    best: list[Judged] = []
    for start, first in enumerate(ordered):
        until = first.attempt.over_s + max(TOGETHER_S, _SPREAD * first.attempt.over_s)
        group = [j for j in ordered[start:] if j.attempt.over_s <= until]
        best = group if len(group) > len(best) else best
    return best


def websocket_holds_exit(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """An open WebSocket kept it from ending."""
    before = [j for j in scene.judgement.judged if (j.attempt.connected_s or 1.0) <= 0]
    others = [j for j in before if j.attempt.kind not in WEBSOCKET]
    done = max([0.0, *(j.attempt.over_s for j in others if j.fate is not Fate.HUNG)])
    still = [
        j for j in before if j.attempt.kind in WEBSOCKET and j.attempt.over_s >= done + _LONGER_S
    ]
    if not still:
        return None
    last, at = max(j.attempt.over_s for j in still), scene.aftermath.ended_s
    if scene.ended and (at is None or at < last - _SOON_S):
        return None
    # What else was left open until its client gave up may have held it, too.
    alone = all(j.fate is not Fate.HUNG for j in others)
    if not alone and any(j.fate is not Fate.HUNG for j in still):
        return None
    lost = [j for j in bad if j.attempt.kind in WEBSOCKET]
    gravity = Severity.WARNING if lost else Severity.NOTE
    printed = (*known.says_killed(scene.aftermath.output), *known.says_cut(scene.aftermath.output))
    what = "everything else" if alone else "what else ended"
    return Told(
        Finding(
            "websocket-holds-exit",
            f"{count(still, 'open WebSocket')} kept it from ending",
            gravity if scene.ended else Severity.BLOCKER,
            Confidence.LIKELY if alone else Confidence.POSSIBLE,
            (
                f"{what} was over {seconds(done)} after the stop",
                f"the last WebSocket was over {seconds(last)} after the stop",
                scene.end(),
                *(f"it printed: {line}" for line in printed),
                *lines(lost),
            ),
            scene.advice(
                "websocket-holds-exit",
                "close WebSockets (code 1001, going away) when the stop comes",
            ),
        ),
        ids(lost),
    )


def _how_to_end(scene: Scene) -> str:
    """One that still takes newcomers has not begun to stop: no limit would change anything."""
    if any(
        j.attempt.kind is Kind.NEWCOMER
        and j.attempt.attempted_s > _SERVES_ON_S
        and j.fate is Fate.ACKNOWLEDGED
        for j in scene.judgement.judged
    ):
        return "it goes on serving newcomers: see whether it takes the signal, with lastcall check"
    return scene.advice(
        "not-ended", "give its stop a limit, and see what it waits for: lastcall stop names it"
    )


def not_ended(scene: Scene, bad: Sequence[Judged]) -> Told | None:
    """It runs on."""
    if scene.ended:
        return None
    hung = [j for j in bad if j.fate is Fate.HUNG]
    told = scene.before(
        "init-without-handler", "signal-ignored", "signal-blocked", "pauses", "stopped", "frozen"
    )
    last = scene.aftermath.looks[-1:]
    seen = tuple(
        f"{seconds(look.at_s)} after the stop: "
        + (f"still listening, {look.queued} queued" if look.listening else "not listening")
        for look in last
    )
    return Told(
        Finding(
            "not-ended",
            "it did not end in time" + (", with work still open" if hung else ""),
            Severity.BLOCKER,
            Confidence.CERTAIN,
            (*lines(hung), *seen, *(f"check: {f.title}" for f in told)),
            next((f.advice for f in told if f.advice), "") or _how_to_end(scene),
        ),
        ids(hung),
    )
