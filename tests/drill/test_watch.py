"""What the kernel tells of a server's side: who listens, who waits, who was read."""

from __future__ import annotations

import asyncio
import socket
from time import monotonic

import pytest

from helpers import wait_until
from lastcall.drill.history import Found
from lastcall.drill.place import Place
from lastcall.drill.watch import Watch


def of(listener: socket.socket) -> Place:
    """Where a socket listens."""
    return Place("127.0.0.1", listener.getsockname()[1])


def test_a_connection_is_queued_then_unread_then_taken() -> None:
    """Each connection is told as where the server's side has it, by the client's port."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        watch, port = Watch(of(listener)), client.getsockname()[1]

        def now() -> Found | None:
            assert asyncio.run(watch.found()).get(port) == watch.between([port]).get(port)
            return watch.between([port]).get(port)

        client.sendall(b"hello")
        wait_until(lambda: now() is Found.QUEUED, "it stands in the queue")
        assert watch.look()
        taken, _ = listener.accept()
        with taken:
            wait_until(lambda: now() is Found.UNREAD, "its bytes are unread")
            taken.recv(100)
            wait_until(lambda: now() is Found.TAKEN, "its bytes were read")
        assert watch.between([]) == {}
    looks = watch.looks(monotonic())
    assert looks[0].listening == 1


def test_the_end_of_listening_is_told_once() -> None:
    """While it looks again and again, whoever waits is told when the last listener closes."""

    async def close_while_watched() -> tuple[Watch, list[float], float]:
        listener = socket.create_server(("127.0.0.1", 0))
        watch, told, over = Watch(of(listener)), list[float](), asyncio.Event()

        def closed(at: float) -> None:
            told.append(at)
            over.set()

        looking = asyncio.create_task(watch.go_on(closed))
        await asyncio.sleep(0)  # its first look
        assert watch.knows
        zero = monotonic()
        listener.close()
        await over.wait()
        looking.cancel()
        return watch, told, zero

    watch, told, zero = asyncio.run(close_while_watched())
    assert len(told) == 1
    closed_s = watch.closed(zero)
    assert closed_s is not None
    assert 0 <= closed_s < 5
    assert closed_s == pytest.approx(told[0] - zero, abs=0.0001)
    assert [look.listening for look in watch.looks(zero)] == [1, 0]
    assert not watch.look()


def test_only_changes_are_kept() -> None:
    """However often it looks, what stays alike is kept once, and the last look."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watch = Watch(of(listener))
        for _ in range(50):
            assert watch.look()
        assert len(watch.looks(monotonic())) <= 2
        assert watch.closed(monotonic()) is None


@pytest.mark.parametrize("place", [Place("192.0.2.1", 80), Place(unix="/nope")])
def test_nothing_is_claimed_of_another_machine(place: Place) -> None:
    """Where the kernel cannot know, nothing is said, and nobody counts as gone."""
    watch = Watch(place)
    assert watch.look()
    assert not watch.knows
    assert asyncio.run(watch.found()) == {}
    assert watch.between([1, 2]) == {}
    assert watch.closed(0.0) is None
    assert watch.looks(0.0) == ()
    asyncio.run(asyncio.wait_for(watch.go_on(), 5))
