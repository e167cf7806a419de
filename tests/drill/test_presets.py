"""The scenarios that need no file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lastcall.drill.history import Kind
from lastcall.drill.presets import Paths, probe_paths, scenario, uneven
from lastcall.drill.scenario import Newcomers, Request, State

# Whatever a connection can be in at the stop; the rest is what happens to one, or flows beside.
STATES = set(Kind) - {Kind.NEWCOMER, Kind.LOAD, Kind.UNREAD, Kind.JUST_SENT, Kind.SENT}


def test_the_probe_application_is_in_every_state() -> None:
    """For the probe application no state is left out, and each carries its key."""
    whole = scenario(probe_paths(), 7)
    assert {state.kind for state in whole.states} == STATES
    # A WebSocket that only stays open executes nothing.
    keyless = {s.kind for s in whole.states if not s.request.keyed}
    assert keyless == {Kind.WEBSOCKET_IDLE}
    assert whole.newcomers.request.keyed
    assert whole.newcomers.rate > 0
    assert next(s.count for s in whole.states if s.kind is Kind.IN_HANDLER) == 7


def test_a_second_request_has_its_own_fast_path() -> None:
    """What is pipelined behind a slow request is a fast one."""
    states = {state.kind: state for state in scenario(probe_paths()).states}
    second = states[Kind.PIPELINED].second
    assert second is not None
    assert second.path.startswith("/fast")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("upload", {Kind.HALF_BODY, Kind.EXPECT_CONTINUE}),
        ("stream", {Kind.STREAMING_CHUNKED}),
        ("length", {Kind.STREAMING_LENGTH}),
        ("events", {Kind.EVENTS}),
        ("poll", {Kind.LONG_POLL}),
        ("websocket", {Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO}),
    ],
)
def test_each_path_brings_its_states(name: str, kinds: set[Kind]) -> None:
    """A path that is named adds its states, and nothing else."""
    bare = {state.kind for state in scenario(Paths()).states}
    more = scenario(replace(Paths(), **{name: "/there"})).states  # type: ignore[arg-type]
    assert {state.kind for state in more} - bare == kinds
    assert all(s.request.path == "/there" for s in more if s.kind in kinds)


def test_without_a_slow_path_the_fast_one_is_in_flight() -> None:
    """A server of which only `/` is known is drilled with that."""
    states = {state.kind: state for state in scenario(Paths()).states}
    assert states[Kind.IN_HANDLER].request == Request("/")


def test_uneven_is_one_single_request() -> None:
    """However many templates there are, one request is in flight; newcomers stay."""
    whole = scenario(probe_paths(), 20, Newcomers(Request("/n"), 3.0))
    more = replace(whole, states=(*whole.states, State(Kind.IN_HANDLER, Request("/other"), 5)))
    alone = uneven(more)
    assert [(state.kind, state.count) for state in alone.states] == [(Kind.IN_HANDLER, 1)]
    assert alone.newcomers == more.newcomers
    assert uneven(replace(whole, states=())).states == ()
