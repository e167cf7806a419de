"""Several lastcalls and one target: one drives, the others follow, and nobody acts for another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from crash.oracle import complaints
from crash.stage import Play, Scene, Stage, alive
from helpers import PATIENCE_S, wait_until
from lastcall.kernel import procfs
from lastcall.model import Ending, Started

if TYPE_CHECKING:
    from collections.abc import Iterator

GATED = Scene("gated", ("gated",), ("--force",))
STUBBORN = Scene("stubborn", ("stubborn",), ("--force",))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Where victims live."""
    made = Stage()
    yield made
    made.close()


class Lastcall:
    """A lastcall of its own process, heard line by line."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.heard: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read on to the next event of this kind."""
        assert self.child.stdout is not None
        while line := self.child.stdout.readline():
            assert line.startswith("{"), line
            self.heard.append(json.loads(line))
            if self.heard[-1]["event"] == event:
                return self.heard[-1]
        raise AssertionError(f"no {event} came, only {[each['event'] for each in self.heard]}")

    def end(self) -> tuple[int, dict[str, Any] | None]:
        """Its exit status, and its result."""
        assert self.child.stdout is not None
        self.heard += [json.loads(line) for line in self.child.stdout]
        results = [each for each in self.heard if each["event"] == "result"]
        return self.child.wait(PATIENCE_S), results[-1] if results else None

    def signal(self, signum: int) -> None:
        """Signal it: it is ours and not reaped yet."""
        self.child.send_signal(signum)


@contextlib.contextmanager
def lastcall(play: Play, *words: str) -> Iterator[Lastcall]:
    """Run lastcall; it is killed at the end, if it still runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "lastcall", *words, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"LASTCALL_STATE_DIR": play.state},
        start_new_session=True,
    )
    try:
        yield Lastcall(child)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def target(play: Play) -> tuple[int, str]:
    """The pid of the only victim, and its address."""
    pid = play.families[0][0]
    return pid, f"pid:{pid}"


def has_said(play: Play, pid: int, *signums: int) -> None:
    """Wait until these signals have arrived, and see that no other did."""
    wait_until(lambda: len(play.said(pid)) >= len(signums), f"signals {signums} at pid {pid}")
    assert play.said(pid) == list(signums)


def test_a_second_stop_joins_the_first(stage: Stage) -> None:
    """The second stop of a target follows the first: one signal, one ending, told by both."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "60s") as first:
            first.until("asked")
            with lastcall(play, "stop", address, "--grace", "60s") as second:
                second.until("asked")
                play.release(pid)
                told = [each.end() for each in (first, second)]
        assert [code for code, _ in told] == [0, 0]
        assert [r and (r["stop"], r["ending"]) for _, r in told] == [(1, "orderly")] * 2
        has_said(play, pid, 15)
        assert [book.ending for book in play.books()] == [Ending.ORDERLY]


def test_three_stops_at_the_same_time_are_one(stage: Stage) -> None:
    """Whoever of several that start at once comes first drives; the target is asked once."""
    with stage.play(GATED) as play, contextlib.ExitStack() as stack:
        pid, address = target(play)
        all_three = [
            stack.enter_context(lastcall(play, "stop", address, "--grace", "60s")) for _ in range(3)
        ]
        for each in all_three:
            each.until("asked")
        play.release(pid)
        told = [each.end() for each in all_three]
        assert [code for code, _ in told] == [0, 0, 0]
        assert [r and (r["stop"], r["ending"]) for _, r in told] == [(1, "orderly")] * 3
        has_said(play, pid, 15)
        assert [book.ending for book in play.books()] == [Ending.ORDERLY]


def test_force_overtakes_a_soft_stop(stage: Stage) -> None:
    """A later `--force` shortens a soft stop under way; both tell the forced ending."""
    with stage.play(STUBBORN) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "600s") as soft:
            soft.until("asked")
            has_said(play, pid, 15)
            words = ("--grace", "0.3s", "--force", "--reason", "it must go")
            with lastcall(play, "stop", address, *words) as hard:
                told = [each.end() for each in (soft, hard)]
        assert [code for code, _ in told] == [11, 11]
        assert [r and (r["stop"], r["ending"]) for _, r in told] == [(1, "forced")] * 2
        assert play.said(pid) == [15]
        consents = [e["data"]["consent"] for e in soft.heard if e["event"] == "consented"]
        assert [consent["reason"] for consent in consents] == ["it must go"]


