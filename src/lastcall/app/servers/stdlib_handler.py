"""What a request handler of `http.server` needs to end well: it is told apart what it waits for.

Each accepted connection has a `Line`. From it follows, without asking the kernel, whether its
thread works on a request, waits for the rest of one, or waits for nothing in particular.

Source: Lib/socketserver.py, Lib/http/server.py, Lib/wsgiref/simple_server.py, Lib/socket.py
(CPython 3.11 to 3.14); werkzeug/serving.py (3.1).
"""

from __future__ import annotations

import functools
import io
import selectors
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, cast

from lastcall.app.work import Flight

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler

    from _typeshed import WriteableBuffer

    Base = BaseHTTPRequestHandler
else:
    Base = object

_OK = 200


class GivenUp(TimeoutError):
    """The rest of a request did not come, and is not waited for any more.

    `http.server` takes it for its own timeout: one line in the log, and the connection is closed.
    """


class Request(Flight):
    """One request in flight."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Such as `GET /orders/17`."""
        handler: Any = self._name
        return f"{handler.command} {handler.path}"


class Desk(Protocol):
    """Who runs the server."""

    counts: bool

    @property
    def announced(self) -> bool:
        """Whether the end is announced: connections are not kept any more."""

    def enter(self, sock: socket.socket) -> Line:
        """A connection has got its handler."""

    def leave(self, line: Line) -> None:
        """Its handler is done with it."""

    def flight(self, handler: object) -> Flight:
        """A request begins."""


