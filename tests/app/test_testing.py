"""The helpers for tests of programs with a `Lifecycle`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from lastcall import Lifecycle
from lastcall.app.hooks import HookRun, Outcome
from lastcall.errors import UsageError
from lastcall.testing.lifecycle import FakeClock, every_step, inject

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys
from lastcall import Lifecycle
lifecycle = Lifecycle(exit_with="zero")
@lifecycle.on("work")
def save():
    with open(sys.argv[1], "w") as file:
        file.write("half")
        file.flush()
        file.seek(0)
        file.write("whole")
@lifecycle.on("close")
def close():
    print("closed")
with lifecycle:
    print("ready")
    lifecycle.draining.wait()
"""


def test_a_hanging_hook_takes_no_real_time() -> None:
    """A grace period of an hour goes by in a moment, and the hook is cut off at its end."""
    clock = FakeClock()
    lifecycle = Lifecycle(clock=clock, grace_s=3600, exit_with="nothing", signals=())

    @lifecycle.on("close")
    def hang(run: HookRun) -> None:
        clock.sleep(1e6, run.cancelled)

    lifecycle.request_stop("test")
    clock.turn_until(lifecycle.ended, 4000)
    assert lifecycle.report is not None
    assert lifecycle.report.cut == ["hook 'test_a_hanging_hook_takes_no_real_time.<locals>.hang'"]
    assert 3300 <= lifecycle.report.took_s <= 3601


def test_the_delay_of_the_announcement_follows_the_clock() -> None:
    """announce_s is time of the clock that was given."""
    clock = FakeClock()
    lifecycle = Lifecycle(clock=clock, announce_s=10, exit_with="nothing", signals=())
    lifecycle.request_stop("test")
    assert lifecycle.announced.wait(10)
    assert not lifecycle.draining
    clock.turn_until(lifecycle.ended)
    assert lifecycle.report is not None
    assert lifecycle.report.clean
    assert lifecycle.report.took_s >= 10


def test_an_injected_signal_counts_as_one() -> None:
    """An injected SIGTERM begins the stop, and a second one later says now."""
    clock = FakeClock()
    lifecycle = Lifecycle(clock=clock, exit_with="nothing")

    @lifecycle.on("drain")
    def hang(run: HookRun) -> None:
        clock.sleep(1e6, run.cancelled)

    inject(lifecycle, signal.SIGTERM)
    assert lifecycle.draining.wait(10)
    clock.turn(2)
    inject(lifecycle, signal.SIGTERM)
    clock.turn_until(lifecycle.ended)
    assert lifecycle.report is not None
    assert lifecycle.report.signum == signal.SIGTERM
    assert lifecycle.report.hurried == "SIGTERM"
    assert lifecycle.report.took_s < 5
    assert lifecycle.report.phases[1].runs[-1].outcome is Outcome.CUT


def test_a_foreign_signal_cannot_be_injected() -> None:
    """A signal that the lifecycle does not listen to is refused."""
    with pytest.raises(UsageError):
        inject(Lifecycle(exit_with="nothing", signals=()), signal.SIGTERM)


def test_a_clock_that_nobody_waits_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for what will never happen ends with an error."""
    monkeypatch.setattr("lastcall.testing.lifecycle._BUSY_S", 0.5)
    clock = FakeClock()
    lifecycle = Lifecycle(clock=clock, exit_with="nothing", signals=())
    with pytest.raises(TimeoutError, match="'ended' has not happened after 10 s"):
        clock.turn_until(lifecycle.ended, 10)


def test_every_step_kills_at_each_step_and_then_lets_it_end(tmp_path: Path) -> None:
    """SIGKILL comes one step later in each run; the file is whole once `work` is over."""
    program, state = tmp_path / "program.py", tmp_path / "state"
    program.write_text(PROGRAM)
    steps, found = [], []
    for step in every_step([str(program), str(state)]):
        steps.append(step)
        found.append(state.read_text() if state.exists() else "")
        state.unlink(missing_ok=True)
    assert steps[0].what == "stopping"
    assert found[0] == ""
    assert [s.status for s in steps[:-1]] == [-signal.SIGKILL] * (len(steps) - 1)
    assert (steps[-1].status, steps[-1].what) == (0, "")
    assert "closed" in steps[-1].output
    closing = [s.what for s in steps].index("phase close")
    assert set(found[closing:]) == {"whole"}


def test_a_program_that_never_gets_ready_is_told(tmp_path: Path) -> None:
    """A program that ends before its ready line is an error with its last words."""
    program = tmp_path / "program.py"
    program.write_text("print('no such luck')")
    with pytest.raises(UsageError) as caught:
        next(every_step([str(program)]))
    assert "no such luck" in caught.value.evidence
