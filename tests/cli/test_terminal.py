"""What a person at a terminal sees and can do: the live view, Ctrl+C, the choice of a target."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import TYPE_CHECKING

from cli.commands import COMMAND, environment, lastcall
from cli.terminal import terminal
from helpers import PROGRAMS, python, victim

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_RICH = (
    sys.executable,
    "-c",
    (
        "import sys; sys.modules['rich'] = None\n"
        "from lastcall.cli.main import run; sys.exit(run(sys.argv[1:]))"
    ),
)


def person(state: Path) -> dict[str, str]:
    """The environment of a person at a terminal with colours."""
    env = environment(state, TERM="xterm-256color")
    del env["NO_COLOR"]
    return env


def test_the_live_view_shows_the_grace_running_out(tmp_path: Path) -> None:
    """A bar below, the steps above it in order, and the verdict at the end."""
    with (
        victim(*python("worker.py", "exit", "0", "0.6")) as child,
        terminal([*COMMAND, "stop", f"pid:{child.pid}"], person(tmp_path)) as screen,
    ):
        assert screen.wait() == 0
    assert "━━━" in screen.text
    steps = [screen.text.index(word) for word in ("begin", "asked", "ended", "orderly: pid:")]
    assert steps == sorted(steps)
    assert "\x1b[" in screen.raw


def test_without_the_extra_it_shows_plain_lines(tmp_path: Path) -> None:
    """No `rich`: the same steps and the same verdict, without the bar."""
    with (
        victim(*python("worker.py", "exit", "0", "0.3")) as child,
        terminal([*WITHOUT_RICH, "stop", f"pid:{child.pid}"], person(tmp_path)) as screen,
    ):
        assert screen.wait() == 0
    assert "━" not in screen.text
    assert "orderly: pid:" in screen.text


def test_ctrl_c_leaves_the_target_alone(tmp_path: Path) -> None:
    """The first Ctrl+C stops watching and says how to come back; coming back ends it properly."""
    with victim(*python("worker.py", "ignore")) as child:
        with terminal([*COMMAND, "stop", f"pid:{child.pid}"], person(tmp_path)) as screen:
            screen.until("asked     SIGTERM")
            screen.type("\x03")
            assert screen.wait() == 130
            assert "lastcall resume 1" in screen.text
        assert child.child.poll() is None
        assert child.line().startswith("heard SIGTERM")
        said = lastcall(tmp_path, "resume", "1", "--grace", "0.2", "--force")
        assert (said.code, child.wait()) == (11, -9)
        assert child.line() == "", "it was asked only once"


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    """Even when lastcall cannot get on with leaving: its journal is locked by another program."""
    with victim(*python("worker.py", "ignore")) as child:
        with terminal([*COMMAND, "stop", f"pid:{child.pid}"], person(tmp_path)) as screen:
            screen.until("asked     SIGTERM")
            journal = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
            journal.execute("BEGIN IMMEDIATE")
            screen.type("\x03")
            screen.until("not watched any more")
            screen.type("\x03")
            assert screen.wait() == 130
            journal.close()
        assert "lastcall resume" not in screen.text, "it was still waiting for the journal"
        assert child.child.poll() is None


def test_sigterm_to_lastcall_is_like_ctrl_c(tmp_path: Path) -> None:
    """A system that stops lastcall does not stop the target; the stop can be resumed."""
    with victim(*python("worker.py", "ignore")) as child:
        with terminal([*COMMAND, "stop", f"pid:{child.pid}"], person(tmp_path)) as screen:
            screen.until("asked     SIGTERM")
            os.kill(screen.pid, signal.SIGTERM)
            assert screen.wait() == 130
        assert child.child.poll() is None
        [row] = lastcall(tmp_path, "log", "--open", "--json").messages
        assert (row["stop"], row["owner"]) == (1, None)


def test_a_person_chooses_among_several(tmp_path: Path) -> None:
    """An ambiguous name is put to the person; a script gets a refusal and the list."""
    link = tmp_path / "twin-worker"
    link.symlink_to(sys.executable)
    command = (str(link), "-u", str(PROGRAMS / "worker.py"), "exit", "0")
    with victim(*command) as one, victim(*command) as two:
        said = lastcall(tmp_path, "stop", "name:twin-worker")
        assert (said.code, said.err.count("pid:")) == (5, 2), said
        with terminal([*COMMAND, "stop", "name:twin-worker"], person(tmp_path)) as screen:
            screen.until("Which one?")
            screen.type("2\r")
            assert screen.wait() == 0
        first, second = sorted((one, two), key=lambda v: v.pid)
        assert (first.child.poll(), second.wait()) == (None, 0)
