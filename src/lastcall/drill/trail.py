"""One attempt while it is under way: its client writes down each time as it happens."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.history import Attempt, Failure, Found, Kind

if TYPE_CHECKING:
    from collections.abc import Callable


class Trail:
    """What its client knows of an attempt so far. Times are `time.monotonic`; None: not yet.

    The names are those of `Attempt`. `steady` is set by the client once its connection is in the
    state that its kind names, as far as the client can tell; the server's side is asked separately.
    """

    __slots__ = (
        "attempted",
        "close",
        "complete",
        "connected",
        "connection",
        "failure",
        "first_byte",
        "found",
        "id",
        "key",
        "kind",
        "note",
        "over",
        "retry_after",
        "sent",
        "sent_all",
        "status",
        "steady",
        "unframed",
    )

    def __init__(self, number: int, kind: Kind, key: str = "") -> None:
        self.id: int = number
        self.kind: Kind = kind
        self.key: str = key
        self.attempted: float | None = None
        self.connected: float | None = None
        self.sent: float | None = None
        self.sent_all: float | None = None
        self.first_byte: float | None = None
        self.complete: float | None = None
        self.over: float | None = None
        self.status: int | None = None
        self.retry_after: bool = False
        self.close: bool = False
        self.failure: Failure | None = None
        self.found: Found = Found.UNKNOWN
        self.connection: int = 0
        self.note: str = ""
        self.steady: bool = False
        self.unframed: bool = False

    def fail(self, failure: Failure, note: str = "") -> None:
        """It is over without a whole answer. What came first counts: a second call is ignored."""
        if self.over is None:
            self.over = monotonic()
            self.failure = failure
            self.note = note

    def done(self) -> None:
        """The answer is whole."""
        if self.over is None:
            self.over = self.complete = monotonic()

    def attempt(self, zero: float, *, reached: bool) -> Attempt:
        """As the history keeps it.

        Args:
            zero: the moment of the stop, on the same clock.
            reached: whether its state was proved to be reached then.
        """
        since = _since(zero)
        over = monotonic() if self.over is None else self.over
        return Attempt(
            self.id,
            self.kind,
            self.key,
            attempted_s=since(self.attempted) or 0.0,
            connected_s=since(self.connected),
            sent_s=since(self.sent),
            sent_all_s=since(self.sent_all),
            first_byte_s=since(self.first_byte),
            complete_s=since(self.complete),
            over_s=round(over - zero, 6),
            status=self.status,
            retry_after=self.retry_after,
            close=self.close,
            failure=Failure.HUNG if self.over is None else self.failure,
            reached=reached,
            found=self.found,
            connection=self.connection,
            unframed=self.unframed,
            note=self.note,
        )


def _since(zero: float) -> Callable[[float | None], float | None]:
    return lambda at: None if at is None else round(at - zero, 6)
