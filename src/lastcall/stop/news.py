"""What an operation tells: of whom, what happened, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.errors import LastcallError
    from lastcall.model import Address, Event, Finished, Identity


@record
class Subject:
    """Whom a stop is about: enough to tell of it, and to find it again."""

    address: Address
    label: str
    identity: Identity


@record
class News:
    """One thing that happened to one of the stops, for whoever shows it."""

    stop: int
    subject: Subject
    at_s: float
    event: Event


@record
class Result:
    """How one target's stop ended.

    Args:
        stop: its number in the journal; 0 when it is not recorded.
        finished: the ending; None when we stopped watching, or an error came between.
        error: what came between.
        begun: False when we were told to leave before it was asked anything: nothing is recorded.
    """

    subject: Subject
    stop: int
    finished: Finished | None
    error: LastcallError | None = None
    begun: bool = True
