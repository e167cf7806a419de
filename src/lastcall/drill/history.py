"""What a drill did and saw: every attempt with its times, one JSON object a line.

Times are seconds on one monotonic clock, counted from the moment of the stop: what lies before it
is negative.
"""

from __future__ import annotations

import json
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

LINE_BYTES = 64 * 1024


class Kind(StrEnum):
    """In which state a connection is at the moment of the stop."""

    SILENT = "connected, no byte sent"
    HALF_LINE = "half of the request line sent"
    HALF_HEADERS = "half of the headers sent"
    HALF_BODY = "half of the body sent"
    IN_HANDLER = "in the handler"
    LONG_POLL = "long poll"
    STREAMING_CHUNKED = "answer being streamed, chunked"
    STREAMING_LENGTH = "answer being streamed, with its length"
    EVENTS = "server-sent events"
    IDLE_THEN_REQUEST = "idle, and a request just after"
    PIPELINED = "a second request behind the first"
    BACKLOG = "in the listen backlog"
    EXPECT_CONTINUE = "100 Continue asked for, no body sent"
    TLS_HALF = "TLS handshake half done"
    WEBSOCKET_IDLE = "WebSocket, idle"
    WEBSOCKET_ECHO = "WebSocket, echo in flight"
    HTTP2_STREAM = "HTTP/2 stream"
    UNREAD = "sent, accepted and not read yet"
    SENT = "sent whole, and how far it came is not known"
    JUST_SENT = "sent as the stop came"
    NEWCOMER = "newcomer"
    LOAD = "background load"

    @property
    def key(self) -> str:
        """Its name on the command line and in files: `in-handler`."""
        return self.name.lower().replace("_", "-")


# States that need a protocol which not every server speaks.
OPTIONAL = frozenset({Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO, Kind.HTTP2_STREAM, Kind.TLS_HALF})


class Failure(StrEnum):
    """How an attempt came to its end without a whole answer."""

    REFUSED = "connection refused"
    UNREACHED = "no connection in time"
    RESET = "reset"
    CLOSED = "closed"
    CUT = "closed without a close frame"
    TRUNCATED = "answer cut short"
    TURNED_AWAY = "turned away before it was taken"
    HUNG = "no end in time"
    GARBAGE = "not what the protocol allows"
    TOO_LONG = "answer without end"
    OURS = "this machine ran out of files or ports"


class Found(StrEnum):
    """Where the server's side had a connection when the stop came, as the kernel told."""

    QUEUED = "in the accept queue"
    OVERFLOWN = "the accept queue was full: connected for its client only"
    UNREAD = "accepted, bytes of it unread"
    TAKEN = "accepted, everything read"
    UNKNOWN = "not known"


@record
class Attempt:
    """One request, or one connection that was to carry one.

    Args:
        id: counted from 1.
        kind: the state that its connection was to be in.
        key: what it carries so that the server's ledger knows it again; empty: nothing.
        attempted_s: when the connection was tried, or the request on an open one begun.
        connected_s: when there was a connection; None: never.
        sent_s: when its first byte was sent; None: never. On a WebSocket, of its message.
        sent_all_s: when its last byte was sent; None: never.
        first_byte_s: when the first byte of the answer came; None: never.
        complete_s: when the answer was whole; None: never.
        over_s: when its fate was known.
        status: of the answer; None: there was none.
        retry_after: whether the answer said when to come back.
        close: whether the answer announced that the connection ends.
        failure: None when there was a whole answer.
        reached: whether its state was proved to be reached when the stop came.
        found: where the server's side had it then.
        connection: the client's port, or the number of a connection to a Unix socket: attempts
            with the same one shared it. 0: never connected.
        unframed: whether nothing but the end of the connection ended its answer (no
            Content-Length, not chunked): then nobody can tell a whole one from one that was cut.
        note: what else is known of its end, such as the code of a close frame.
    """

    id: int
    kind: Kind
    key: str
    attempted_s: float
    connected_s: float | None
    sent_s: float | None
    sent_all_s: float | None
    first_byte_s: float | None
    complete_s: float | None
    over_s: float
    status: int | None = None
    retry_after: bool = False
    close: bool = False
    failure: Failure | None = None
    reached: bool = True
    found: Found = Found.UNKNOWN
    connection: int = 0
    unframed: bool = False
    note: str = ""


# Once, and not for each of a hundred thousand rows.
_NAMES = tuple(f.name for f in fields(Attempt))


_KINDS = {kind.key: kind for kind in Kind}


class BadHistory(LastcallError):
    """A history cannot be read."""

    code = "bad-history"


def write(attempts: Iterable[Attempt], stream: IO[str]) -> None:
    """Write attempts, one a line."""
    encode = json.JSONEncoder().encode
    for attempt in attempts:
        row = {name: getattr(attempt, name) for name in _NAMES}
        row["kind"] = attempt.kind.key
        stream.write(encode(row) + "\n")


def read(stream: IO[str]) -> Iterator[Attempt]:
    """Read attempts back.

    Raises:
        BadHistory: a line is not an attempt; it says which.
    """
    number = 0
    while line := stream.readline(LINE_BYTES):
        number += 1
        try:
            row = json.loads(line)
            kind, failure = _KINDS[row.pop("kind")], row.pop("failure")
            yield Attempt(
                **row | {"found": Found(row.get("found", Found.UNKNOWN))},
                kind=kind,
                failure=None if failure is None else Failure(failure),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadHistory(
                f"line {number} of the history is no attempt: {error}",
                "it may have been cut off: take the lines before it",
            ) from error
