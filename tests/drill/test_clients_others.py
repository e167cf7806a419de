"""Newcomers and the backlog: a rate that does not drift, and a queue that nobody accepts from."""

from __future__ import annotations

import asyncio
import errno
import socket
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from drill.client_stage import OK, Connection, descriptors, scripted, unable
from lastcall.drill.clients import newcomers, wire
from lastcall.drill.clients.backlog import Backlog
from lastcall.drill.clients.gate import Gate
from lastcall.drill.history import Failure, Kind
from lastcall.drill.place import Place
from lastcall.drill.scenario import Newcomers, Request, State

if TYPE_CHECKING:
    from pathlib import Path

    from lastcall.drill.clients.newcomers import Untried
    from lastcall.drill.trail import Trail


def coming(
    place: Place, spec: Newcomers, seconds: float, *, limit_s: float = 10.0, in_flight: int = 100
) -> tuple[list[Trail], Untried]:
    """Newcomers for some time."""
    trails: list[Trail] = []

    async def go() -> Untried:
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, until.set)
        return await newcomers.run(
            place, spec, trails, count(1), until, limit_s=limit_s, in_flight=in_flight
        )

    return trails, asyncio.run(go())


def once(end: Connection) -> None:
    """Answer one request that asks for the connection to be closed."""
    assert b"\r\nConnection: close\r\n" in end.read()
    end.send(OK)


def test_newcomers_come_at_their_rate() -> None:
    """Each is due at start + n/rate, over a connection of its own; those missed are counted."""
    with scripted(once) as server:
        trails, untried = coming(server.place, Newcomers(Request("/{key}"), rate=100.0), 0.5)
    assert len(trails) <= 51
    assert len(trails) + untried.late >= 50
    assert untried.crowded == 0
    assert {trail.status for trail in trails} == {200}
    assert len({trail.connection for trail in trails}) == len(trails)


def test_newcomers_that_were_missed_do_not_come_in_a_bunch() -> None:
    """When this process was busy, what was due meanwhile is left out and counted."""

    async def go() -> tuple[int, Untried]:
        trails: list[Trail] = []
        until = asyncio.Event()
        loop = asyncio.get_running_loop()

        def busy() -> None:
            end = monotonic() + 0.2
            while monotonic() < end:
                pass

        loop.call_later(0.05, busy)
        loop.call_later(0.4, until.set)
        untried = await newcomers.run(server.place, spec, trails, count(1), until)
        return len(trails), untried

    spec = Newcomers(rate=100.0)
    with scripted(once) as server:
        tried, untried = asyncio.run(go())
    assert untried.late >= 15
    assert tried <= 26
    assert tried + untried.late >= 40


def test_newcomers_think_before_they_send() -> None:
    """One that is closed while it thinks was never sent."""
    with scripted(lambda _end: None) as server:
        trails, _ = coming(server.place, Newcomers(rate=20.0, think_s=0.5), 0.2)
    assert trails
    assert {(trail.failure, trail.sent) for trail in trails} == {(Failure.CLOSED, None)}


def test_newcomers_are_bounded() -> None:
    """A server that holds connections does not use up our descriptors, and they end in time."""
    before = descriptors()
    with scripted(Connection.until_closed) as server:
        spec = Newcomers(rate=200.0)
        trails, untried = coming(server.place, spec, 0.3, limit_s=0.1, in_flight=5)
    assert len(trails) == 5
    assert untried.crowded + untried.late >= 55
    assert untried.crowded > 0
    assert {trail.failure for trail in trails} == {Failure.HUNG}
    assert descriptors() == before


def test_no_newcomers() -> None:
    """A rate of 0 means none, until the end all the same."""
    assert coming(Place(), Newcomers(rate=0.0), 0.01) == ([], newcomers.Untried())


