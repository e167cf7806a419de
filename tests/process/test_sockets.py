"""Sockets of processes: tables, holders, and what goes on on a connection."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from helpers import python, victim, wait_until
from lastcall.targets.process import sockets, tcpinfo
from lastcall.targets.process.sockets import Activity, Endpoint, Socket, TcpState

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
_MADE = Socket(Endpoint("127.0.0.1", 80), Endpoint("127.0.0.1", 5000), TcpState.ESTABLISHED, 0, 7)


def _everything(_port: str, _state: str) -> bool:
    return True


@pytest.mark.skipif(struct.pack("=H", 1) != b"\1\0", reason="the sample is of little endian")
def test_a_line_of_each_family_is_read() -> None:
    """Addresses come out as people write them, v4-mapped ones as IPv4."""
    rest = b"00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n"
    raw = (
        _HEAD
        + b"   0: 0100007F:1F90 00000000:0000 0A "
        + rest
        + b"   1: 00000000000000000000000001000000:1F90 000000000000000000000000"
        + b"01000000:0050 01 "
        + rest
        + b"   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:0050 08 "
        + rest
    )
    first, second, third = sockets.parse_table(raw, _everything)
    assert (str(first.local), first.state) == ("127.0.0.1:8080", TcpState.LISTEN)
    assert (first.uid, first.inode) == (1000, 4711)
    assert (str(second.local), str(second.remote)) == ("[::1]:8080", "[::1]:80")
    assert (str(third.local), str(third.remote)) == ("127.0.0.1:8080", "127.0.0.2:80")
    assert third.state is TcpState.CLOSE_WAIT


def test_lines_nobody_wants_or_can_read_are_left_out() -> None:
    """The filter sees port and state; a torn line is no error."""
    line = b"   0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 1 1\n"
    assert (
        sockets.parse_table(_HEAD + line + b"  1: 0100", lambda _port, state: state != "0A") == []
    )
    assert len(sockets.parse_table(_HEAD + line + b"  1: 0100", _everything)) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listening_socket_is_found_with_its_holder(host: str) -> None:
    """The process that listens holds the inode that the kernel's table names."""
    with victim(*python("net_listen.py", "alone", host)) as one:
        (door,) = sockets.listening_of([one.pid])
        assert door.local.host == host
        assert door in sockets.listening(None)
        assert door.inode in sockets.held_by(one.pid)
        assert sockets.holders({door.inode})[0] == {door.inode: (one.pid,)}
        assert sockets.holders_of_ports([door]) == [one.pid]
    assert sockets.holders_of_ports([door]) == []


def test_what_is_gone_is_said_to_be_gone() -> None:
    """A process that ended has no sockets, and asking for them raises what procfs raises."""
    with victim(*python("net_listen.py", "alone")) as one:
        pid = one.pid
    with pytest.raises(ProcessLookupError):
        sockets.held_by(pid)
    with pytest.raises(ProcessLookupError):
        sockets.listening(pid)
    assert sockets.listening_of([pid]) == ()


@contextmanager
def _server() -> Iterator[tuple[socket.socket, Socket]]:

    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        yield door, next(s for s in sockets.listening_of([os.getpid()]) if s.local.port == port)


def _now(door: Socket) -> Activity:

    (one,) = sockets.connections([door], [os.getpid()])
    return one.activity


def test_the_life_of_one_connection() -> None:
    """Each step of a request and its answer shows as what it is."""
    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        client = stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        assert _now(door) is Activity.QUEUED
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        assert _now(door) is Activity.SILENT
        client.sendall(b"GET / HT")
        wait_until(lambda: _now(door) is Activity.UNREAD, "the request to arrive")
        server.recv(100)
        # Half a request looks like a whole one: the kernel cannot know.
        assert _now(door) is Activity.WAITING
        _let_time_pass(door)
        server.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        client.recv(100)
        wait_until(lambda: _now(door) is Activity.IDLE, "the answer to be acknowledged")
        _let_time_pass(door)
        client.sendall(b"GET / HT")
        server.recv(100)
        wait_until(lambda: _now(door) is Activity.WAITING, "the second request to be seen")
        client.close()
        wait_until(lambda: _state(door) is TcpState.CLOSE_WAIT, "the client's end to be seen")
        assert _now(door) is Activity.WAITING


