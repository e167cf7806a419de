"""lastcall is killed at every point of a guest's stop, and resumed, on real QEMU.

As in `test_crash`, with more points: just before each QMP command that acts on the guest, and just
after QEMU's answer. What comes of it is judged against QEMU's own record and exit status, and what
the guest itself says of the presses.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from crash.guest_oracle import complaints
from crash.guests import Play, Scene, Stage, busy
from crash.stage import SIGKILLED, held
from crash.sweeping import side_by_side, sweep
from guests import zoo
from lastcall.errors import gravest
from lastcall.model import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator

# Most of a case is waiting: for a guest, for a grace to run out.
SIDE_BY_SIDE = 8
# What every stop writes and does; a count without these counts something else.
MINIMUM = {"started", "intended", "asked", "finished", "system_powerdown", "door", "journal"}
# The points that are the same for every stop: one scene has them all.
SAME = {"journal", "table", "door", "owner"}
FORCE = ("--force", "--reason", "crash test")
STAYS = ("-no-shutdown",)

CANCELS = Scene("cancels", ("cancels-on-second",), ("--grace", "2s"), numbers={"delay_s": 0.6})
FORCED = Scene("forced", ("takes-and-ignores",), ("--grace", "0.4s", *FORCE))
SLOW = Scene("slow", ("slow",), ("--grace", "5s"), numbers={"delay_s": 0.8})
STAYING = Scene("stays", ("stops",), ("--grace", "2s"), extra=STAYS)
SCENES = (
    Scene("stops", ("stops",), ("--grace", "2s")),
    SLOW,
    FORCED,
    CANCELS,
    Scene("late", ("late",), ("--grace", "5s"), numbers={"delay_s": 0.7}, presses=2),
    Scene("sleeps", ("sleeps",), ("--grace", "6s", "--allow", "wake"), presses=2),
    Scene(
        "needs two",
        ("needs-two",),
        ("--grace", "3s", "--guest-os", "windows"),
        presses=2,
        takes=2,
    ),
    STAYING,
    Scene("hibernates", ("hibernates",), ("--grace", "2s"), extra=STAYS),
    Scene("two", ("stops", "takes-and-ignores"), ("--grace", "0.5s", *FORCE)),
)


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    """Some stages to play on, side by side."""
    made = [Stage() for _ in range(SIDE_BY_SIDE)]
    yield made
    for stage in made:
        stage.close()


def judge(play: Play, stops: int = 1) -> None:
    """No complaints, and the last run said with its exit code what stands in the journal."""
    case = play.case(stops)
    found = complaints(case)
    assert not found, "\n".join([*found, play.story()])
    if play.scene.again:  # nothing may be left to stop
        return
    still_open = {book.stop for book in play.snapshots[-1] if book.ending is None}
    ours = [b.ending for b in case.books if b.stop in still_open and b.ending is not None]
    code = gravest([ending.exit_code for ending in ours])
    assert play.runs[-1].status == code << 8, f"exit code {code} expected\n{play.story()}"


def count(stages: list[Stage], scene: Scene) -> list[str]:
    """The points of a stop that nobody kills."""
    with stages[0].play(scene) as play:
        ran = play.stop()
        points = ran.points[:-1]
        seen = {word for each in points for label in held(each) for word in label.split()[1:3]}
        assert seen >= MINIMUM, f"{MINIMUM - seen} are missing\n{play.story()}"
        found = complaints(play.case())
        assert not found, "\n".join([*found, play.story()])
        return points


def own(label: str) -> bool:
    """Whether a point belongs to the guest's stop, and not to every lastcall."""
    return not SAME & set(label.replace(",", "").split())


