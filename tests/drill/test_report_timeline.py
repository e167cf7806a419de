"""Where everything lies in time: the layout that the page and the terminal share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drill import results
from lastcall.drill.history import Attempt, Failure, Kind
from lastcall.drill.judge import Circumstances, Fate, Judged, Work, fate, judge
from lastcall.drill.report import counts
from lastcall.drill.report.timeline import End, Phase, Tone, bar, end_of, timeline, tone_of
from lastcall.drill.report.words import clean, ending, length, sentence, when
from lastcall.drill.result import Aftermath, Look, Result, Subject

ANSWERED = Attempt(1, Kind.IN_HANDLER, "k1", -1.0, -0.9, -0.8, -0.7, 1.0, 1.1, 1.1, 200)


def judged(attempt: Attempt, work: Work = Work.UNKNOWN) -> Judged:
    """The attempt with its fate."""
    return Judged(attempt, fate(attempt), work)


def result_of(*attempts: Attempt, ended: bool = True) -> Result:
    """A result of these attempts."""
    return Result(Subject(), judge(attempts, None, Circumstances(ended=ended)))


def test_an_attempt_is_cut_into_its_phases() -> None:
    """Each stretch lasts until the next thing happened, without gaps."""
    assert [(s.phase, s.from_s, s.to_s) for s in bar(judged(ANSWERED)).segments] == [
        (Phase.CONNECTING, -1.0, -0.9),
        (Phase.SILENT, -0.9, -0.8),
        (Phase.SENDING, -0.8, -0.7),
        (Phase.WAITING, -0.7, 1.0),
        (Phase.RECEIVING, 1.0, 1.1),
    ]


def test_half_a_request_is_still_being_sent_when_it_ends() -> None:
    """What never happened leaves the phase before it open until the end."""
    half = replace(
        ANSWERED,
        sent_all_s=None,
        first_byte_s=None,
        complete_s=None,
        status=None,
        failure=Failure.RESET,
        over_s=0.01,
    )
    last = bar(judged(half)).segments[-1]
    assert (last.phase, last.to_s) == (Phase.SENDING, 0.01)


def test_a_later_request_does_not_begin_when_its_connection_did() -> None:
    """An open connection was connected long before: that stretch belongs to another attempt."""
    later = replace(ANSWERED, attempted_s=0.2, connected_s=-5.0, sent_s=0.3, sent_all_s=0.4)
    assert bar(judged(later)).segments[0].from_s == 0.2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, End.ANSWERED),
        ({"status": 503}, End.TURNED_AWAY),
        ({"status": 500}, End.FAILED),
        ({"failure": Failure.REFUSED, "connected_s": None, "complete_s": None}, End.REFUSED),
        ({"failure": Failure.TURNED_AWAY, "complete_s": None}, End.TURNED_AWAY),
        ({"failure": Failure.RESET, "complete_s": None}, End.RESET),
        ({"failure": Failure.TRUNCATED, "complete_s": None}, End.CUT),
        ({"failure": Failure.HUNG, "complete_s": None}, End.HUNG),
        ({"failure": Failure.CLOSED, "complete_s": None, "sent_s": None}, End.LET_GO),
    ],
)
def test_every_end_has_its_mark(changes: dict[str, object], expected: End) -> None:
    """Each way an attempt can end is drawn with a shape of its own."""
    assert end_of(judged(replace(ANSWERED, **changes))) is expected  # type: ignore[arg-type]


def test_what_was_executed_twice_is_bad_although_answered() -> None:
    """The tone follows the ledger too."""
    assert tone_of(judged(ANSWERED, Work.TWICE)) is Tone.BAD
    assert tone_of(judged(ANSWERED, Work.EXECUTED)) is Tone.GOOD


def test_attempts_of_one_connection_share_a_line() -> None:
    """One after the other in one lane, side by side in several."""
    after = replace(ANSWERED, id=2, attempted_s=1.2, sent_s=1.2, sent_all_s=1.2, over_s=1.5)
    beside = replace(ANSWERED, id=3, attempted_s=-0.5)
    shared = [replace(a, connection=4000) for a in (ANSWERED, after, beside)]
    alone = replace(ANSWERED, id=4, connection=4001)
    (group,) = timeline(result_of(*shared, alone)).groups
    assert [
        [[b.judged.attempt.id for b in lane] for lane in line.lanes] for line in group.lines
    ] == [
        [[1, 2], [3]],
        [[4]],
    ]


def test_too_many_connections_keep_the_worst() -> None:
    """Of two thousand, those that were lost are all drawn, and the rest is counted."""
    drawn = timeline(results.huge())
    assert drawn.drawn + drawn.hidden == 2001
    assert drawn.drawn <= 520
    lost = [
        b
        for group in drawn.groups
        for line in group.lines
        for b in line.bars
        if b.judged.fate is Fate.LOST
    ]
    assert len(lost) == 20


def test_a_far_end_does_not_squeeze_the_rest() -> None:
    """The axis is cut where one attempt hung for a minute, and only there."""
    hung = replace(ANSWERED, id=2, complete_s=None, status=None, failure=Failure.HUNG, over_s=60.0)
    cut = timeline(result_of(ANSWERED, hung)).scale
    assert cut.cut_s is not None
    assert cut.at(1.1) - cut.at(-1.0) > 0.4
    assert cut.at(60.0) == 1.0
    assert timeline(result_of(ANSWERED)).scale.cut_s is None


@given(st.lists(st.floats(-30, 90), min_size=1, max_size=8))
def test_the_axis_never_turns_back(moments: list[float]) -> None:
    """Later is further right, and everything lies between 0 and 1, whatever was seen."""
    attempts = [
        replace(ANSWERED, id=i, attempted_s=at - 0.1, over_s=at) for i, at in enumerate(moments, 1)
    ]
    drawn = timeline(result_of(*attempts))
    places = [drawn.scale.at(at) for at in sorted([*moments, 0.0])]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert 0 < drawn.scale.at(0.0) < 1
    assert len(drawn.scale.ticks()) <= 10


def test_the_load_is_counted_in_bins() -> None:
    """Nothing of it gets lost in the counting."""
    drawn = timeline(results.huge())
    ended = sum(b.answered + b.other + b.bad for b in drawn.load)
    earlier = sum(
        j.attempt.kind is Kind.LOAD and j.attempt.over_s < drawn.scale.points[0][0]
        for j in results.huge().judgement.judged
    )
    assert ended + earlier == 30_000
    assert len(drawn.load) <= 400


def test_looks_that_saw_the_same_are_one() -> None:
    """The first of them stays, and the last look of all."""
    looks = tuple(Look(i / 10, 1, int(i == 3)) for i in range(8))
    seen = replace(result_of(ANSWERED), aftermath=Aftermath(looks=looks))
    assert [look.at_s for look in timeline(seen).looks] == [0.0, 0.3, 0.4, 0.7]


def test_the_table_counts_every_attempt_once() -> None:
    """The rows add up to the whole, and the ledger's words to what it says."""
    result = results.losing()
    rows = {row.kind: row for row in counts.rows(result)}
    assert sum(row.total for row in rows.values()) == len(result.judgement.judged)
    assert rows[Kind.IN_HANDLER].ledger == (
        "3 executed but unanswered, 2 half executed, 15 never started"
    )
    assert rows[Kind.IN_HANDLER].at_fault
    assert not rows[Kind.NEWCOMER].at_fault
    assert counts.untested(result) == (
        (Kind.EXPECT_CONTINUE, "not reached"),
        (Kind.TLS_HALF, "not reached"),
        (Kind.HTTP2_STREAM, "not offered"),
    )


