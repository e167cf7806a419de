"""Every state of a connection in one short stop, so that hundreds of stops are affordable.

Handlers take 0.3 s here. What only has to be there is begun first, what is over soonest last, and
the stop comes while all of it is in flight. A server whose workers cannot have that many requests
in hand gets fewer, those first; what comes behind them stands in its accept queue, and is told as
that.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill import presets
from lastcall.drill.history import Kind
from lastcall.drill.scenario import Scenario, State

if TYPE_CHECKING:
    from lastcall.drill.result import Result
    from lastcall.drill.servers import Server

SLOW_S = 0.3
# When the stop comes at the latest, after the last request was begun: all are in hand still.
SETTLE_S = 0.2
_LATE_S = (0.1, 0.3)
# A client of a WebSocket goes away by itself after this and 2 s more, if nobody tells it. A server
# that waits for it is seen to have waited.
_TOLD_S = 6.0

_ORDER: tuple[Kind, ...] = (
    Kind.IDLE_THEN_REQUEST,
    Kind.WEBSOCKET_IDLE,
    Kind.SILENT,
    Kind.HALF_LINE,
    Kind.HALF_HEADERS,
    Kind.HALF_BODY,
    Kind.EXPECT_CONTINUE,
    Kind.BACKLOG,
    Kind.HTTP2_STREAM,
    Kind.WEBSOCKET_ECHO,
    Kind.STREAMING_CHUNKED,
    Kind.STREAMING_LENGTH,
    Kind.EVENTS,
    Kind.LONG_POLL,
    Kind.PIPELINED,
    Kind.IN_HANDLER,
)
# With few hands what holds one until after the stop comes last: it would keep the others out.
_FEW_HANDS = (
    Kind.IN_HANDLER,
    Kind.STREAMING_CHUNKED,
    Kind.EVENTS,
    Kind.LONG_POLL,
    Kind.STREAMING_LENGTH,
    Kind.PIPELINED,
    *_ORDER[:10],
)
# What the accept queue of a server with one hand has room for, beside a newcomer or two.
_SHORT_QUEUE = frozenset({Kind.IN_HANDLER, Kind.SILENT, Kind.HALF_HEADERS, Kind.BACKLOG})
_COUNTS = {Kind.IN_HANDLER: 10, Kind.BACKLOG: 4}
_FEWER_COUNTS = {Kind.IN_HANDLER: 8, Kind.BACKLOG: 4}
_FEW_COUNTS = {Kind.IN_HANDLER: 2, Kind.BACKLOG: 2}
_MANY_HANDS = 20
_ONE_HAND_RATE = 5.0
# What a request came to be counted as when it was not quite where it was to be.
_AS_GOOD = {Kind.BACKLOG: Kind.JUST_SENT}


def together(server: Server) -> Scenario:
    """All the traffic of one stop.

    Args:
        server: it runs the probe application.
    """
    whole = presets.scenario(presets.probe_paths(SLOW_S))
    states = {state.kind: state for state in whole.states}
    order = _FEW_HANDS if _few_hands(server) else _ORDER
    if server.hands == 1 and server.queue:
        order = tuple(kind for kind in order if kind in _SHORT_QUEUE)
    rate = _ONE_HAND_RATE if server.hands == 1 else whole.newcomers.rate
    made = tuple(_state(states[kind], server) for kind in order)
    return Scenario(made, replace(whole.newcomers, rate=rate))


def _few_hands(server: Server) -> bool:
    return 0 < server.hands < _MANY_HANDS


def _state(state: State, server: Server) -> State:
    counts, few = _COUNTS, 2
    if server.hands:
        counts, few = _FEW_COUNTS if _few_hands(server) else _FEWER_COUNTS, 1
    return replace(
        state,
        count=counts.get(state.kind, few),
        after_s=_TOLD_S if state.kind is Kind.WEBSOCKET_IDLE else _LATE_S[1],
        # What it is known to speak it must be brought to; the rest is asked for only if it says so.
        optional=state.kind not in server.speaks,
    )


def varied(scenario: Scenario, number: int) -> Scenario:
    """The same for one stop of many: what comes late comes at a moment of this stop's own.

    Args:
        scenario: as `together` made it.
        number: of the stop; the same number gives the same moments.
    """
    chance = random.Random(number)  # noqa: S311 (repeatable on purpose)
    states = []
    for state in scenario.states:
        late_s = round(chance.uniform(*_LATE_S), 3)
        idle = state.kind is Kind.WEBSOCKET_IDLE
        states.append(state if idle else replace(state, after_s=late_s))
    return replace(scenario, states=tuple(states))


def unreached(result: Result, server: Server) -> tuple[Kind, ...]:
    """The states that were not reached in a stop, though this server can be brought to them.

    Args:
        result: of the stop.
        server: which.
    """
    there = {j.attempt.kind for j in result.judgement.judged if j.attempt.reached}
    needed = {Kind.IN_HANDLER} if _few_hands(server) else set(_ORDER) - set(server.misses)
    return tuple(
        kind
        for kind in result.judgement.not_reached
        if kind in needed and _AS_GOOD.get(kind) not in there
    )