def endings(play: Play) -> list[Ending | None]:
    """How each of the stops ended."""
    return [book.ending for book in play.books()]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_guests_stop_survives_a_death_at_every_point(stages: list[Stage], scene: Scene) -> None:
    """Killed at any point and resumed, every guest has one ending, and QEMU agrees with it."""
    ended: list[Ending | None] = []

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(scene) as play:
            ran = play.stop(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            assert play.resume().status != SIGKILLED
            judge(play)
            ended.extend(endings(play))
            return ran.points[-1]

    sweep(stages, count(stages, scene), work, own if scene is not SCENES[0] else lambda _: True)
    # A resume that gives everything up would agree with everything.
    assert {*ended} - {Ending.UNKNOWN, Ending.STILL_RUNNING}, ended


# On a slow machine too, none may have been given up before: then a new stop presses anew.
PATIENT = replace(CANCELS, options=("--grace", "6s"))


@pytest.mark.parametrize("scene", [PATIENT, FORCED, STAYING], ids=lambda scene: scene.name)
def test_the_same_stop_once_more_goes_on(stages: list[Stage], scene: Scene) -> None:
    """Killed at any point, a second `lastcall stop` goes on with it: no press comes twice."""
    scene = replace(scene, again=True)
    ended: list[Ending | None] = []

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(scene) as play:
            ran = play.stop(at=at, on=on)
            assert ran.status == SIGKILLED, play.story()
            play.resume()
            if None in endings(play):  # it is gone: there is nothing to stop any more
                play.scene = replace(scene, again=False)
                play.resume()
            judge(play)
            ended.extend(endings(play))
            return ran.points[-1]

    sweep(stages, count(stages, scene), work, own)
    assert Ending.ORDERLY in ended or scene.name == "forced"


FIRST_DEATHS = (
    (CANCELS, "after system_powerdown"),
    (CANCELS, "after commit intended 1 0:1"),
    (FORCED, "after commit intended 1 3:1"),
    (FORCED, "after quit"),
    (STAYING, "after system_powerdown"),
)


@pytest.mark.parametrize(
    ("scene", "first"), FIRST_DEATHS, ids=[f"{s.name}, {on}" for s, on in FIRST_DEATHS]
)
def test_a_guests_resume_survives_a_death_at_every_point(
    stages: list[Stage], scene: Scene, first: str
) -> None:
    """Killed, resumed, killed at any point of the resume, resumed again: one true ending."""
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

    sweep(stages, points, work, own)


def test_a_qemu_that_is_killed_at_any_point_was_killed_from_outside(stages: list[Stage]) -> None:
    """Somebody's SIGKILL to QEMU is told as that, whatever lastcall was about to do."""
    ended: list[Ending | None] = []

    def work(stage: Stage, at: int | None, on: str | None) -> str:
        with stage.play(SLOW) as play:
            ran = play.stop(at=at, on=on, outside=True)
            play.settle()
            found = complaints(play.case())
            assert not found, "\n".join([*found, play.story()])
            ended.extend(endings(play))
            return on or ran.points[(at or 0) - 1]

    sweep(stages, count(stages, SLOW), work, own)
    assert {*ended} == {Ending.KILLED_OUTSIDE, Ending.ORDERLY}


@pytest.mark.parametrize("on", ["after commit intended 1 0:1", "after system_powerdown"])
def test_what_died_while_nobody_watched_is_unknown(stages: list[Stage], on: str) -> None:
    """A QEMU that somebody kills before the resume has an unknown ending, never an orderly one."""
    with stages[0].play(SLOW) as play:
        assert play.stop(on=on).killed
        play.kill(play.guests[0])
        play.resume()
        judge(play)
        assert endings(play) == [Ending.UNKNOWN]


BUSY = (
    (SLOW, "after commit intended 1 0:1", 0, Ending.STILL_RUNNING),
    (SLOW, "after system_powerdown", 1, Ending.UNKNOWN),
    (FORCED, "before system_powerdown", 0, Ending.FORCED),
    (FORCED, "after system_powerdown", 1, Ending.FORCED),
)


def test_a_monitor_that_another_holds_brings_no_second_press(stages: list[Stage]) -> None:
    """A resume that cannot talk to QEMU presses nothing and claims nothing; a force goes on."""

    def work(stage: Stage, item: tuple[Scene, str, int, Ending]) -> None:
        scene, on, presses, ending = item
        with stage.play(scene) as play:
            assert play.stop(on=on).killed
            [guest] = play.guests
            play.deaf = True
            with busy(guest):
                play.resume()
            judge(play)
            assert guest.side.names().count("POWERDOWN") == presses
            assert endings(play) == [ending], play.story()

    side_by_side(stages, work, BUSY)


@pytest.mark.parametrize("alive", [False, True], ids=["it is gone", "it lives on"])
def test_another_qemu_at_the_same_socket_is_left_alone(stages: list[Stage], *, alive: bool) -> None:
    """A QEMU that took the socket between death and resume is neither pressed nor forced."""
    with stages[0].play(FORCED) as play:
        assert play.stop(on="after system_powerdown").killed
        [guest] = play.guests
        if not alive:
            play.kill(guest)
        taken = ("-qmp", f"unix:{guest.qmp},server=on,wait=off")
        with zoo.start("stops", extra=taken) as other:
            other.wait_up()
            play.deaf = True
            play.resume()
            judge(play)
            assert not {"POWERDOWN", "SHUTDOWN"} & set(other.side.names()), play.story()
            assert other.process.poll() is None
            assert other.milestones() == ["up"]
        # Its own QEMU is still forced, by its pidfd.
        assert endings(play) == [Ending.FORCED if alive else Ending.UNKNOWN]


HANGS = (
    "before send 15",
    "after send 15",
    "before commit asked 1",
    "after commit intended 1 4:1",
    "before send 9",
    "after send 9",
)


def test_a_qemu_that_hangs_is_killed_once(stages: list[Stage]) -> None:
    """A QEMU that takes neither `quit` nor SIGTERM is killed, with one true ending of its own."""

    def work(stage: Stage, on: str) -> list[Ending | None]:
        with stage.play(FORCED) as play:
            assert play.stop(on="after commit asked 1").killed
            os.kill(play.guests[0].pid, signal.SIGSTOP)
            ran = play.resume(on=on)
            assert ran.killed, play.story()
            assert play.resume().status != SIGKILLED
            judge(play)
            return endings(play)

    for on, [ending] in zip(HANGS, side_by_side(stages, work, HANGS), strict=True):
        assert ending is (Ending.UNKNOWN if on == "after send 9" else Ending.FORCED), on
