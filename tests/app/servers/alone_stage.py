"""What the tests of servers without workers share."""

from __future__ import annotations

import signal
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING

from drill import experiments
from helpers import PATIENCE_S, wait_until
from lastcall.app.signals import same_s
from lastcall.drill.plan import Plan
from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL
from lastcall.drill.together import SETTLE_S, together, varied
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.how import How
    from lastcall.drill.result import Result

_CLOSE = 0x88  # the last frame of a message, of the kind 8


def all_at_once(name: str, how: How) -> Result:
    """One stop with every state of a connection in it.

    Args:
        name: of the server, as `lastcall drill compare` lists it.
        how: it is stopped.
    """
    server = next(one for one in (*SERVERS, *SERVERS_WITH_LASTCALL) if one.name == name)
    places = {"python": sys.executable, "app": server.app, "port": "{port}"}
    return experiments.sound(
        Plan(
            command=tuple(word.format(**places) for word in server.command),
            scenario=varied(together(server), 1),
            how=how,
            ready=Ready.parse(server.ready),
            settle_s=SETTLE_S,
            patience_s=12.0,
        )
    )


def refused(port: int) -> None:
    """Wait until newcomers are refused."""

    def fact() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(fact, f"port {port} refuses")


def another_wish() -> None:
    """Wait until SIGINT is not the same wish once more."""
    from_s = monotonic() + same_s(signal.SIGINT) + 0.05
    wait_until(lambda: monotonic() > from_s, "a second signal counts")


def websocket(port: int, path: str = "/ws") -> tuple[socket.socket, Callable[[], int]]:
    """An open WebSocket, and what reads on until the server closes it, and tells its code."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    stream = client.makefile("rb")
    assert b"101" in stream.readline()
    while stream.readline().strip():
        pass

    def close_code() -> int:
        kind, length = stream.read(2)
        while kind != _CLOSE:
            stream.read(length)
            kind, length = stream.read(2)
        said = stream.read(length)
        # A masked answer of the same code; the mask is nothing.
        client.sendall(bytes([_CLOSE, 0x82, 0, 0, 0, 0]) + said[:2])
        return int.from_bytes(said[:2], "big")

    return client, close_code
