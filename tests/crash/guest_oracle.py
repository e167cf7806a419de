"""Judges a guest's stop that was cut off and resumed: the journal against QEMU's own record.

Pure, like `oracle`, whose words and whose judgement of a journal it uses. QEMU's record is the
events of a monitor that only the test listens to, and the exit status that QEMU's parent got.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crash.oracle import Book, intended, of_book, of_force, started
from lastcall.model import Ended, Ending, Finished, Missing, Outcome, Reached, Resumed, Stage
from lastcall.stop.state import fold
from lastcall.targets.guest import ladder

if TYPE_CHECKING:
    from collections.abc import Iterator

# What may have led to each command, or signal, to a guest's QEMU.
RUNGS = {
    "system_powerdown": {ladder.PRESS, ladder.AGAIN},
    "system_wakeup": {ladder.WAKE},
    "cont": {ladder.RESUME},
    "quit": {ladder.END, ladder.FINISH},
    "15": {ladder.END, ladder.FINISH},
    "9": {ladder.KILL},
}
# QEMU's event for each command that it was given.
TOLD = {"system_powerdown": "POWERDOWN", "system_wakeup": "WAKEUP", "cont": "RESUME"}
FORCE = {ladder.END, ladder.KILL, ladder.AGENT_FORCE}


@dataclass(frozen=True, slots=True)
class Told:
    """One event of QEMU, as its own record has it.

    Args:
        name: QEMU's.
        guest: of SHUTDOWN and RESET: whether the guest did it.
        reason: QEMU's word for why.
        at_s: when, on the boot-time clock.
    """

    name: str
    guest: bool = False
    reason: str = ""
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one guest without lastcall.

    Args:
        pid: of its QEMU.
        path: of its monitor.
        told: QEMU's record.
        said: the guest's own words.
        status: as QEMU's parent got it (negative: a signal); None: QEMU runs.
        over_at: how many runs of lastcall had been over when QEMU was first seen to have said
            that it powers off, or to be gone; None: neither by the end of the last but one.
        presses: how many it may have had.
        takes: how many of them it may have taken.
        outside: whether somebody else killed QEMU.
    """

    pid: int
    path: str
    told: tuple[Told, ...]
    said: tuple[str, ...]
    status: int | None
    over_at: int | None = None
    presses: int = 1
    takes: int = 1
    outside: bool = False

    @property
    def off(self) -> Told | None:
        """The word that counts: its first SHUTDOWN."""
        return next((each for each in self.told if each.name == "SHUTDOWN"), None)

    @property
    def off_by_itself(self) -> bool:
        """Whether the guest had powered off before anybody ended QEMU."""
        return self.off is not None and self.off.guest

    @property
    def touched(self) -> bool:
        """Whether anything was done to it, or it is gone."""
        return self.status is not None or any(
            t.name in {*TOLD.values(), "SHUTDOWN"} for t in self.told
        )

    def times(self, name: str) -> int:
        """How often QEMU told of that."""
        return sum(each.name == name for each in self.told)


@dataclass(frozen=True, slots=True)
class Case:
    """One stop that was cut off, with all that followed.

    Args:
        books: the journal at the end, one for each stop.
        snapshots: the journal after each run but the last.
        truths: of each guest.
        ledgers: what each run of lastcall did: "point ...", "doing COMMAND PATH", "sent PID SIG".
        consent: whether force was allowed at the start.
        deaf: whether a run of lastcall could not hear QEMU, as another held its monitor.
        stops: how many stops each guest may have in the journal.
    """

    books: tuple[Book, ...]
    snapshots: tuple[tuple[Book, ...], ...]
    truths: tuple[Truth, ...]
    ledgers: tuple[tuple[str, ...], ...]
    consent: bool = False
    deaf: bool = False
    stops: int = 1


