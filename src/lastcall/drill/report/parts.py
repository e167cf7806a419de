"""The sections of the page, but for the timeline."""

from __future__ import annotations

import shlex
from html import escape
from typing import TYPE_CHECKING

from lastcall.drill.judge import BAD, Fate, Verdict
from lastcall.drill.report import counts
from lastcall.drill.report.words import clean, ending, length, many, sentence, was_stopped, when
from lastcall.model import Confidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.drill.history import Kind
    from lastcall.drill.report.counts import Row
    from lastcall.drill.report.svg import Flag
    from lastcall.drill.result import Result
    from lastcall.model import Finding

MOST_LINES = 200
_FIRST_REASONS, _MOST_REASONS = 6, 60
_MOST_EVIDENCE = 20
_LONGEST_COMMAND = 4000
GLYPHS = {
    Verdict.KEEPS: ("\N{HEAVY CHECK MARK}", "good"),
    Verdict.LOSES: ("\N{HEAVY MULTIPLICATION X}", "bad"),
    Verdict.INCONCLUSIVE: ("?", "unsure"),
}


def text(stranger: str, longest: int = 2000) -> str:
    """A stranger's text, harmless in a page."""
    return escape(clean(stranger, longest))


def code(stranger: str, longest: int = 2000) -> str:
    """A stranger's text as it would be typed."""
    return f'<code dir="ltr">{text(stranger, longest)}</code>'


def verdict(result: Result) -> str:
    """The verdict, big, and one sentence."""
    said = result.judgement.verdict
    glyph, tone = GLYPHS[said]
    word = f"{said}".capitalize()
    name = text(result.subject.software, 120)
    over = f"Drill of {name}" if name else "Drill of a server"
    return (
        f'<header class="verdict {tone}"><p class="over">{over}</p>'
        f'<h1><span class="glyph" aria-hidden="true">{glyph}</span>{word}</h1>'
        f'<p class="lead">{escape(sentence(result))}</p></header>'
    )


def facts(result: Result) -> str:
    """What was drilled, how it was stopped, and how it ended."""
    subject, aftermath = result.subject, result.aftermath
    rows = []
    if subject.command:
        rows.append(("Command", code(shlex.join(subject.command), _LONGEST_COMMAND)))
    else:
        rows.append(("Command", "none: it ran already"))
    if subject.place:
        rows.append(("Address", code(subject.place)))
    rows.append(("Stopped by", text(subject.how)))
    rows.append(("Its end", text(ending(aftermath))))
    if aftermath.looks:
        rows.append(("Its port", _port(result)))
    if aftermath.left:
        left = "".join(f"<li>{text(each)}</li>" for each in aftermath.left[:20])
        rows.append(("Left behind", f"<ul>{left}</ul>"))
    rows.append(("Exit code", f"{int(result.exit_code)} (of the drill)"))
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<section aria-label="What was drilled"><dl class="facts">{pairs}</dl></section>'


def _port(result: Result) -> str:
    listening_s = result.aftermath.listening_s
    if listening_s is None:
        return "still listened on at the end of the drill"
    if listening_s <= 0:
        return "nobody listened any more when the stop came"
    return f"listened on for {length(listening_s)} after the stop"


# -- why


def why(result: Result) -> str:
    """The reasons of the judge, and the findings behind them."""
    reasons, findings = result.judgement.reasons, result.findings
    if not reasons and not findings:
        return ""
    said = ""
    if reasons:
        said += _list(reasons[:_FIRST_REASONS])
        if rest := reasons[_FIRST_REASONS:_MOST_REASONS]:
            left = len(reasons) - _FIRST_REASONS
            said += f"<details><summary>{left:,} more</summary>{_list(rest)}</details>"
    said += "".join(_finding(finding) for finding in findings)
    title = "Why, and what to do" if findings else "Why"
    return f'<section aria-labelledby="why"><h2 id="why">{title}</h2>{said}</section>'


def _list(reasons: Sequence[str]) -> str:
    lines = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    return f'<ul class="reasons">{lines}</ul>'


def _finding(finding: Finding) -> str:
    sure = "" if finding.confidence is Confidence.CERTAIN else f", {finding.confidence}"
    lines = finding.evidence[:_MOST_EVIDENCE]
    evidence = "".join(f"<li>{text(line, 500)}</li>" for line in lines)
    if more := len(finding.evidence) - len(lines):
        evidence += f"<li>and {more} more</li>"
    seen = f'<p class="mini">Seen</p><ul class="seen">{evidence}</ul>' if evidence else ""
    todo = (
        f'<p class="mini">To do</p><p class="todo">{text(finding.advice)}</p>'
        if finding.advice
        else ""
    )
    return (
        f'<article class="finding is-{finding.severity}"><h3>{text(finding.title)}</h3>'
        f'<p class="tag">{finding.severity}{sure} <code>{text(finding.code)}</code></p>'
        f"{seen}{todo}</article>"
    )


# -- the table


def table(result: Result) -> str:
    """What became of the attempts, by state."""
    rows = counts.rows(result)
    untested = counts.untested(result)
    if not rows:
        return ""
    # A column that would be empty says nothing; these two are asked for in any case.
    fates = [
        fate
        for fate in Fate
        if fate in {Fate.ACKNOWLEDGED, Fate.LOST} or any(row.fates[fate] for row in rows)
    ]
    ledger = any(row.ledger for row in rows)
    body = "".join(_row(row, fates, ledger=ledger) for row in rows)
    span = len(fates) + 1 + ledger
    for kind, reason in untested:
        body += (
            f'<tr role="row" class="untested"><th role="rowheader" scope="row">{kind}</th>'
            f'<td role="cell" colspan="{span}">{reason}, so not tested</td></tr>'
        )
    names = ["State", "Attempts", *(f"{fate}".capitalize() for fate in fates)]
    head = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in names)
    if ledger:
        head += '<th role="columnheader" scope="col" class="w">The server&rsquo;s ledger</th>'
    caption = "What became of every attempt, by the state it was in when the stop came"
    return (
        '<section aria-labelledby="counts"><h2 id="counts">What became of the work</h2>'
        f'<table role="table" class="counts"><caption>{caption}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>{_silence(rows)}{_words()}</section>'
    )


