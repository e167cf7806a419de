"""The arithmetic of a sweep: its moments, where to try next, and how sure the rate is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drill.results import losing
from lastcall.drill.experiment import Drilled
from lastcall.drill.judge import Verdict
from lastcall.drill.sweep import Sweep, Try, moments, next_moment, wilson
from lastcall.errors import ExitCode

LOST, KEPT, NOTHING = Verdict.LOSES, Verdict.KEEPS, Verdict.INCONCLUSIVE


def one(moment_s: float, verdict: Verdict, *, closer: bool = False) -> Try:
    """A stop at a moment with a verdict."""
    result = losing()
    judged = replace(result, judgement=replace(result.judgement, verdict=verdict))
    return Try(moment_s, Drilled(judged, ()), closer)


@given(st.integers(1, 200), st.floats(0.01, 100.0), st.integers())
def test_moments_are_spread_evenly(count: int, span_s: float, seed: int) -> None:
    """One in each of as many equal parts of the span, in order, the same for the same seed."""
    spread = moments(count, span_s, seed)
    assert len(spread) == count
    assert spread == moments(count, span_s, seed)
    part_s = span_s / count
    for i, moment_s in enumerate(spread):
        assert i * part_s - 0.0001 <= moment_s <= (i + 1) * part_s + 0.0001


def test_another_seed_makes_other_moments() -> None:
    """The seed matters."""
    assert moments(10, 1.0, 1) != moments(10, 1.0, 2)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=30).map(sorted))
def test_the_next_moment_lies_between_a_loss_and_none(known: list[tuple[float, bool]]) -> None:
    """The next try is within the widest gap of a loss and no loss; None where all agree."""
    found = next_moment(known)
    gaps = [(a, b) for (a, lost_a), (b, lost_b) in itertools.pairwise(known) if lost_a != lost_b]
    if found is None:
        assert all(b - a <= 0.001 for a, b in gaps)
        return
    widest = max(b - a for a, b in gaps)
    assert any(a < found < b and b - a == widest for a, b in gaps)


@given(st.floats(0.0, 1.0), st.integers(3, 20))
def test_narrowing_finds_the_edge(edge_s: float, tries: int) -> None:
    """Each try halves the gap around the moment from which on work is lost."""
    known = [(0.0, False), (1.0, True)]
    for _ in range(tries):
        moment_s = next_moment(sorted(known))
        if moment_s is None:
            break
        known = sorted([*known, (moment_s, moment_s >= edge_s)])
    before = max(at for at, lost in known if not lost)
    after = min(at for at, lost in known if lost)
    assert before - 0.0001 <= edge_s <= after + 0.0001
    assert after - before <= max(0.5**tries, 0.001) + 0.001


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    [
        # Source: Newcombe, "Two-sided confidence intervals for the single proportion", 1998.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_is_wilsons(hits: int, tries: int, low: float, high: float) -> None:
    """The interval has the published values."""
    assert wilson(hits, tries) == pytest.approx((low, high), abs=0.0001)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_contains_the_rate(hits: int, tries: int) -> None:
    """It lies within 0 and 1 around the rate, mirrors, and is never empty."""
    assume(hits <= tries)
    low, high = wilson(hits, tries)
    assert 0.0 <= low <= hits / tries + 1e-9
    assert hits / tries - 1e-9 <= high <= 1.0
    assert low < high
    mirrored = wilson(tries - hits, tries)
    assert mirrored == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("verdicts", "stretches"),
    [
        ([], ()),
        ([KEPT, KEPT], ()),
        ([LOST], ((0, 0),)),
        ([LOST, LOST, KEPT, LOST], ((0, 1), (3, 3))),
        ([KEPT, LOST, LOST, LOST], ((1, 3),)),
        ([LOST, NOTHING, LOST], ((0, 0), (2, 2))),
    ],
)
def test_losing_stretches(
    verdicts: list[Verdict], stretches: tuple[tuple[float, float], ...]
) -> None:
    """Neighbours that lost make one stretch; whatever did not lose ends it."""
    tries = tuple(one(float(i), verdict) for i, verdict in enumerate(verdicts))
    assert Sweep(tries, 1).losing == stretches


def test_the_rate_counts_fair_tries_only() -> None:
    """Tries in between, and those that proved nothing, are no sample."""
    swept = Sweep((one(0, KEPT), one(1, LOST), one(2, LOST, closer=True), one(3, NOTHING)), seed=1)
    assert swept.rate == 0.5
    assert swept.interval == wilson(1, 2)
    assert swept.exit_code is ExitCode.LOSES_WORK
    assert swept.worst.loses


def test_a_sweep_that_proved_nothing() -> None:
    """Without any try that said something there is no rate, and no verdict."""
    swept = Sweep((one(0, NOTHING),), seed=1)
    assert (swept.rate, swept.interval) == (None, (0.0, 1.0))
    assert swept.exit_code is ExitCode.INCONCLUSIVE
    assert Sweep((one(0, KEPT),), seed=1).exit_code is ExitCode.ORDERLY