def complaints(case: Case) -> list[str]:
    """Everything that is wrong; nothing when all is well."""
    truths = {truth.pid: truth for truth in case.truths}
    booked = Counter(book.members[0] for book in case.books)
    found = [f"pid {pid} has {n} stops" for pid, n in booked.items() if n > case.stops]
    found += [
        f"pid {truth.pid} was touched, and the journal knows nothing of it"
        for truth in case.truths
        if not booked[truth.pid] and truth.touched and not truth.outside
    ]
    for truth in case.truths:
        found += [f"pid {truth.pid}: {each}" for each in (*_of_deeds(case, truth), *_seen(truth))]
    for book in case.books:
        wrong = [*of_book(book), *of_force(book), *_of_ending(book, truths[book.members[0]], case)]
        found += [f"stop {book.stop} (pid {book.members[0]}): {each}" for each in wrong]
    return found


# -- what was done, against the intents on disk and against QEMU's record


def _of_deeds(case: Case, truth: Truth) -> Iterator[str]:
    """Each deed needs its own intent on disk before it; each in QEMU's record needs a deed."""
    intents: Counter[str] = Counter()
    deeds: Counter[str] = Counter()
    for what, name in _told_deeds(case, truth):
        if what == "intended":
            intents[name] += 1
            continue
        deeds[name] += 1
        if deeds[name] > sum(intents[rung] for rung in RUNGS[name]):
            yield f"{name} came without a record before it"
        force = any(intents[rung] for rung in FORCE & RUNGS[name])
        if force and not case.consent:
            yield f"{name} came without consent"
        if name == "quit" and not force and not truth.off_by_itself:
            yield "its QEMU was cleared away, and the guest was not off"
    yield from _unowned(truth, deeds)


def _told_deeds(case: Case, truth: Truth) -> Iterator[tuple[str, str]]:
    """What the ledgers tell of a guest, in order: ("intended", rung) or ("done", command)."""
    books = {book.stop: book for book in case.books}
    for line in (line for ledger in case.ledgers for line in ledger):
        if line.startswith("point after commit "):
            for stop, intent in intended(line):
                if books[stop].members[0] == truth.pid:
                    rung = int(intent.partition(":")[0])
                    yield "intended", started(books[stop]).ladder[rung].id
        elif (deed := _deed(line, truth)) is not None:
            yield "done", deed


def _unowned(truth: Truth, deeds: Counter[str]) -> Iterator[str]:
    """What QEMU's record has that nobody did."""
    for deed, name in TOLD.items():
        if truth.times(name) > deeds[deed]:
            yield f"{name} of {deed} from nobody we know"
    if deeds["15"] + deeds["9"] + deeds["quit"] or truth.outside:
        return
    if truth.off is not None and not truth.off.guest:
        yield f"{truth.off.reason} from nobody we know"
    if truth.status is not None and truth.status < 0:
        yield f"QEMU died of signal {-truth.status} from nobody we know"


def _deed(line: str, truth: Truth) -> str | None:
    words = line.split()
    if words[0] == "doing" and words[2] == truth.path:
        return words[1]
    return words[2] if words[0] == "sent" and words[1] == str(truth.pid) else None


def _seen(truth: Truth) -> Iterator[str]:
    """What QEMU and the guest say of the presses."""
    pressed, taken = truth.times("POWERDOWN"), truth.said.count("taken")
    if pressed > truth.presses:
        yield f"it was pressed {pressed} times; {truth.presses} could do no harm"
    if taken > truth.takes:
        yield f"the guest took {taken} presses; {truth.takes} could do no harm"
    if "cancelled" in truth.said:
        yield "a press cancelled its shutdown"


# -- the ending against the truth


def _of_ending(book: Book, truth: Truth, case: Case) -> Iterator[str]:
    ending = book.ending
    [*results] = [event for _, event in book.events if isinstance(event, Finished)]
    detail = results[-1].detail if results else ""
    if ending is None:
        yield "no ending"
        return
    if ending in {Ending.STILL_RUNNING, Ending.REBOOTED}:
        later = truth.off is not None and truth.off.at_s > book.events[-1][0]
        if truth.status is not None and book is case.books[-1] and not later:
            yield f"{ending}, says the journal, and QEMU is gone"
    elif truth.status is None:
        yield f"{ending}, says the journal, and QEMU runs"
    if ending is Ending.UNKNOWN:
        if not (_unseen(book, truth, case) or case.deaf or truth.outside):
            yield "unknown, says the journal, and it could be known"
        return
    gone_unseen = truth.over_at and truth.status is not None and not _heard(book)
    if gone_unseen and ending not in {Ending.FORCED, Ending.STILL_RUNNING}:
        yield f"{ending}, says the journal, and nobody can have seen it"
    yield from _against_truth(book, ending, truth, detail)


