"""Whether a server's connections are drained: decided from one snapshot and the times, no more.

In this order:

1. Work in flight: wait for it; its end is an event, so there is nothing to look for.
2. Nothing open: it is over.
3. Half requests, and answers on their way: wait as long as each moves, `patience_s` from the last
   thing that did; then they are given up.
4. Idle connections have until `linger_s` after the drain began to bring a late request; then they
   are to be ended.
5. Connections that are closing have `linger_s` to be gone.
"""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Seen(Protocol):
        """What is looked at of a `lastcall.app.http.connections.Connection`."""

        state: State
        cookie: int
        last_received_s: float | None
        last_sent_s: float | None


LOOK_S = 0.025
# A snapshot costs some 8 us a connection: looking must not take more than a part of the time.
_LOOK_EACH_S = 20e-6
# The work has ended, and the server still has to hand the end of its answer to the kernel.
_SETTLE_S = 0.025


class State(enum.Enum):
    """What the server owes to whom is on the other side."""

    SILENT = "nothing was ever received"
    PARTIAL = "a request was begun, or is being worked on"
    SENDING = "an answer is on its way"
    QUIET = "answered, and nothing since"
    OPEN = "open; the kernel tells no more"
    CLOSING = "one side has ended it"
    ENDED = "our end has arrived: nothing can be answered any more"


_NAMES = {
    State.SILENT: ("connection without a request", "connections without a request"),
    State.PARTIAL: ("half request", "half requests"),
    State.SENDING: ("undelivered answer", "undelivered answers"),
    State.QUIET: ("idle connection", "idle connections"),
    State.OPEN: ("open connection", "open connections"),
    State.CLOSING: ("closing connection", "closing connections"),
}
_BUSY = frozenset({State.PARTIAL, State.SENDING})
_IDLE = frozenset({State.SILENT, State.QUIET, State.OPEN})


class Why(enum.Enum):
    """What the drain waits for, or why it is over."""

    WORK = "work is in flight"
    BUSY = "requests are half received, or answers half sent"
    IDLE = "idle connections may still bring a request"
    ENDING = "idle connections are ended"
    CLOSING = "connections are closing"
    EMPTY = "nothing is left to do"
    GIVEN_UP = "what was left did not move"


class Verdict:
    """What to do now.

    Args (attributes):
        why: what is waited for, or why it is over.
        over: the drain is over: the server can be told to stop.
        again_s: when to look again, in seconds; None: not before the work in flight has ended
            (or never, when it is over).
        end: the idle connections that are to be ended now.
        given_up: those that are not waited for any more: half requests, undelivered answers, and
            idle connections that cannot be ended (no cookie).
        text: for people: `2 half requests given up after 5 s`.
    """

    __slots__ = ("again_s", "end", "given_up", "over", "text", "why")

    def __init__(
        self,
        why: Why,
        *,
        over: bool = False,
        again_s: float | None = None,
        end: tuple[Seen, ...] = (),
        given_up: tuple[Seen, ...] = (),
        text: str = "",
    ) -> None:
        self.why: Why = why
        self.over: bool = over
        self.again_s: float | None = again_s
        self.end: tuple[Seen, ...] = end
        self.given_up: tuple[Seen, ...] = given_up
        self.text: str = text or why.value

    def __repr__(self) -> str:
        return f"<Verdict {self.why.name}: {self.text}>"


def verdict(
    connections: Sequence[Seen],
    in_flight: int,
    now_s: float,
    *,
    began_s: float,
    progress_s: float,
    ended_s: float | None,
    linger_s: float,
    patience_s: float,
) -> Verdict:
    """Judge a snapshot. All points in time are of one clock.

    Args:
        connections: the snapshot.
        in_flight: how many requests are being worked on, as the middleware counts them.
        now_s: when the snapshot was taken.
        began_s: when the drain began.
        progress_s: when the last work ended, or `began_s`.
        ended_s: when idle connections were last ended (`Verdict.end`); None: not yet.
        linger_s: how long an idle connection may still bring a request, and a closing one close.
        patience_s: how long a half request or a half sent answer may stand still.
    """
    if in_flight:
        return Verdict(Why.WORK, text=f"{_plural(in_flight, 'request', 'requests')} in flight")
    idle = [one for one in connections if one.state in _IDLE]
    closing = [one for one in connections if one.state is State.CLOSING]
    busy = {
        one: max(began_s, progress_s, _moved_s(one, now_s)) + patience_s
        for one in connections
        if one.state in _BUSY
    }
    given_up = [one for one, until_s in busy.items() if now_s >= until_s]
    waited = {one: until_s for one, until_s in busy.items() if now_s < until_s}
    idle_until_s = max(began_s + linger_s, progress_s + _SETTLE_S)
    close_until_s = max(began_s, progress_s, ended_s or began_s) + linger_s
    again_s = max(LOOK_S, len(connections) * _LOOK_EACH_S)

    def wait(why: Why, these: Iterable[Seen], until_s: float, end: Iterable[Seen] = ()) -> Verdict:
        left_s = until_s - now_s if until_s > now_s else again_s
        return Verdict(why, again_s=min(again_s, left_s), end=tuple(end), text=describe(these))

    lingered = now_s >= idle_until_s
    end = [one for one in idle if one.cookie] if lingered else []
    if waited:
        return wait(Why.BUSY, waited, min(waited.values()), end)
    if end:
        return wait(Why.ENDING, end, now_s, end)
    if idle and not lingered:
        return wait(Why.IDLE, idle, idle_until_s)
    if closing and now_s < close_until_s:
        return wait(Why.CLOSING, closing, close_until_s)
    # Who is closing still has said goodbye: nothing of theirs can be lost.
    if not (given_up or idle):
        return Verdict(Why.EMPTY, over=True)
    text = _given_up_text(given_up, idle, patience_s, linger_s)
    return Verdict(Why.GIVEN_UP, over=True, given_up=(*given_up, *idle), text=text)


def _moved_s(one: Seen, now_s: float) -> float:
    """When bytes last came (of a request) or went (of an answer)."""
    age_s = one.last_received_s if one.state is State.PARTIAL else one.last_sent_s
    return float("-inf") if age_s is None else now_s - age_s


def _given_up_text(
    busy: Sequence[Seen], idle: Sequence[Seen], patience_s: float, linger_s: float
) -> str:
    parts = [(busy, patience_s), (idle, linger_s)]
    return "; ".join(
        f"{describe(these)} given up after {limit_s:g} s" for these, limit_s in parts if these
    )


def describe(connections: Iterable[Seen]) -> str:
    """`2 half requests, 1 idle connection`; the ended ones do not count."""
    counts = dict.fromkeys(_NAMES, 0)
    for one in connections:
        if one.state in counts:
            counts[one.state] += 1
    return ", ".join(_plural(n, *_NAMES[state]) for state, n in counts.items() if n)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
