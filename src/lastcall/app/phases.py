"""The phases of a shutdown, and how much of the time each may take. Pure.

Limits add up: a phase's deadline is the sum of the limits so far, so what one leaves over goes to
those after it. All of them together take the grace period and no more.
"""

from __future__ import annotations

from enum import StrEnum

from lastcall.errors import BadPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class State(StrEnum):
    """How far an application has come."""

    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


ANNOUNCE, DRAIN, WORK, CLOSE, FLUSH = READY_MADE = ("announce", "drain", "work", "close", "flush")
_SHARE = {ANNOUNCE: 0.08, DRAIN: 0.52, WORK: 0.2, CLOSE: 0.12, FLUSH: 0.08}
_OWN_SHARE = 0.1


class Phase:
    """One step of a shutdown.

    Args:
        name: unique.
        limit_s: its own limit in seconds; None: a share of the grace period.
        reverse: whether its hooks run one after the other, the last registered first.
    """

    __slots__ = ("limit_s", "name", "reverse")

    def __init__(self, name: str, limit_s: float | None = None, *, reverse: bool = False) -> None:
        self.name: str = name
        self.limit_s: float | None = limit_s
        self.reverse: bool = reverse

    def __repr__(self) -> str:
        return f"Phase({self.name!r}, limit_s={self.limit_s}, reverse={self.reverse})"


class Plan:
    """Which phases there are, in order.

    Args:
        grace_s: how long all of them may take together, in seconds.
        announce_s: how long work is still taken after the stop was announced, in seconds.
        limits: limits of phases by name, in seconds.

    Raises:
        BadPolicy: the times make no sense together, or name a phase that does not exist.
    """

    def __init__(
        self, grace_s: float, announce_s: float = 0.0, limits: Mapping[str, float] | None = None
    ) -> None:
        self.grace_s: float = positive("grace_s", grace_s)
        self.announce_s: float = positive("announce_s", announce_s, zero=True)
        self.phases: list[Phase] = [Phase(name) for name in READY_MADE]
        for name, limit_s in (limits or {}).items():
            self[name].limit_s = positive(f"limits[{name!r}]", limit_s, zero=True)
        self._check()

    def __getitem__(self, name: str) -> Phase:
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = ", ".join(phase.name for phase in self.phases)
        raise BadPolicy(f"there is no phase {name!r}", f"there are: {known}")

    def add(self, phase: Phase, *, before: str = "", after: str = "") -> None:
        """Put a phase of one's own among the others.

        Args:
            phase: the new one.
            before: the name of the phase it comes before.
            after: or of the one it comes after.

        Raises:
            BadPolicy: its name is taken, neither or both places are named, or no time is left.
        """
        if not phase.name:
            raise BadPolicy(f"a phase's name is {phase.name!r}", "give it a word")
        if any(each.name == phase.name for each in self.phases):
            raise BadPolicy(f"there is a phase {phase.name!r} already", "give it another name")
        if bool(before) == bool(after):
            raise BadPolicy(f"where does phase {phase.name!r} belong?", "say before= or after=")
        if phase.limit_s is not None:
            positive("limit_s", phase.limit_s, zero=True)
        at = self.phases.index(self[before or after]) + bool(after)
        self.phases.insert(at, phase)
        try:
            self._check()
        except BadPolicy:
            self.phases.remove(phase)
            raise

    def _check(self) -> None:
        fixed = sum(phase.limit_s or 0.0 for phase in self.phases) + self.announce_s
        open_ones = any(phase.limit_s is None for phase in self.phases)
        if fixed > self.grace_s or (open_ones and fixed >= self.grace_s):
            raise BadPolicy(
                f"the phases' own limits take {fixed:g} s of a grace period of {self.grace_s:g} s",
                "give it a longer grace_s, or the phases shorter limits",
            )

    def deadlines(self) -> list[tuple[Phase, float]]:
        """Each phase with its deadline, in seconds after the beginning of the stop."""
        fixed = sum(phase.limit_s or 0.0 for phase in self.phases) + self.announce_s
        shares = sum(_share(phase) for phase in self.phases if phase.limit_s is None)
        each_s = (self.grace_s - fixed) / shares if shares else 0.0
        at_s, found = self.announce_s, []
        for phase in self.phases:
            at_s += _share(phase) * each_s if phase.limit_s is None else phase.limit_s
            found.append((phase, at_s))
        return found


def _share(phase: Phase) -> float:
    return _SHARE.get(phase.name, _OWN_SHARE)


def positive(name: str, value: float, *, zero: bool = False) -> float:
    """A number of seconds that makes sense.

    Args:
        name: what it is for.
        value: the number.
        zero: whether it may be 0.

    Raises:
        BadPolicy: it is negative, infinite, or no number.
    """
    try:
        good = (value > 0 or (zero and value == 0)) and value <= 1e9  # noqa: PLR2004 (infinity)
    except TypeError:
        good = False
    if not good:
        raise BadPolicy(f"{name} is {value!r}: a number of seconds is needed", "such as 25")
    return float(value)


def in_order(names: Sequence[str], needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Hooks in an order in which each comes after those it depends on.

    Args:
        names: of all hooks of a phase.
        needs: what each depends on.

    Raises:
        BadPolicy: a hook depends on one that does not exist, or two on each other.
    """
    placed: dict[str, None] = {}
    left = list(names)
    for name in left:
        for need in needs.get(name, ()):
            if need not in names:
                raise BadPolicy(f"hook {name!r} depends on {need!r}, which is not in its phase")
    while left:
        ready = [n for n in left if all(need in placed for need in needs.get(n, ()))]
        if not ready:
            raise BadPolicy(f"these hooks depend on each other: {', '.join(left)}")
        placed |= dict.fromkeys(ready)
        left = [n for n in left if n not in placed]
    return list(placed)
