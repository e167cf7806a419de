"""Events in words, one line each: for the terminal, for plain output and for the log's timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.durations import in_words
from lastcall.model import (
    Asked,
    Called,
    Consented,
    DeadlineMoved,
    Ended,
    Ending,
    Event,
    Finding,
    Finished,
    Intended,
    Looked,
    LookStarted,
    Missing,
    Outcome,
    Progressed,
    Reached,
    Released,
    Resumed,
    Served,
    Severity,
    Stage,
    Started,
    Warned,
    Why,
)
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence


@record
class Line:
    """What one event says.

    Args:
        tag: one word for the margin.
        text: the rest of the line.
        findings: what is to be shown below it.
        style: a colour of `show.Palette`, or empty.
    """

    tag: str
    text: str
    findings: Sequence[Finding] = ()
    style: str = ""


# Good to have in the log, but no answer to "what does it wait for?".
_BACKGROUND = {"threads", "open-files", "handled", "listens"}
GOOD = {Ending.ORDERLY, Ending.ENDED_BEFORE}


def describe(event: Event, started_s: float, *, full: bool = False) -> Line | None:  # noqa: C901, PLR0912 (one arm an event)
    """One event in words; None when it is of no interest to people.

    Args:
        event: what happened.
        started_s: when the stop began (boot-time clock), for deadlines.
        full: whether to show what only a timeline wants.
    """
    match event:
        case Started():
            grace = f"grace {in_words(event.deadline_s - started_s)}"
            soft = [r for r in event.ladder if r.consent.value == "none" and not r.on_call]
            asks = ", ".join(rung.means for rung in soft)
            force = f"; force allowed: {event.consent.reason}" if event.consent else ""
            told = event.consent is not None and event.consent.reason == event.reason
            reason = f"; reason: {event.reason}" if event.reason and not told else ""
            shown = event.findings if full else telling(event.findings)
            return Line("begin", f"{asks}; {grace}{force}{reason}", shown)
        case Intended() if full:
            attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
            return Line("intent", f"rung {event.rung + 1}{attempt}", style="dim")
        case Asked(outcome=Outcome.DONE):
            return Line("asked", event.detail, style="cyan")
        case Asked():
            return Line("asked", f"{event.detail} ({event.outcome.value})", style="yellow")
        case Reached(stage=Stage.POWERED_OFF):
            # The journal keeps QEMU's own word for it, which alone says nothing to people.
            told = event.detail.startswith("the guest")
            text = event.detail if told else f"the guest is off ({event.detail})"
            return Line("off", text, style="cyan")
        case Reached():
            return Line(event.stage.value, event.detail, style="cyan")
        case Served():
            who = {"root": "the process itself has ended", "rest": "its descendants have ended"}
            return Line("served", who.get(event.audience, event.audience), style="dim")
        case Progressed():
            return Line("progress", f"{event.reason} (needs {in_words(event.more_s)} more)")
        case Called():
            return Line("calls", event.why)
        case LookStarted() if full:
            return Line("look", event.depth.value, style="dim")
        case Looked():
            shown = event.findings if full else telling(event.findings)
            if not full and early(shown):
                return Line("waiting", shown[0].title, style="yellow")
            text = "for:" if shown else "nothing tells from outside what for"
            return Line("waiting", text, shown, "yellow")
        case Consented(None):
            return Line("consent", "force is not allowed any more") if full else None
        case Consented(consent) if consent is not None:
            return Line("consent", f"{consent.by} allowed force: {consent.reason}", style="yellow")
        case DeadlineMoved():
            left = in_words(event.deadline_s - started_s)
            return Line("deadline", f"now {left} after the start, moved by {event.by}")
        case Ended():
            return Line("ended", event.detail, style="bold")
        case Missing():
            return Line("gone", event.detail, style="bold")
        case Released():
            return Line("left", f"not watched any more ({event.by})", style="yellow")
        case Resumed():
            return Line("resumed", f"by {event.by}", style="yellow")
        case Warned():
            if event.finding.evidence or event.finding.advice:
                return Line("note", "", [event.finding])
            return Line("note", event.finding.title)
        case Finished() if full:
            return Line(*verdict(event), event.findings, style_of(event.ending))
    return None


def telling(findings: Sequence[Finding]) -> Sequence[Finding]:
    """What people need at once: all that is grave, else the first that says what it waits for."""
    grave = [finding for finding in findings if finding.severity is not Severity.NOTE]
    return grave or [finding for finding in findings if finding.code not in _BACKGROUND][:1]


def early(findings: Sequence[Finding]) -> bool:
    """Whether all that a look found is that a guest was asked a moment ago: its title says that."""
    return [finding.code for finding in findings] == ["just-asked"]


def style_of(ending: Ending) -> str:
    """The colour of an ending."""
    if ending in GOOD:
        return "green"
    bad = {Ending.STILL_RUNNING, Ending.UNKNOWN, Ending.CRASHED, Ending.CUT_OFF}
    return "red" if ending in bad else "yellow"


def verdict(finished: Finished) -> tuple[str, str]:
    """The ending in one word, and what goes with it."""
    word = finished.ending.value
    if finished.why in {Why.ENDED, Why.UNSEEN}:
        return word, finished.detail
    return word, finished.why.value
