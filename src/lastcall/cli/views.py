"""What `stop` and `resume` show while they run: live, as plain lines, as JSON, or nothing."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol

from lastcall.cli.describe import Line, describe, style_of, verdict
from lastcall.cli.main import discard_output
from lastcall.cli.show import Palette, error_lines, finding_lines, harmless, width_of, wrap
from lastcall.model import Finding, Finished, Looked, Progressed, Severity, Started, Warned, Why

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from lastcall.stop.news import News, Result

# With more targets than this, only results and warnings are shown, not every step of each.
CHATTY = 8
# Where the text of a step begins: after its time and its tag.
_MARGIN = 21
# What is found after the end, and so belongs to the result.
AFTERWARDS = {"port-still-held", "children-left"}


class View(Protocol):
    """Shows what happens."""

    def news(self, news: News) -> None:
        """Something happened to one of the stops."""
        ...

    def result(self, result: Result) -> None:
        """One of them is over."""
        ...

    def close(self) -> None:
        """All of them are over."""
        ...


def write(text: str, stream: IO[str] | None = None) -> None:
    """A line to whoever reads. If it cannot be written any more, the stop goes on all the same."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output()
        with contextlib.suppress(OSError):
            sys.stderr.write(f"lastcall: the output cannot be written: {error.strerror}\n")


class PlainView:
    """A line for each step, as it happens; a line for each result.

    Args:
        stream: where to.
        targets: how many there are: it shapes how much is said of each.
    """

    def __init__(self, stream: IO[str], targets: int) -> None:
        self._stream = stream
        self._palette = Palette.of(stream)
        self._width = width_of(stream)
        self._targets = targets
        self._begun: dict[int, float] = {}
        self._took: dict[int, float] = {}
        self._told: dict[int, set[object]] = {}

    def news(self, news: News) -> None:
        """A line for this step, with findings below it where they matter."""
        event = news.event
        if isinstance(event, Finished) and news.stop in self._begun:
            self._took[news.stop] = news.at_s - self._begun[news.stop]
        if isinstance(event, Started):
            self._begun[news.stop] = news.at_s
            if self._targets <= CHATTY:
                self._head(news)
        line = describe(event, self._begun.get(news.stop, news.at_s))
        if line is None or (self._targets > CHATTY and not _grave(line.findings)):
            return
        if isinstance(event, Looked | Progressed):
            line = self._anew(news.stop, line)
            if line is None:
                return
        at = f"{news.at_s - self._begun.get(news.stop, news.at_s):7.2f} s"
        who = f"{news.subject.address}  " if self._targets > 1 else ""
        tag = self._palette.paint(f"{line.tag:9}", line.style) if line.style else f"{line.tag:9}"
        first, *rest = wrap(f"{who}{line.text}", self._width and self._width - _MARGIN)
        self._write(f"{at}  {tag} {first}")
        for each in rest:
            self._write(f"{'':{_MARGIN}}{each}")
        for finding in line.findings:
            for each in finding_lines(finding, self._width and self._width - 11, self._palette):
                self._write(f"{'':11}{each}")

    def _anew(self, stop: int, line: Line) -> Line | None:
        """Only what was not told before; None when that is nothing."""
        told = self._told.setdefault(stop, set())
        if line.findings:
            names = [(finding.code, finding.title) for finding in line.findings]
            fresh = [f for f, name in zip(line.findings, names, strict=True) if name not in told]
            told.update(names)
            return Line(line.tag, line.text, fresh, line.style) if fresh else None
        if line.text in told:
            return None
        told.add(line.text)
        return line

    def _head(self, news: News) -> None:
        number = f"stop {news.stop}: " if news.stop else ""
        title = f"{number}{news.subject.address}  {harmless(news.subject.label)}"
        self._write(self._palette.paint(title, "bold"))

    def result(self, result: Result) -> None:
        """The result in one line; an error goes to stderr."""
        if result.error is not None:
            _complain(result, several=self._targets > 1)
            return
        self._write(result_line(result, self._palette, self._took.get(result.stop)))
        if result.finished is not None and result.finished.why is Why.ENDED:
            for finding in result.finished.findings:
                if finding.code in AFTERWARDS:
                    for each in finding_lines(finding, self._width, self._palette):
                        self._write(f"  {each}")

    def close(self) -> None:
        """Nothing is left to do."""

    def _write(self, text: str) -> None:
        write(text, self._stream)


