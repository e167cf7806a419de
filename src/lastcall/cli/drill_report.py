"""A drill on the terminal: its steps as they happen, then a timeline, counts, causes, verdict."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lastcall.cli.drill_bars import Bars
from lastcall.cli.show import Palette, finding_lines, harmless, table_lines, width_of, wrap
from lastcall.cli.views import write
from lastcall.drill.judge import Fate, Verdict
from lastcall.drill.report import counts
from lastcall.drill.report.timeline import timeline
from lastcall.drill.report.words import MINUS, length, sentence, stopped_how, was_stopped

if TYPE_CHECKING:
    from typing import IO

    from lastcall.drill.report.counts import Row
    from lastcall.drill.result import Moment, Result
    from lastcall.drill.sweep import Sweep, Try

_STYLES = {Verdict.KEEPS: "green", Verdict.LOSES: "red", Verdict.INCONCLUSIVE: "yellow"}
_WIDTH = 80
_NARROW = 66
_NAME, _COUNT, _OUTCOME = 18, 7, 22
_MOST_LEFT = 8
_MOST_STRETCHES = 20


def lines(
    result: Result, width: int | None, palette: Palette, *, fancy: bool | None = None
) -> list[str]:
    """A whole drill; its last line is the verdict.

    Args:
        result: of the drill.
        width: columns to wrap at; None wraps nothing, and draws for 80.
        palette: colours, or none.
        fancy: whether more than ASCII can be shown; None: what standard output can.
    """
    fancy = _can_be_fancy() if fancy is None else fancy
    said = [*_head(result, width, palette), ""]
    if result.judgement.judged and was_stopped(result):
        said += [*_bars(result, width or _WIDTH, palette, fancy=fancy), ""]
        said += _ledger(result, width, palette)
    elif untested := counts.untested(result):
        said += [*table_lines([(k.key, why) for k, why in untested], width, palette), ""]
    for finding in result.findings:
        said += [*finding_lines(finding, width, palette), ""]
    if not result.findings:
        said += _reasons(result, width, palette)
    said += _verdict(result, width, palette)
    return said if fancy else [_ascii(line) for line in said]


def _can_be_fancy() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return encoding.lower().replace("-", "") == "utf8"


def _ascii(line: str) -> str:
    return line.replace(MINUS, "-").encode("ascii", "replace").decode()


def _head(result: Result, width: int | None, palette: Palette) -> list[str]:
    """What was drilled, and how it ended."""
    subject, aftermath = result.subject, result.aftermath
    name = harmless(subject.software or "the server")
    command = harmless(" ".join(subject.command))[:200]
    first = wrap(f"{name}  {command}".rstrip(), width)
    said = [palette.paint(line, "bold") for line in first]
    facts = harmless(stopped_how(result))
    if aftermath.looks and aftermath.listening_s is None:
        facts += "; its port is still listened on"
    said += [palette.paint(line, "dim") for line in wrap(facts, width)]
    for each in aftermath.left[:_MOST_LEFT]:
        said += [palette.paint(line, "yellow") for line in wrap(f"left behind: {each}", width)]
    return said


# -- the timeline


def _bars(result: Result, width: int, palette: Palette, *, fancy: bool) -> list[str]:
    """A line a state: its name, how many, when they ended, and how."""
    drawn = timeline(result, sys.maxsize)
    narrow = width < _NARROW
    room = width - _NAME - (0 if narrow else _COUNT + 2 + _OUTCOME)
    bars = Bars(drawn, room, palette, fancy=fancy)
    said = []
    for row in counts.rows(result):
        bar = bars.of(row.kind)
        name = palette.paint(f"{row.kind.key:{_NAME}}", *(("bold",) if row.at_fault else ()))
        told = _outcome(row, palette)
        if narrow:
            said.append(f"{name}{bar}".rstrip())
            said += [f"{'':{_NAME}}{each}" for each in told]
            continue
        said.append(f"{name}{row.total:{_COUNT - 1},} {bar}  {told[0]}")
        said += [f"{'':{_NAME + _COUNT + room + 2}}{each}" for each in told[1:]]
    indent = " " * (_NAME if narrow else _NAME + _COUNT)
    said.append(palette.paint(f"{indent}{bars.axis()}".rstrip(), "dim"))
    for kind, why in counts.untested(result):
        rest = "" if narrow else ", not tested"
        said.append(palette.paint(f"{kind.key:{_NAME}}{indent[_NAME:]}{why}{rest}", "dim"))
    said += [palette.paint(line, "dim") for line in wrap(bars.legend(), width)]
    return said


def _outcome(row: Row, palette: Palette) -> list[str]:
    """The fates of a state, the most frequent first, as many on a line as there is room for."""
    told: list[tuple[str, str]] = []
    for fate, count in row.fates.most_common():
        style = _STYLE_OF_FATE[fate]
        text = f"{count:,} {fate}"
        if told and len(told[-1][0]) + 2 + len(text) <= _OUTCOME:
            plain, painted = told[-1]
            told[-1] = (f"{plain}, {text}", f"{painted}, {palette.paint(text, style)}")
        else:
            told.append((text, palette.paint(text, style)))
    return [painted for _, painted in told]


_STYLE_OF_FATE = {
    Fate.ACKNOWLEDGED: "green",
    Fate.REFUSED_CLEANLY: "blue",
    Fate.LET_GO: "blue",
    Fate.UNPROVEN: "yellow",
    Fate.REFUSED_BADLY: "red",
    Fate.LOST: "red",
    Fate.HUNG: "red",
}


# -- the rest


def _ledger(result: Result, width: int | None, palette: Palette) -> list[str]:
    """What the server had done for what it did not answer."""
    rows = [(row.kind.key, row.ledger) for row in counts.rows(result) if row.ledger]
    if not rows:
        return []
    return ["What the server's ledger says of them:", *table_lines(rows, width, palette), ""]


def _reasons(result: Result, width: int | None, palette: Palette) -> list[str]:
    """The judge's reasons, where no cause was found that says more."""
    said = [
        f"  {line}" for reason in result.judgement.reasons for line in wrap(reason, _less(width))
    ]
    return [*(palette.paint(line, "dim") for line in said), ""] if said else []


