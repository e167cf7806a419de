"""The words that every report of a drill shares: lengths of time, verdicts, strangers' text."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

from lastcall.drill.history import Kind
from lastcall.drill.judge import BAD, Fate, Verdict

if TYPE_CHECKING:
    from lastcall.drill.result import Aftermath, Result

MINUS = "\N{MINUS SIGN}"
_HIDDEN = "\N{REPLACEMENT CHARACTER}"
_MS = 0.001
_LONG_S = 120.0
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")

# What so many of a kind are called, in a sentence.
_NOUNS = {
    Kind.SILENT: ("silent connection", "silent connections"),
    Kind.HALF_LINE: ("request half way in its first line", "requests half way in their first line"),
    Kind.HALF_HEADERS: ("request half way in its headers", "requests half way in their headers"),
    Kind.HALF_BODY: ("upload half way", "uploads half way"),
    Kind.IN_HANDLER: ("request in the handler", "requests in the handler"),
    Kind.LONG_POLL: ("long poll", "long polls"),
    Kind.STREAMING_CHUNKED: ("chunked answer under way", "chunked answers under way"),
    Kind.STREAMING_LENGTH: ("answer under way", "answers under way"),
    Kind.EVENTS: ("stream of events", "streams of events"),
    Kind.IDLE_THEN_REQUEST: ("request on an idle connection", "requests on idle connections"),
    Kind.PIPELINED: ("pipelined request", "pipelined requests"),
    Kind.BACKLOG: ("connection in the listen backlog", "connections in the listen backlog"),
    Kind.EXPECT_CONTINUE: ("upload waiting for 100 Continue", "uploads waiting for 100 Continue"),
    Kind.TLS_HALF: ("TLS handshake", "TLS handshakes"),
    Kind.WEBSOCKET_IDLE: ("idle WebSocket", "idle WebSockets"),
    Kind.WEBSOCKET_ECHO: ("WebSocket echo", "WebSocket echoes"),
    Kind.HTTP2_STREAM: ("HTTP/2 stream", "HTTP/2 streams"),
    Kind.NEWCOMER: ("newcomer", "newcomers"),
    Kind.LOAD: ("request of the background load", "requests of the background load"),
}
_WORDS_OF_FATE = {
    Fate.LOST: "lost",
    Fate.HUNG: "left hanging",
    Fate.REFUSED_BADLY: "accepted and then reset",
}


def clean(text: str, longest: int = 2000) -> str:
    """A stranger's text for one line of a report: nothing in it steers a reader's program.

    Colours are dropped; what cannot be printed, line breaks and marks of writing direction too,
    is replaced by a visible sign.
    """
    text = _COLOURS.sub("", text)
    if len(text) > longest:
        text = f"{text[:longest]} ... ({len(text) - longest} more characters)"
    if text.isprintable():
        return text
    text = text.replace("\t", "    ")
    return "".join(c if c.isprintable() else _HIDDEN for c in text)


def length(seconds: float) -> str:
    """A length of time as people say it: `0.4 ms`, `412 ms`, `3.21 s`, `2 min 5 s`."""
    size = abs(seconds)
    if size < 10 * _MS:
        said = f"{size / _MS:.1f}".removesuffix(".0") + " ms"
    elif size < 1 - _MS / 2:
        said = f"{size / _MS:.0f} ms"
    elif size < _LONG_S:
        said = f"{size:.2f}".rstrip("0").rstrip(".") + " s"
    else:
        minutes, rest = divmod(round(size), 60)
        said = f"{minutes} min" + (f" {rest} s" if rest else "")
    return f"{MINUS}{said}" if seconds < 0 and said != "0 ms" else said


def when(at_s: float) -> str:
    """A moment as people say it, from the stop: `+412 ms`, or with a minus before it."""
    said = length(at_s)
    return said if said == "0 ms" or at_s < 0 else f"+{said}"


def many(count: int, one: str, more: str = "") -> str:
    """A count with its noun: `1 connection`, `20 connections`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def nouns(kind: Kind, count: int) -> str:
    """What so many attempts of a kind are called: `requests in the handler`."""
    one, more = _NOUNS.get(kind, (f"attempt ({kind})", f"attempts ({kind})"))
    return one if count == 1 else more


def sentence(result: Result) -> str:
    """The verdict in one sentence, such as `20 of 20 requests in the handler were lost`."""
    judgement = result.judgement
    if judgement.verdict is Verdict.INCONCLUSIVE:
        reason = judgement.reasons[0] if judgement.reasons else "nothing was seen"
        return f"It proves nothing: {clean(reason)}."
    if judgement.verdict is Verdict.KEEPS:
        kinds = {j.attempt.kind for j in judgement.judged}
        count = len(judgement.judged)
        return (
            f"All {count:,} attempts in {many(len(kinds), 'state')} "
            "were answered or turned away in order."
        )
    return _loss(result)


def _loss(result: Result) -> str:
    judged = result.judgement.judged
    bad: dict[tuple[Kind, Fate], int] = {}
    for each in judged:
        if each.fate in BAD:
            place = each.attempt.kind, each.fate
            bad[place] = bad.get(place, 0) + 1
    if not bad:
        reasons = result.judgement.reasons
        said = clean(reasons[0]) if reasons else "work was lost"
        return f"{said[:1].upper()}{said[1:]}."
    # Work that was in hand weighs more than newcomers, who come again.
    order = sorted(bad, key=lambda p: (p[0] in {Kind.NEWCOMER, Kind.LOAD}, -bad[p]))
    kind, fate = order[0]
    total = sum(j.attempt.kind is kind for j in judged)
    first = bad[order[0]]
    said = f"{first:,} of {total:,} {nouns(kind, total)} {'was' if first == 1 else 'were'}"
    said += f" {_WORDS_OF_FATE[fate]}"
    if rest := sum(bad.values()) - first:
        states = len({kind for kind, _ in order[1:]} - {kind})
        said += f", and {rest:,} more" + (f" in {many(states, 'other state')}" if states else "")
    return f"{said}."


def stopped_how(result: Result) -> str:
    """How it was stopped and how it ended, or that it never came to that."""
    if not was_stopped(result):
        return "never stopped: the drill ended before"
    return f"{result.subject.how}; {ending(result.aftermath)}"


def was_stopped(result: Result) -> bool:
    """Whether times count from a stop; without one, they count from the start of the drill."""
    codes = {moment.code for moment in result.moments}
    return "stop-sent" in codes or not codes


def ending(aftermath: Aftermath) -> str:
    """How and when the server ended: `exit code 0, 412 ms after the stop`."""
    status = aftermath.status
    if status is None:
        how = "ended, nobody saw how" if aftermath.ended_s is not None else "not seen to end"
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        known = number in set(signal.Signals)
        how = f"died of {signal.Signals(number).name if known else f'signal {number}'}"
    else:
        how = f"exit code {os.waitstatus_to_exitcode(status)}"
    if aftermath.ended_s is None:
        return how
    side = "before" if aftermath.ended_s < 0 else "after"
    return f"{how}, {length(abs(aftermath.ended_s))} {side} the stop"
