"""What the probe application is asked for, the same in every language. Pure.

| path | answer |
|---|---|
| `/`, `/health` | `ok`, at once |
| `/fast?key=K` | `done K`, at once |
| `/slow?key=K&s=3`, `/poll?key=K&s=3` | `done K` after s seconds |
| `/stream?key=K&s=3&n=30` | n pieces over s seconds, without a length |
| `/length?key=K&s=3&n=30` | the same with Content-Length |
| `/events?key=K&s=3&n=30` | the same as server-sent events |
| `/upload?key=K` | how many bytes the request's body had |
| `/ws?key=K&s=1` | a WebSocket that echoes each message after s seconds |

Work is a payment and an order, written to a ledger (`probe.ledger`): first `begun` and `paid`, and
`ordered` last of all. A stop between the two is the case that costs a customer money. Every stream
ends with the line `done K`, sent after the order: whoever has the whole answer has the order, too.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = frozenset({"/", "/health"})
WAITING = frozenset({"/fast", "/slow", "/poll"})
STREAMS = frozenset({"/stream", "/length", "/events"})
UPLOAD = "/upload"
WEBSOCKET = "/ws"
PATHS = AT_ONCE | WAITING | STREAMS | {UPLOAD, WEBSOCKET}

_LONGEST_S = 3600.0
_MOST_PIECES = 100_000
_KEY = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_OK = b"ok\n"


class BadAsk(ValueError):
    """A request that makes no sense: answered with 400."""


@record
class Asked:
    """What one request asks for.

    Args:
        path: one of `PATHS`.
        key: names the attempt in the ledger; empty: nothing is written.
        wait_s: how long the work takes, in seconds.
        pieces: of how many pieces a stream consists.
    """

    path: str
    key: str = ""
    wait_s: float = 0.0
    pieces: int = 10

    @property
    def text(self) -> bytes:
        """The answer of what is no stream."""
        return _OK if self.path in AT_ONCE else self._done

    @property
    def pause_s(self) -> float:
        """How long to wait before each piece, in seconds."""
        return self.wait_s / self.pieces

    @property
    def content_type(self) -> str:
        """Of the answer."""
        return "text/event-stream" if self.path == "/events" else "text/plain; charset=utf-8"

    @property
    def length(self) -> int | None:
        """Content-Length of a stream; None: it has none."""
        if self.path != "/length":
            return None
        return sum(map(len, self.stream())) + len(self.last)

    @property
    def last(self) -> bytes:
        """What ends a stream, once the order is made."""
        return self._piece(self._done)

    def stream(self) -> Iterator[bytes]:
        """The pieces of a stream, without the last line."""
        for number in range(1, self.pieces + 1):
            yield self._piece(b"piece %06d\n" % number)

    @property
    def _done(self) -> bytes:
        return f"done {self.key}".rstrip().encode() + b"\n"

    def _piece(self, line: bytes) -> bytes:
        return b"data: %b\n" % line if self.path == "/events" else line


def understand(path: str, query: str) -> Asked | None:
    """What a request asks for. None: there is no such path.

    Args:
        path: of the request, without its query.
        query: as it stands behind the `?`.

    Raises:
        BadAsk: a parameter makes no sense; it says which.
    """
    if path not in PATHS:
        return None
    given = dict(parse_qsl(query))
    key = given.get("key", "")
    if key and not _KEY.fullmatch(key):
        raise BadAsk("key: at most 200 letters, digits, dots, colons, dashes, underscores")
    waits = path not in AT_ONCE and path not in {"/fast", UPLOAD}
    wait_s = _number(given, "s", _LONGEST_S) if waits else 0.0
    pieces = int(_number(given, "n", _MOST_PIECES, "10"))
    if not pieces:
        raise BadAsk("n: at least 1")
    return Asked(path, key, wait_s, pieces)


def _number(given: dict[str, str], name: str, most: float, default: str = "0") -> float:
    try:
        number = float(given.get(name, default))
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise BadAsk(f"{name}: a number from 0 to {most:g}")
    return number
