"""A drill as one self-contained page: nothing is loaded from anywhere, and nothing is sent."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from lastcall import __version__
from lastcall.drill.judge import Fate, Work
from lastcall.drill.report import parts, strips, svg
from lastcall.drill.report.timeline import MOST_ROWS, End, Phase, Tone, timeline
from lastcall.drill.report.words import clean, many, was_stopped, when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.drill.report.timeline import Bar, Group, Timeline
    from lastcall.drill.result import Result

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_PHASES = {
    Phase.CONNECTING: "connecting, or silent",
    Phase.SENDING: "sending",
    Phase.WAITING: "waiting for the answer",
    Phase.RECEIVING: "receiving it",
}


def render(result: Result) -> str:
    """The page.

    Args:
        result: of a drill.

    Returns:
        HTML of bounded size: beyond 500 connections, and in the strips of newcomers and load,
        it draws a part and says so.
    """
    said = f"{result.judgement.verdict}".capitalize()
    name = clean(result.subject.software, 120) or "a server"
    page = "".join(
        (
            parts.verdict(result),
            parts.facts(result),
            parts.why(result),
            parts.table(result),
            around(result),
            parts.untested(result),
            parts.output(result),
            parts.repeat(result),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{said}: {escape(name)} - lastcall drill</title>"
        f"<style>\n{_package_text('page.css')}</style></head><body><main>{page}</main>"
        f"{parts.footer(result, __version__)}"
        f"<script>\n{_package_text('page.js')}</script></body></html>\n"
    )


def _package_text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


# -- the timeline


def around(result: Result) -> str:
    """The timeline of every connection around the stop."""
    if not result.judgement.judged or not was_stopped(result):
        said = parts.moments(result, ())
        return f'<section aria-label="What happened">{said}</section>' if said else ""
    drawn = timeline(result)
    flagged = svg.flags(result.moments, drawn.scale)
    lanes = "".join(_group(group, drawn) for group in drawn.groups)
    lanes += _strips(drawn)
    grid, scale = svg.grid(drawn.scale, flagged), svg.axis(drawn.scale, flagged)
    axis = f'<div class="lane axis"><div class="name"></div>{scale}</div>'
    return (
        '<section aria-labelledby="around"><h2 id="around">Around the stop</h2>'
        f"{_legend()}{svg.shared()}"
        f'<div class="scroll" id="timeline"><div class="lanes">{grid}{axis}{lanes}</div></div>'
        f"{_left_out(drawn)}{parts.moments(result, flagged)}{_listed(drawn)}</section>"
    )


def _group(group: Group, drawn: Timeline) -> str:
    bars = [bar for line in group.lines for bar in line.bars]
    tally = _tally(bars)
    hidden = f" ({group.hidden:,} more not drawn)" if group.hidden else ""
    shown = many(len(group.lines), "connection")
    return _lane(
        f"{group.kind}",
        f"{tally}{hidden}",
        svg.connections(group, drawn.scale, f"{group.kind}: {shown}, {tally}"),
        bad=any(bar.tone is Tone.BAD for bar in bars),
    )


def _lane(name: str, tally: str, plot: str, *, bad: bool = False) -> str:
    fault = " fault" if bad else ""
    return (
        f'<div class="lane{fault}"><div class="name"><h3>{escape(name)}</h3>'
        f"<p>{escape(tally)}</p></div>{plot}</div>"
    )


def _tally(bars: Iterable[Bar]) -> str:
    fates = [bar.judged.fate for bar in bars]
    return ", ".join(f"{fates.count(fate):,} {fate}" for fate in Fate if fate in fates)


def _strips(drawn: Timeline) -> str:
    said = ""
    if drawn.newcomers:
        tally = _tally(drawn.newcomers)
        plot = strips.newcomers(drawn.newcomers, drawn.scale, f"newcomers: {tally}")
        bad = any(bar.tone is Tone.BAD for bar in drawn.newcomers)
        said += _lane("newcomers, when they came", tally, plot, bad=bad)
    if drawn.load:
        wide = (drawn.load[0].to_s - drawn.load[0].from_s) * 1000
        counts = [
            (sum(b.answered for b in drawn.load), "answered"),
            (sum(b.other for b in drawn.load), "refused cleanly"),
            (sum(b.bad for b in drawn.load), "lost"),
        ]
        tally = ", ".join(f"{count:,} {word}" for count, word in counts if count)
        tally += f", in columns of {wide:g} ms; at most {max(b.answered for b in drawn.load):,}"
        plot = strips.load(drawn.load, drawn.scale, f"background load: {tally}")
        said += _lane("background load", tally, plot, bad=bool(counts[2][0]))
    if len(drawn.looks) > 1:
        most = max(look.queued for look in drawn.looks)
        tally = f"at most {many(most, 'connection')} waiting; the band: somebody listens"
        plot = strips.queue(drawn.looks, drawn.scale, f"the accept queue: {tally}")
        said += _lane("accept queue and listener", tally, plot)
    return said


def _legend() -> str:
    ends = "".join(
        f'<li><svg width="14" height="14" class="{_tone(end)}" aria-hidden="true">'
        f"{svg.mark(end, '7', 7)}</svg>{end}</li>"
        for end in End
    )
    phases = "".join(
        f'<li><svg width="26" height="14" class="calm" aria-hidden="true">'
        f"{svg.sample(phase)}</svg>{words}</li>"
        for phase, words in _PHASES.items()
    )
    return f'<ul class="legend" aria-label="Legend">{phases}{ends}</ul>'


def _tone(end: End) -> Tone:
    if end is End.ANSWERED:
        return Tone.GOOD
    return Tone.CALM if end in {End.TURNED_AWAY, End.REFUSED, End.LET_GO} else Tone.BAD


def _left_out(drawn: Timeline) -> str:
    said = []
    if drawn.hidden:
        said.append(
            f"{drawn.drawn:,} of {drawn.drawn + drawn.hidden:,} connections are drawn, of each "
            "state those that ended worst first; the history file has all of them."
        )
    if drawn.earlier:
        said.append(
            f"{many(drawn.earlier, 'attempt')} had ended before the time that is drawn here."
        )
    if drawn.scale.cut_s is not None:
        said.append(
            f"What lies after {when(drawn.scale.cut_s)} (shaded) is drawn narrower, so that the "
            "time around the stop has room."
        )
    return f'<p class="note">{" ".join(said)}</p>' if said else ""


# -- the same as a table


def _listed(drawn: Timeline) -> str:
    """What is drawn, to be read."""
    bars = [bar for group in drawn.groups for line in group.lines for bar in line.bars][:MOST_ROWS]
    if not bars:
        return ""
    known = any(bar.judged.work is not Work.UNKNOWN for bar in bars)
    names = ["#", "State", "Fate", "Begun", "Connected", "Sent", "First byte", "Over"]
    names += ["Ledger"] if known else []
    head = "".join(f'<th scope="col">{name}</th>' for name in [*names, "Note"])
    body = "".join(_attempt(bar, known=known) for bar in bars)
    caption = f"{many(len(bars), 'attempt')} drawn above, times from the stop"
    return (
        '<details class="listed"><summary>The same as a table</summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Every attempt drawn above">'
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _attempt(bar: Bar, *, known: bool) -> str:
    attempt = bar.judged.attempt
    fate = f"{bar.judged.fate}" + (f" ({attempt.failure})" if attempt.failure else "")
    if attempt.status is not None:
        fate += f", {attempt.status}"
    marks = (attempt.connected_s, attempt.sent_s, attempt.first_byte_s, attempt.over_s)
    cells = [f"{attempt.kind}", fate, when(attempt.attempted_s)]
    cells += ["" if at is None else when(at) for at in marks]
    cells += [f"{bar.judged.work}"] if known else []
    shown = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, clean(attempt.note, 200)])
    return f'<tr class="{bar.tone}"><th scope="row">{attempt.id}</th>{shown}</tr>'