def result_line(result: Result, palette: Palette, took_s: float | None = None) -> str:
    """The one line that says how it ended.

    Args:
        result: what to tell.
        palette: colours, or none.
        took_s: how long it took; None when we did not see it begin.
    """
    subject = result.subject
    if not result.begun:
        return f"{palette.paint('left', 'yellow')}: {subject.address} was not asked to stop"
    if result.finished is None:
        back = f"lastcall resume {result.stop}" if result.stop else "it was not recorded"
        return f"{palette.paint('left', 'yellow')}: {subject.address} goes on; come back: {back}"
    word, detail = verdict(result.finished)
    style = style_of(result.finished.ending)
    number = f"[stop {result.stop}]" if result.stop else "[not recorded]"
    took = "" if took_s is None else f" after {took_s:.2f} s"
    head = palette.paint(word, style, "bold")
    return f"{head}: {subject.address}: {harmless(detail)}{took}  {palette.paint(number, 'dim')}"


class QuietView:
    """Only errors; the exit code says the rest.

    Args:
        targets: how many there are.
    """

    def __init__(self, targets: int) -> None:
        self._targets = targets

    def news(self, news: News) -> None:
        """Nothing, but for a journal that cannot be used."""
        if isinstance(news.event, Warned) and news.event.finding.code.startswith("journal-"):
            for line in finding_lines(news.event.finding, None, Palette()):
                sys.stderr.write(line + "\n")

    def result(self, result: Result) -> None:
        """Only an error."""
        _complain(result, several=self._targets > 1)

    def close(self) -> None:
        """Nothing is left to do."""


class JsonView:
    """One object a line: see docs/json.md."""

    def news(self, news: News) -> None:
        """The event as it stands in the journal."""
        from lastcall.journal.codec import encode

        kind, data = encode(news.event)
        self._write(
            {
                "event": kind,
                "stop": news.stop,
                "target": str(news.subject.address),
                "label": news.subject.label,
                "at_s": round(news.at_s, 6),
                "data": data,
            }
        )

    def result(self, result: Result) -> None:
        """The result: the last line of a target."""
        from lastcall.journal.codec import plain

        error, finished = result.error, result.finished
        code = error.exit_code if error else finished.exit_code if finished else None
        self._write(
            {
                "event": "result",
                "stop": result.stop,
                "begun": result.begun,
                "target": str(result.subject.address),
                "label": result.subject.label,
                "ending": finished and finished.ending.value,
                "why": finished and finished.why.name.lower().replace("_", "-"),
                "detail": finished.detail if finished else "",
                "error": error
                and {
                    "code": error.code,
                    "what": error.what,
                    "advice": error.advice,
                    "evidence": plain(error.evidence),
                },
                "exit_code": None if code is None else int(code),
            }
        )

    def close(self) -> None:
        """Nothing is left to do."""

    def _write(self, message: dict[str, object]) -> None:
        import json

        write(json.dumps(message, ensure_ascii=False))


def _complain(result: Result, *, several: bool) -> None:
    """Tell an error, if it is one; of several targets it must say which one it means."""
    if result.error is not None:
        of = result.subject.address if several else None
        sys.stderr.write("\n".join(error_lines(result.error, of)) + "\n")


def _grave(findings: Sequence[Finding]) -> bool:
    return any(finding.severity is not Severity.NOTE for finding in findings)
