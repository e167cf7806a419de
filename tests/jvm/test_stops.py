"""What `lastcall stop` reports for each way in which a JVM ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import PATIENCE_S, Victim
from jvms import DEADLOCKS, Program

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stop:
    """A `lastcall stop --json` of one JVM, with a journal of its own."""

    def __init__(self, jvm: Victim, journal: Path, *options: str) -> None:
        lastcall = str(Path(sys.executable).parent / "lastcall")
        self.child = subprocess.Popen(
            (lastcall, "stop", f"pid:{jvm.pid}", "--json", *options),
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LASTCALL_STATE_DIR": str(journal)},
        )

    def events(self) -> Iterator[dict[str, Any]]:
        """What it prints, one object a line."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            yield json.loads(line)

    def until(self, event: str) -> dict[str, Any]:
        """The first such event."""
        return next(found for found in self.events() if found["event"] == event)

    def result(self) -> tuple[str, str, int]:
        """The ending, its details and the exit code."""
        last = self.until("result")
        assert self.child.wait(PATIENCE_S) == last["exit_code"]
        return last["ending"], last["detail"], last["exit_code"]


@contextlib.contextmanager
def stop(jvm: Victim, journal: Path, *options: str) -> Iterator[Stop]:
    """Run it, and never leave it behind."""
    made = Stop(jvm, journal, *options)
    try:
        yield made
    finally:
        made.child.kill()
        made.child.wait()
        if made.child.stdout is not None:
            made.child.stdout.close()


ASIDE = ", not the JVM's own after a signal: exit or halt was called by the program"
FAILED = "exit status 7: the program says that it failed"


@pytest.mark.parametrize(
    ("mode", "options", "ending", "detail", "code"),
    [
        (["wait"], [], "orderly", "exit status 143 (128 + SIGTERM)", 0),
        (["wait"], ["--signal", "INT"], "orderly", "exit status 130 (128 + SIGINT)", 0),
        (["wait"], ["--signal", "HUP"], "orderly", "exit status 129 (128 + SIGHUP)", 0),
        (["two"], [], "orderly", "exit status 143 (128 + SIGTERM)", 0),
        (["no-hooks"], [], "orderly", "exit status 143 (128 + SIGTERM)", 0),
        (["own-handler", "0"], [], "orderly", f"exit status 0{ASIDE}", 0),
        (["own-handler", "7"], [], "crashed", f"{FAILED}{ASIDE}", 13),
        (["halt-in-hook", "0"], [], "orderly", f"exit status 0{ASIDE}", 0),
        (["halt-in-hook", "7"], [], "crashed", f"{FAILED}{ASIDE}", 13),
        # Nobody outside can tell this from hooks that ran to their end.
        (["halt-in-hook", "143"], [], "orderly", "exit status 143 (128 + SIGTERM)", 0),
        (
            ["hang"],
            ["--grace", "1s", "--force", "--reason", "a test"],
            "forced",
            "killed by SIGKILL",
            11,
        ),
    ],
)
def test_what_a_stop_reports(
    program: Program,
    tmp_path: Path,
    mode: list[str],
    options: list[str],
    ending: str,
    detail: str,
    code: int,
) -> None:
    """Each way in which a JVM ends of a stop has its ending, its words and its exit code."""
    with program.start(*mode) as jvm, stop(jvm, tmp_path, *options) as stopping:
        assert stopping.result() == (ending, detail, code)


def test_a_stop_of_xrs_is_abrupt(program: Program, tmp_path: Path) -> None:
    """With -Xrs the signal itself ends it: abrupt, never orderly."""
    with (
        program.start("wait", options=("-Xrs",)) as jvm,
        stop(jvm, tmp_path) as stopping,
    ):
        assert stopping.result() == ("abrupt", "died of SIGTERM: it had no handler for it", 10)


def test_a_stop_killed_by_somebody_else_is_told(program: Program, tmp_path: Path) -> None:
    """A SIGKILL that did not come from lastcall is reported as such."""
    with program.start("hang") as jvm, stop(jvm, tmp_path) as stopping:
        stopping.until("asked")
        jvm.child.kill()
        assert stopping.result() == ("killed from outside", "killed by SIGKILL", 12)


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        (["exit", "7"], 7),
        (["threads"], 0),
        (["throw"], 1),
        (["halt", "0"], 0),
        (["wait"], -signal.SIGKILL),
    ],
)
def test_a_jvm_that_ended_before_is_told(
    program: Program, tmp_path: Path, mode: list[str], status: int
) -> None:
    """Whatever ended before the ask, in whichever way, is no success of the stop."""
    with program.start(*mode) as jvm:
        if mode == ["wait"]:
            jvm.child.kill()
        assert jvm.wait() == status
        with stop(jvm, tmp_path) as stopping:
            assert stopping.until("result")["exit_code"] == 3


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        ("deadlock", {"jvm-deadlock": DEADLOCKS["deadlock"], "jvm-hook-running": ()}),
        ("hang", {"jvm-hook-running": ("hanging-hook",)}),
        ("ignoring-handler", {"jvm-user-threads": ("order-worker",)}),
    ],
)
def test_a_stop_that_does_not_end_names_the_threads(
    program: Program, tmp_path: Path, mode: str, named: dict[str, tuple[str, ...]]
) -> None:
    """Left alone at the deadline it is still running, and the findings name who is in the way."""
    with program.start(mode) as jvm, stop(jvm, tmp_path, "--grace", "2s") as stopping:
        finished = stopping.until("finished")["data"]
        assert finished["ending"] == "still running"
        found = {finding["code"]: finding for finding in finished["findings"]}
        for code, names in named.items():
            assert all(f'"{name}"' in found[code]["title"] for name in names)
        assert stopping.result()[2] == 20
        assert jvm.child.poll() is None