def test_a_follower_takes_over_from_a_dead_owner(stage: Stage) -> None:
    """When the owner is killed its follower drives on, and asks nobody twice."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with (
            lastcall(play, "stop", address, "--grace", "60s") as owner,
            lastcall(play, "stop", address, "--grace", "60s") as follower,
        ):
            owner.until("asked")
            follower.until("asked")
            has_said(play, pid, 15)
            joined = [e for e in (owner, follower) if any(h["event"] == "warned" for h in e.heard)]
            [second] = joined
            [first] = {owner, follower} - {second}
            first.signal(signal.SIGKILL)
            second.until("resumed")
            play.release(pid)
            code, result = second.end()
        assert (code, result and result["ending"]) == (0, "orderly")
        has_said(play, pid, 15)
        assert [book.ending for book in play.books()] == [Ending.ORDERLY]


def test_a_follower_that_leaves_disturbs_nobody(stage: Stage) -> None:
    """Ctrl+C at a follower ends only its watching; the owner goes on and says nothing of it."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "60s") as owner:
            owner.until("asked")
            for _ in range(2):
                with lastcall(play, "stop", address) as follower:
                    follower.until("asked")
                    follower.signal(signal.SIGINT)
                    code, result = follower.end()
                assert (code, result and result["ending"]) == (130, None)
            play.release(pid)
            code, result = owner.end()
        assert (code, result and result["ending"]) == (0, "orderly")
        assert "released" not in [each["event"] for each in owner.heard]
        has_said(play, pid, 15)


def test_a_higher_ceiling_reaches_the_owner(stage: Stage) -> None:
    """Who joins with --extend-up-to raises how far progress may push the deadline, and no more."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "60s") as owner:
            owner.until("asked")
            with lastcall(play, "stop", address, "--extend-up-to", "1h") as second:
                moved = owner.until("deadline-moved")
                started = next(each for each in owner.heard if each["event"] == "started")
                assert moved["data"]["deadline_s"] == started["data"]["deadline_s"]
                assert moved["data"]["ceiling_s"] > started["data"]["ceiling_s"] + 3000
                play.release(pid)
                assert second.end()[0] == 0


def test_an_interrupt_leaves_the_target_alone(stage: Stage) -> None:
    """Ctrl+C stops watching: exit 130, the target goes on, and a resume comes back."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "60s") as first:
            first.until("asked")
            has_said(play, pid, 15)
            first.signal(signal.SIGINT)
            code, result = first.end()
        assert (code, result and result["ending"]) == (130, None)
        assert alive(pid)
        assert play.said(pid) == [15]
        [book] = play.books()
        assert (book.ending, book.owned) == (None, False)
        with lastcall(play, "resume") as again:
            again.until("resumed")
            play.release(pid)
            code, result = again.end()
        assert (code, result and (result["stop"], result["ending"])) == (0, (1, "orderly"))
        has_said(play, pid, 15)


def test_an_interrupt_leaves_those_without_a_turn_unasked(stage: Stage) -> None:
    """With --at-once, whose turn has not come is not recorded: a resume asks only the others."""
    with stage.play(Scene("two", ("gated", "gated"), ())) as play:
        pids = [family[0] for family in play.families]
        words = ("stop", *(f"pid:{pid}" for pid in pids), "--at-once", "1", "--grace", "60s")
        with lastcall(play, *words) as stopping:
            stopping.until("asked")
            stopping.signal(signal.SIGINT)
            code, result = stopping.end()
        assert code == 130
        assert result is not None
        begun = {each["target"]: each["begun"] for each in stopping.heard if "begun" in each}
        assert begun == {f"pid:{pids[0]}": True, f"pid:{pids[1]}": False}
        assert all(alive(pid) for pid in pids)
        has_said(play, pids[0], 15)
        assert play.said(pids[1]) == []
        [book] = play.books()
        assert (book.ending, book.owned) == (None, False)