class Line:
    """One accepted connection, and what its handler does with it.

    Args (attributes):
        sock: the connection.
        thread: of its handler.
        busy: whether a request is worked on.
        flight: what counts it; None: nothing, or its application does.
        answering: whether the answer has begun.
        got: whether bytes of a request have come that is not answered yet.
        reading: whether its thread waits for the client.
        moved_s: when bytes last came, or when the connection was accepted.
        given_up: whether nothing is waited for any more.
    """

    __slots__ = (
        "answering",
        "busy",
        "flight",
        "given_up",
        "got",
        "moved_s",
        "raw",
        "reading",
        "sock",
        "thread",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock: socket.socket = sock
        self.thread: threading.Thread = threading.current_thread()
        self.flight: Flight | None = None
        self.answering: bool = False
        self.busy: bool = False
        self.got: bool = False
        self.reading: bool = False
        self.given_up: bool = False
        self.moved_s: float = monotonic()
        self.raw: Watched | None = None

    def land(self) -> None:
        """The request that was worked on is over. From any thread."""
        self.busy = False
        flight, self.flight = self.flight, None
        if flight is not None:
            with suppress(KeyError):  # cut off by another thread at this very moment
                flight.__exit__()

    def cut(self) -> None:
        """End it, both ways, whatever its handler does: whoever waits for the client wakes up."""
        self.given_up = True
        with suppress(OSError, ValueError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def buffered(self, reader: object) -> bool:
        """Whether bytes of the client's are at hand that the handler has not taken."""
        if self.raw is None or not isinstance(reader, io.BufferedReader):
            return False
        self.raw.dry = True
        try:
            return bool(reader.peek(1))
        except (OSError, ValueError):
            return False
        finally:
            self.raw.dry = False

    def more(self, reader: object) -> bool:
        """Whether the client has sent more than was taken: a request behind this one."""
        if self.buffered(reader):
            return True
        pending = getattr(self.sock, "pending", None)  # of TLS
        try:
            if pending is not None:
                return bool(pending())
            with selectors.DefaultSelector() as selector:
                selector.register(self.sock, selectors.EVENT_READ)
                # At its end there is something to read, too: nothing.
                return bool(selector.select(0) and self.sock.recv(1, socket.MSG_PEEK))
        except (OSError, ValueError):
            return False


class Watched(io.RawIOBase):
    """The reading side of a connection; it knows when somebody waits for the client.

    Args:
        raw: the side that is read.
        line: who is told.
    """

    def __init__(self, raw: io.RawIOBase, line: Line) -> None:
        super().__init__()
        self._raw = raw
        self._line = line
        self.dry = False  # answers that nothing is there, without looking

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Of the connection."""
        return self._raw.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Wait for the client."""
        if self.dry:
            return None
        line = self._line
        line.reading = True
        try:
            count = cast("int | None", cast("Any", self._raw).readinto(buffer))
        finally:
            line.reading = False
        if count:
            line.got = True
            line.moved_s = monotonic()
        elif line.given_up and line.got:
            # An end here would be taken for the end of the headers, and the request be executed.
            raise GivenUp("the rest of the request did not come, and the server ends")
        return count

    def close(self) -> None:
        """Close the reading side."""
        if not self.closed:
            self._raw.close()
        super().close()


class Polite(Base):
    """Put before a handler class: counts its requests, and says `Connection: close` in time."""

    desk: Desk
    _line: Line | None = None
    _code = 0
    _said_connection = False

    def __init__(self, request: socket.socket, *words: Any, **more: Any) -> None:  # noqa: ANN401 (as the class has it)
        line = self._line = self.desk.enter(request)
        try:
            super().__init__(request, *words, **more)
        finally:
            line.land()
            self.desk.leave(line)

    def setup(self) -> None:
        """The connection's files."""
        super().setup()
        if self._line is not None and type(self.rfile) is io.BufferedReader:
            raw = Watched(self.rfile.detach(), self._line)
            self._line.raw = raw
            size = self.rbufsize if self.rbufsize > 1 else io.DEFAULT_BUFFER_SIZE
            self.rfile: io.BufferedIOBase = io.BufferedReader(raw, size)

    def handle(self) -> None:
        """Handle the requests of the connection."""
        try:
            super().handle()
        except GivenUp:
            self.close_connection = True

    def handle_one_request(self) -> None:
        """Handle one request."""
        if self._line is None:
            super().handle_one_request()
            return
        self._line.got = self._line.buffered(self.rfile)
        self._line.answering = False
        try:
            super().handle_one_request()
        finally:
            self._line.land()

    def parse_request(self) -> bool:
        """The request's headers: from here on it is in flight."""
        self._said_connection = False
        good = super().parse_request()
        line = self._line
        if good and line is not None:
            line.busy = True
            if self.desk.counts and line.flight is None:
                line.flight = self.desk.flight(self).__enter__()
        return good

    def send_response_only(self, code: int, message: str | None = None) -> None:
        """The status line."""
        self._code = int(code)
        if self._line is not None:
            self._line.answering = self._code >= _OK
        super().send_response_only(code, message)

    def send_header(self, keyword: str, value: str) -> None:
        """A header line."""
        if keyword.lower() == "connection":
            self._said_connection = True
            if value.lower() == "keep-alive" and self._ends():
                value = "close"
        super().send_header(keyword, value)

    def end_headers(self) -> None:
        """The end of the headers; once the end is announced, also of the connection."""
        if (
            self._code >= _OK
            and not self._said_connection
            and self.protocol_version >= "HTTP/1.1"
            and self._ends()
        ):
            self.send_header("Connection", "close")
        super().end_headers()

    def _ends(self) -> bool:
        """Whether the connection ends behind this answer: no request waits on it."""
        if not self.desk.announced or self._code < _OK:
            return False
        return not (self._line is not None and self._line.more(self.rfile))


def polite(handler: Callable[..., object], desk: Desk) -> Callable[..., object]:
    """The same handler class, with `Polite` before it; anything else is left as it is.

    Args:
        handler: `RequestHandlerClass` of a server; also a `functools.partial` of one.
        desk: who runs the server.
    """
    from http.server import BaseHTTPRequestHandler

    if isinstance(handler, functools.partial):
        inner = polite(handler.func, desk)
        return functools.partial(inner, *handler.args, **handler.keywords)
    if not (isinstance(handler, type) and issubclass(handler, BaseHTTPRequestHandler)):
        return handler
    names = {"desk": desk, "__module__": handler.__module__, "__doc__": handler.__doc__}
    return type(handler.__name__, (Polite, handler), names)
