"""One answer of HTTP/1.1, read to its end. Bodies are counted, never kept."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

import h11

from lastcall.drill.clients.wire import Broken
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    from lastcall.drill.clients.wire import Wire
    from lastcall.drill.trail import Trail

# For a body whose length is not known before. One that is known has an end, however far off.
ANSWER_BYTES = 64 * 1024 * 1024
HEAD_BYTES = 64 * 1024
# Before the head of an answer: interim answers may have no end either.
INTERIM_BYTES = 16 * 1024 * 1024
_UNAVAILABLE = 503
_CONTINUE = 100
_MAGIC = b"HTTP/1."


class Answer:
    """The answer to one request; it tells its trail each thing as it comes.

    Each method may raise `Broken`: closed, reset, not HTTP (GARBAGE), or without end (TOO_LONG).

    Args:
        wire: where it comes from.
        trail: the attempt that it belongs to.
        method: of the request: an answer to HEAD has no body.
    """

    def __init__(self, wire: Wire, trail: Trail, method: str = "GET") -> None:
        self._wire = wire
        self._trail = trail
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        # Only so that the parser knows what it is the answer to: what is sent is written by hand.
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "-")]))
        self._parser.send(h11.EndOfMessage())
        self.response: h11.Response | None = None
        self.ended: bool = False
        """Whether it is whole."""
        self._bytes = 0
        self._limit: float = INTERIM_BYTES
        wire.answered = 0

    async def interim(self) -> bool:
        """Read until a `100 Continue` came (True) or the answer itself has begun (False)."""
        while self.response is None:
            if (await self._step()) == _CONTINUE:
                return True
        return False

    async def streaming(self) -> h11.Response:
        """Read until its head and at least one byte of its body came, or all of it."""
        while self.response is None:
            await self._step()
        while not self.ended and not await self._step():
            pass
        return self.response

    async def whole(self, *, last: bool = True) -> None:
        """Read it to its end, and say so.

        Args:
            last: whether no other answer is due behind it.
        """
        while not self.ended:
            await self._step()
        trail, left = self._trail, self._parser.trailing_data[0]
        if last and left.startswith(_MAGIC):  # RFC 9112, 9.2: it must not be taken for an answer
            raise Broken(Failure.GARBAGE, "a second answer to one request")
        self._wire.unread(left)
        if trail.sent is None and trail.status != _UNAVAILABLE:
            # An answer to nothing, such as a 408 on an idle connection, is a farewell.
            trail.fail(Failure.CLOSED, f"answered {trail.status} before anything was sent")
        trail.done()

    async def _step(self) -> int:
        """Take one event. The status of an interim answer, or the size of a piece of the body."""
        event = await self._event()
        if isinstance(event, h11.InformationalResponse):
            self._trail.first_byte = None  # that was not the answer yet
            self._wire.answered = 0
            return event.status_code
        if isinstance(event, h11.Response):
            self._began(event)
        elif isinstance(event, h11.Data):
            return len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self.ended = True
        else:
            raise Broken(Failure.CLOSED)
        return 0

    def _began(self, response: h11.Response) -> None:
        trail = self._trail
        self.response = response
        trail.first_byte = trail.first_byte or monotonic()
        trail.status = response.status_code
        trail.retry_after = has(response, b"retry-after")
        measured = has(response, b"content-length") and not has(response, b"transfer-encoding")
        self._limit = inf if measured else ANSWER_BYTES
        kept = response.http_version != b"1.0" or has(response, b"connection", b"keep-alive")
        trail.close = has(response, b"connection", b"close") or not kept

    async def _event(self) -> h11.Event:
        while (event := self._parsed()) is None:
            data = await self._wire.recv()
            if not data:
                return self._last()
            self._trail.first_byte = self._trail.first_byte or monotonic()
            self._wire.answered += len(data)
            self._bytes += len(data)
            if self._bytes > self._limit:
                raise Broken(Failure.TOO_LONG, f"more than {self._limit} bytes")
            self._parser.receive_data(data)
        return event

    def _parsed(self) -> h11.Event | None:
        """The next event of what has come; None: it needs more."""
        try:
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            if self.response is None and "too long" in f"{error}":
                raise Broken(Failure.TOO_LONG, f"more than {HEAD_BYTES} bytes of head") from error
            raise Broken(Failure.GARBAGE, f"{error}") from error
        if isinstance(event, type):  # NEED_DATA or PAUSED
            return None
        return event

    def _last(self) -> h11.Event:
        """What the end of the connection means: for some answers it is the end of the body."""
        left = self._parser.trailing_data[0][: len(_MAGIC)]
        if self.response is None and left != _MAGIC[: len(left)]:
            raise Broken(Failure.GARBAGE, f"it begins with {left!r}")
        self._parser.receive_data(b"")
        try:
            event = self._parsed()
        except Broken as broken:
            raise Broken(Failure.CLOSED) from broken
        if event is None:
            raise Broken(Failure.CLOSED)
        self._trail.unframed = isinstance(event, h11.EndOfMessage)
        return event


def has(response: h11.Response, name: bytes, token: bytes = b"") -> bool:
    """Whether a header is there, and has this token in its list."""
    found = [value.lower() for key, value in response.headers if key == name]
    return any(not token or token in (t.strip() for t in value.split(b",")) for value in found)
