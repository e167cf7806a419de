"""Planted faults: the drill finds each, blames the right thing, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drill.experiments import bad, blamed, faulty, run, sound, told, traffic
from drill.repeat import repeat
from lastcall.drill.history import Failure, Kind
from lastcall.drill.judge import BAD, Fate, Verdict, Work
from lastcall.drill.plan import Plan
from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.drill.scenario import Scenario

WORKING = (
    Kind.IN_HANDLER,
    Kind.LONG_POLL,
    Kind.STREAMING_CHUNKED,
    Kind.STREAMING_LENGTH,
    Kind.EVENTS,
)
HALF = (Kind.SILENT, Kind.HALF_LINE, Kind.HALF_HEADERS, Kind.HALF_BODY)
SOCKETS = (Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO)


_LONGER_S = 0.3


@record
class Fault:
    """One planted fault, and what a drill must make of it.

    Args:
        mode: of `drill_faulty.py`.
        blamed: the codes of all that is blamed, gravest first.
        lost: how many of which kind; None: all that is there.
        work: what the ledger says of what was lost.
        failure: how all of it was lost; None: it does not matter.
        kinds: of connections.
        slow_s: how long the slow answers take, in seconds.
        patience_s: of the drill, in seconds.
    """

    mode: str
    blamed: tuple[str, ...]
    lost: dict[str, int]
    work: tuple[Work, ...] = ()
    failure: Failure | None = None
    kinds: tuple[Kind, ...] = WORKING
    slow_s: float = 0.6
    patience_s: float = 8.0

    @property
    def scenario(self) -> Scenario:
        """Its traffic; streams take longer, so that something is under way after the rest."""
        short = [kind for kind in (*self.kinds, Kind.IN_HANDLER) if kind.key not in STREAMS]
        whole = traffic(short, self.slow_s)
        streams = traffic(set(self.kinds) - set(short), self.slow_s + _LONGER_S).states
        return replace(whole, states=(*streams, *whole.states))


ALL_WORKING = {
    "in-handler": 4,
    "long-poll": 2,
    "streaming-chunked": 2,
    "streaming-length": 2,
    "events": 2,
}
SLOW = {"in-handler": 4, "long-poll": 2}
STREAMS = {"streaming-chunked": 2, "streaming-length": 2, "events": 2}

FAULTS = [
    Fault(
        "lose-one 2",
        ("unexplained-loss", "executed-unanswered"),
        {"in-handler": 1},
        (Work.EXECUTED,),
        Failure.CLOSED,
        (Kind.IN_HANDLER,),
    ),
    Fault("execute-twice", ("executed-twice",), {}),
    Fault(
        "half-execute",
        ("half-executed", "unexplained-loss"),
        {"in-handler": 4},
        (Work.HALF,),
        Failure.CLOSED,
    ),
    Fault(
        "drop-half",
        ("half-sent-dropped",),
        {"half-line": 2, "half-headers": 2, "half-body": 2},
        (Work.NEVER_STARTED,),
        Failure.CLOSED,
        HALF,
    ),
    Fault(
        "keep-alive",
        ("keep-alive-reset", "executed-unanswered"),
        {"idle-then-request": 2},
        (Work.EXECUTED,),
        Failure.RESET,
        (Kind.IDLE_THEN_REQUEST,),
    ),
    Fault(
        "cut-websocket",
        ("websocket-cut",),
        {"websocket-idle": 2, "websocket-echo": 2},
        failure=Failure.CUT,
        kinds=SOCKETS,
    ),
    Fault(
        "deaf-websocket",
        ("websocket-holds-exit", "not-ended"),
        {"websocket-idle": 2},
        failure=Failure.HUNG,
        kinds=SOCKETS,
        patience_s=2.5,
    ),
    Fault("leave-child", ("children-left",), {}),
    Fault(
        "cut-at-limit",
        ("half-executed", "cut-at-limit"),
        ALL_WORKING,
        (Work.HALF,),
        slow_s=1.8,
    ),
    Fault(
        "five-hundred",
        ("answered-with-error", "executed-unanswered"),
        SLOW,
        (Work.EXECUTED,),
    ),
    Fault("ignore", ("not-ended",), {}, patience_s=2.5),
    Fault("hang", ("not-ended", "executed-unanswered"), SLOW, (Work.EXECUTED,), patience_s=2.5),
    Fault("no-handler", ("half-executed", "no-handler"), ALL_WORKING, (Work.HALF,)),
    Fault(
        "truncate",
        ("half-executed", "cut-at-once"),
        STREAMS,
        (Work.HALF,),
        Failure.TRUNCATED,
    ),
    Fault(
        "garbage",
        ("unexplained-loss", "executed-unanswered"),
        SLOW,
        (Work.EXECUTED,),
        Failure.GARBAGE,
    ),
    Fault(
        "answer-twice",
        ("unexplained-loss", "executed-unanswered"),
        SLOW,
        (Work.EXECUTED,),
        Failure.GARBAGE,
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.mode.replace(" ", "-"))
def test_a_planted_fault_is_found_and_blamed(fault: Fault) -> None:
    """What is lost, how, with which work done, and why: exactly what was planted."""
    result = sound(
        Plan(
            faulty(*fault.mode.split()),
            scenario=fault.scenario,
            patience_s=fault.patience_s,
            linger_s=0.2,
        )
    )
    lost = [j for j in result.judgement.judged if j.fate in BAD and j.attempt.over_s > 0]
    assert result.judgement.verdict is Verdict.LOSES, told(result)
    assert bad(result) == Counter(fault.lost), told(result)
    assert {j.work for j in lost} <= set(fault.work or Work), told(result)
    assert {j.attempt.failure for j in lost} <= {fault.failure} or fault.failure is None
    assert blamed(result) == [*fault.blamed], told(result)


def test_the_lost_one_is_the_one_that_was_planted() -> None:
    """The third of five is lost, and not just any."""
    result = sound(
        Plan(
            faulty("lose-one", "3"),
            scenario=traffic([Kind.IN_HANDLER], count=5, rate=0),
            linger_s=0.1,
        )
    )
    sent = [j for j in result.judgement.judged if j.attempt.kind is Kind.IN_HANDLER]
    assert [j.fate is Fate.LOST for j in sent] == [False, False, True, False, False], told(result)


def test_a_perfect_server_is_not_blamed() -> None:
    """Every state it speaks is reached, nothing is lost, and nothing is held against it."""
    result = sound(Plan(faulty("perfect"), scenario=traffic(), linger_s=0.2))
    fates = {j.fate for j in result.judgement.judged if j.attempt.kind is not Kind.NEWCOMER}
    assert result.keeps_its_word, told(result)
    assert (result.exit_code, result.lost) == (0, 0)
    assert fates == {Fate.ACKNOWLEDGED}, told(result)
    assert set(result.judgement.not_reached) <= {Kind.BACKLOG}  # it may be quicker than we
    assert blamed(result) == []


def test_a_server_that_closes_its_websockets_keeps_its_word() -> None:
    """Messages are answered, then each WebSocket gets a close frame: nothing to blame."""
    result = sound(Plan(faulty("websocket"), scenario=traffic(SOCKETS), linger_s=0.2))
    assert result.keeps_its_word, told(result)
    assert result.judgement.not_reached == ()
    assert blamed(result) == []


def test_a_hanging_websocket_is_named() -> None:
    """It ends only once its clients have left: no loss, but worth saying why it took so long."""
    result = sound(Plan(faulty("hang-websocket"), scenario=traffic(SOCKETS, 0.4), patience_s=4.6))
    assert result.keeps_its_word, told(result)
    assert "websocket-holds-exit" in [f.code for f in result.findings], told(result)


@pytest.mark.parametrize(
    ("mode", "code"),
    [("reset-after-accept", "reset-after-accept"), ("never-accept", "listener-unattended")],
)
def test_newcomers_at_an_open_port(mode: str, code: str) -> None:
    """Its port stays open: accepting and resetting is told apart from accepting nobody."""
    result = sound(Plan(faulty(mode), scenario=traffic([Kind.IN_HANDLER]), linger_s=0.2))
    assert result.judgement.verdict is Verdict.LOSES, told(result)
    assert set(bad(result)) == {"newcomer"}, told(result)
    assert blamed(result) == [code], told(result)


def test_a_child_that_holds_the_port() -> None:
    """What comes to a port that only a child still holds is never answered: both are told."""
    result = sound(
        Plan(faulty("leave-child", "listening"), scenario=traffic([Kind.IN_HANDLER]), linger_s=0.4)
    )
    assert result.aftermath.listening_s is None
    assert len(result.aftermath.left) == 1
    assert set(bad(result)) == {"newcomer"}, told(result)
    assert blamed(result) == ["listener-unattended", "children-left"], told(result)


def test_nothing_in_flight_proves_nothing() -> None:
    """A server that has answered everything before the stop was not put to the test."""
    scenario = traffic(WORKING)
    result = sound(Plan(faulty("nothing-in-flight"), scenario=scenario, linger_s=0.1))
    assert result.judgement.verdict is Verdict.INCONCLUSIVE, told(result)
    assert result.exit_code == 8
    assert set(result.judgement.not_reached) == set(WORKING)


def test_no_false_alarm_in_many_drills(capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `repeat.py`: ten drills of a perfect server, and not one blames it."""
    came = repeat(10)
    assert came.good, f"{came}\n{capsys.readouterr().out}"


def test_answers_without_end_are_neither_whole_nor_lost() -> None:
    """Nobody can tell what such an answer would have been: inconclusive, and it says so."""
    result = run(Plan(faulty("endless"), scenario=FAULTS[0].scenario, patience_s=8, linger_s=0.2))
    assert result.judgement.verdict is Verdict.INCONCLUSIVE, told(result)
    assert any("had no end" in reason for reason in result.judgement.reasons), told(result)
