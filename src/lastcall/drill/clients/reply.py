"""Answers of HTTP/1.1 at high rates: parsed in C, by httptools (llhttp).

`answer` reads the same with h11 and knows each event; here only the end of an answer calls back
into Python. What else is needed of the headers is looked up in the raw bytes, where it matters.
"""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from lastcall.drill.clients.answer import ANSWER_BYTES, HEAD_BYTES, INTERIM_BYTES
from lastcall.drill.clients.wire import Broken
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    from lastcall.drill.trail import Trail

_FINAL, _SWITCHING, _NOT_OK = 200, 101, 300
_END_OF_HEAD = b"\r\n\r\n"


class Reply:
    """The answers on one connection, one after the other.

    Args:
        head_only: whether the requests are HEAD: their answers have no body, whatever they say.
    """

    __slots__ = (
        "_head",
        "_head_only",
        "_headed",
        "_limit",
        "_parser",
        "_trail",
        "_whole",
        "got",
        "last",
    )

    def __init__(self, *, head_only: bool) -> None:
        self._head_only = head_only
        self._trail: Trail | None = None
        self._whole = self._headed = False
        self._head = b""
        self._limit: float = INTERIM_BYTES
        self.got: int = 0
        """Bytes that had come of an answer that is not whole."""
        self.last: bool = False
        """Whether the connection is of no use after this answer."""
        self._new_parser()

    def _new_parser(self) -> None:
        end = "on_headers_complete" if self._head_only else "on_message_complete"
        self._parser = HttpResponseParser(SimpleNamespace(**{end: self._ended}))

    def feed(self, trail: Trail, data: bytes, now: float) -> bool:
        """Take bytes that came; True: the answer is whole, and its trail knows everything of it.

        Args:
            trail: of the request that it answers.
            data: some bytes, not empty.
            now: when they came.

        Raises:
            Broken: it is not HTTP (GARBAGE), or without end (TOO_LONG).
        """
        if trail.first_byte is None:
            trail.first_byte = now
        self._trail = trail
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._whole:
                note = f"{type(error).__name__}: {error}"[:200]
                raise Broken(Failure.GARBAGE, note) from error
            self.last = True  # the answer is good, and what stands behind it is not
        if self._whole:
            self._done(trail, data, now)
            return True
        self._go_on(trail, data, now)
        return False

    def closed(self, trail: Trail, now: float) -> bool:
        """The server closed; True: that was the end of an answer that has no length of its own."""
        head = self._head.partition(_END_OF_HEAD)[0].lower()
        if not self._headed or b"\ncontent-length:" in head or b"\ntransfer-encoding:" in head:
            return False
        trail.close = self.last = trail.unframed = True
        self._done(trail, b"", now)
        return True

    def _ended(self) -> None:
        """Called by the parser at the end of an answer (for HEAD: of its headers)."""
        trail, status = self._trail, self._parser.get_status_code()
        if trail is None or self._whole:
            self.last = True  # an answer to nothing
        elif status == _SWITCHING:
            raise HttpParserError("it switched to a protocol that nobody asked for")
        elif status < _FINAL:
            trail.first_byte = None  # 103 Early Hints and the like: the answer is to come
        else:
            trail.status = status
            trail.close = self.last = not self._parser.should_keep_alive()
            self._whole = True

    def _done(self, trail: Trail, data: bytes, now: float) -> None:
        trail.over = trail.complete = now
        if trail.first_byte is None:
            trail.first_byte = now
        if self._head_only or (trail.status or 0) >= _NOT_OK:
            head = _final(self._head + data).partition(_END_OF_HEAD)[0].lower()
            trail.retry_after = b"\nretry-after:" in head
            if self._head_only:  # to the parser, an answer without a length ends the connection
                trail.close = b"\nconnection: close" in head or head.startswith(b"http/1.0")
                self.last = trail.close
                self._new_parser()
        self._trail = None
        self._whole = self._headed = False
        self._head, self.got, self._limit = b"", 0, INTERIM_BYTES

    def _go_on(self, trail: Trail, data: bytes, now: float) -> None:
        """There is more to come."""
        self.got += len(data)
        if not self._headed:
            self._head = _final(self._head + data)
            self._headed = _END_OF_HEAD in self._head
            if self._head and trail.first_byte is None:  # an interim answer came with it
                trail.first_byte = now
            if self._headed:
                trail.status = self._parser.get_status_code()
                head = self._head.partition(_END_OF_HEAD)[0].lower()
                chunked = b"\ntransfer-encoding:" in head
                measured = b"\ncontent-length:" in head and not chunked
                self._limit = inf if measured else ANSWER_BYTES
            elif len(self._head) > HEAD_BYTES:
                raise Broken(Failure.TOO_LONG, f"more than {HEAD_BYTES} bytes of head")
        if self.got > self._limit:
            raise Broken(Failure.TOO_LONG, f"more than {self._limit} bytes")


def _final(raw: bytes) -> bytes:
    """Without the interim answers before the final one."""
    while raw.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) and _END_OF_HEAD in raw:
        raw = raw.partition(_END_OF_HEAD)[2]
    return raw
