"""How far a stop of a process reaches, and the rungs of its asks."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.model import Consent, Rung
from lastcall.record import record
from lastcall.targets.process.signals import name as signal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

FORCE_WAIT_S = 10.0
ROOT, REST = "root", "rest"


class Scope(StrEnum):
    """The process alone, or who is stopped with it."""

    ONE = "one"
    TREE_CHILDREN_LAST = "tree, children last"
    TREE_CHILDREN_FIRST = "tree, children first"
    GROUP = "group"


@record
class Reach:
    """How far a stop reaches.

    Args:
        scope: in words.
        pgrp: the process group, where that is the scope.
    """

    scope: Scope = Scope.ONE
    pgrp: int | None = None


def ladder_of(signals: Sequence[tuple[int, float | None]], scope: Scope) -> tuple[Rung, ...]:
    """The rungs for a sequence of (signal, seconds to wait) in a scope, and then the force."""
    audiences = {
        Scope.TREE_CHILDREN_LAST: (ROOT, REST),
        Scope.TREE_CHILDREN_FIRST: (REST, ROOT),
    }.get(scope, ("",))
    to = {ROOT: " to the process itself", REST: " to its descendants"}
    soft = tuple(
        Rung(
            id=f"{signum}@{audience}",
            means=f"{signal_name(signum)}{to.get(audience, '')}",
            wait_s=wait_s,
            audience=audience,
        )
        for audience in audiences
        for signum, wait_s in signals
    )
    kill = Rung(f"{int(signal.SIGKILL)}@", "SIGKILL", FORCE_WAIT_S, Consent.FORCE)
    return (*soft, kill)
