"""The experiment of Spring Boot's graceful shutdown, made by the drill: what it shows, and why."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

import spring_boot
from lastcall.drill.experiment import drill
from lastcall.drill.history import Kind
from lastcall.drill.how import How
from lastcall.drill.judge import Fate, Verdict, Work
from lastcall.drill.plan import Plan
from lastcall.drill.scenario import Newcomers, Request, Scenario, State
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from pathlib import Path

    from lastcall.drill.result import Result

pytestmark = pytest.mark.timeout(2 * spring_boot.BUILD_S)  # the first test of a checkout builds

REQUESTS = 3
DRAINING = "Commencing graceful shutdown. Waiting for active requests to complete"
DRAINED = "Graceful shutdown complete"
CLOSING = [
    "Closing JPA EntityManagerFactory for persistence unit 'default'",
    "HikariPool-1 - Shutdown completed.",
]


def drilled(
    folder: Path, app: str, *options: str, signum: int = signal.SIGTERM, seconds: float = 4
) -> Result:
    """Drill an application with requests in flight that take so many seconds."""
    java = "java" if app == "current" else spring_boot.newest_java()
    ledger = str(folder / "ledger")
    busy = Request(f"/health?key={{key}}&s={seconds:g}")
    plan = Plan(
        (java, "-jar", str(spring_boot.jar(app)), "--server.port={port}", *options),
        scenario=Scenario(
            (State(Kind.IN_HANDLER, busy, REQUESTS),), Newcomers(Request("/fast?key={key}"))
        ),
        how=How(signum),
        ready=Ready.parse("/"),
        ready_within_s=60,
        env=(("LASTCALL_LEDGER", ledger),),
        ledger=ledger,
    )
    return asyncio.run(drill(plan)).result


def in_order(result: Result, marks: list[str]) -> list[str]:
    """Those of these words that its log has, in the order of the log, each once."""
    found = [mark for line in result.aftermath.output for mark in marks if mark in line]
    return list(dict.fromkeys(found))


def exit_code(result: Result) -> int:
    """What the JVM exited with."""
    assert result.aftermath.status is not None
    return os.waitstatus_to_exitcode(result.aftermath.status)


def fates(result: Result, kind: Kind) -> set[Fate]:
    """What became of the attempts in a state."""
    return {j.fate for j in result.judgement.judged if j.attempt.kind is kind}


def test_immediate_loses_what_is_in_flight(tmp_path: Path) -> None:
    """Every request in a handler is lost, each with a payment and no order; exit 143."""
    result = drilled(tmp_path, "current", "--server.shutdown=immediate")
    assert result.judgement.verdict is Verdict.LOSES
    assert result.judgement.count(Fate.LOST, Kind.IN_HANDLER) == REQUESTS
    lost = [j for j in result.judgement.judged if j.attempt.kind is Kind.IN_HANDLER]
    assert {j.work for j in lost} == {Work.HALF}
    assert "half-executed" in {found.code for found in result.findings}
    assert in_order(result, [DRAINING, *CLOSING]) == CLOSING
    assert exit_code(result) == 128 + signal.SIGTERM


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_graceful_answers_and_refuses_newcomers(signum: signal.Signals, tmp_path: Path) -> None:
    """Every request is answered, newcomers are refused meanwhile, and the pool closes last."""
    options = ("--server.shutdown=graceful", "--spring.lifecycle.timeout-per-shutdown-phase=30s")
    result = drilled(tmp_path, "current", *options, signum=signum)
    assert fates(result, Kind.IN_HANDLER) == {Fate.ACKNOWLEDGED}
    answered = [j for j in result.judgement.judged if j.attempt.kind is Kind.IN_HANDLER]
    assert {(j.attempt.status, j.work) for j in answered} == {(200, Work.EXECUTED)}
    until = min(j.attempt.over_s for j in answered)
    meanwhile = {
        j.fate
        for j in result.judgement.judged
        # Its listener closes within 50 ms; who stands in the accept queue then may be reset.
        if j.attempt.kind is Kind.NEWCOMER and 0.5 < j.attempt.attempted_s < until
    }
    assert meanwhile == {Fate.REFUSED_CLEANLY}
    assert in_order(result, [DRAINING, DRAINED, " ends", *CLOSING]) == [
        DRAINING,
        " ends",
        DRAINED,
        *CLOSING,
    ]
    assert CLOSING[-1] in result.aftermath.output[-1]
    assert exit_code(result) == 128 + signum


def test_too_short_a_limit_is_named(tmp_path: Path) -> None:
    """What outlasts the limit is lost, and the limit is what gets the blame."""
    options = ("--server.shutdown=graceful", "--spring.lifecycle.timeout-per-shutdown-phase=1s")
    result = drilled(tmp_path, "current", *options, seconds=30)
    assert result.judgement.count(Fate.LOST, Kind.IN_HANDLER) == REQUESTS
    (named,) = [found for found in result.findings if found.code == "cut-at-limit"]
    assert "timeout-per-shutdown-phase" in named.advice
    assert exit_code(result) == 128 + signal.SIGTERM


@pytest.mark.parametrize("drained", [False, True])
def test_before_2_3(*, drained: bool, tmp_path: Path) -> None:
    """Spring Boot 2.2 loses what takes long; with the listener that drains Tomcat it does not."""
    options = ("--drain.limit=30s",) if drained else ()
    result = drilled(tmp_path, "legacy", *options, seconds=6)
    expected = Fate.ACKNOWLEDGED if drained else Fate.LOST
    assert fates(result, Kind.IN_HANDLER) == {expected}
    assert exit_code(result) == 128 + signal.SIGTERM
