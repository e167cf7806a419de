"""The same drill at many moments, to find races that one try misses.

The moments are spread evenly over a request's life, each shifted a little by a random number from
a seed, so that a sweep can be repeated. Then the tries go where it matters: between moments that
lost and moments that did not (while all agree: to further moments of the span). The loss rate
counts the evenly spread tries only, as the others are no fair sample; its interval is Wilson's.

Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill.experiment import Drilled, drill
from lastcall.drill.judge import Verdict
from lastcall.errors import ExitCode
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lastcall.drill.plan import Plan

_Z95 = 1.959964
# So much of the tries is spent on narrowing down.
_CLOSER = 3


@record
class Try:
    """One stop of a sweep.

    Args:
        moment_s: when the stop came, in seconds after the requests were begun.
        drilled: what it came to.
        closer: whether it belongs to the narrowing down.
    """

    moment_s: float
    drilled: Drilled
    closer: bool = False

    @property
    def verdict(self) -> Verdict:
        """What it says."""
        return self.drilled.result.judgement.verdict

    @property
    def loses(self) -> bool:
        """Whether work was lost."""
        return self.verdict is Verdict.LOSES


@record
class Sweep:
    """Many stops of the same server.

    Args:
        tries: in the order of their moments.
        seed: repeats it.
    """

    tries: tuple[Try, ...]
    seed: int

    @property
    def fair(self) -> tuple[Try, ...]:
        """The evenly spread tries that said anything."""
        return tuple(t for t in self.tries if not t.closer and t.verdict in _SAYS)

    @property
    def rate(self) -> float | None:
        """The share of stops that lost work; None: no try said anything."""
        fair = self.fair
        return sum(t.loses for t in fair) / len(fair) if fair else None

    @property
    def interval(self) -> tuple[float, float]:
        """Between which rates the true one lies with 95 % confidence."""
        fair = self.fair
        return wilson(sum(t.loses for t in fair), len(fair))

    @property
    def losing(self) -> tuple[tuple[float, float], ...]:
        """The stretches of time, in seconds, in which every try lost work."""
        found: list[tuple[float, float]] = []
        before: Try | None = None
        for each in self.tries:
            if each.loses:
                start = found.pop()[0] if before is not None and before.loses else each.moment_s
                found.append((start, each.moment_s))
            before = each
        return tuple(found)

    @property
    def worst(self) -> Try:
        """The try to look at: the one that lost the most; the first when none did."""
        return max(self.tries, key=lambda t: (t.loses, t.drilled.result.lost))

    @property
    def page(self) -> Drilled:
        """The worst try for a report, which says that it is one of many."""
        worst = self.worst
        low, high = self.interval
        rate = "none of them said anything"
        if self.rate is not None:
            rate = f"{self.rate:.0%} lost work (95 % interval {low:.0%} to {high:.0%})"
        how = f"{worst.drilled.result.subject.how}, {worst.moment_s:.3f} s after the last request"
        how += f" was begun; one of {len(self.tries)} stops of a sweep: {rate}"
        result = worst.drilled.result
        subject = replace(result.subject, how=how)
        return replace(worst.drilled, result=replace(result, subject=subject))

    @property
    def exit_code(self) -> ExitCode:
        """Loses when any try lost; inconclusive when fewer than half of the tries said anything."""
        if any(t.loses for t in self.tries):
            return ExitCode.LOSES_WORK
        told = sum(t.verdict in _SAYS for t in self.tries)
        return ExitCode.ORDERLY if 2 * told > len(self.tries) else ExitCode.INCONCLUSIVE


_SAYS = {Verdict.KEEPS, Verdict.LOSES}


async def sweep(
    plan: Plan,
    count: int,
    span_s: float,
    seed: int,
    tell: Callable[[Try], None],
    at: Sequence[float] = (),
) -> Sweep:
    """Drill the same server at many moments.

    Args:
        plan: one drill; its `moment_s` is set by each try.
        count: how many stops.
        span_s: over how much time after the requests were begun, in seconds.
        seed: of the moments.
        tell: takes each try as it is done.
        at: the moments, in seconds, when they are given: then no others are tried.

    Raises:
        LastcallError: a drill could not be made.
    """
    tries: list[Try] = []

    async def attempt(moment_s: float, *, closer: bool) -> None:
        again = plan.again.replace("{at}", f"{moment_s}s")
        drilled = await drill(replace(plan, moment_s=moment_s, again=again))
        really_s = moment_s if drilled.moment_s is None else drilled.moment_s
        tries.append(Try(really_s, drilled, closer))
        tell(tries[-1])

    few = count // _CLOSER if count > _CLOSER and not at else 0
    for moment_s in at or moments(count - few, span_s, seed):
        await attempt(moment_s, closer=False)
    for moment_s in moments(few, span_s, seed + 1) if few else ():
        known = sorted((t.moment_s, t.loses) for t in tries if t.verdict in _SAYS)
        between = next_moment(known)
        # Where all agree there is nothing to narrow down: then one more fair moment.
        await attempt(moment_s if between is None else between, closer=between is not None)
    return Sweep(tuple(sorted(tries, key=lambda t: t.moment_s)), seed)


def moments(count: int, span_s: float, seed: int) -> list[float]:
    """Moments spread over a span: one in each of as many equal parts, at random within it."""
    chance = random.Random(seed)  # noqa: S311 (repeatable on purpose)
    return [round((i + chance.random()) * span_s / count, 4) for i in range(count)]


def next_moment(known: Sequence[tuple[float, bool]]) -> float | None:
    """Where to try next: in the middle of the widest gap between a loss and no loss.

    Args:
        known: (moment in seconds, whether it lost), in order.

    Returns:
        None when all tries agree, or nothing is left to tell apart (under a millisecond).
    """
    gaps = [
        (b - a, (a + b) / 2)
        for (a, lost_a), (b, lost_b) in itertools.pairwise(known)
        if lost_a != lost_b
    ]
    width, middle = max(gaps, default=(0.0, 0.0))
    return round(middle, 4) if width > 0.001 else None  # noqa: PLR2004 (a millisecond)


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """The 95 % interval for a rate; (0, 1) when nothing was tried."""
    if not tries:
        return 0.0, 1.0
    rate, z2 = hits / tries, _Z95**2
    middle = (rate + z2 / (2 * tries)) / (1 + z2 / tries)
    half = _Z95 / (1 + z2 / tries) * math.sqrt(rate * (1 - rate) / tries + z2 / (4 * tries**2))
    return max(0.0, middle - half), min(1.0, middle + half)
