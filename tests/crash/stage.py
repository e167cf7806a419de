"""Where the crash suite plays: victims with their own parent, and a lastcall that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crash.oracle import Book, Case, Truth
from helpers import PROGRAMS, wait_until
from lastcall.journal.store import Store
from lastcall.kernel import procfs
from lastcall.model import Ending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIGKILLED = 9
# What each kind has a handler for, as in programs/crash_nursery.py.
HANDLED: dict[str, frozenset[int]] = {
    "plain": frozenset(),
    "second-ask": frozenset({2, 15}),
}
TREES = {"tree": ("quick", "quick", "plain"), "stubborn-tree": ("quick", "stubborn")}


@dataclass(frozen=True, slots=True)
class Scene:
    """A stop that is to be cut off.

    Args:
        kinds: of the victims, one target each.
        options: of `lastcall stop`.
        parent: "reap": the parent reaps at once; "keep": it leaves zombies until the end.
        late: whether the victims end only while the resume watches (gated victims).
        resume: options of `lastcall resume`.
    """

    name: str
    kinds: tuple[str, ...]
    options: tuple[str, ...]
    parent: str = "reap"
    late: bool = False
    resume: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of lastcall: its wait status, what it did, and what it printed."""

    status: int
    ledger: tuple[str, ...]
    out: str

    @property
    def points(self) -> list[str]:
        """The labels of the points it came to, in order; the last one is where it was killed."""
        return [line.removeprefix("point ") for line in self.ledger if line.startswith("point ")]

    @property
    def killed(self) -> bool:
        """Whether it was killed, and not only after everything was done."""
        return self.status == SIGKILLED and self.points[-1] != "at the end"


def held(label: str) -> list[str]:
    """The points that a point holds: a commit of several events is one for each."""
    when, commit, written = label.partition(" commit ")
    return [f"{when} commit {each}" for each in written.split(", ")] if commit else [label]