def _row(row: Row, fates: Sequence[Fate], *, ledger: bool) -> str:
    name = "attempt" if row.total == 1 else "attempts"
    cells = f'<td role="cell" class="n" data-name="{name}">{row.total:,}</td>'
    for fate in fates:
        count = row.fates[fate]
        tone = " zero" if not count else " bad" if fate in BAD else ""
        shown = f"{count:,}" if count else "\N{MIDDLE DOT}"
        hidden = f'<span class="sr">{count}</span>' if not count else ""
        dot = f'<span aria-hidden="true">{shown}</span>' if not count else shown
        cells += f'<td role="cell" class="n{tone}" data-name="{fate}">{dot}{hidden}</td>'
    if ledger:
        zero = "" if row.ledger else " zero"
        cells += f'<td role="cell" class="w{zero}" data-name="ledger">{row.ledger}</td>'
    fault = ' class="fault"' if row.at_fault else ""
    return f'<tr role="row"{fault}><th role="rowheader" scope="row">{row.kind}</th>{cells}</tr>'


def _silence(rows: Iterable[Row]) -> str:
    """That no ledger tells what was executed."""
    if not (unknown := sum(row.unknown for row in rows)):
        return ""
    return (
        '<p class="note">The server keeps no ledger that tells what it executed: whether '
        f"{many(unknown, 'unanswered request')} took effect is not known.</p>"
    )


def _words() -> str:
    words = (
        ("acknowledged", "a whole answer came"),
        ("refused cleanly", "no connection, or a whole 503: safe to try elsewhere"),
        ("let go", "closed in order before anything was sent"),
        ("refused badly", "accepted, then reset before anything was sent"),
        ("lost", "at least one byte was sent, and no whole answer came"),
        ("hung", "no end within the time that the drill waits"),
    )
    pairs = "".join(f"<div><dt>{word}</dt><dd>{means}</dd></div>" for word, means in words)
    return (
        '<details class="words"><summary>What the words mean</summary>'
        f'<dl class="facts">{pairs}</dl></details>'
    )


# -- the rest


def untested(result: Result) -> str:
    """What was not tested, in so many words: it is not passed."""
    said = ""
    if kinds := result.judgement.not_reached:
        said += (
            "<p>These states were not proved to be reached when the stop came. "
            "That is no pass: nothing is known of them.</p>"
            f"{_bullets(kinds)}"
        )
    if kinds := result.not_offered:
        said += f"<p>These the server does not offer, so they were not tried.</p>{_bullets(kinds)}"
    if not said:
        return ""
    return (
        '<section aria-labelledby="untested"><h2 id="untested">What was not tested</h2>'
        f"{said}</section>"
    )


def _bullets(kinds: Iterable[Kind]) -> str:
    return f'<ul class="reasons">{"".join(f"<li>{kind}</li>" for kind in kinds)}</ul>'


def moments(result: Result, flagged: Sequence[Flag]) -> str:
    """What happened, in order, with the numbers of the flags."""
    if not result.moments:
        return ""
    numbers = {id(flag.moment): flag.number for flag in flagged}
    rows = ""
    for moment in result.moments[:100]:
        number = numbers.get(id(moment))
        flag = f'<b class="no">{number}</b>' if number else ""
        at = "stop" if moment.code == "stop-sent" else escape(when(moment.at_s))
        rows += f'<li><span class="at">{at}</span>{flag}<span>{text(moment.what, 400)}</span></li>'
    level = "h3" if flagged or was_stopped(result) else "h2"
    return f'<{level}>What happened</{level}><ol class="moments">{rows}</ol>'


def output(result: Result) -> str:
    """The last lines that the server printed."""
    lines = result.aftermath.output
    if not lines:
        return ""
    shown = "\n".join(text(line, 400) for line in lines[-MOST_LINES:])
    rest = len(lines) - MOST_LINES
    cut = f'<p class="note">The last {MOST_LINES} of {len(lines):,} lines.</p>' if rest > 0 else ""
    return (
        '<section aria-labelledby="output"><h2 id="output">What the server printed last</h2>'
        f'{cut}<pre tabindex="0" aria-labelledby="output" dir="ltr">{shown}</pre></section>'
    )


def repeat(result: Result) -> str:
    """The command that makes the same drill again."""
    if not result.subject.again:
        return ""
    command = clean(result.subject.again, _LONGEST_COMMAND)
    return (
        '<section aria-labelledby="again"><h2 id="again">To repeat it</h2>'
        f'<div class="again"><pre tabindex="0" id="command" aria-labelledby="again" dir="ltr">'
        f"{escape(command)}</pre></div></section>"
    )


def footer(result: Result, version: str) -> str:
    """How far to trust the times, and what made the page."""
    since = "the moment of the stop" if was_stopped(result) else "the start of the drill"
    exact = length(result.clock_error_s) if result.clock_error_s else ""
    clock = f"Times may be off by {exact}. " if exact else ""
    return (
        f"<footer><p>{clock}Seconds are counted from {since}. "
        f"Made by lastcall {escape(version)}.</p></footer>"
    )
