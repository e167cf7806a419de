"""The fixture `drill` inside of a test suite of one's own."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from helpers import PATIENCE_S
from lastcall.errors import UsageError
from lastcall.testing.drilling import Drill

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import asyncio, sys
import pytest
from lastcall.errors import UsageError
from lastcall.testing import drill
from lastcall.drill.history import Kind
from lastcall.drill.scenario import Newcomers, Request, Scenario, State

FEW = Scenario(
    (State(Kind.IN_HANDLER, Request("/slow?s=0.4"), 2), State(Kind.HALF_HEADERS, Request("/fast"))),
    Newcomers(Request("/fast")),
)


def server(name):
    return [sys.executable, "-m", f"lastcall.drill.probe.{name}", "{port}"]


def test_keeps(drill):
    result = drill(server("careful"), scenario=FEW)
    assert result.keeps_its_word
    assert result.lost == 0
    assert result.html.stat().st_size > 1000


def test_loses(drill):
    result = drill(server("careless"), scenario=FEW)
    assert result.keeps_its_word


def test_never_ready(drill):
    result = drill([sys.executable, "-c", "print('no server')"], scenario=FEW)
    assert not result.keeps_its_word
    assert "inconclusive" in repr(result)


def test_in_a_loop(drill):
    async def inside():
        with pytest.raises(UsageError, match="inside of an event loop"):
            drill(server("careful"))
        return await asyncio.to_thread(drill, server("careful"), scenario=FEW)

    assert asyncio.run(inside()).keeps_its_word
"""


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    """A server that keeps its word passes; a losing one fails and the reasons are shown.

    Warnings are errors there: nothing may be left open or unawaited.
    """
    (tmp_path / "test_shop.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", str(tmp_path)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "FAILED test_shop.py::test_loses" in done.stdout
    shown = done.stdout.partition("test_loses")[2]
    assert "drill 1" in shown
    assert "loses work" in shown
    assert "SIGTERM" in shown
    assert "report: " in shown


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("", {}),
        ([], {}),
        ("server 'not closed", {}),
        (["server"], {"path": "report"}),
        (["server"], {"slow_path": "/a b"}),
        (["server"], {"upload_path": "/a\r\nX: y"}),
        (["server"], {"how": "nonsense"}),
        (["server"], {"how": "rolling:"}),
        (["server"], {"ready": "nonsense"}),
    ],
)
def test_words_that_make_no_sense(
    tmp_path: Path, command: str | list[str], options: dict[str, str]
) -> None:
    """They are refused before anything is started, with advice."""
    with pytest.raises(UsageError) as caught:
        Drill(tmp_path)(command, **options)  # type: ignore[arg-type]
    assert caught.value.advice
    assert list(tmp_path.iterdir()) == []


def test_inside_of_an_event_loop(tmp_path: Path) -> None:
    """As an asyncio plugin would run it: a clear error, and nothing left unawaited."""

    async def inside() -> None:
        Drill(tmp_path)(["server"])

    with pytest.raises(UsageError, match="event loop") as caught:
        asyncio.run(inside())
    assert "to_thread" in caught.value.advice


def test_it_says_how_to_repeat_it(tmp_path: Path) -> None:
    """The command line in its report names what was named, quoted for a shell."""
    told: list[tuple[str, str]] = []
    tell = Drill(tmp_path, lambda *words: told.append(words))
    result = tell([sys.executable, "-c", "pass"], slow_path="/a?b=1&c", count=3, how="INT")
    again = shlex.split(result.result.subject.again)
    assert again[:3] == ["lastcall", "drill", "http"]
    assert again[again.index("--slow-path") + 1] == "/a?b=1&c"
    assert again[again.index("--how") + 1] == "INT"
    assert again[again.index("--") + 1 :] == [sys.executable, "-c", "pass"]
    assert [title for title, _ in told] == ["drill 1"]
    assert not result.keeps_its_word
