"""All states in one stop, by the server that is to be in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drill.results import keeping
from lastcall.drill.history import OPTIONAL, Kind
from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL, Server
from lastcall.drill.together import SETTLE_S, SLOW_S, together, unreached, varied

if TYPE_CHECKING:
    from lastcall.drill.scenario import Scenario

# What a plain HTTP server can be in, at the stop.
STATES = set(Kind) - {Kind.NEWCOMER, Kind.LOAD, Kind.UNREAD, Kind.JUST_SENT, Kind.SENT}
STATES -= {Kind.TLS_HALF}
MANY = Server("many", ("x",), speaks=(Kind.WEBSOCKET_IDLE,))


def counts(scenario: Scenario) -> dict[Kind, int]:
    """How many connections are to be in each state."""
    return {state.kind: state.count for state in scenario.states}


def test_every_state_is_in_each_stop() -> None:
    """None is left out, and each request but an idle WebSocket's can be told apart."""
    scenario = together(MANY)
    assert set(counts(scenario)) == STATES
    assert min(counts(scenario).values()) > 0
    assert {s.kind for s in scenario.states if not s.request.keyed} == {Kind.WEBSOCKET_IDLE}
    assert scenario.newcomers.rate == 20


def test_what_is_over_soonest_is_begun_last() -> None:
    """The stop finds all requests in hand: the last ones begun take longer than the settling."""
    scenario = together(MANY)
    kinds = [state.kind for state in scenario.states]
    assert kinds[-1] is Kind.IN_HANDLER
    assert kinds.index(Kind.SILENT) < kinds.index(Kind.LONG_POLL)
    slow = [s for s in scenario.states if "s=0.3" in s.request.path]
    assert len(slow) == 8
    assert SETTLE_S < SLOW_S <= 0.3


def test_what_it_speaks_it_must_be_brought_to() -> None:
    """Only a protocol that a server does not claim to speak is left off."""
    optional = {state.kind for state in together(MANY).states if state.optional}
    assert optional >= OPTIONAL - {Kind.WEBSOCKET_IDLE, Kind.TLS_HALF}
    assert Kind.WEBSOCKET_IDLE not in optional


@pytest.mark.parametrize("hands", [24, 4, 1])
def test_few_hands_get_fewer_requests(hands: int) -> None:
    """All are in hand where they can be; where they cannot, work in a handler comes first."""
    scenario = together(replace(MANY, hands=hands))
    few = counts(scenario)
    in_hand = sum(n for kind, n in few.items() if kind not in {*OPTIONAL, Kind.BACKLOG})
    assert in_hand < hands or scenario.states[0].kind is Kind.IN_HANDLER
    assert few[Kind.IN_HANDLER] >= 2
    assert all(few[kind] <= n for kind, n in counts(together(MANY)).items())


def test_a_short_accept_queue_is_not_overrun() -> None:
    """With one hand and six places in the queue, the drill takes no more than those."""
    scenario = together(replace(MANY, hands=1, queue=5))
    assert sum(counts(scenario).values()) <= 7
    assert scenario.newcomers.rate < 20


def test_late_parts_come_at_another_moment_in_each_stop() -> None:
    """The same stop has the same moments; WebSockets stay open for longer than any of them."""
    scenario = together(MANY)
    first, again, other = varied(scenario, 1), varied(scenario, 1), varied(scenario, 2)
    assert first == again != other
    assert counts(first) == counts(scenario)
    late = {s.after_s for s in first.states if s.kind is not Kind.WEBSOCKET_IDLE}
    assert len(late) > 5
    assert all(0.1 <= after_s <= 0.3 for after_s in late)
    idle = next(s for s in other.states if s.kind is Kind.WEBSOCKET_IDLE)
    assert idle.after_s > 1


def test_a_state_that_was_not_reached_is_known() -> None:
    """What a server cannot be brought to is no reproach to the stop; anything else is."""
    result = keeping()
    missed = (Kind.SILENT, Kind.IDLE_THEN_REQUEST)
    short = replace(result, judgement=replace(result.judgement, not_reached=missed))
    assert unreached(result, MANY) == ()
    assert unreached(short, MANY) == missed
    assert unreached(short, replace(MANY, misses=(Kind.IDLE_THEN_REQUEST,))) == (Kind.SILENT,)
    assert unreached(short, replace(MANY, hands=1)) == ()


def test_each_twin_differs_by_lastcall_only() -> None:
    """The settings are those of the server beside it, and so is what it has to be brought to."""
    bare = {server.name: server for server in SERVERS}
    keys = {server.key for server in (*SERVERS, *SERVERS_WITH_LASTCALL)}
    assert len(keys) == len(SERVERS) + len(SERVERS_WITH_LASTCALL)
    assert {"uvicorn", "Tornado", "wsgiref", "granian WSGI"} <= {
        twin.beside for twin in SERVERS_WITH_LASTCALL
    }
    for twin in SERVERS_WITH_LASTCALL:
        beside = bare[twin.beside]
        assert together(twin) == together(beside)
        assert (twin.env, twin.packages, twin.app) == (beside.env, beside.packages, beside.app)
        without = [word.removeprefix("lastcall.app.servers.") for word in twin.command]
        assert without in ([*beside.command], [*beside.command, "lastcall"])
        assert twin.command != beside.command
