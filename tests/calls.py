"""Plain HTTP/1.1 requests over plain sockets: nothing is sent twice, and every ending is told."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
from typing import TYPE_CHECKING, Self

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from types import TracebackType

REFUSED, CLOSED, RESET, CUT = "refused", "closed", "reset", "cut short"


def get(path: str) -> bytes:
    """The bytes of a request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, length: int, body: bytes) -> bytes:
    """The bytes of a request with the beginning of its body, or all of it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + body


class Call:
    """A connection to this machine, and what was sent on it first."""

    def __init__(self, port: int, first: bytes = b"") -> None:
        self.refused = False
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            self.refused = True
        else:
            self.send(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send more. A connection that is gone by now tells it by its fate."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    @property
    def pending(self) -> bool:
        """Whether neither an answer nor an end has come so far."""
        return not select.select([self.socket], [], [], 0)[0]

    def fate(self) -> str:
        """Wait for the answer: `200 its body`, or how the connection ended without one."""
        if self.refused:
            return REFUSED
        answer = http.client.HTTPResponse(self.socket)
        try:
            answer.begin()
            return f"{answer.status} {answer.read().decode().rstrip()}"
        except http.client.RemoteDisconnected:
            return CLOSED
        except ConnectionResetError:
            return RESET
        except http.client.IncompleteRead:
            return CUT
