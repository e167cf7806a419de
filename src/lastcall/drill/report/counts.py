"""What became of the attempts, counted by state: the table that every report of a drill shows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lastcall.drill.history import Kind
from lastcall.drill.judge import BAD, Fate, Work
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.drill.judge import Judged
    from lastcall.drill.result import Result


@record
class Row:
    """One state.

    Args:
        kind: the state.
        total: how many attempts say something of it.
        fates: how many came to each fate.
        unanswered: executed, as the ledger says, and not answered.
        half: half executed.
        never_started: neither answered nor started.
        twice: executed twice.
        unknown: of how many bad ones no ledger tells.
        blamed: whether the judge holds it against the server.
    """

    kind: Kind
    total: int
    fates: Counter[Fate]
    unanswered: int = 0
    half: int = 0
    never_started: int = 0
    twice: int = 0
    unknown: int = 0
    blamed: bool = False

    @property
    def bad(self) -> int:
        """How many ended as none should."""
        return sum(self.fates[fate] for fate in BAD)

    @property
    def at_fault(self) -> bool:
        """Whether anything is wrong in this state."""
        return bool(self.blamed or self.bad or self.half or self.twice)

    @property
    def ledger(self) -> str:
        """What the server's ledger says, in words; empty: nothing to say."""
        said = [
            (self.unanswered, "executed but unanswered"),
            (self.half, "half executed"),
            (self.never_started, "never started"),
            (self.twice, "executed twice"),
        ]
        return ", ".join(f"{count:,} {words}" for count, words in said if count)


def rows(result: Result) -> tuple[Row, ...]:
    """A row for each state that was tested, in the order of `Kind`."""
    by_kind: dict[Kind, list[Judged]] = {}
    for each in result.judgement.judged:
        by_kind.setdefault(each.attempt.kind, []).append(each)
    reasons = result.judgement.reasons
    return tuple(_row(kind, by_kind[kind], reasons) for kind in Kind if kind in by_kind)


def untested(result: Result) -> tuple[tuple[Kind, str], ...]:
    """The states of which nothing was learned, each with why."""
    tested = {j.attempt.kind for j in result.judgement.judged}
    found = dict.fromkeys(result.not_offered, "not offered")
    found |= dict.fromkeys(result.judgement.not_reached, "not reached")
    return tuple((kind, found[kind]) for kind in Kind if kind in found and kind not in tested)


def _row(kind: Kind, judged: list[Judged], reasons: Iterable[str]) -> Row:
    bad = Counter(j.work for j in judged if j.fate in BAD)
    works = Counter(j.work for j in judged)
    return Row(
        kind,
        len(judged),
        Counter(j.fate for j in judged),
        unanswered=bad[Work.EXECUTED],
        half=works[Work.HALF],
        never_started=bad[Work.NEVER_STARTED],
        twice=works[Work.TWICE],
        unknown=bad[Work.UNKNOWN],
        # Where a stop was to replace the server, even a clean refusal is one: only the judge knows.
        blamed=any(f" x {kind}: " in reason for reason in reasons),
    )