def _heard(book: Book) -> bool:
    """Whether its end was told to a lastcall."""
    return _told_off(book) or any(isinstance(event, Ended) for _, event in book.events)


def _told_off(book: Book) -> bool:
    return any(
        isinstance(event, Reached) and event.stage is Stage.POWERED_OFF for _, event in book.events
    )


def _unseen(book: Book, truth: Truth, case: Case) -> bool:
    """Whether it was over while no lastcall listened, with no end on record by then.

    A QEMU that was gone when it was looked for again was: nobody can find a dead one alive. One
    that ended under the eyes of a lastcall, which said so, was not.
    """
    events = [event for _, event in book.events]
    if any(isinstance(event, Missing) for event in events):
        last = max(i for i, event in enumerate(events) if isinstance(event, Missing))
        return not any(isinstance(event, Ended) for event in events[:last])
    resumed_s = max((at_s for at_s, e in book.events if isinstance(e, Resumed)), default=0.0)
    if truth.off is not None and truth.off.at_s <= resumed_s and not _told_off(book):
        return True
    if truth.over_at is None or truth.over_at == 0:
        return False
    snapshot = case.snapshots[truth.over_at - 1]
    then = next((each for each in snapshot if each.stop == book.stop), None)
    return then is None or not _heard(then)


def _against_truth(book: Book, ending: Ending, truth: Truth, detail: str) -> Iterator[str]:
    """The table: what an ending claims, and what QEMU's record must have for it.

    | ending             | QEMU's record                                                         |
    |--------------------|-----------------------------------------------------------------------|
    | orderly            | the first SHUTDOWN is the guest's own, no memory went to disk, exit 0 |
    | hibernated         | the same, and its memory went to disk                                 |
    | forced             | a force was delivered, or may have been; QEMU was ended from outside  |
    |                    | the guest, unless the detail says that both came at once              |
    | killed from outside| a signal or somebody's `quit`, and no force of ours                   |
    | ended before       | nothing was asked                                                     |
    | rebooted           | the guest's own RESET                                                 |
    | panicked           | GUEST_PANICKED                                                        |
    | crashed            | a signal or status that is a fault of QEMU's own                      |
    """
    asked, forced, doubt = _recorded(book)
    by_guest = (
        truth.off_by_itself and truth.off is not None and truth.off.reason.startswith("guest-shut")
    )
    to_disk = bool(truth.times("SUSPEND_DISK"))
    true = {
        Ending.ORDERLY: asked and not forced and by_guest and not to_disk,
        Ending.HIBERNATED: asked and not forced and by_guest and to_disk,
        Ending.FORCED: (forced or doubt) and (not by_guest or "while the force came" in detail),
        Ending.KILLED_OUTSIDE: truth.outside and not (forced or by_guest),
        Ending.ENDED_BEFORE: not asked and not forced,
        Ending.REBOOTED: any(t.name == "RESET" and t.guest for t in truth.told),
        Ending.PANICKED: bool(truth.times("GUEST_PANICKED")),
        Ending.CRASHED: truth.status not in {None, 0, -9, -15},
        Ending.STILL_RUNNING: True,
    }
    if not true.get(ending, False):
        off = truth.off.reason if truth.off else "nothing"
        yield f"{ending}, says the journal; QEMU says {off}, exit status {truth.status}"
    if doubt and not forced and ending is Ending.FORCED and "doubt" not in detail:
        yield f"a force in doubt is told as if it were certain: {detail!r}"


def _recorded(book: Book) -> tuple[bool, bool, bool]:
    """Whether it was asked (or may have been), was forced, may have been forced."""
    rungs, attempts = started(book).ladder, fold(book.events).attempts
    asks = {ladder.PRESS, ladder.AGAIN, ladder.AGENT}
    asked = any(rungs[a.rung].id in asks and a.outcome in {Outcome.DONE, None} for a in attempts)
    force = [a.outcome for a in attempts if rungs[a.rung].id in FORCE]
    return asked, Outcome.DONE in force, None in force
