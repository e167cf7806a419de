"""What a server owes on each of its connections, ending them, and when a drain is over."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from helpers import wait_until
from lastcall.app.http import descriptors
from lastcall.app.http.connections import (
    Connection,
    State,
    Verdict,
    Why,
    end_all,
    own_connections,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 30.0
HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
ACCEPTS_ONE = """
import socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
mine, _ = server.accept()
print("ready", flush=True)
sys.stdin.read()
"""


class Pair:
    """A client, and the server's side of its connection."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.client = socket.socket(server.family)
        self.client.settimeout(PATIENCE_S)
        self.client.connect(
            name[:2] if isinstance(name := server.getsockname(), tuple) else name,
        )
        self.served = server.accept()[0]
        self.served.settimeout(PATIENCE_S)

    def seen(self) -> Connection:
        """How our snapshot tells it."""
        name = self.server.getsockname()
        found = own_connections([], [name]) if isinstance(name, str) else own_connections([name[1]])
        [one] = [each for each in found if each.fd == self.served.fileno()]
        return one

    def becomes(self, state: State) -> Connection:
        """Wait until it is told so."""
        wait_until(lambda: self.seen().state is state, state.name)
        return self.seen()


@contextlib.contextmanager
def pair(host: str = "127.0.0.1") -> Iterator[Pair]:
    """A connection over TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        made = Pair(server)
        with made.client, made.served:
            yield made


@HOSTS
def test_a_connection_goes_through_its_states(host: str) -> None:
    """Silent, a request unread, read, answered, and the next one half received."""
    with pair(host) as made:
        one = made.seen()
        assert (one.state, one.unread, one.received) == (State.SILENT, 0, 0)
        assert one.peer == made.client.getsockname()[:2]
        assert one.local == made.client.getpeername()[:2]
        made.client.sendall(b"request")
        one = made.becomes(State.PARTIAL)
        assert (one.unread, one.received) == (7, 7)
        assert made.served.recv(16) == b"request"
        assert made.seen().state is State.PARTIAL
        assert made.seen().unread == 0
        made.served.sendall(b"answer")
        assert made.client.recv(16) == b"answer"
        one = made.becomes(State.QUIET)
        assert one.unsent == 0
        # The next tick of the kernel's timer, so that what comes now is seen to be newer.
        wait_until(lambda: (made.seen().last_sent_s or 0) >= 0.03, "a tick")
        made.client.sendall(b"half")
        one = made.becomes(State.PARTIAL)
        assert made.served.recv(16) == b"half"
        one = made.seen()
        assert one.state is State.PARTIAL
        assert one.last_received_s is not None
        assert one.last_sent_s is not None
        assert one.last_received_s < one.last_sent_s


def test_an_answer_on_its_way_is_not_idle() -> None:
    """What the client has not taken yet still is to be delivered."""
    with pair() as made:
        made.client.sendall(b"request")
        made.becomes(State.PARTIAL)
        made.served.recv(16)
        made.served.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                made.served.send(bytes(65536))
        wait_until(lambda: (made.seen().last_received_s or 0) >= 0.03, "a tick")
        # What the kernel sent at last came after the request.
        with contextlib.suppress(BlockingIOError):
            made.client.recv(1 << 20)
            made.served.send(bytes(65536))
        one = made.becomes(State.SENDING)
        assert one.unsent > 0


def test_a_client_that_left_is_closing() -> None:
    """Its FIN is no request, but what it sent before may be one."""
    with pair() as made:
        made.client.shutdown(socket.SHUT_WR)
        made.becomes(State.CLOSING)
    with pair() as made:
        made.client.sendall(b"request")
        made.client.shutdown(socket.SHUT_WR)
        wait_until(lambda: made.seen().unread == 7, "the request")
        assert made.seen().state is State.PARTIAL
        made.served.recv(16)
        made.becomes(State.CLOSING)


@HOSTS
def test_an_end_is_in_order(host: str) -> None:
    """The client reads what was written, then the end; what it says then goes nowhere."""
    with pair(host) as made:
        made.served.sendall(b"answer")
        assert made.seen().end()
        assert made.client.recv(16) == b"answer"
        assert made.client.recv(16) == b""
        assert made.becomes(State.ENDED).peer == made.client.getsockname()[:2]
        # The server still can read, and sees the client go.
        made.client.close()
        assert made.served.recv(16) == b""


def test_a_descriptor_that_was_given_to_another_is_left_alone() -> None:
    """Between the snapshot and the end a connection may be closed and its number used again."""
    with pair() as first:
        old = first.seen()
        number = first.served.fileno()
        with pair() as second:
            first.served.close()
            os.dup2(second.served.fileno(), number)
            try:
                assert not old.end()
                assert old.peer == ""
                assert end_all([old]) == 0
                second.served.sendall(b"unharmed")
                assert second.client.recv(16) == b"unharmed"
            finally:
                os.close(number)
            assert not old.end()  # nor if there is nothing any more


def test_only_what_came_in_through_the_door_is_seen_and_once() -> None:
    """No client of ours, no listening socket, no other port, no second descriptor."""
    with pair() as made, pair() as other, made.served.dup():
        port = made.server.getsockname()[1]
        [one] = own_connections([port])
        assert one.peer == made.client.getsockname()
        both = own_connections([port, other.server.getsockname()[1]])
        assert len(both) == 2
        assert own_connections([]) == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", port))
            assert len(own_connections([port])) == 1


def test_connections_of_other_processes_are_not_seen() -> None:
    """Workers share a port: each has its own connections, and the queue is nobody's yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd = server.fileno()
        child = subprocess.Popen(
            [sys.executable, "-c", ACCEPTS_ONE, str(fd)],
            pass_fds=[fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            with socket.create_connection(server.getsockname()):
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n"
                with socket.create_connection(server.getsockname()):
                    assert own_connections([server.getsockname()[1]]) == []
        finally:
            child.kill()
            child.communicate()


def test_of_a_unix_stream_some_things_are_known(tmp_path: Path) -> None:
    """Unread and undelivered bytes, and who has ended it; else it is just open."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        made = Pair(server)
        with made.client, made.served:
            assert made.seen().state is State.OPEN
            made.client.sendall(b"request")
            assert (made.seen().state, made.seen().unread) == (State.PARTIAL, 7)
            made.served.recv(16)
            made.served.sendall(b"answer")
            assert made.seen().state is State.SENDING
            made.client.recv(16)
            assert made.seen().state is State.OPEN
            assert made.seen().end()
            assert made.seen().state is State.ENDED
            assert made.client.recv(16) == b""
        made = Pair(server)
        with made.client, made.served:
            made.client.shutdown(socket.SHUT_WR)
            assert made.seen().state is State.CLOSING
            made.client.close()
            assert made.seen().state is State.ENDED
            assert own_connections([], ["/elsewhere"]) == []


def test_many_connections_are_all_seen() -> None:
    """Each of 300 is told with its own peer."""
    with socket.create_server(("127.0.0.1", 0), backlog=300) as server, contextlib.ExitStack() as s:
        clients = []
        for _ in range(300):
            clients.append(s.enter_context(socket.create_connection(server.getsockname())))
            s.enter_context(server.accept()[0])
        found = own_connections([server.getsockname()[1]])
        assert {one.peer for one in found} == {each.getsockname() for each in clients}
        assert len({one.cookie for one in found}) == 300
        assert end_all(found) == 300
        assert [each.recv(1) for each in clients] == [b""] * 300


def test_without_proc_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this cannot be had the list is empty, and nothing is ended."""
    with pair() as made:
        one = made.seen()
        monkeypatch.setattr(descriptors, "_numbers", lambda: 0)
        descriptors.supported.cache_clear()
        try:
            assert own_connections([made.server.getsockname()[1]]) == []
            assert end_all([one]) == 0
            assert one.peer == ""
        finally:
            descriptors.supported.cache_clear()


def of(state: State, moved_s: float = 100.0) -> Connection:
    """A connection whose last byte in the direction that counts is so old."""
    return Connection(state, cookie=7, last_received_s=moved_s, last_sent_s=moved_s)


def judge(
    now_s: float,
    *connections: Connection,
    in_flight: int = 0,
    progress_s: float = 0.0,
    ended_s: float | None = None,
) -> Verdict:
    """A drain that began at 0, with 1 s for idle ones and 5 s of patience."""
    return verdict(
        connections,
        in_flight,
        now_s,
        began_s=0.0,
        progress_s=progress_s,
        ended_s=ended_s,
        linger_s=1.0,
        patience_s=5.0,
    )


def steps(*verdicts: Verdict) -> list[tuple[Why, float | None, int, bool]]:
    """What matters of each."""
    return [
        (one.why, None if one.again_s is None else round(one.again_s, 6), len(one.end), one.over)
        for one in verdicts
    ]


def test_work_in_flight_is_waited_for_without_looking() -> None:
    """Whatever the connections look like, and however late it is, as its end is an event."""
    everything: Sequence[Connection] = [of(state) for state in State]
    late = judge(99.0, *everything, in_flight=2)
    assert steps(judge(0.0, in_flight=1), late) == [(Why.WORK, None, 0, False)] * 2
    assert late.text == "2 requests in flight"


def test_nothing_open_is_over_at_once() -> None:
    """Neither no connection nor those that have got our end are waited for."""
    assert steps(judge(0.0), judge(0.0, of(State.ENDED))) == [(Why.EMPTY, None, 0, True)] * 2


@pytest.mark.parametrize("state", [State.SILENT, State.QUIET, State.OPEN])
def test_idle_connections_get_a_moment_and_are_ended(state: State) -> None:
    """Looked at until the moment is over, ended, and the closing waited for."""
    told = [
        judge(0.0, of(state)),
        judge(0.99, of(state)),
        judge(1.0, of(state), of(state)),
        judge(1.025, of(State.CLOSING), ended_s=1.0),
        judge(1.05, of(State.ENDED), ended_s=1.0),
    ]
    assert steps(*told) == [
        (Why.IDLE, 0.025, 0, False),
        (Why.IDLE, 0.01, 0, False),
        (Why.ENDING, 0.025, 2, False),
        (Why.CLOSING, 0.025, 0, False),
        (Why.EMPTY, None, 0, True),
    ]


def test_half_requests_have_patience_from_their_last_byte() -> None:
    """Each byte counts anew; standing still, they are given up, and the report can say so."""
    half = State.PARTIAL
    told = [
        judge(0.0, of(half)),
        judge(4.99, of(half)),
        judge(5.0, of(half, moved_s=0.5)),
        judge(9.49, of(half, moved_s=4.99)),
        judge(9.5, of(half, moved_s=5.0), of(half)),
    ]
    assert steps(*told) == [
        (Why.BUSY, 0.025, 0, False),
        (Why.BUSY, 0.01, 0, False),
        (Why.BUSY, 0.025, 0, False),
        (Why.BUSY, 0.01, 0, False),
        (Why.GIVEN_UP, None, 0, True),
    ]
    assert told[-1].text == "2 half requests given up after 5 s"
    assert len(told[-1].given_up) == 2


def test_work_that_ended_just_now_renews_patience() -> None:
    """Patience counts from the latest of the beginning, the last byte and the last work's end."""
    assert judge(5.0, of(State.PARTIAL), progress_s=3.0).why is Why.BUSY
    assert judge(8.0, of(State.PARTIAL), progress_s=3.0).over


def test_idle_connections_do_not_wait_for_half_requests() -> None:
    """When their moment is over they are ended, while the others are waited for."""
    told = judge(2.0, of(State.QUIET), of(State.PARTIAL))
    assert steps(told) == [(Why.BUSY, 0.025, 1, False)]
    assert told.text == "1 half request"
    # And given up ones do not end the moment of the idle ones.
    told = verdict(
        [of(State.SILENT), of(State.PARTIAL)],
        0,
        0.5,
        began_s=0.0,
        progress_s=0.0,
        ended_s=None,
        linger_s=1.0,
        patience_s=0.1,
    )
    assert told.why is Why.IDLE


def test_an_answer_on_its_way_is_waited_for_while_it_moves() -> None:
    """A client that does not read is given up like one that does not write."""
    assert judge(3.0, of(State.SENDING)).why is Why.BUSY
    assert judge(20.0, of(State.SENDING, moved_s=1.0)).why is Why.BUSY
    told = judge(20.0, of(State.SENDING, moved_s=6.0), of(State.PARTIAL, moved_s=7.0))
    assert told.text == "1 half request, 1 undelivered answer given up after 5 s"


def test_nothing_is_ended_right_behind_the_last_work() -> None:
    """The server may still hold the end of its answer in its own buffers."""
    assert judge(7.0, of(State.QUIET), progress_s=6.99).why is Why.IDLE
    assert judge(7.025, of(State.QUIET), progress_s=6.99).why is Why.ENDING


def test_closing_connections_are_waited_for_briefly() -> None:
    """And then left alone: who has said goodbye loses nothing, and is not reported."""
    assert steps(judge(0.99, of(State.CLOSING)), judge(1.0, of(State.CLOSING))) == [
        (Why.CLOSING, 0.01, 0, False),
        (Why.EMPTY, None, 0, True),
    ]


def test_who_cannot_be_ended_does_not_hold_the_drain() -> None:
    """An idle connection that the kernel gives no name has its moment, and is given up."""
    nameless = Connection(State.QUIET)
    told = [judge(t, nameless) for t in (0.5, 1.0)]
    assert steps(*told) == [(Why.IDLE, 0.025, 0, False), (Why.GIVEN_UP, None, 0, True)]
    assert told[-1].text == "1 idle connection given up after 1 s"
    assert told[-1].given_up == (nameless,)


def test_one_that_becomes_idle_late_is_ended_too() -> None:
    """Others were ended long before: that does not spare it, and its closing is waited for."""
    assert len(judge(7.0, of(State.QUIET), progress_s=6.0, ended_s=1.0).end) == 1
    assert judge(7.5, of(State.CLOSING), progress_s=6.0, ended_s=7.0).why is Why.CLOSING


def test_many_connections_are_looked_at_less_often() -> None:
    """Looking must not eat the processor that the server needs."""
    assert judge(0.0, *[of(State.QUIET)] * 5000).again_s == pytest.approx(0.1)