class Talker:
    """A program that is spoken to by lines."""

    def __init__(self, program: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-u", str(PROGRAMS / program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not self.hear_line().startswith("ready"):
            raise AssertionError(f"{program} did not get ready")

    def say(self, request: dict[str, Any]) -> None:
        """Send it a request."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()

    def hear_line(self) -> str:
        """Its next line."""
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def hear(self) -> dict[str, Any]:
        """Its next answer."""
        line = self.hear_line()
        assert line, "it went away"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send it a request and take the answer."""
        self.say(request)
        return self.hear()

    def close(self) -> None:
        """Let it come to its end, or end it."""
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Stage:
    """A nursery, a lastcall to be killed, and a fresh state folder for each case."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="lastcall-crash-")
        self.nursery = Talker("crash_nursery.py")
        self.lastcall = Talker("crash_lastcall.py")
        self._cases = 0

    def close(self) -> None:
        """End everybody and leave nothing behind."""
        for talker in (self.lastcall, self.nursery):
            talker.close()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def play(self, scene: Scene) -> Iterator[Play]:
        """A fresh case of a scene; its victims are cleaned up at the end."""
        self._cases += 1
        folder = os.path.join(self.folder, str(self._cases))
        os.mkdir(folder)
        try:
            yield Play(self, scene, folder)
        finally:
            self.nursery.ask(do="clear")
            shutil.rmtree(folder)


@dataclass(slots=True)
class Play:
    """One case under way: victims, a journal, and the runs of lastcall so far."""

    stage: Stage
    scene: Scene
    folder: str
    families: list[list[int]] = field(default_factory=list)
    kinds: dict[int, str] = field(default_factory=dict)
    runs: list[Ran] = field(default_factory=list)
    snapshots: list[tuple[Book, ...]] = field(default_factory=list)
    dead_at: dict[int, int] = field(default_factory=dict)
    released: set[int] = field(default_factory=set)
    status: int | None = None

    def __post_init__(self) -> None:
        for kind in self.scene.kinds:
            pids = self.stage.nursery.ask(do="spawn", kind=kind, mode=self.scene.parent)["pids"]
            self.families.append(pids)
            self.kinds.update(zip(pids, TREES.get(kind, (kind,)), strict=True))

    @property
    def state(self) -> str:
        """The state folder."""
        return os.path.join(self.folder, "state")

    def stop(self, *, at: int | None = None, on: str | None = None) -> Ran:
        """The stop, killed at a point (by number or by label), or not at all."""
        targets = [f"pid:{family[0]}" for family in self.families]
        return self._run(["stop", "--json", *self.scene.options, *targets], at, on)

    def resume(self, *more: str, at: int | None = None, on: str | None = None) -> Ran:
        """The resume; what will end by itself has ended before (unless the scene is late)."""
        self.settle()
        self.snapshots.append(self.books())
        return self._run(["resume", "--json", *self.scene.resume, *more], at, on)

    def _run(self, argv: list[str], at: int | None, on: str | None) -> Ran:
        out, ledger = (os.path.join(self.folder, f"{n}{len(self.runs)}") for n in ("out", "ledger"))
        driver = self.stage.lastcall
        driver.say(
            {
                "argv": argv,
                "state": self.state,
                "out": out,
                "ledger": ledger,
                "kill_at": at,
                "kill_on": on,
            }
        )
        pid = driver.hear()["pid"]
        if self.scene.late:
            self._release(pid, out)
        status = driver.hear()["status"]
        ran = Ran(status, tuple(text(ledger).splitlines()), text(out))
        self.runs.append(ran)
        return ran

    def _release(self, pid: int, out: str) -> None:
        """Let the gated victims go once a resume (or a stop that is not killed) watches them."""
        word = '"event": "resumed"' if self.runs else '"event": "asked"'

        def due() -> bool:
            return word in text(out) or procfs.stat(pid).state == "Z"

        with contextlib.suppress(ProcessLookupError):
            wait_until(due, "lastcall watches, or is dead")
        if word in text(out):
            for victim in [pid for pid in self.kinds if alive(pid)]:
                self.release(victim)

    def release(self, pid: int) -> None:
        """A gated victim ends as soon as it has been asked."""
        self.released.add(pid)
        self.stage.nursery.ask(do="release", pid=pid)

    def settle(self) -> None:
        """Wait for the end of every victim that will end of what it was sent so far."""
        doomed = [pid for pid in self.kinds if self._doomed(pid)]
        self.stage.nursery.ask(do="settle", pids=doomed)
        for pid in self.kinds:
            if not alive(pid):
                self.dead_at.setdefault(pid, len(self.runs))

    def _doomed(self, pid: int) -> bool:
        sent = {
            int(line.split()[2])
            for ran in self.runs
            for line in ran.ledger
            if line.startswith(f"sent {pid} ")
        }
        kind = self.kinds[pid]
        if 9 in sent:
            return True
        match kind:
            case "stubborn":
                return False
            case "gated":
                return bool(sent) and pid in self.released
            case "second-ask":
                return 15 in sent
        return bool(sent)

    def books(self) -> tuple[Book, ...]:
        """The journal as it stands."""
        return read_books(self.state, self.families)

    def case(self, *, ask_again: bool = False) -> Case:
        """All that is known now, for the oracle."""
        books = self.books()
        zombies = {pid: status for pid in self.kinds if (status := _zombie(pid)) is not None}
        self.stage.nursery.ask(do="collect")
        report = self.stage.nursery.ask(do="report")
        ended = {int(pid): status for pid, status in report["ended"].items()}
        said = {int(pid): tuple(heard) for pid, heard in report["said"].items()}
        truths = tuple(
            Truth(
                pid,
                HANDLED.get(kind, frozenset({15})),
                ended.get(pid, zombies.get(pid)),
                said.get(pid, ()),
                self.dead_at.get(pid),
                zombie=self.scene.parent == "keep",
            )
            for pid, kind in self.kinds.items()
        )
        return Case(
            books,
            tuple(self.snapshots),
            truths,
            tuple(ran.ledger for ran in self.runs),
            ask_again=ask_again,
            consent="--force" in self.scene.options,
            roots=tuple(family[0] for family in self.families),
        )

    def said(self, pid: int) -> list[int]:
        """The signals that have arrived at a victim's handlers."""
        report = self.stage.nursery.ask(do="report")
        return list(report["said"].get(str(pid), []))

    def story(self) -> str:
        """What happened, for a test that fails."""
        lines = []
        for number, ran in enumerate(self.runs, 1):
            lines += [f"--- run {number}: wait status {ran.status}", *ran.ledger, ran.out]
        for book in self.books():
            lines.append(f"--- stop {book.stop} of {book.members}: {book.ending}")
            lines += [f"{at_s:.3f} {event}"[:240] for at_s, event in book.events]
        return "\n".join(lines)


def read_books(state: str, families: Iterable[list[int]]) -> tuple[Book, ...]:
    """The journal in a state folder as it stands.

    Args:
        state: the folder.
        families: the pids that each of its stops may be about, the root first.
    """
    if not os.path.exists(os.path.join(state, "journal.db")):
        return ()
    store = Store.open_to_read(state)
    try:
        books = []
        for row in reversed(store.rows()):
            events = tuple((at_s, event) for at_s, _, event in store.timeline(row.stop))
            root = int(row.identity["pid"] or 0)
            ending = None if row.ending is None else Ending(row.ending)
            [members] = [tuple(each) for each in families if each[0] == root]
            books.append(Book(row.stop, members, ending, row.owner is not None, events))
        return tuple(books)
    finally:
        store.close()


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return procfs.stat(pid).state not in "ZX"
    except ProcessLookupError:
        return False


def _zombie(pid: int) -> int | None:
    try:
        entry = procfs.stat(pid)
    except ProcessLookupError:
        return None
    return entry.exit_code if entry.state in "ZX" else None


def text(path: str) -> str:
    """What stands in a file so far; nothing while there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
