"""What the caller wants of a stop: how long, how far, and whether force is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.durations import LONGEST_S, parse_duration
from lastcall.errors import BadPolicy
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_GRACE_S = 30.0
CONSENT_MARGIN_S = 60.0


def whole_grace_s(grace_s: float | None, waits_s: Iterable[float | None]) -> float:
    """How long a stop gives: as the caller said, or what a sequence brings, or the usual.

    Args:
        grace_s: what the caller said; None: nothing.
        waits_s: how long each soft signal is waited for, in seconds; None: until the deadline.
    """
    if grace_s is not None:
        return grace_s
    waits = list(waits_s)
    known = [wait_s for wait_s in waits if wait_s is not None]
    return sum(known) + (DEFAULT_GRACE_S if len(known) < len(waits) else 0.0)


@record
class Policy:
    """What the caller wants.

    Args:
        grace_s: how long the soft stop may take, in seconds; None means that the caller did not
            say: a sequence of signals then brings its own length, anything else gets 30 s.
        extend_up_to_s: how far, in seconds from the start, a target that reports progress may
            push the deadline; None means not at all.
        force_reason: why force is allowed at the deadline; None means that it is not.
        reason: why this is stopped at all, for the record.

    Raises:
        BadPolicy: a length is negative, too long, or the ceiling lies before the grace's end; or
            force is allowed for no stated reason.
    """

    grace_s: float | None = None
    extend_up_to_s: float | None = None
    force_reason: str | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        for name, value in (("grace", self.grace_s), ("ceiling", self.extend_up_to_s)):
            if value is not None and not 0 <= value <= LONGEST_S:
                raise BadPolicy(f"a {name} of {value:g} s makes no sense", "use 0 s to 7 days")
        if (
            self.extend_up_to_s is not None
            and self.grace_s is not None
            and self.extend_up_to_s < self.grace_s
        ):
            raise BadPolicy(
                f"the ceiling of {self.extend_up_to_s:g} s lies before the grace of "
                f"{self.grace_s:g} s runs out",
                "make --extend-up-to at least as long as --grace",
            )
        if self.force_reason is not None and not self.force_reason.strip():
            raise BadPolicy("force is allowed for no stated reason", "say why: --reason TEXT")


def from_table(table: object, said: str = "") -> Policy:
    """Read the `[stop]` table of a policy file.

    Args:
        table: the table.
        said: the caller's own reason, which goes before that of the file; empty: none.

    Raises:
        BadPolicy: a key or a value makes no sense.
    """
    if not isinstance(table, dict):
        raise BadPolicy("a policy file needs a table [stop]", 'such as: [stop]\ngrace = "30s"')
    known = {"grace", "extend-up-to", "force", "reason"}
    if unknown := sorted(set(table) - known):
        raise BadPolicy(
            f"unknown key {unknown[0]!r} in [stop]", f"known: {', '.join(sorted(known))}"
        )
    force, reason = table.get("force", False), table.get("reason", "")
    if not isinstance(force, bool) or not isinstance(reason, str):
        raise BadPolicy("in [stop], force is true or false and reason is a text")

    reason = said or reason

    def length(key: str) -> float | None:
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadPolicy(f"{key} in [stop] is not a length of time", 'write it as "30s"')
        return parse_duration(str(value))

    return Policy(
        grace_s=length("grace"),
        extend_up_to_s=length("extend-up-to"),
        force_reason=reason if force else None,
        reason=reason,
    )
