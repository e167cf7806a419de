"""lastcall is killed at every point of a stop, and resumed: nothing is lost, forged or done twice.

The points are found by counting (see programs/crash_lastcall.py): every write of the journal and
every effect, just before and just after. A first run counts them; then each is the place of one
death, with fresh victims and a fresh journal. What the resume makes of it is judged by the oracle
against what the victims' parent saw.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from crash.oracle import complaints
from crash.stage import SIGKILLED, Play, Scene, Stage, held
from crash.sweeping import sweep
from lastcall.errors import gravest
from lastcall.model import Ending, Finished, Why
from lastcall.stop.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

# Most of a case is waiting: for a disk, for a grace to run out.
SIDE_BY_SIDE = 6
# What every stop writes and does; a count without these counts something else.
MINIMUM = {"started", "intended", "asked", "finished", "send", "door", "journal"}
FORCE = ("--force", "--reason", "crash test")

SCENES = (
    Scene("orderly", ("quick",), ("--grace", "2s")),
    Scene("abrupt", ("plain",), ("--grace", "2s")),
    Scene("soft", ("quick-143", "dies-of-it", "failing", "slow"), ("--grace", "2s")),
    Scene("refusing", ("stubborn",), ("--grace", "0.2s")),
    Scene("forced", ("stubborn",), ("--grace", "0.2s", *FORCE)),
    Scene("several", ("quick", "plain", "stubborn", "slow"), ("--grace", "0.4s", *FORCE)),
    Scene("tree", ("tree",), ("--grace", "2s", "--tree")),
    Scene("tree, first", ("tree",), ("--grace", "2s", "--tree", "--children", "first")),
    Scene("forced tree", ("stubborn-tree",), ("--grace", "0.2s", "--tree", *FORCE)),
    Scene("sequence", ("second-ask",), ("--grace", "2s", "--signals", "INT:0.1s,TERM")),
)


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    """Some stages to play on, side by side."""
    made = [Stage() for _ in range(SIDE_BY_SIDE)]
    yield made
    for stage in made:
        stage.close()


def judge(play: Play, *, ask_again: bool = False) -> None:
    """No complaints, and the last run said with its exit code what stands in the journal."""
    story = play.story()
    case = play.case(ask_again=ask_again)
    found = complaints(case)
    assert not found, "\n".join([*found, story])
    still_open = {book.stop for book in play.snapshots[-1] if book.ending is None}
    ours = [b for b in case.books if b.stop in still_open and b.ending is not None]
    code = gravest([b.ending.exit_code for b in ours if b.ending is not None])
    assert play.runs[-1].status == code << 8, f"exit code {code} expected\n{story}"


def count(stages: list[Stage], scene: Scene) -> list[str]:
    """The points of a stop that nobody kills."""
    with stages[0].play(scene) as play:
        ran = play.stop()
        assert all(book.ending for book in play.books()), play.story()
        points = ran.points[:-1]
        seen = {word for each in points for label in held(each) for word in label.split()[1:3]}
        assert seen >= MINIMUM, f"{MINIMUM - seen} are missing\n{play.story()}"
        return points


@pytest.mark.parametrize("parent", ["reap", "keep"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_stop_survives_a_death_at_every_point(
    stages: list[Stage], scene: Scene, parent: str
) -> None:
    """Killed at any point and resumed, every target has one ending, and it is the true one."""
    scene = replace(scene, parent=parent)

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(scene) as play:
            ran = play.stop(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            assert play.resume().status != SIGKILLED
            judge(play)
            return ran.points[-1]

    sweep(stages, count(stages, scene), work)


SOFT_SCENE = Scene("orderly", ("quick",), ("--grace", "0.3s"))
FORCED_SCENE = Scene("forced", ("stubborn",), ("--grace", "0.2s", *FORCE))
TREE_SCENE = Scene("tree", ("tree",), ("--grace", "2s", "--tree"))
# A place after which every resume goes the same way. After "served 1" it does not: the intent to
# ask the rest may be in the same commit, and what may have been asked is not asked again.
FIRST_DEATHS = (
    (SOFT_SCENE, "after commit intended 1 0:1"),
    (SOFT_SCENE, "after send 15"),
    (FORCED_SCENE, "after send 15"),
    (FORCED_SCENE, "after commit intended 1 1:1"),
    (FORCED_SCENE, "after send 9"),
    (TREE_SCENE, "before commit intended 1 1:1"),
    (TREE_SCENE, "after commit intended 1 1:1"),
    (Scene("several", ("quick", "stubborn"), ("--grace", "0.2s", *FORCE)), "after send 9"),
)


@pytest.mark.parametrize("parent", ["reap", "keep"])
@pytest.mark.parametrize(
    ("scene", "first"), FIRST_DEATHS, ids=[f"{s.name}, {on}" for s, on in FIRST_DEATHS]
)
def test_a_resume_survives_a_death_at_every_point(
    stages: list[Stage], scene: Scene, first: str, parent: str
) -> None:
    """Killed, resumed, killed at any point of the resume, resumed again: one true ending."""
    scene = replace(scene, parent=parent)
    with stages[0].play(scene) as play:
        assert play.stop(on=first).killed, play.story()
        points = play.resume().points[:-1]
        judge(play)

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(scene) as play:
            assert play.stop(on=first).killed, play.story()
            ran = play.resume(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            assert play.resume().status != SIGKILLED
            judge(play)
            return ran.points[-1]

    sweep(stages, points, work)


def test_what_ends_while_the_resume_watches_is_known(stages: list[Stage]) -> None:
    """A target that outlives lastcall and ends under the eyes of the resume has a known ending."""
    scene = Scene("late", ("gated",), ("--grace", "3s"), late=True)
    endings: list[Ending | None] = []

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(scene) as play:
            ran = play.stop(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            play.resume()
            judge(play)
            endings.extend(book.ending for book in play.books())
            return ran.points[-1]

    sweep(stages, count(stages, scene), work)
    assert endings.count(Ending.ORDERLY) >= 4


def test_an_expired_consent_forces_nothing(stages: list[Stage]) -> None:
    """Resumed after the consent has expired, no force is used, and the output says why."""
    left = []

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(FORCED_SCENE) as play:
            ran = play.stop(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            play.settle()
            expire_consent(play)
            resumed = play.resume()
            judge(play)
            assert f"sent {play.families[0][0]} 9" not in resumed.ledger
            [*books] = play.books()
            finished = [e for b in books for _, e in b.events if isinstance(e, Finished)]
            if any(each.ending is Ending.STILL_RUNNING for each in finished):
                assert [each.why for each in finished] == [Why.NO_CONSENT]
                assert "the consent to force had expired" in resumed.out
                left.extend(held(ran.points[-1]))
            return ran.points[-1]

    sweep(stages, count(stages, FORCED_SCENE), work)
    assert "after commit intended 1 1:1" in left


def expire_consent(play: Play) -> None:
    """Somebody's consent, as the journal has it from now on, ended a moment ago."""
    if not play.books():
        return
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    consent = {"reason": "crash test", "by": "test", "until_s": now_s - 0.001}
    with closing(sqlite3.connect(f"{play.state}/journal.db")) as journal, journal:
        journal.execute(
            "INSERT INTO event (stop, at_s, wall_s, kind, data)"
            " SELECT id, ?, ?, 'consented', ? FROM stop WHERE ending IS NULL",
            (now_s, time.time(), json.dumps({"consent": consent})),
        )


