"""The door: own listening sockets are found, newcomers turned away, and those inside let in."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from helpers import wait_until
from lastcall.app.http import descriptors, diag, listeners
from lastcall.app.http.listeners import Listener, own_listeners, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 30.0
LET_ALL_THROUGH = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF)
NO_SUCH_OPTION = 9999
HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
WATCHER = """
import sys
from lastcall.app.http.listeners import own_listeners
[door] = own_listeners()
print(f"ready {door.address}", flush=True)
for _ in sys.stdin:
    print(door.turned_away(), door.queued(), flush=True)
"""


def serve(host: str, *, port: int = 0, share: bool = False) -> socket.socket:
    """A listening TCP socket; several may share its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=16, reuse_port=share)


def serve_unix(path: Path) -> socket.socket:
    """A listening Unix socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(8)
    return server


@contextlib.contextmanager
def door(server: socket.socket) -> Iterator[Listener]:
    """Our view of one listening socket."""
    found = own_listeners()
    inode = os.fstat(server.fileno()).st_ino
    try:
        [ours] = [one for one in found if one.inode == inode]
        yield ours
    finally:
        for one in found:
            one.close()


def client(server: socket.socket) -> socket.socket:
    """A connection to it, which the server has not accepted."""
    return socket.create_connection(server.getsockname()[:2], timeout=PATIENCE_S)


def put_filter(of: socket.socket, program: bytes) -> None:
    """Give a socket a packet filter; skip the test where that needs rights that we have not."""
    code = ctypes.create_string_buffer(program, len(program))
    given = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    try:
        of.setsockopt(socket.SOL_SOCKET, 26, given)
    except PermissionError:
        pytest.skip("a packet filter on a TCP socket needs CAP_NET_ADMIN on this kernel")


def without_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel before 5.0, which has no SO_BINDTOIFINDEX."""
    monkeypatch.setattr(listeners, "SO_BINDTOIFINDEX", NO_SUCH_OPTION)
    with serve("127.0.0.1") as probe:
        put_filter(probe, LET_ALL_THROUGH)


def begin_connecting(server: socket.socket) -> socket.socket:
    """A client who has sent his first packet."""
    made = socket.socket(server.family)
    made.setblocking(False)
    made.connect_ex(server.getsockname()[:2])
    return made


def held_back(server: socket.socket) -> socket.socket:
    """A client whose handshake stays under way until he says something, or the server gives in."""
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    made = client(server)
    wait_until(lambda: bool(diag.handshakes([port_of(server)])), "a handshake under way")
    return made


def outcome(of: socket.socket) -> int:
    """What became of a connection that was begun: 0, or an error number."""
    assert select.select([], [of], [], PATIENCE_S)[1]
    return of.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def port_of(server: socket.socket) -> int:
    """Where it listens."""
    return int(server.getsockname()[1])


@contextlib.contextmanager
def accepting(server: socket.socket) -> Iterator[list[socket.socket]]:
    """A thread that accepts all who come, until the block is left."""
    accepted: list[socket.socket] = []
    mine, other = socket.socketpair()

    def run() -> None:
        while other not in (ready := select.select([server, other], [], [])[0]):
            if ready:
                accepted.append(server.accept()[0])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield accepted
    finally:
        mine.close()
        thread.join()
        other.close()
        for one in accepted:
            one.close()