def _state(door: Socket) -> TcpState:

    (one,) = sockets.connections([door], [os.getpid()])
    return one.socket.state


def _let_time_pass(door: Socket) -> None:
    """Until the last data is more than a tick of the kernel's timer old (10 ms at most)."""

    def old() -> bool:
        (told,) = tcpinfo.traffic([door.local.port]) or ()
        return min(told.received_ms, told.sent_ms) > 20

    wait_until(old, "the last data to be 20 ms old")


def test_an_answer_that_the_client_does_not_take_is_under_way() -> None:
    """Data that stays in the server's queue counts as work in flight."""
    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        client = stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        client.sendall(b"x")
        server.recv(1)
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        assert _now(door) is Activity.UNDELIVERED
        assert Activity.UNDELIVERED.in_flight


def test_a_stream_is_told_by_two_looks() -> None:
    """Between two pieces a stream looks idle; that more was sent meanwhile gives it away."""
    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        client = stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        client.sendall(b"x")
        server.recv(1)
        _let_time_pass(door)
        server.sendall(b"piece")
        client.recv(5)
        wait_until(lambda: _now(door) is Activity.IDLE, "the first piece to be acknowledged")
        before = sockets.connections([door], [os.getpid()])
        assert sockets.streaming(before, before) == before
        server.sendall(b"piece")
        client.recv(5)
        after = sockets.connections([door], [os.getpid()])
        assert [c.activity for c in sockets.streaming(before, after)] == [Activity.STREAMING]


def test_connections_of_others_and_outgoing_ones_are_left_out() -> None:
    """Only what came in through the listening socket, to these processes, counts."""
    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        with victim(*python("net_listen.py", "alone")) as other:
            (elsewhere,) = sockets.listening_of([other.pid])
            assert sockets.connections([door], [other.pid]) == ()
            assert sockets.connections([elsewhere], [os.getpid()]) == ()
        assert len(sockets.connections([door], [os.getpid()])) == 1


def test_connections_are_told_after_the_listening_socket_was_closed() -> None:
    """A server that ends in order closes its door first: what is inside is still there."""
    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        for _ in range(2):
            stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        assert len(sockets.connections([door], [os.getpid()])) == 2
        listener.close()
        (left,) = sockets.connections([door], [os.getpid()])
        assert left.pids == (os.getpid(),)


def test_without_netlink_the_plain_facts_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not answer, a connection is open and no more is claimed."""

    def refuse(*_: object) -> socket.socket:
        raise PermissionError

    with ExitStack() as stack:
        listener, door = stack.enter_context(_server())
        stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        server, _ = listener.accept()
        stack.enter_context(closing(server))
        monkeypatch.setattr("lastcall.targets.process.tcpinfo.socket.socket", refuse)
        (one,) = sockets.connections([door], [os.getpid()])
    assert (one.activity, one.traffic) == (Activity.UNKNOWN, None)
    assert not one.activity.in_flight


@pytest.mark.parametrize(
    ("received_ms", "sent_ms", "acked_ms", "expected"),
    [
        (100, 200, 100, Activity.WAITING),
        (200, 100, 100, Activity.IDLE),
        (100, 100, 60, Activity.IDLE),
        (100, 100, 100, Activity.UNCLEAR),
        (20_000, 20_000, 5_000, Activity.UNCLEAR),
    ],
)
def test_what_the_times_say(
    received_ms: int, sent_ms: int, acked_ms: int, expected: Activity
) -> None:
    """Data that came and went in one tick is only called idle when a later packet shows it."""
    told = tcpinfo.Traffic(7, 5000, received_ms, sent_ms, acked_ms, 10, 1, 0, 0)
    assert sockets.activity(_MADE, told) is expected


def test_an_old_kernel_tells_less() -> None:
    """A short struct tcp_info is read as far as it goes; one without the times is none."""
    info = bytearray(104)
    struct.pack_into("=IIII", info, 44, 1, 0, 2, 3)
    told = tcpinfo.parse_info(bytes(info))
    assert told is not None
    assert (told.sent_ms, told.received_ms, told.acked_ms) == (1, 2, 3)
    assert (told.received_bytes, told.sent_segments) == (None, None)
    assert tcpinfo.parse_info(bytes(40)) is None