def test_a_refusal_that_the_judge_blames_is_a_fault() -> None:
    """Where a stop was to replace the server, even a clean refusal costs."""
    refused = replace(
        ANSWERED,
        id=2,
        kind=Kind.NEWCOMER,
        connected_s=None,
        complete_s=None,
        status=None,
        failure=Failure.REFUSED,
        over_s=0.2,
    )
    attempts = (ANSWERED, refused)
    replaced = Result(Subject(), judge(attempts, None, Circumstances(replaced=True)))
    assert [row.at_fault for row in counts.rows(replaced)] == [False, True]
    assert [row.at_fault for row in counts.rows(result_of(*attempts))] == [False, False]
    assert sentence(replaced) == "1 x newcomer: refused cleanly (connection refused)."


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.412, "412 ms"),
        (0.9999, "1 s"),
        (3.21, "3.21 s"),
        (60.0, "60 s"),
        (125.0, "2 min 5 s"),
        (-0.5, "\N{MINUS SIGN}500 ms"),
    ],
)
def test_times_are_said_in_friendly_units(seconds: float, said: str) -> None:
    """No more digits than people want."""
    assert length(seconds) == said


def test_a_moment_has_its_side_of_the_stop() -> None:
    """Plus and minus tell before from after."""
    assert (when(0.012), when(-1.5), when(0.0)) == ("+12 ms", "\N{MINUS SIGN}1.5 s", "0 ms")


@pytest.mark.parametrize(
    ("aftermath", "said"),
    [
        (Aftermath(15, 0.012), "died of SIGTERM, 12 ms after the stop"),
        (Aftermath(0, 2.0), "exit code 0, 2 s after the stop"),
        (Aftermath(143 << 8, -0.1), "exit code 143, 100 ms before the stop"),
        (Aftermath(None, 1.0), "ended, nobody saw how, 1 s after the stop"),
        (Aftermath(), "not seen to end"),
    ],
)
def test_how_the_server_ended_in_words(aftermath: Aftermath, said: str) -> None:
    """Status and time in one line."""
    assert ending(aftermath) == said


def test_the_verdict_in_one_sentence() -> None:
    """The worst state first, then how much more there is."""
    assert sentence(results.losing()) == (
        "20 of 20 requests in the handler were lost, and 11 more in 6 other states."
    )
    assert sentence(results.keeping()) == (
        "All 102 attempts in 11 states were answered or turned away in order."
    )
    assert sentence(results.inconclusive()) == "It proves nothing: the server never got ready."


def test_what_strangers_write_is_harmless() -> None:
    """Colours go, control characters and marks of direction show, length is bounded."""
    assert clean("\x1b[31mred\x1b[0m \x07\u202e\n") == "red ���"
    assert clean("x" * 50, 10) == "xxxxxxxxxx ... (40 more characters)"
