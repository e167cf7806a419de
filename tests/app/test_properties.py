"""Random programs of hooks: whatever they do, the shutdown ends in time and tells the truth."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastcall import Lifecycle
from lastcall.app.hooks import CANCEL_S, HookRun, Outcome
from lastcall.app.phases import READY_MADE
from lastcall.testing.lifecycle import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.app.report import Report

GRACE_S = 100.0


class Planned(NamedTuple):
    """One hook of a random program."""

    phase: str
    does: str
    takes_s: float
    limit_s: float | None
    needs: int


DOES = ("end", "take", "fail", "exit", "hang", "stubborn", "extend", "ask", "register")
hooks = st.builds(
    Planned,
    st.sampled_from(READY_MADE),
    st.sampled_from(DOES),
    st.floats(0.5, 60),
    st.none() | st.floats(0.5, 60),
    st.integers(-1, 3),
)
programs = st.lists(hooks, max_size=8)


class World:
    """A program that is being stopped."""

    def __init__(self, program: list[Planned], ceiling_s: float | None, announce_s: float) -> None:
        self.clock = FakeClock()
        self.over = threading.Event()
        self.began: list[str] = []
        self.lifecycle = Lifecycle(
            clock=self.clock,
            grace_s=GRACE_S,
            announce_s=announce_s,
            ceiling_s=ceiling_s,
            signals=(),
            exit_with="nothing",
        )
        self.program = program
        for number, planned in enumerate(program):
            earlier = [i for i, p in enumerate(program[:number]) if p.phase == planned.phase]
            needs = [str(i) for i in earlier[-1:] if planned.needs > 0]
            self.lifecycle.add_hook(
                planned.phase,
                self.function(planned, number),
                name=str(number),
                limit_s=planned.limit_s,
                depends_on=needs,
            )

    def function(self, planned: Planned, number: int) -> Callable[[HookRun], None]:
        """What the hook does."""

        def hook(run: HookRun) -> None:
            self.began.append(run.name)
            match planned.does:
                case "take":
                    self.clock.sleep(planned.takes_s, run.cancelled)
                case "fail":
                    raise ValueError(number)
                case "exit":
                    raise SystemExit(3)
                case "hang":
                    self.clock.sleep(1e9, run.cancelled)
                case "stubborn":
                    self.over.wait()
                case "extend":
                    run.extend(planned.takes_s, "on purpose")
                    self.clock.sleep(planned.takes_s, run.cancelled)
                case "ask":
                    self.lifecycle.request_stop("once more")
                case "register":
                    self.lifecycle.add_hook("flush", lambda: None, name=f"late {number}")

        return hook

    def end(self) -> Report:
        """Stop it, and wait."""
        try:
            self.lifecycle.request_stop("test")
            self.clock.turn_until(self.lifecycle.ended, 10 * GRACE_S)
        finally:
            self.over.set()
            self.clock.turn(1e10)
            self.lifecycle.house.coordinator.close()
            self.lifecycle.house.crew.dismiss()
        report = self.lifecycle.report
        assert report is not None
        return report


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.none() | st.floats(1, 200), st.sampled_from([0.0, 5.0]))
def test_any_program_ends_in_time_and_in_order(
    program: list[Planned], ceiling_s: float | None, announce_s: float
) -> None:
    """Whatever hooks do: all phases in order, no hook before its time, the end within the limit."""
    report = World(program, ceiling_s, announce_s).end()
    assert [phase.name for phase in report.phases] == list(READY_MADE)
    limit_s = max(GRACE_S, ceiling_s or 0.0)
    assert report.took_s <= limit_s + CANCEL_S * len(READY_MADE) + 0.01
    for phase in report.phases:
        ended_s = phase.began_s + phase.took_s
        for run in phase.runs:
            assert run.over
            assert run.began_s is None or run.ended_s is not None
            assert run.took_s <= phase.took_s + 0.001
        assert ended_s <= report.took_s + 0.001


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs)
def test_the_report_tells_the_truth(program: list[Planned]) -> None:
    """Each hook's outcome is what it did, and only a shutdown without a fault is called clean."""
    report = World(program, None, 0.0).end()
    runs = {run.name: run for phase in report.phases for run in phase.runs if not run.hook.inner}
    for number, planned in enumerate(program):
        run = runs[str(number)]
        if run.began_s is None:
            assert run.outcome is Outcome.CUT
        elif planned.does in {"fail", "exit"}:
            assert run.outcome is Outcome.FAILED
        elif planned.does in {"hang", "stubborn"}:
            assert run.outcome is Outcome.CUT
        elif planned.does in {"end", "ask", "register"}:
            assert run.outcome is Outcome.DONE or planned.phase == "flush"
        else:
            assert run.outcome in {Outcome.DONE, Outcome.CUT}
        if run.outcome is Outcome.DONE and planned.does == "take":
            assert run.took_s >= planned.takes_s - 0.001
        for need in run.hook.depends_on:
            before = runs[need]
            if run.began_s is not None:
                assert before.ended_s is not None
                assert before.ended_s <= run.began_s
    bad = any(run.outcome is not Outcome.DONE for run in runs.values())
    assert report.clean is not bad