def _less(width: int | None) -> int | None:
    return None if width is None else width - 2


def _verdict(result: Result, width: int | None, palette: Palette) -> list[str]:
    """How sure the times are, and in the last line the verdict."""
    verdict = result.judgement.verdict
    said = []
    if result.clock_error_s >= _NOTABLE_S:
        off = f"times may be off by {length(result.clock_error_s)}"
        said += [palette.paint(line, "dim") for line in wrap(off, width)]
    word = palette.paint(f"{verdict}", _STYLES[verdict], "bold")
    return [*said, f"{word}: {sentence(result)}"]


_NOTABLE_S = 0.005


# -- while it runs


class Live:
    """The steps of a drill as they happen: a line each; what is under way stays in its line.

    Args:
        stream: where to.
        quiet: whether to show nothing at all.
    """

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._palette = Palette.of(stream)
        self._in_place = stream.isatty() and self._palette.on
        self._width = width_of(stream)
        self._stopped = False
        self._under_way = ""

    def moment(self, moment: Moment) -> None:
        """Something happened; times before the stop count from the start of the drill."""
        style: tuple[str, ...] = ()
        if moment.code == "draining":
            if self._in_place:
                self.under_way(f"draining: {moment.what}")
            return
        if moment.code == "stop-sent":
            self._stopped = True
            at, style = f"{'stop':>9}", ("bold",)
        elif self._stopped:
            at = f"{moment.at_s:+7.2f} s"
        else:
            at, style = f"{moment.at_s:7.2f} s", ("dim",)
        self._line(f"{self._palette.paint(at, 'dim')}  ", moment.what, style)

    def stage(self, text: str) -> None:
        """A stage is reached, told without a time."""
        self._line(f"{'':9}  ", text, ())

    def under_way(self, text: str) -> None:
        """What goes on just now, such as `draining: 20 in flight`.

        On a terminal it replaces what was under way before. Elsewhere only the first of those that
        begin alike up to their colon is a line.
        """
        if self._quiet:
            return
        if not self._in_place:
            begun = text.partition(":")[0]
            if begun != self._under_way:
                self.stage(text)
            self._under_way = begun
            return
        self._under_way = text
        shown = harmless(f"{'':11}{text}")[: self._width]
        self._raw(f"\r\x1b[K{self._palette.paint(shown, 'cyan')}")

    def done(self) -> None:
        """It is over: leave nothing half written."""
        self._clear()
        if not self._quiet and self._stopped:
            write("", self._stream)

    def _line(self, head: str, text: str, style: tuple[str, ...]) -> None:
        if self._quiet:
            return
        self._clear()
        room = None if self._width is None else self._width - _MARGIN
        for i, line in enumerate(wrap(text, room)):
            start = f"{'':{_MARGIN}}" if i else head
            write(f"{start}{self._palette.paint(line, *style)}", self._stream)

    def _clear(self) -> None:
        if self._under_way and self._in_place and not self._quiet:
            self._raw("\r\x1b[K")
        self._under_way = ""

    def _raw(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # whoever read it is gone; the drill goes on
            self._in_place = False


_MARGIN = 11


# -- sweeps


def try_line(one: Try, palette: Palette) -> str:
    """One stop of a sweep, in a line."""
    result = one.drilled.result
    word = palette.paint(f"{one.verdict}", _STYLES[one.verdict])
    mark = "closer" if one.closer else ""
    lost = f"{result.lost:,} lost" if one.loses else ""
    return f"{one.moment_s:9.4f} s  {mark:6}  {word}{': ' if lost else ''}{lost}"


def sweep_lines(swept: Sweep, width: int | None, palette: Palette) -> list[str]:
    """What a sweep comes to; the last line is the verdict."""
    worst = swept.worst
    said = [*lines(worst.drilled.result, width, palette)[:-1]]
    said.insert(0, f"The drill at {worst.moment_s:.4f} s, the one to look at:")
    said += [
        f"lost work when stopped {_stretch(a, b)} after the requests were begun"
        for a, b in swept.losing[:_MOST_STRETCHES]
    ]
    fair, rate = swept.fair, swept.rate
    verdict = _SWEPT[swept.exit_code.name]
    word = palette.paint(f"{verdict}", _STYLES[verdict], "bold")
    if rate is None:
        return [*said, f"{word}: none of {len(swept.tries)} stops proved anything"]
    low, high = swept.interval
    losing = sum(one.loses for one in fair)
    sure = f"{rate:.0%}; 95 % interval {low:.0%} to {high:.0%}; seed {swept.seed}"
    return [*said, f"{word}: {losing} of {len(fair)} stops lost work ({sure})"]


_SWEPT = {
    "LOSES_WORK": Verdict.LOSES,
    "ORDERLY": Verdict.KEEPS,
    "INCONCLUSIVE": Verdict.INCONCLUSIVE,
}


def _stretch(from_s: float, to_s: float) -> str:
    return length(from_s) if from_s == to_s else f"{length(from_s)} to {length(to_s)}"
