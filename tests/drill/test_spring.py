"""Spring Boot stopped in the middle of a request, the real thing: what a client gets, what it logs.

The experiment is the one that its documentation of graceful shutdown describes.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

import spring_boot
from calls import CLOSED, REFUSED, RESET, Call, get, post
from helpers import wait_until
from lastcall.drill.ledger import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from helpers import Victim

pytestmark = pytest.mark.timeout(2 * spring_boot.BUILD_S)  # the first test of a checkout builds

BEGINS, ENDS = "/health K begins", "/health K ends"
DRAINING = "Commencing graceful shutdown. Waiting for active requests to complete"
DRAINED = "Graceful shutdown complete"
GIVEN_UP = "Graceful shutdown aborted with one or more requests still active"
CLOSING = [
    "Closing JPA EntityManagerFactory for persistence unit 'default'",
    "HikariPool-1 - Shutdown completed.",
]
# What a JVM exits with after a signal: 128 and its number.
EXITS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def until(app: Victim, mark: str) -> list[str]:
    """Read its log up to the line with these words."""
    said: list[str] = []
    while not said or mark not in said[-1]:
        said.append(app.line())
        assert said[-1] or app.child.poll() is None, f"it ended without {mark!r}: {said}"
    return said


def told(said: Iterable[str], marks: list[str]) -> list[str]:
    """Those of these words that its log has, in the order of the log."""
    return [mark for line in said for mark in marks if mark in line]


def steps(ledger: Path, key: str = "K") -> list[str]:
    """What was executed for a key."""
    return [deed.step for deed in read_ledger(str(ledger)) if deed.key == key]


@contextlib.contextmanager
def in_flight(port: int, app: Victim, seconds: float) -> Iterator[Call]:
    """A request that is being worked on: its payment is taken, its order not yet made."""
    with Call(port, get(f"/health?key=K&s={seconds:g}")) as call:
        until(app, BEGINS)
        yield call


def refused_before(port: int, busy: Call) -> bool:
    """Whether newcomers get refused while this call waits for its answer."""

    def refused() -> bool:
        with Call(port) as newcomer:
            return newcomer.refused

    wait_until(refused, "a refused newcomer")
    return busy.pending


def test_what_graceful_waits_for_and_what_not() -> None:
    """Streams and an upload half way are finished; what has not come whole, or comes later, is not.

    Connections in between stay open, without a word; the first bytes on one of them end it.
    """
    options = (
        "--server.shutdown=graceful",
        "--spring.lifecycle.timeout-per-shutdown-phase=30s",
    )
    with (
        spring_boot.started("current", *options) as (app, port),
        contextlib.ExitStack() as calls,
    ):
        silent, half_line, half_headers, idle = (
            calls.enter_context(Call(port, first))
            for first in (b"", b"GET /fast HT", b"GET /fast HTTP/1.1\r\nHo", get("/"))
        )
        assert idle.fate() == "200 ok"
        half_body = calls.enter_context(Call(port, post("/upload", 8, b"1234")))
        streams = [
            calls.enter_context(Call(port, get(f"{path}?s=4&n=4")))
            for path in ("/stream", "/length", "/events")
        ]
        for stream in streams:  # its headers are there: it is under way
            wait_until(lambda stream=stream: not stream.pending, "the beginning of a stream")  # type: ignore[misc]
        app.child.send_signal(signal.SIGTERM)
        until(app, DRAINING)
        assert refused_before(port, half_body)
        assert all(call.pending for call in (silent, half_line, half_headers, idle))
        silent.send(get("/fast"))
        half_line.send(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        half_headers.send(b"st: localhost\r\n\r\n")
        idle.send(get("/fast"))
        lost = [call.fate() for call in (silent, half_line, half_headers, idle)]
        assert set(lost) <= {CLOSED, RESET}
        assert half_body.pending
        half_body.send(b"5678")
        assert half_body.fate() == "200 8"
        assert [stream.fate()[:3] for stream in streams] == ["200"] * 3
        assert app.wait() == EXITS[signal.SIGTERM]


def test_before_2_3_with_a_drain(tmp_path: Path) -> None:
    """With the listener the request is answered; the port stays open, and newcomers are reset."""
    ledger = tmp_path / "ledger"
    java = spring_boot.newest_java()
    with (
        spring_boot.started("legacy", "--drain.limit=30s", java=java, ledger=ledger) as (app, port),
        in_flight(port, app, 4) as call,
    ):
        app.child.send_signal(signal.SIGTERM)
        until(app, "Draining: ")
        # The thread that accepts may still take one; the next ones stay in the accept queue.
        newcomers = [Call(port, get("/fast")) for _ in range(8)]
        try:
            assert call.fate() == "200 ok"
            fates = [newcomer.fate() for newcomer in newcomers]
        finally:
            for newcomer in newcomers:
                newcomer.socket.close()
        assert REFUSED not in fates
        assert RESET in fates
        assert app.wait() == EXITS[signal.SIGTERM]
        assert told(app.out, [ENDS, "Drained"]) == [ENDS, "Drained"]
    assert steps(ledger) == ["begun", "paid", "ordered"]
