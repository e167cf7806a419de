"""What the tests of the clients share: servers scripted byte by byte, and a stop that is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import threading
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from helpers import PATIENCE_S, python, victim
from lastcall.drill.clients import make
from lastcall.drill.clients.gate import Gate
from lastcall.drill.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

    from lastcall.drill.clients.gate import Client
    from lastcall.drill.scenario import State
    from lastcall.drill.trail import Trail

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Connection:
    """The server's end of one connection, for a script."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped

    def read(self, until: bytes = b"\r\n\r\n") -> bytes:
        """Read until the bytes end so."""
        data = b""
        while not data.endswith(until):
            piece = self.sock.recv(1)
            assert piece, f"the client closed after {data!r}"
            data += piece
        return data

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with a reset (socket(7), SO_LINGER with no time)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def until_stopped(self) -> None:
        """Wait for the stop of the experiment."""
        assert self.stopped.wait(PATIENCE_S)

    def until_closed(self) -> None:
        """Wait until the client goes away."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass


class Scripted:
    """A server that runs a script for each of its connections."""

    def __init__(self, script: Callable[[Connection], None], listener: socket.socket) -> None:
        self.stopped = threading.Event()
        self._script, self._listener = script, listener
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.faults: list[BaseException] = []
        self._threads[0].start()

    @property
    def place(self) -> Place:
        """Where it listens."""
        name = self._listener.getsockname()
        return Place(unix=name) if isinstance(name, str) else Place(name[0], name[1])

    def close(self) -> None:
        """End it: no thread and no socket is left."""
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE_S)
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(PATIENCE_S)
                if sock.family != socket.AF_UNIX:
                    # What waits for more (tcp(7), Nagle) would be lost in a reset.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._play, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _play(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._script(Connection(sock, self.stopped))
            except BaseException as fault:  # noqa: BLE001 (told at the end of the test)
                self.faults.append(fault)


@contextlib.contextmanager
def scripted(
    script: Callable[[Connection], None], listener: socket.socket | None = None
) -> Iterator[Scripted]:
    """A server with a script; a fault in the script fails the test."""
    server = Scripted(script, listener or socket.create_server(("127.0.0.1", 0)))
    try:
        yield server
    finally:
        server.close()
    assert not server.faults, server.faults


@contextlib.contextmanager
def real(server: str, *words: str) -> Iterator[tuple[Place, int]]:
    """A real server with the small application: its place and its pid."""
    with victim(*python("drill_client_app.py", server, *words)) as started:
        port = int(started.line().split()[1])
        yield Place("127.0.0.1", port, tls=bool(words)), started.pid


def through(
    place: Place,
    state: State,
    *,
    patience_s: float = 10.0,
    stop: Callable[[], object] = lambda: None,
) -> list[Trail]:
    """Bring the clients of a state into it, open the gate, and follow them to the end."""

    async def drill() -> list[Trail]:
        gate = Gate(patience_s)
        clients = make.clients(place, state, gate, count(1))
        await led(clients, gate, stop)
        return [trail for client in clients for trail in client.trails]

    return asyncio.run(drill())


async def led(
    clients: Sequence[Client], gate: Gate, stop: Callable[[], object] = lambda: None
) -> None:
    """Run clients: the stop comes once all are in their state or over."""
    running = asyncio.gather(*(client.run() for client in clients))
    trails = [trail for client in clients for trail in client.trails]
    async with asyncio.timeout(PATIENCE_S):
        while not all(t.steady or t.over for t in trails):  # noqa: ASYNC110 (they wake nobody)
            await asyncio.sleep(0.002)
    stop()
    gate.open(monotonic())
    async with asyncio.timeout(PATIENCE_S):
        await running


@contextlib.contextmanager
def no_files() -> Iterator[None]:
    """Let this process open no file more: those that it has it keeps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.open("/dev/null", os.O_RDONLY)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def unable(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    only: socket.AddressFamily | None = None,
    *,
    udp: bool = False,
) -> None:
    """Let every connect of this process fail with an error of the kernel.

    Args:
        monkeypatch: takes it back.
        code: the error.
        only: sockets of this family; None: of any.
        udp: connects of UDP sockets, too.
    """
    real = socket.socket.connect

    def connect(sock: socket.socket, address: str | tuple[object, ...]) -> None:
        if only in {None, sock.family} and (udp or sock.type == socket.SOCK_STREAM):
            raise OSError(code, os.strerror(code))
        real(sock, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))
