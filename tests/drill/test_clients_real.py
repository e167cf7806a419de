"""Every state against real servers: uvicorn for HTTP/1.1 and WebSocket, hypercorn for the rest."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from drill.client_stage import real, through
from lastcall.drill.clients.backlog import Backlog
from lastcall.drill.clients.gate import Gate
from lastcall.drill.clients.offered import offered
from lastcall.drill.history import Failure, Kind
from lastcall.drill.scenario import Request, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lastcall.drill.place import Place

BODY = Request("/{key}", "POST", body=b"some body")
STATES = [
    State(Kind.SILENT, Request("/{key}"), count=2, after_s=0.05),
    State(Kind.HALF_LINE, Request("/{key}"), count=2, after_s=0.05),
    State(Kind.HALF_HEADERS, Request("/{key}"), count=2, after_s=0.05),
    State(Kind.HALF_BODY, BODY, count=2, after_s=0.05),
    State(Kind.IN_HANDLER, Request("/slow"), count=2),
    State(Kind.LONG_POLL, Request("/slow"), count=2),
    State(Kind.STREAMING_CHUNKED, Request("/stream"), count=2),
    State(Kind.STREAMING_LENGTH, Request("/length"), count=2),
    State(Kind.EVENTS, Request("/stream"), count=2),
    State(Kind.IDLE_THEN_REQUEST, Request("/{key}"), count=2, after_s=0.05),
    State(Kind.PIPELINED, Request("/slow"), count=2, second=Request("/{key}")),
    State(Kind.EXPECT_CONTINUE, BODY, count=2),
]
WEBSOCKETS = [
    State(Kind.WEBSOCKET_IDLE, Request("/ws"), count=2, after_s=0.05),
    State(Kind.WEBSOCKET_ECHO, Request("/ws"), count=2),
]
STREAMS = State(Kind.HTTP2_STREAM, Request("/slow"), count=3, after_s=0.05)


@pytest.fixture(scope="module")
def uvicorn() -> Iterator[Place]:
    """A real uvicorn that is not stopped."""
    with real("uvicorn") as (place, _):
        yield place


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for nobody, and its key."""
    folder: Path = tmp_path_factory.mktemp("tls")
    paths = str(folder / "cert.pem"), str(folder / "key.pem")
    words = ["-subj", "/CN=localhost", "-days", "2", "-out", paths[0], "-keyout", paths[1]]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *words]
    subprocess.run(command, check=True, capture_output=True)
    return paths


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.kind.key)
def test_a_state_of_http1(uvicorn: Place, state: State) -> None:
    """Every attempt was steady at the stop, and is answered by a server that goes on."""
    trails = through(uvicorn, state)
    assert all(trail.steady for trail in trails)
    assert {(trail.status, trail.failure, trail.note) for trail in trails} == {(200, None, "")}
    for trail in trails:
        times = [trail.attempted, trail.connected, trail.sent, trail.sent_all]
        times += [trail.first_byte, trail.complete]
        known = [time for time in times if time is not None]
        assert len(known) == len(times)
        moved = {Kind.IDLE_THEN_REQUEST, Kind.PIPELINED}  # a request on an open connection
        assert known[trail.kind in moved :][1:] == sorted(known[trail.kind in moved :][1:])
        assert trail.retry_after


def test_websockets(uvicorn: Place) -> None:
    """An echo comes back, and an idle one that is told nothing is closed by us."""
    idle = through(uvicorn, WEBSOCKETS[0], patience_s=2.0)
    assert {(t.failure, t.note, t.sent) for t in idle} == {(Failure.CLOSED, "closed by us", None)}
    echo = through(uvicorn, WEBSOCKETS[1])
    assert {(t.failure, t.status) for t in echo} == {(None, 101)}


def test_the_backlog_of_a_real_server(uvicorn: Place) -> None:
    """A server that goes on takes what stands in its queue."""

    async def go() -> set[int | None]:
        gate = Gate(10.0)
        state = State(Kind.BACKLOG, Request("/{key}"), count=20)
        backlog = Backlog(uvicorn, state, gate, count(1))
        backlog.fill()
        gate.open(monotonic())
        await asyncio.gather(*(client.run() for client in backlog.clients))
        return {client.trails[0].status for client in backlog.clients}

    assert asyncio.run(go()) == {200}


def test_a_real_stop_of_uvicorn() -> None:
    """It tells its WebSockets 1012 and closes idle connections in order."""
    with real("uvicorn") as (place, pid):
        trails = through(place, WEBSOCKETS[0], stop=lambda: os.kill(pid, signal.SIGTERM))
    assert {(t.failure, t.note) for t in trails} == {(Failure.CLOSED, "1012")}
    with real("uvicorn") as (place, pid):
        state = State(Kind.IDLE_THEN_REQUEST, after_s=5.0)
        (trail,) = through(place, state, stop=lambda: os.kill(pid, signal.SIGTERM))
    assert (trail.failure, trail.sent) == (Failure.CLOSED, None)


def test_http2_in_clear_and_over_tls(certificate: tuple[str, str]) -> None:
    """Streams that are open and one opened after the stop are answered, on one connection."""
    for words in ((), certificate):
        with real("hypercorn", *words) as (place, _):
            trails = through(place, STREAMS)
            assert len(trails) == 4
            assert {(t.status, t.failure) for t in trails} == {(200, None)}
            assert len({t.connection for t in trails}) == 1
            assert asyncio.run(offered(place, [STREAMS, *WEBSOCKETS], 5.0)) == {
                STREAMS.kind,
                *(state.kind for state in WEBSOCKETS),
            }


def test_states_over_tls(certificate: tuple[str, str]) -> None:
    """TLS changes nothing but the wire, and half a handshake goes on after the stop."""
    with real("hypercorn", *certificate) as (place, _):
        for state in (
            State(Kind.TLS_HALF, Request("/{key}"), count=2, after_s=0.05),
            State(Kind.SILENT, Request("/{key}"), after_s=0.05),
            State(Kind.HALF_BODY, BODY, after_s=0.05),
            State(Kind.IDLE_THEN_REQUEST, Request("/{key}"), after_s=0.05),
            State(Kind.STREAMING_CHUNKED, Request("/stream")),
            WEBSOCKETS[1],
        ):
            trails = through(place, state)
            assert {t.failure for t in trails} == {None}, state.kind
            assert all(t.steady for t in trails)

        (trail,) = through(replace(place, verify=True), State(Kind.SILENT))
        assert (trail.failure, trail.sent) == (Failure.GARBAGE, None)
        assert trail.note == "TLS: CERTIFICATE_VERIFY_FAILED"

        async def queued() -> int | None:
            gate = Gate(10.0)
            backlog = Backlog(place, State(Kind.BACKLOG), gate, count(1))
            backlog.fill()
            gate.open(monotonic())
            await backlog.clients[0].run()
            return backlog.clients[0].trails[0].status

        assert asyncio.run(queued()) == 200


def test_what_is_offered(uvicorn: Place) -> None:
    """A uvicorn speaks WebSocket and no HTTP/2; what was not asked for is not told."""
    both = frozenset(state.kind for state in WEBSOCKETS)
    assert asyncio.run(offered(uvicorn, [STREAMS, *WEBSOCKETS, *STATES], 5.0)) == both
    assert asyncio.run(offered(uvicorn, STATES, 5.0)) == frozenset()


def test_no_tls_half_without_tls(uvicorn: Place) -> None:
    """A server in clear has no handshake to do by half."""
    assert through(uvicorn, State(Kind.TLS_HALF)) == []
