"""The rows of a comparison, and the table that they make."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drill.results import inconclusive, keeping, losing
from lastcall.drill.compare import COLUMNS, Row, counted, markdown, rounds
from lastcall.drill.history import Kind
from lastcall.drill.judge import Fate, Verdict
from lastcall.drill.presets import probe_paths, scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.result import Result


def test_every_state_has_one_column() -> None:
    """No state is counted twice, and only what cannot be compared has no column."""
    columns = Counter(kind for kinds in COLUMNS.values() for kind in kinds)
    assert set(columns.values()) == {1}
    assert set(Kind) - set(columns) == {Kind.TLS_HALF, Kind.LOAD}


def test_the_rounds_bring_every_state_about() -> None:
    """What cannot be in one drill is in another; none is left out; the last is one request."""
    first, second, alone = rounds(4)
    kinds = [state.kind for one in (first, second) for state in one.states]
    assert sorted(kinds) == sorted({s.kind for s in scenario(probe_paths()).states})
    assert [(state.kind, state.count) for state in alone.states] == [(Kind.IN_HANDLER, 1)]


@pytest.mark.parametrize(
    ("even", "uneven", "verdict"),
    [
        ((keeping,), (), Verdict.KEEPS),
        ((keeping,), (keeping,), Verdict.KEEPS),
        ((keeping, losing), (keeping,), Verdict.LOSES),
        ((keeping,), (losing,), Verdict.LOSES),
        ((inconclusive,), (losing,), Verdict.LOSES),
        ((keeping, inconclusive), (keeping,), Verdict.INCONCLUSIVE),
        ((), (), Verdict.INCONCLUSIVE),
    ],
)
def test_the_gravest_drill_is_the_verdict(
    even: tuple[Callable[[], Result], ...],
    uneven: tuple[Callable[[], Result], ...],
    verdict: Verdict,
) -> None:
    """A server keeps its word only if it always did, and nothing drilled proves nothing."""
    results, alone = (tuple(make() for make in some) for some in (even, uneven))
    assert Row("some", "1", results, alone).verdict is verdict


def test_fates_in_words() -> None:
    """The bad ones come first, and then the more frequent."""
    found = Counter({Fate.ACKNOWLEDGED: 9, Fate.LOST: 1, Fate.REFUSED_CLEANLY: 20})
    assert counted(found) == "1 lost, 20 refused, 9 answered"
    assert counted(Counter()) == ""
    assert all(counted(Counter({fate: 2})).startswith("2 ") for fate in Fate)


def test_the_table_is_markdown() -> None:
    """A line a server, every reason below it, nothing of those that are missing."""
    rows = [
        Row("one_two|three*", "<b>", (losing(),)),
        Row("good", "1", (keeping(),), (keeping(),)),
        Row("absent", "", missing="not found"),
    ]
    text = markdown(rows)
    table = [line for line in text.splitlines() if line.startswith("|")]
    columns = {line.replace("\\|", "").count("|") for line in table}
    assert columns == {len(COLUMNS) + 5}
    assert len(table) == 4
    assert "absent" not in text
    assert "<b>" not in text
    for why in rows[0].reasons:
        assert f"`{why.code}`" in text


def test_newcomers_count_only_after_the_stop() -> None:
    """Whoever came before the stop says nothing of it."""
    row = Row("some", "1", (keeping(),))
    newcomers = row.judged(frozenset({Kind.NEWCOMER}))
    assert newcomers
    assert all(each.attempt.attempted_s >= 0 for each in newcomers)
    assert replace(row, results=()).cell("newcomers") == ""
