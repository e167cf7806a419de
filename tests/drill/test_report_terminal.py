"""What a terminal shows of a drill: while it runs, and after."""

from __future__ import annotations

import io
import re
import sys

import pytest

from cli.terminal import terminal
from drill import results
from lastcall.cli.drill_report import Live, lines, sweep_lines, try_line
from lastcall.cli.show import Palette
from lastcall.drill.experiment import Drilled
from lastcall.drill.result import Moment, Result
from lastcall.drill.sweep import Sweep, Try

PLAIN = Palette()
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LIVE = """
import sys
from lastcall.cli.drill_report import Live
from lastcall.drill.result import Moment
live = Live(sys.stdout)
live.moment(Moment(0.41, "ready", "ready"))
live.moment(Moment(0.0, "SIGTERM sent to pid 42", "stop-sent"))
live.under_way("draining: 20 in flight")
live.under_way("draining: 3 in flight")
live.moment(Moment(2.5, "the server ended", "main-ended"))
live.done()
"""


def shown(result: Result, width: int | None = 80) -> list[str]:
    """Its lines without colours, for a terminal that can show everything."""
    return lines(result, width, PLAIN, fancy=True)


def test_a_loss_is_seen_at_a_glance() -> None:
    """A bar a state, the crosses behind the stop, the verdict in the last line."""
    said = shown(results.losing())
    handler = next(line for line in said if line.startswith("in-handler"))
    assert re.fullmatch(r"in-handler +20 +─+┃✕ +20 lost", handler)
    newcomer = next(line for line in said if line.startswith("newcomer"))
    assert re.search(r"●+┃○+", newcomer)
    assert any("3 executed but unanswered, 2 half executed" in line for line in said)
    assert any(line.startswith("tls-half") and "not reached" in line for line in said)
    assert said[-1] == (
        "loses work: 20 of 20 requests in the handler were lost, and 11 more in 6 other states."
    )


def test_all_stops_stand_in_one_column() -> None:
    """Whatever the state, the stop is below the stop."""
    bars = [line for line in shown(results.losing()) if re.match(r"[a-z0-9-]+ .*┃", line)]
    assert len(bars) == 9
    assert len({line.index("┃") for line in bars}) == 1


@pytest.mark.parametrize("made", results.ALL)
@pytest.mark.parametrize("width", [40, 66, 80, 100])
def test_no_line_is_wider_than_the_terminal(made: object, width: int) -> None:
    """Only the verdict, one line for scripts, and words too long to be cut."""
    said = shown(made(), width)  # type: ignore[operator]
    wide = [line for line in said[:-1] if len(line) > width and " " in line.strip()]
    assert not [line for line in wide if "script" not in line]


def test_ascii_when_nothing_else_can_be_shown() -> None:
    """The same picture with other signs."""
    said = lines(results.losing(), 80, PLAIN, fancy=False)
    assert all(line.isascii() for line in said)
    assert any(re.match(r"in-handler +20 +-+\|x +20 lost", line) for line in said)


def test_the_encoding_of_the_output_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latin-1 cannot show the bars, UTF-8 can."""
    for encoding, plain in (("latin-1", True), ("utf-8", False)):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        said = "\n".join(lines(results.keeping(), 80, PLAIN))
        assert said.isascii() is plain


@pytest.mark.parametrize("made", [results.losing, results.keeping, results.huge])
def test_colours_change_nothing_else(made: object) -> None:
    """Without its colours, the coloured text is the plain one."""
    result = made()  # type: ignore[operator]
    painted = lines(result, 80, Palette(on=True), fancy=True)
    assert [COLOURS.sub("", line).rstrip() for line in painted] == shown(result)
    assert "\x1b[" in painted[-1]


def test_strangers_cannot_steer_the_terminal() -> None:
    """No control character comes through."""
    said = lines(results.hostile(), 80, PLAIN, fancy=True)
    assert all(line.isprintable() for line in said)


def test_a_hang_is_seen() -> None:
    """The mark of what has no end, and what is left behind."""
    said = "\n".join(shown(results.huge()))
    assert re.search(r"websocket-idle .*▶", said)
    assert "left behind: pid 43" in said
    assert "its port is still" in said


def test_what_proves_nothing_says_so() -> None:
    """No timeline without a stop."""
    said = shown(results.inconclusive())
    assert not [line for line in said if "┃" in line]
    assert said[-1] == "inconclusive: It proves nothing: the server never got ready."


def test_steps_are_plain_lines_when_piped() -> None:
    """A line each; what is under way is told once, not at every change."""
    stream = io.StringIO()
    live = Live(stream)
    live.moment(Moment(0.41, "ready", "ready"))
    live.stage("38 connections in 12 states")
    live.moment(Moment(0.0, "SIGTERM sent to pid 42", "stop-sent"))
    live.under_way("draining: 20 in flight")
    live.under_way("draining: 3 in flight")
    live.moment(Moment(2.5, "the server ended", "main-ended"))
    live.done()
    assert stream.getvalue().splitlines() == [
        "   0.41 s  ready",
        "           38 connections in 12 states",
        "     stop  SIGTERM sent to pid 42",
        "           draining: 20 in flight",
        "  +2.50 s  the server ended",
        "",
    ]


def test_on_a_terminal_what_is_under_way_is_written_over() -> None:
    """The line is taken back before the next one."""
    env = {"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    with terminal([sys.executable, "-c", LIVE], env) as opened:
        assert opened.wait() == 0
        raw = opened.raw
    assert "draining: 20 in flight" in raw
    assert re.search(r"\r\x1b\[K[^\n]*draining: 3 in flight[^\n]*\r\x1b\[K[^\n]*ended", raw)


def test_quiet_shows_nothing() -> None:
    """Not even an empty line."""
    stream = io.StringIO()
    live = Live(stream, quiet=True)
    live.moment(Moment(0.0, "SIGTERM sent", "stop-sent"))
    live.under_way("draining: 1 in flight")
    live.done()
    assert not stream.getvalue()


def test_a_sweep_in_a_few_lines() -> None:
    """A line a try, the worst drill, the rate with its interval."""
    tries = (
        Try(0.1, Drilled(results.keeping(), ())),
        Try(0.2, Drilled(results.losing(), ()), closer=True),
        Try(0.3, Drilled(results.losing(), ())),
    )
    assert try_line(tries[1], PLAIN) == "   0.2000 s  closer  loses work: 29 lost"
    said = sweep_lines(Sweep(tries, 7), 80, PLAIN)
    assert said[0].startswith("The drill at 0.2000 s")
    assert "lost work when stopped 200 ms to 300 ms after the requests were begun" in said
    assert said[-1].startswith("loses work: 1 of 2 stops lost work (50%; 95 % interval 9% to 91%;")
