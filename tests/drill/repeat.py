"""Drill a server that does nothing wrong, over and over: whatever is blamed is a false alarm.

python tests/drill/repeat.py --runs 500
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does it: our helpers

from drill.experiments import blamed, faulty, only_slow, run, told, traffic
from lastcall.drill.judge import Verdict
from lastcall.drill.plan import Plan
from lastcall.record import record

# Long enough that all connections are in their states before the first slow answer is due.
_SLOW_S = 0.4
_LINGER_S = 0.1
_EVERY = 10


@record
class Sum:
    """What many drills of a perfect server came to.

    Args:
        runs: how many there were.
        alarms: in words, each of those that blamed it for anything.
        slow: how many proved nothing because the machine was too slow.
        unproved: in words, each of those that proved nothing for another reason.
        not_reached: how often a state was not reached.
        clock_error_s: the worst of them all, in seconds.
    """

    runs: int
    alarms: tuple[str, ...]
    slow: int
    unproved: tuple[str, ...]
    not_reached: tuple[tuple[str, int], ...]
    clock_error_s: float

    @property
    def good(self) -> bool:
        """Whether nothing was blamed, and enough was proved."""
        return not self.alarms and not self.unproved and self.slow < self.runs

    def __str__(self) -> str:
        missed = ", ".join(f"{kind} {count}" for kind, count in self.not_reached) or "none"
        return (
            f"{self.runs} runs: {len(self.alarms)} false alarms; "
            f"{self.slow + len(self.unproved)} inconclusive, {self.slow} of them because the "
            f"machine was too slow; not reached: {missed}; "
            f"worst clock error {self.clock_error_s * 1000:.1f} ms"
        )


def repeat(runs: int) -> Sum:
    """Drill the perfect server so many times, and say on stdout how it goes."""
    plan = Plan(faulty("perfect"), scenario=traffic(slow_s=_SLOW_S), linger_s=_LINGER_S)
    alarms: list[str] = []
    unproved: list[str] = []
    missed: Counter[str] = Counter()
    slow, worst_s, begun = 0, 0.0, time.monotonic()
    for number in range(1, runs + 1):
        result = run(plan)
        worst_s = max(worst_s, result.clock_error_s)
        missed.update(kind.key for kind in result.judgement.not_reached)
        if only_slow(result):
            slow += 1
        elif result.judgement.verdict is Verdict.INCONCLUSIVE:
            unproved.append(_said(f"run {number}: {told(result)}"))
        elif result.judgement.verdict is Verdict.LOSES or blamed(result):
            alarms.append(_said(f"run {number}: {told(result)}"))
        if number % _EVERY == 0:
            each_s = (time.monotonic() - begun) / number
            _said(
                f"{number} of {runs}: {len(alarms)} false alarms, {slow + len(unproved)} "
                f"inconclusive, {each_s:.2f} s each"
            )
    return Sum(runs, tuple(alarms), slow, tuple(unproved), tuple(missed.most_common()), worst_s)


def _said(text: str) -> str:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return text


def main() -> int:
    """Repeat as the command line says."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--runs", type=int, default=500, help="how many drills (500)")
    came = repeat(reader.parse_args().runs)
    _said(f"{came}")
    return 0 if came.good else 1


if __name__ == "__main__":
    sys.exit(main())