@pytest.mark.parametrize(
    ("on", "words", "said", "ending"),
    [
        ("before send 15", (), [], Ending.STILL_RUNNING),
        ("before send 15", ("--ask-again",), [15], Ending.ORDERLY),
    ],
)
def test_an_ask_in_doubt_is_repeated_only_on_request(
    stages: list[Stage], on: str, words: tuple[str, ...], said: list[int], ending: Ending
) -> None:
    """A signal that may not have been sent is not sent again, unless somebody says so."""
    with stages[0].play(Scene("orderly", ("quick",), ("--grace", "1s"))) as play:
        assert play.stop(on=on).killed
        play.resume(*words)
        judge(play, ask_again=bool(words))
        assert play.said(play.families[0][0]) == said
        assert [book.ending for book in play.books()] == [ending]


@pytest.mark.parametrize(("words", "said"), [((), [15]), (("--ask-again",), [15, 15])])
def test_an_ask_that_was_sent_is_repeated_only_on_request(
    stages: list[Stage], words: tuple[str, ...], said: list[int]
) -> None:
    """A signal that was sent, but not recorded as sent, arrives once, or twice on request."""
    with stages[0].play(Scene("refusing", ("stubborn",), ("--grace", "1s"))) as play:
        assert play.stop(on="after send 15").killed
        play.resume(*words)
        judge(play, ask_again=bool(words))
        assert play.said(play.families[0][0]) == said


@pytest.mark.parametrize(
    ("on", "parent", "ending", "detail", "attempts"),
    [
        ("before send 9", "reap", Ending.FORCED, "killed by SIGKILL", [True, False]),
        ("after send 9", "reap", Ending.UNKNOWN, "force had been used or was about to be", [False]),
        ("after send 9", "keep", Ending.FORCED, "whether by this force is in doubt", [True]),
    ],
)
def test_a_force_in_doubt_is_told_as_such(
    stages: list[Stage], on: str, parent: str, ending: Ending, detail: str, attempts: list[bool]
) -> None:
    """A force that may have happened is repeated on a living target only, and told as doubtful."""
    with stages[0].play(replace(FORCED_SCENE, parent=parent)) as play:
        assert play.stop(on=on).killed
        play.resume()
        judge(play)
        [book] = play.books()
        [finished] = [event for _, event in book.events if isinstance(event, Finished)]
        assert book.ending is ending
        assert detail in finished.detail
        forces = [a for a in fold(book.events).attempts if a.rung == 1]
        assert [attempt.in_doubt for attempt in forces] == attempts
