"""A drill as plain data, for `--json`: everything but the single attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.judge import Fate
from lastcall.drill.report import counts
from lastcall.drill.report.words import sentence
from lastcall.journal.codec import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.report.counts import Row
    from lastcall.drill.result import Result
    from lastcall.drill.sweep import Sweep, Try


def as_plain(result: Result) -> dict[str, object]:
    """The result as JSON knows it. Times are seconds from the stop.

    Args:
        result: of a drill.

    Returns:
        `event` (`drill`), `verdict`, `sentence`, `reasons`, `exit_code`; `subject` (`command`,
        `software`, `place`, `how`); `again`, the command that repeats it; `total` and, under
        `states`, for each state that was tested its `state` (as on the command line), `attempts`,
        a count a fate (`acknowledged`, `refused_cleanly`, `let_go`, `refused_badly`, `lost`,
        `hung`, `unproven`) and `ledger` (`executed_unanswered`, `half_executed`, `never_started`,
        `executed_twice`, `unknown`); `not_reached` and `not_offered`, states by name; `findings`,
        `moments` and `aftermath` with the fields of those; `clock_error_s`.
    """
    judgement, subject = result.judgement, result.subject
    rows = counts.rows(result)
    return {
        "event": "drill",
        "verdict": judgement.verdict.value,
        "sentence": sentence(result),
        "reasons": list(judgement.reasons),
        "exit_code": int(result.exit_code),
        "subject": {
            "command": list(subject.command),
            "software": subject.software,
            "place": subject.place,
            "how": subject.how,
        },
        "again": subject.again,
        "total": _counts(judgement.count, len(judgement.judged)),
        "states": [_state(row) for row in rows],
        "not_reached": [kind.key for kind in judgement.not_reached],
        "not_offered": [kind.key for kind in result.not_offered],
        "findings": plain(result.findings),
        "moments": plain(result.moments),
        "aftermath": plain(result.aftermath),
        "clock_error_s": result.clock_error_s,
    }


def sweep_as_plain(swept: Sweep) -> dict[str, object]:
    """A sweep as JSON knows it.

    Returns:
        `event` (`sweep`), `seed`, `exit_code`; `rate`, the share of stops that lost work (null: no
        try said anything), and `interval`, its 95 % bounds; `losing`, stretches of time in which
        every try lost work, as pairs of seconds; `tries` with `moment_s`, `closer`, `verdict`,
        `lost` each; and `worst`, the drill to look at, as `as_plain` has it.
    """
    return {
        "event": "sweep",
        "seed": swept.seed,
        "exit_code": int(swept.exit_code),
        "rate": swept.rate,
        "interval": list(swept.interval),
        "losing": [list(stretch) for stretch in swept.losing],
        "tries": [_try(one) for one in swept.tries],
        "worst": as_plain(swept.worst.drilled.result),
    }


def _try(one: Try) -> dict[str, object]:
    return {
        "moment_s": one.moment_s,
        "closer": one.closer,
        "verdict": one.verdict.value,
        "lost": one.drilled.result.lost,
    }


def _state(row: Row) -> dict[str, object]:
    ledger = {
        "executed_unanswered": row.unanswered,
        "half_executed": row.half,
        "never_started": row.never_started,
        "executed_twice": row.twice,
        "unknown": row.unknown,
    }
    return {"state": row.kind.key} | _counts(row.fates.__getitem__, row.total) | {"ledger": ledger}


def _counts(of: Callable[[Fate], int], total: int) -> dict[str, object]:
    return {"attempts": total, **{fate.name.lower(): of(fate) for fate in Fate}}
