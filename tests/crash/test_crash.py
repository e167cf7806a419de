"""lastcall is killed at every point of a stop, and resumed: nothing is lost, forged or done twice.

The points are found by counting (see programs/crash_lastcall.py): every write of the journal and
every effect, just before and just after. A first run counts them; then each is the place of one
death, with fresh victims and a fresh journal. What the resume makes of it is judged by the oracle
against what the victims' parent saw.
"""

from __future__ import annotations

import queue
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from crash.oracle import complaints
from crash.stage import SIGKILLED, Play, Scene, Stage, held
from lastcall.errors import gravest
from lastcall.model import Asked, Ending, Finished, Intended, Missing, Outcome, Resumed, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

# Most of a case is waiting: for a disk, for a grace to run out.
SIDE_BY_SIDE = 4
TRIES = 8
FORCE = ("--force", "--reason", "crash test")

SCENES = (
    Scene("orderly", ("quick",), ("--grace", "2s")),
    Scene("orderly 143", ("quick-143",), ("--grace", "2s")),
    Scene("dies of it", ("dies-of-it",), ("--grace", "2s")),
    Scene("abrupt", ("plain",), ("--grace", "2s")),
    Scene("crashing", ("failing",), ("--grace", "2s")),
    Scene("slow", ("slow",), ("--grace", "2s")),
    Scene("refusing", ("stubborn",), ("--grace", "0.2s")),
    Scene("forced", ("stubborn",), ("--grace", "0.2s", *FORCE)),
    Scene("several", ("quick", "plain", "stubborn", "slow"), ("--grace", "0.4s", *FORCE)),
    Scene("tree", ("tree",), ("--grace", "2s", "--tree=last")),
    Scene("tree, first", ("tree",), ("--grace", "2s", "--tree=first")),
    Scene("forced tree", ("stubborn-tree",), ("--grace", "0.2s", "--tree=last", *FORCE)),
    Scene("sequence", ("second-ask",), ("--grace", "2s", "--signals", "INT:0.1s,TERM")),
)


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    """Some stages to play on, side by side."""
    made = [Stage() for _ in range(SIDE_BY_SIDE)]
    yield made
    for stage in made:
        stage.close()


def side_by_side(
    stages: list[Stage], work: Callable[[Stage, T], R], items: Iterable[T]
) -> list[R]:
    """Do something with each item, each on a stage of its own."""
    free: queue.SimpleQueue[Stage] = queue.SimpleQueue()
    for stage in stages:
        free.put(stage)

    def one(item: T) -> R:
        stage = free.get()
        try:
            return work(stage, item)
        finally:
            free.put(stage)

    with ThreadPoolExecutor(len(stages)) as pool:
        return list(pool.map(one, items))


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
        assert ran.status != SIGKILLED
        return ran.points[:-1]


def sweep(
    stages: list[Stage], points: list[str], work: Callable[[Stage, int | None, str | None], str]
) -> None:
    """One death at each point, by number; then at each that a change of schedule kept from us.

    Args:
        stages: where to play.
        points: of a run that nobody killed.
        work: plays a case with a death at a point, by number or by label; says where it was.
    """
    labels = side_by_side(stages, lambda s, at: work(s, at, None), range(1, len(points) + 1))
    covered = {each for label in labels for each in held(label)}
    wanted = {each for label in points for each in held(label)}
    for _ in range(TRIES):
        missed = sorted(wanted - covered)
        labels = side_by_side(stages, lambda s, on: work(s, None, on), missed)
        covered |= {each for label in labels for each in held(label)}
    assert wanted <= covered, f"never killed at {wanted - covered}"


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