def test_newcomers_that_are_refused() -> None:
    """Refusals are quick and each is written down."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    trails, _ = coming(Place(port=port), Newcomers(rate=100.0), 0.1)
    assert trails
    assert {trail.failure for trail in trails} == {Failure.REFUSED}


def filled(listener: socket.socket, place: Place, size: int) -> list[Trail]:
    """Fill the queue of a listener, and let it be served only then."""

    async def go() -> list[Trail]:
        gate = Gate(10.0)
        state = State(Kind.BACKLOG, Request("/{key}"), count=size)
        backlog = Backlog(place, state, gate, count(1))
        trails = [client.trails[0] for client in backlog.clients]
        begun = monotonic()
        backlog.fill()
        assert all(trail.steady and trail.sent_all for trail in trails)
        assert all(begun <= (trail.sent or 0) for trail in trails)
        running = [asyncio.ensure_future(client.run()) for client in backlog.clients]
        gate.open(monotonic())
        with scripted(once_more, listener):
            await asyncio.gather(*running)
        return trails

    return asyncio.run(go())


def once_more(end: Connection) -> None:
    """Answer one request that stood in the queue."""
    assert end.read().startswith(b"GET /k")
    end.send(OK)


@pytest.mark.parametrize("unix", [False, True])
def test_the_backlog(tmp_path: Path, *, unix: bool) -> None:
    """Right after `fill` all stand in the queue with their requests; then they are answered."""
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listener.bind(str(tmp_path / "queue.sock") if unix else ("127.0.0.1", 0))
    listener.listen(64)
    name = listener.getsockname()
    trails = filled(listener, Place(unix=name) if unix else Place(port=name[1]), 50)
    assert {(trail.status, trail.failure) for trail in trails} == {(200, None)}
    assert len({trail.connection for trail in trails}) == 50


def ended(place: Place, state: State, *, patience_s: float = 10.0) -> list[Trail]:
    """Fill, stop, and follow to the end."""

    async def go() -> list[Trail]:
        gate = Gate(patience_s)
        backlog = Backlog(place, state, gate, count(1))
        backlog.fill()
        gate.open(monotonic())
        await asyncio.gather(*(client.run() for client in backlog.clients))
        return [client.trails[0] for client in backlog.clients]

    return asyncio.run(go())


def test_a_backlog_that_is_reset() -> None:
    """A listener that is closed resets what stood in its queue: sent, and lost."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)

    async def go() -> list[Trail]:
        gate = Gate(10.0)
        place = Place(port=listener.getsockname()[1])
        backlog = Backlog(place, State(Kind.BACKLOG, count=3), gate, count(1))
        backlog.fill()
        gate.open(monotonic())
        listener.close()
        await asyncio.gather(*(client.run() for client in backlog.clients))
        return [client.trails[0] for client in backlog.clients]

    trails = asyncio.run(go())
    assert {trail.failure for trail in trails} == {Failure.RESET}
    assert all(trail.sent_all for trail in trails)


def test_a_backlog_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that find no room were not connected and not sent, and `fill` does not wait."""
    monkeypatch.setattr("lastcall.drill.clients.backlog.CONNECT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(str(tmp_path / "full.sock"))
        tcp.bind(("127.0.0.1", 0))
        for listener in (unix, tcp):
            listener.listen(0)
            name = listener.getsockname()
            place = Place(unix=name) if listener is unix else Place(port=name[1])
            trails = ended(place, State(Kind.BACKLOG, count=4), patience_s=0.5)
            stood = [trail for trail in trails if trail.connected is not None]
            assert len(stood) == 1
            assert {trail.failure for trail in trails} == {Failure.HUNG, Failure.UNREACHED}
            assert [trail.steady for trail in trails] == [trail in stood for trail in trails]


def test_a_backlog_without_ports_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the backlog nor a newcomer blames the server for ports that ran out here."""
    unable(monkeypatch, errno.EADDRNOTAVAIL)
    trails = ended(Place(port=1), State(Kind.BACKLOG))
    trails += coming(Place(port=1), Newcomers(rate=20.0), 0.1)[0]
    assert len(trails) >= 2
    assert {(trail.failure, trail.note[:15]) for trail in trails} == {
        (Failure.OURS, "EADDRNOTAVAIL: ")
    }


def test_a_newcomer_tells_an_answer_that_only_the_end_ends() -> None:
    """An answer without any framing may have been cut by the stop: its trail says so."""

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 200 OK\r\n\r\nhal")

    for said, unframed in ((script, True), (once, False)):
        with scripted(said) as server:
            trails, _ = coming(server.place, Newcomers(rate=20.0), 0.1)
        assert {(trail.failure, trail.unframed) for trail in trails} == {(None, unframed)}


def test_a_backlog_of_nothing(tmp_path: Path) -> None:
    """Where nobody listens each is refused; where it was never filled it was never tried."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for place in (Place(port=port), Place(unix=str(tmp_path / "none.sock"))):
        (trail,) = ended(place, State(Kind.BACKLOG))
        assert (trail.failure, trail.connected) == (Failure.REFUSED, None)

    async def unfilled() -> Trail:
        gate = Gate(1.0)
        backlog = Backlog(Place(port=port), State(Kind.BACKLOG), gate, count(1))
        gate.open(monotonic())
        await backlog.clients[0].run()
        return backlog.clients[0].trails[0]

    trail = asyncio.run(unfilled())
    assert (trail.failure, trail.note) == (Failure.UNREACHED, "never tried")


def test_the_backlog_of_a_name_with_two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first address refuses, the next one is filled."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    port = listener.getsockname()[1]
    both = ((socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port)))
    monkeypatch.setattr("lastcall.drill.clients.backlog.addresses", lambda _place: both)
    trails = filled(listener, Place("localhost", port), 3)
    assert {trail.status for trail in trails} == {200}


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the clock runs nobody waits for a name server."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def looked_up(host: str, *rest: int, **words: int) -> object:
        asked.append(host)
        return real(host, *rest, **words)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    place = Place("localhost", 4242)
    assert wire.addresses(place) == wire.addresses(place)
    assert asked == ["localhost"]