def test_an_interrupt_says_how_to_come_back(stage: Stage) -> None:
    """What is printed after Ctrl+C names the command that goes on."""
    with stage.play(GATED) as play:
        _, address = target(play)
        child = subprocess.Popen(
            [sys.executable, "-m", "lastcall", "stop", address],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LASTCALL_STATE_DIR": play.state},
        )
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            while "asked" not in said:
                said = child.stdout.readline()
            child.send_signal(signal.SIGINT)
            rest = child.stdout.read()
            assert child.wait(PATIENCE_S) == 130
            assert "lastcall resume 1" in rest
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_a_second_interrupt_leaves_at_once(stage: Stage) -> None:
    """When letting go takes long (here: a locked journal), a second Ctrl+C does not wait for it."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        with lastcall(play, "stop", address, "--grace", "60s") as first:
            first.until("asked")
            # Only what was asked and recorded is sure to be in the journal, so wait for that.
            wait_until(lambda: recorded(play, "asked"), "the journal has it")
            with closing(sqlite3.connect(f"{play.state}/journal.db", timeout=30)) as journal:
                journal.execute("BEGIN IMMEDIATE")
                first.signal(signal.SIGINT)
                first.until("released")
                first.signal(signal.SIGINT)
                code, result = first.end()
                journal.execute("ROLLBACK")
        assert (code, result) == (130, None)
        assert alive(pid)
        with lastcall(play, "resume") as again:
            again.until("resumed")
            play.release(pid)
            code, result = again.end()
        assert (code, result and result["ending"]) == (0, "orderly")
        has_said(play, pid, 15)


def recorded(play: Play, kind: str) -> bool:
    """Whether the only stop has an event of this class, by its name in lower case."""
    return any(type(e).__name__.lower() == kind for book in play.books() for _, e in book.events)


@contextlib.contextmanager
def usurper(play: Play, *words: str) -> Iterator[str]:
    """A `lastcall resume` that takes every other for dead, as one in another pid namespace does.

    Yields the file with its output.
    """
    out = os.path.join(play.folder, "usurper")
    driver = play.stage.lastcall
    driver.say(
        {
            "argv": ["resume", "--json", *words],
            "state": play.state,
            "out": out,
            "ledger": f"{out}.ledger",
            "blind": True,
        }
    )
    pid = driver.hear()["pid"]
    try:
        yield out
    finally:
        with contextlib.suppress(ProcessLookupError):
            # Ours, by way of the driver, which reaps it only when we hear of it below.
            if procfs.stat(pid).state not in "ZX" and sys.exc_info()[0] is not None:
                os.kill(pid, signal.SIGKILL)
        play.status = driver.hear()["status"]


def text(path: str) -> str:
    """What is in a file so far."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def test_a_paused_owner_that_wakes_late_forces_nobody(stage: Stage) -> None:
    """Another took the stop over meanwhile: the late one's force is refused, and it follows."""
    with stage.play(GATED) as play:
        pid, address = target(play)
        words = ("--grace", "1s", "--force", "--reason", "crash test")
        with lastcall(play, "stop", address, *words) as late:
            late.until("asked")
            wait_until(lambda: recorded(play, "asked"), "the journal has it")
            late.signal(signal.SIGSTOP)
            with usurper(play, "--grace", "600s") as out:
                wait_until(lambda: '"event": "deadline-moved"' in text(out), "it was taken over")
                wait_until(lambda: past_deadline(play), "the first deadline is over")
                late.signal(signal.SIGCONT)
                late.until("deadline-moved")  # it has joined the one who drives now
                assert alive(pid)
                play.release(pid)
                code, result = late.end()
        assert (code, result and result["ending"]) == (0, "orderly")
        assert play.status == 0
        has_said(play, pid, 15)
        assert_sound(play)


def past_deadline(play: Play) -> bool:
    """Whether the deadline of the only stop, as it began, is over."""
    [started] = [e for b in play.books() for _, e in b.events if isinstance(e, Started)]
    return time.clock_gettime(time.CLOCK_BOOTTIME) > started.deadline_s


def test_a_paused_owner_that_wakes_late_gives_no_second_ending(stage: Stage) -> None:
    """Another saw the stop to its end meanwhile: the late one tells that ending, and adds none."""
    with stage.play(STUBBORN) as play:
        pid, address = target(play)
        words = ("--grace", "600s", "--force", "--reason", "crash test")
        with lastcall(play, "stop", address, *words) as late:
            late.until("asked")
            wait_until(lambda: recorded(play, "asked"), "the journal has it")
            late.signal(signal.SIGSTOP)
            with usurper(play, "--grace", "0.2s"):
                pass
            assert not alive(pid)
            late.signal(signal.SIGCONT)
            code, result = late.end()
        assert (code, result and result["ending"]) == (11, "forced")
        assert play.status == 11 << 8
        assert_sound(play)


def assert_sound(play: Play) -> None:
    """The oracle has nothing to say against the journal itself, and against the ending.

    The ledgers are not complete here, so what it says of signals does not count.
    """
    found = [each for each in complaints(play.case()) if each.startswith("stop ")]
    assert not found, "\n".join([*found, play.story()])