def test_every_listening_socket_is_found_once(tmp_path: Path) -> None:
    """TCP over IPv4 and IPv6 and Unix streams are found, though one has two descriptors."""
    with (
        serve("127.0.0.1") as four,
        serve("::1") as six,
        serve_unix(tmp_path / "s"),
        four.dup(),
        client(four),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        found = own_listeners()
        told = [one.address for one in found]
        expected = [f"127.0.0.1:{port_of(four)}", f"[::1]:{port_of(six)}", f"unix:{tmp_path}/s"]
        assert [one for one in told if one in expected] == expected
        assert datagrams.getsockname()[1] not in {one.port for one in found}
        assert [one.port for one in own_listeners([port_of(six)])] == [port_of(six)]
        assert own_listeners([]) == []
        assert {one.path for one in found} >= {f"{tmp_path}/s", None}
        for one in found:
            one.close()


def test_an_abstract_name_is_told_with_an_at_sign() -> None:
    """An abstract Unix socket has no path in the file system."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0lastcall-{os.getpid()}")
        server.listen()
        with door(server) as ours:
            assert ours.address == f"unix:@lastcall-{os.getpid()}"


def test_looking_changes_nothing_of_the_server() -> None:
    """The copy is not inherited, the server's own descriptor stays as it was, none is leaked."""
    before = set(os.listdir("/proc/self/fd"))
    socket.setdefaulttimeout(5)
    try:
        server = serve("127.0.0.1")
        server.settimeout(None)
        with server:
            with door(server) as ours:
                assert not os.get_inheritable(ours._fd)
                ours.queued()
            assert os.get_blocking(server.fileno())
    finally:
        socket.setdefaulttimeout(None)
    assert set(os.listdir("/proc/self/fd")) == before


@HOSTS
def test_the_queue_is_counted(host: str) -> None:
    """Three clients whom nobody has accepted are three; a closed socket has none."""
    with serve(host) as server, door(server) as ours:
        assert ours.queued() == 0
        with client(server), client(server), client(server):
            wait_until(lambda: ours.queued() == 3, "three in the queue")
            with server.accept()[0]:
                assert ours.queued() == 2
        ours.end()
        assert ours.queued() == 0


def test_the_queue_of_a_unix_socket_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly where the kernel tells, and as none or some where it does not."""
    path = tmp_path / "s"
    with serve_unix(path) as server, door(server) as ours:
        assert ours.queued() == 0
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            one.connect(str(path))
            two.connect(str(path))
            assert ours.queued() == 2
            monkeypatch.setattr(diag, "unix_queue", lambda _: None)
            assert ours.queued() == 1
        for _ in range(2):
            server.accept()[0].close()
        assert ours.queued() == 0


@HOSTS
def test_newcomers_are_refused_and_the_queued_are_served(host: str) -> None:
    """Who was connected gets an answer; who comes later is refused at once."""
    with serve(host) as server, door(server) as ours, client(server) as early:
        assert not ours.turned_away()
        assert ours.turn_newcomers_away()
        assert ours.turned_away()
        assert ours.turn_newcomers_away()  # once more changes nothing
        with begin_connecting(server) as late:
            assert outcome(late) == errno.ECONNREFUSED
        assert ours.queued() == 1
        with server.accept()[0] as served:
            early.sendall(b"ask")
            assert served.recv(16) == b"ask"
            served.sendall(b"answer")
            assert early.recv(16) == b"answer"


@HOSTS
def test_an_older_kernel_drops_newcomers(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later hears nothing while the socket lives, and is refused when it is gone."""
    without_binding(monkeypatch)
    with serve(host) as server, door(server) as ours, client(server) as early:
        assert ours.turn_newcomers_away()
        assert ours.turned_away()
        with begin_connecting(server) as late:
            assert not select.select([], [late], [], 0.2)[1]
            with server.accept()[0] as served:
                early.sendall(b"ask")
                assert served.recv(16) == b"ask"
            ours.close()
            server.close()
            # His kernel knocks again after a second, and finds the door gone.
            assert outcome(late) == errno.ECONNREFUSED


def test_one_of_several_sockets_on_a_port_lets_nobody_in() -> None:
    """With SO_REUSEPORT, whom the kernel picked for it comes in elsewhere once it is closed."""
    with (
        serve("127.0.0.1", share=True) as one,
        door(one) as ours,
        serve("127.0.0.1", share=True, port=port_of(one)) as other,
        contextlib.ExitStack() as stack,
    ):
        assert ours.turn_newcomers_away()
        late = [stack.enter_context(begin_connecting(one)) for _ in range(12)]
        assert ours.queued() == 0
        ours.close()
        one.close()
        assert [outcome(each) for each in late] == [0] * 12
        for _ in late:
            other.accept()[0].close()


def test_whoever_shares_the_socket_sees_the_filter() -> None:
    """A child that inherited the listening socket knows that the whole service stops."""
    with serve("127.0.0.1") as server, door(server) as ours:
        child = subprocess.Popen(
            [sys.executable, "-c", WATCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[server.fileno()],
        )
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == f"ready {ours.address}\n"
            print(file=child.stdin, flush=True)
            assert child.stdout.readline() == "False 0\n"
            with client(server):
                assert ours.turn_newcomers_away()
                print(file=child.stdin, flush=True)
                assert child.stdout.readline() == "True 1\n"
        finally:
            child.kill()
            child.communicate()


@pytest.mark.parametrize("steps", [1, 4, 5, 40])
def test_a_filter_of_somebody_else_is_left_alone(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither taken for ours nor replaced, however long it is."""
    without_binding(monkeypatch)
    with serve("127.0.0.1") as server, door(server) as ours:
        put_filter(server, LET_ALL_THROUGH * steps)
        assert not ours.turned_away()
        assert not ours.turn_newcomers_away()
        with client(server), server.accept()[0]:
            pass


def test_a_unix_socket_lets_everybody_in(tmp_path: Path) -> None:
    """There is neither interface nor packet: the answer is no."""
    with serve_unix(tmp_path / "s") as server, door(server) as ours:
        assert not ours.turn_newcomers_away()
        assert not ours.turned_away()


def test_a_locked_socket_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where filters are locked the answer is no."""
    without_binding(monkeypatch)
    with serve("127.0.0.1") as server, door(server) as ours:
        put_filter(server, LET_ALL_THROUGH)
        server.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
        assert not ours.turn_newcomers_away()


@HOSTS
def test_a_handshake_under_way_is_waited_for(host: str) -> None:
    """A client whose first packet came before the filter gets in, however slow his network."""
    with (
        serve(host) as server,
        door(server) as ours,
        held_back(server) as slow,
        accepting(server) as accepted,
    ):
        assert not wait_until_empty([ours], most_s=0.1)
        assert ours.turn_newcomers_away()
        slow.sendall(b"ask")
        assert wait_until_empty([ours], most_s=PATIENCE_S)
        wait_until(lambda: len(accepted) == 1, "the slow one is accepted")
        assert accepted[0].recv(16) == b"ask"
        accepted[0].sendall(b"answer")
        assert slow.recv(16) == b"answer"


def test_handshakes_are_told_by_the_table_where_netlink_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both count the same, and None says that neither answers."""

    def forbidden(*_: object) -> Iterator[bytes]:
        raise PermissionError

    with serve("127.0.0.1") as server, held_back(server):
        port = port_of(server)
        assert len(diag.handshakes([port]) or ()) == 1
        monkeypatch.setattr(diag, "_ask", forbidden)
        assert len(diag.handshakes([port]) or ()) == 1
        assert diag.handshakes([1]) == frozenset()
        monkeypatch.setattr(diag, "_from_table", forbidden)
        assert diag.handshakes([port]) is None


def test_clients_held_back_until_they_speak_are_let_in() -> None:
    """With TCP_DEFER_ACCEPT a silent client stands before the door: he is not shut out."""
    with (
        serve("127.0.0.1") as server,
        door(server) as ours,
        held_back(server),
        accepting(server) as accepted,
    ):
        assert ours.queued() == 0
        assert ours.turn_newcomers_away()
        assert wait_until_empty([ours], most_s=PATIENCE_S)
        wait_until(lambda: len(accepted) == 1, "he is accepted")


def test_waiting_gives_up_where_nobody_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that stays full is no; without a view of the handshakes the queue still counts."""
    with serve("127.0.0.1") as server, door(server) as ours, client(server):
        assert not wait_until_empty([ours], most_s=0.05)
        monkeypatch.setattr(diag, "handshakes", lambda _: None)
        assert not wait_until_empty([ours], most_s=0.05)
        with accepting(server):
            assert wait_until_empty([ours], most_s=PATIENCE_S)
    assert wait_until_empty([])


def test_handshakes_that_begin_later_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of other sockets on the same port (SO_REUSEPORT), and never end."""
    seen = iter([{b"ours"}, {b"ours", b"later"}, {b"later", b"still later"}])
    monkeypatch.setattr(diag, "handshakes", lambda _: frozenset(next(seen)))
    with serve("127.0.0.1") as server, door(server) as ours:
        assert wait_until_empty([ours], least_s=0, most_s=PATIENCE_S)
    assert list(seen) == []


def test_the_end_of_a_unix_socket_leaves_the_queue(tmp_path: Path) -> None:
    """Newcomers are refused, who waits is accepted, and nobody is after him."""
    path = tmp_path / "s"
    with serve_unix(path) as server, door(server) as ours, socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        ours.end()
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(str(path))
        assert ours.queued() == 1
        with server.accept()[0] as served:
            early.sendall(b"ask")
            assert served.recv(16) == b"ask"
        assert ours.queued() == 0
        with pytest.raises(OSError, match="Invalid argument"):
            server.accept()


def test_the_end_of_a_tcp_socket_refuses_everybody() -> None:
    """It stops listening in every process, and who waits in the queue is reset."""
    with serve("127.0.0.1") as server, door(server) as ours, client(server) as queued:
        wait_until(lambda: ours.queued() == 1, "one in the queue")
        ours.end()
        with pytest.raises(ConnectionResetError):
            queued.recv(1)
        with pytest.raises(ConnectionRefusedError):
            client(server)


def test_without_proc_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this cannot be had the lists are empty, and supported() says so."""
    assert listeners.supported()
    monkeypatch.setattr(descriptors, "_numbers", lambda: 0)
    descriptors.supported.cache_clear()
    try:
        with serve("127.0.0.1"):
            assert not listeners.supported()
            assert own_listeners() == []
    finally:
        descriptors.supported.cache_clear()
