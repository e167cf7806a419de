"""Where the crash suite of guests plays: real QEMUs of the zoo, and a lastcall that is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from crash.guest_oracle import Case, Told, Truth
from crash.stage import Ran, Talker, read_books, text
from guests import zoo
from guests.qmpclient import Side
from helpers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crash.oracle import Book

# These power off as soon as they have taken the press.
AT_ONCE = {"stops", "hibernates"}


@dataclass(frozen=True, slots=True)
class Scene:
    """A stop of guests that is to be cut off.

    Args:
        guests: of the zoo, by name.
        options: of `lastcall stop`.
        extra: more words for QEMU's command line.
        numbers: of the guests.
        presses: how many each may have without harm.
        takes: how many of them each may take without harm.
        again: the second run is the same stop once more, and not `lastcall resume`.
    """

    name: str
    guests: tuple[str, ...]
    options: tuple[str, ...]
    extra: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    presses: int = 1
    takes: int = 1
    again: bool = False


class Stage:
    """A lastcall to be killed, and a fresh state folder for each case."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="lastcall-crash-")
        self.lastcall = Talker("crash_guests.py")
        self._cases = 0

    def close(self) -> None:
        """End everybody and leave nothing behind."""
        self.lastcall.close()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def play(self, scene: Scene) -> Iterator[Play]:
        """A fresh case of a scene; its guests are taken away at the end."""
        self._cases += 1
        folder = os.path.join(self.folder, str(self._cases))
        os.mkdir(folder)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder)
            guests = [
                stack.enter_context(zoo.start(each, "pc", scene.extra, disk=None, **scene.numbers))
                for each in scene.guests
            ]
            for name, guest in zip(scene.guests, guests, strict=True):
                if name != "late":
                    guest.wait_up()
                if name == "sleeps":
                    guest.side.wait_event("SUSPEND")
            yield Play(self, scene, folder, guests)


@dataclass(slots=True)
class Play:
    """One case under way: guests, a journal, and the runs of lastcall so far."""

    stage: Stage
    scene: Scene
    folder: str
    guests: list[zoo.Guest]
    runs: list[Ran] = field(default_factory=list)
    snapshots: list[tuple[Book, ...]] = field(default_factory=list)
    over_at: dict[int, int] = field(default_factory=dict)
    outside: set[int] = field(default_factory=set)
    deaf: bool = False

    @property
    def state(self) -> str:
        """The state folder."""
        return os.path.join(self.folder, "state")

    def stop(
        self, *more: str, at: int | None = None, on: str | None = None, outside: bool = False
    ) -> Ran:
        """The stop, killed at a point (by number or by label), or not at all.

        Args:
            more: options.
            at: number of the point.
            on: label of the point.
            outside: not lastcall is killed there, but the first guest's QEMU.
        """
        targets = [f"qmp:{guest.qmp}" for guest in self.guests]
        argv = ["stop", "--json", *self.scene.options, *more, *targets]
        if outside:
            self.outside.add(self.guests[0].pid)
        return self._run(argv, at, on, self.guests[0].pid if outside else None)

    def resume(self, *more: str, at: int | None = None, on: str | None = None) -> Ran:
        """The second command, once what will be over by itself at once is over."""
        self.settle()
        if self.scene.again:
            return self.stop(*more, at=at, on=on)
        return self._run(["resume", "--json", *more], at, on)

    def _run(
        self, argv: list[str], at: int | None, on: str | None, victim: int | None = None
    ) -> Ran:
        if self.runs:
            self.snapshots.append(self.books())
        out, ledger = (os.path.join(self.folder, f"{n}{len(self.runs)}") for n in ("out", "ledger"))
        driver = self.stage.lastcall
        request = {"argv": argv, "state": self.state, "out": out, "ledger": ledger}
        driver.say({**request, "kill_at": at, "kill_on": on, "victim": victim})
        driver.hear()
        status = driver.hear()["status"]
        ran = Ran(status, tuple(text(ledger).splitlines()), text(out))
        self.runs.append(ran)
        return ran

    def settle(self) -> None:
        """Wait for the end of every guest that will end of what it was told so far."""
        for name, guest in zip(self.scene.guests, self.guests, strict=True):
            done = [line for ran in self.runs for line in ran.ledger]
            pressed = f"doing system_powerdown {guest.qmp}" in done
            if pressed and name in AT_ONCE and guest.process.poll() is None:
                wait_until(partial(self._is_over, guest), f"the end of {name}")
            over = self._is_over(guest)
            told_to_end = f"doing quit {guest.qmp}" in done or f"sent {guest.pid} 9" in done
            if told_to_end or (over and "-no-shutdown" not in self.scene.extra):
                guest.wait_ended()
            if over or told_to_end:
                self.over_at.setdefault(guest.pid, len(self.runs))

    def _is_over(self, guest: zoo.Guest) -> bool:
        return guest.process.poll() is not None or "SHUTDOWN" in guest.side.names()

    def books(self) -> tuple[Book, ...]:
        """The journal as it stands."""
        return read_books(self.state, [[guest.pid] for guest in self.guests])

    def case(self, stops: int = 1) -> Case:
        """All that is known now, for the oracle."""
        truths = tuple(self._truth(guest) for guest in self.guests)
        return Case(
            self.books(),
            tuple(self.snapshots),
            truths,
            tuple(ran.ledger for ran in self.runs),
            consent="--force" in self.scene.options,
            deaf=self.deaf,
            stops=stops,
        )

    def _truth(self, guest: zoo.Guest) -> Truth:
        # One that was told to end, or is about to, is waited for: its record is to be whole.
        if self.books() and all(
            book.ending not in {None, "still running", "rebooted"}
            for book in self.books()
            if book.members[0] == guest.pid
        ):
            guest.wait_ended()
        told = []
        since_boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for event in guest.side.events():
            data, at = event.get("data") or {}, event["timestamp"]
            at_s = at["seconds"] + at["microseconds"] / 1e6 - since_boot_s
            told.append(Told(event["event"], bool(data.get("guest")), data.get("reason", ""), at_s))
        return Truth(
            guest.pid,
            str(guest.qmp),
            tuple(told),
            tuple(guest.milestones()),
            guest.process.poll(),
            self.over_at.get(guest.pid),
            self.scene.presses,
            self.scene.takes,
            guest.pid in self.outside,
        )

    def kill(self, guest: zoo.Guest) -> None:
        """Somebody else kills its QEMU."""
        self.outside.add(guest.pid)
        guest.process.kill()
        guest.wait_ended()

    def story(self) -> str:
        """What happened, for a test that fails."""
        lines = []
        for number, ran in enumerate(self.runs, 1):
            lines += [f"--- run {number}: wait status {ran.status}", *ran.ledger, ran.out]
        for book in self.books():
            lines.append(f"--- stop {book.stop} of {book.members}: {book.ending}")
            lines += [f"{at_s:.3f} {event}"[:240] for at_s, event in book.events]
        for guest in self.guests:
            lines.append(f"--- QEMU {guest.pid} at {guest.qmp}: {guest.process.poll()}, {guest}")
            lines += [str(event) for event in guest.side.events()]
        return "\n".join(lines)


@contextlib.contextmanager
def busy(guest: zoo.Guest) -> Iterator[None]:
    """Another client holds its monitor meanwhile."""
    with Side(guest.qmp):
        yield
