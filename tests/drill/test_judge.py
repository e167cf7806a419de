"""The judge, tested by planted faults: it finds each, and nothing on a perfect history."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.drill import history
from lastcall.drill.history import Attempt, BadHistory, Failure, Kind
from lastcall.drill.judge import BAD, Circumstances, Deed, Fate, Verdict, Work, fate, judge

ANSWERED = Attempt(1, Kind.IN_HANDLER, "k1", -1.0, -0.99, -0.98, -0.98, 1.0, 1.1, 1.1, 200)
RIGHT = Circumstances()


def answered(number: int, kind: Kind = Kind.IN_HANDLER) -> Attempt:
    """An attempt that was in hand at the stop and got its whole answer."""
    return replace(ANSWERED, id=number, key=f"k{number}", kind=kind)


def unanswered(failure: Failure, **changes: object) -> Attempt:
    """One that was sent and got no answer."""
    silent = replace(ANSWERED, first_byte_s=None, complete_s=None, status=None, failure=failure)
    return replace(silent, **changes)  # type: ignore[arg-type]


def done(*keys: str) -> list[Deed]:
    """The ledger of a server that executed these, each once and whole."""
    return [Deed(key, step) for key in keys for step in ("begun", "paid", "ordered")]


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (ANSWERED, Fate.ACKNOWLEDGED),
        (replace(ANSWERED, status=404), Fate.ACKNOWLEDGED),
        (replace(ANSWERED, status=503, retry_after=True), Fate.REFUSED_CLEANLY),
        (replace(ANSWERED, status=500), Fate.LOST),
        (replace(ANSWERED, unframed=True), Fate.UNPROVEN),
        (replace(ANSWERED, unframed=True, over_s=-0.5), Fate.ACKNOWLEDGED),
        (unanswered(Failure.TURNED_AWAY), Fate.REFUSED_CLEANLY),
        (unanswered(Failure.RESET), Fate.LOST),
        (unanswered(Failure.CLOSED), Fate.LOST),
        (unanswered(Failure.TRUNCATED, first_byte_s=0.5, status=200), Fate.LOST),
        (unanswered(Failure.GARBAGE), Fate.LOST),
        (unanswered(Failure.HUNG), Fate.HUNG),
        (unanswered(Failure.RESET, sent_s=None, sent_all_s=None), Fate.REFUSED_BADLY),
        (unanswered(Failure.CLOSED, sent_s=None, sent_all_s=None), Fate.LET_GO),
        (unanswered(Failure.REFUSED, connected_s=None, sent_s=None), Fate.REFUSED_CLEANLY),
        (unanswered(Failure.UNREACHED, connected_s=None, sent_s=None), Fate.REFUSED_CLEANLY),
    ],
)
def test_every_fate(attempt: Attempt, expected: Fate) -> None:
    """Each way an attempt can end has its word."""
    assert fate(attempt) is expected


def test_a_perfect_history_keeps_its_word() -> None:
    """All acknowledged, all executed once."""
    attempts = [answered(n) for n in range(1, 21)]
    judgement = judge(attempts, done(*(a.key for a in attempts)), RIGHT)
    assert (judgement.verdict, judgement.reasons) == (Verdict.KEEPS, ())
    assert judgement.count(Fate.ACKNOWLEDGED) == 20


@given(st.integers(1, 20), st.sampled_from([Failure.RESET, Failure.CLOSED, Failure.TRUNCATED]))
def test_one_planted_loss_is_found(victim: int, failure: Failure) -> None:
    """Exactly one, wherever it is."""
    attempts = [answered(n) for n in range(1, 21)]
    attempts[victim - 1] = unanswered(failure, id=victim, key=f"k{victim}")
    judgement = judge(attempts, None, RIGHT)
    assert (judgement.verdict, judgement.count(Fate.LOST)) == (Verdict.LOSES, 1)
    assert judgement.reasons == (f"1 x in the handler: lost ({failure})",)


def test_the_ledger_splits_what_was_lost() -> None:
    """Executed but unanswered, half executed, never started: told apart."""
    lost = [unanswered(Failure.RESET, id=n, key=f"k{n}") for n in (1, 2, 3)]
    deeds = [*done("k1"), Deed("k2", "begun"), Deed("k2", "paid")]
    judgement = judge(lost, deeds, RIGHT)
    assert [j.work for j in judgement.judged] == [Work.EXECUTED, Work.HALF, Work.NEVER_STARTED]
    assert judgement.reasons == (
        "1 half executed: paid, and no order made",
        "1 x in the handler: lost (reset), executed",
        "1 x in the handler: lost (reset)",
        "1 x in the handler: lost (reset), never started",
    )


def test_a_duplicate_is_found_although_all_was_answered() -> None:
    """A retry that was executed twice loses nothing that a client sees, and is wrong."""
    judgement = judge([answered(1)], [*done("k1"), *done("k1")], RIGHT)
    assert (judgement.verdict, judgement.reasons) == (Verdict.LOSES, ("1 executed twice",))


def test_half_executed_is_wrong_even_when_answered() -> None:
    """The payment was taken and the order never made: the case that a forced stop costs."""
    judgement = judge([answered(1)], [Deed("k1", "paid")], RIGHT)
    assert judgement.verdict is Verdict.LOSES


@pytest.mark.parametrize(
    ("attempts", "around", "reason"),
    [
        ([], RIGHT, "nothing was in flight"),
        ([replace(ANSWERED, over_s=-0.1, kind=Kind.LOAD)], RIGHT, "nothing was in flight"),
        ([replace(ANSWERED, connected_s=0.5, kind=Kind.NEWCOMER)], RIGHT, "nothing was in flight"),
        ([replace(ANSWERED, reached=False)], RIGHT, "nothing was in flight"),
        ([ANSWERED], Circumstances(ready=False), "never got ready"),
        ([ANSWERED], Circumstances(stopped=False), "gone before it was stopped"),
    ],
)
def test_what_proves_nothing_is_inconclusive(
    attempts: list[Attempt], around: Circumstances, reason: str
) -> None:
    """An empty or failed experiment is never a pass."""
    judgement = judge(attempts, None, around)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert reason in judgement.reasons[0]


EARLY = replace(ANSWERED, status=404, complete_s=-0.5, over_s=-0.5, reached=False)
HALF_SENT = answered(2, Kind.HALF_LINE)


@pytest.mark.parametrize(
    ("attempts", "around", "why"),
    [
        ([replace(ANSWERED, unframed=True)], RIGHT, "whole or cut, nobody can tell"),
        ([ANSWERED, unanswered(Failure.OURS)], RIGHT, "ran out of files or ports"),
        ([ANSWERED], Circumstances(idle="the command failed"), "the command failed"),
        ([ANSWERED], Circumstances(untried=1), "due and not tried"),
        ([ANSWERED], Circumstances(clock_error_s=0.2), "off by 200 ms"),
        ([ANSWERED], Circumstances(effect_s=6.0), "took effect after 6.0 s"),
        ([EARLY, HALF_SENT], Circumstances(wanted=(Kind.IN_HANDLER,)), "in the handler when"),
    ],
)
def test_a_drill_that_could_not_see_a_loss_is_inconclusive(
    attempts: list[Attempt], around: Circumstances, why: str
) -> None:
    """Nothing was lost, and nothing could have been seen to be: that is no pass, and says why."""
    said = judge(attempts, None, around)
    assert said.verdict is Verdict.INCONCLUSIVE
    assert any(why in reason for reason in said.reasons), said.reasons


def test_a_loss_is_a_loss_whatever_else_was_not_proved() -> None:
    """An answer that may be whole does not hide one that never came."""
    lost = unanswered(Failure.CLOSED, id=2, key="k2")
    said = judge([replace(ANSWERED, unframed=True), lost], None, RIGHT)
    assert said.verdict is Verdict.LOSES


def test_what_was_answered_too_early_is_told_with_its_status() -> None:
    """A path that answers at once, with 404, is named as the reason why nothing was tested."""
    said = judge([EARLY, HALF_SENT], None, Circumstances(wanted=(Kind.IN_HANDLER,)))
    assert any("answered with 404 before the stop came" in reason for reason in said.reasons)


def test_what_was_turned_away_and_executed_all_the_same_is_lost() -> None:
    """A client that was told to go elsewhere would have it executed twice."""
    away = unanswered(Failure.TURNED_AWAY)
    assert judge([away], done("k1"), RIGHT).count(Fate.LOST) == 1
    assert judge([away], done(), RIGHT).count(Fate.LOST) == 0


def test_what_we_ended_in_its_middle_is_not_called_half_executed() -> None:
    """A request that hung may have been at work until we took the server away."""
    hung = unanswered(Failure.HUNG)
    (judged,) = judge([hung], [Deed("k1", "paid")], RIGHT).judged
    assert (judged.fate, judged.work) == (Fate.HUNG, Work.UNKNOWN)


def test_a_state_that_was_not_reached_is_named_and_not_passed() -> None:
    """It stands in the reasons, and counts for nothing."""
    attempts = [ANSWERED, replace(ANSWERED, kind=Kind.EVENTS, reached=False, failure=Failure.RESET)]
    judgement = judge(attempts, None, RIGHT)
    assert (judgement.verdict, judgement.not_reached) == (Verdict.KEEPS, (Kind.EVENTS,))
    assert judgement.reasons == ("not reached, so not tested: server-sent events",)


def test_a_server_that_does_not_end_breaks_its_word() -> None:
    """Even when it answered everything."""
    judgement = judge([ANSWERED], None, Circumstances(ended=False))
    assert (judgement.verdict, judgement.reasons) == (Verdict.LOSES, ("it did not end in time",))


def test_newcomers_that_are_refused_cleanly_are_no_loss() -> None:
    """Nobody promised them anything; one that is reset was promised a connection."""
    refused = unanswered(Failure.REFUSED, connected_s=None, sent_s=None, kind=Kind.NEWCOMER)
    assert judge([ANSWERED, refused], None, RIGHT).verdict is Verdict.KEEPS
    reset = unanswered(Failure.RESET, connected_s=0.2, sent_s=None, kind=Kind.NEWCOMER)
    assert judge([ANSWERED, reset], None, RIGHT).verdict is Verdict.LOSES


times = st.floats(-5, 5, allow_nan=False, width=32)
attempts_at_random = st.builds(
    Attempt,
    id=st.integers(1, 99),
    kind=st.sampled_from(list(Kind)),
    key=st.sampled_from(["a", "b", "c"]),
    attempted_s=times,
    connected_s=st.none() | times,
    sent_s=st.none() | times,
    sent_all_s=st.none() | times,
    first_byte_s=st.none() | times,
    complete_s=st.none() | times,
    over_s=times,
    status=st.none() | st.sampled_from([200, 404, 500, 503]),
    failure=st.none() | st.sampled_from(list(Failure)),
    reached=st.booleans(),
)
deeds_at_random = st.lists(
    st.builds(Deed, st.sampled_from(["a", "b"]), st.sampled_from(["begun", "paid", "ordered"]))
)


@given(st.lists(attempts_at_random), st.none() | deeds_at_random)
def test_keeping_its_word_means_that_nothing_bad_was_seen(
    attempts: list[Attempt], deeds: list[Deed] | None
) -> None:
    """Over random histories: never a pass with a bad fate, or with nothing judged."""
    judgement = judge(attempts, deeds, RIGHT)
    if judgement.verdict is Verdict.KEEPS:
        assert judgement.judged
        assert not any(judgement.count(bad) for bad in BAD)
        assert not any(j.work in {Work.HALF, Work.TWICE} for j in judgement.judged)
    if judgement.verdict is Verdict.LOSES:
        assert judgement.reasons


@given(st.lists(attempts_at_random))
def test_a_history_reads_back_as_it_was_written(attempts: list[Attempt]) -> None:
    """JSON lines and back."""
    stream = io.StringIO()
    history.write(attempts, stream)
    stream.seek(0)
    assert list(history.read(stream)) == attempts


@pytest.mark.parametrize("line", ["", "{", "[]", '{"id": 1}', '{"kind": "?", "failure": null}'])
def test_a_line_that_is_no_attempt_is_named(line: str) -> None:
    """A history that was cut off or is another file: the line's number is told."""
    stream = io.StringIO()
    history.write([ANSWERED], stream)
    stream.write(line + "\n")
    stream.seek(0)
    read = history.read(stream)
    assert next(read) == ANSWERED
    with pytest.raises(BadHistory, match="line 2"):
        next(read)
