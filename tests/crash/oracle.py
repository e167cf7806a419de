"""Judges a stop that was cut off and resumed: what the journal says against what really happened.

Pure: it gets the journal, what the driver did (its ledger) and what the victims' parent saw, and
gives complaints. No complaint means that nothing was lost, forged or done twice.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from lastcall.model import (
    Asked,
    Consent,
    Ended,
    Ending,
    Event,
    Finished,
    Intended,
    Missing,
    Outcome,
    Resumed,
    Started,
)
from lastcall.stop.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Truth:
    """What the parent knows of one victim at the end.

    Args:
        handled: the signals it has a handler for.
        status: its wait status; None while it is alive.
        said: the signals that arrived at its handlers.
        dead_at: how many runs of lastcall had been over when it was first seen to have ended:
            0: it ended before the first began; None: it was alive when the last one began.
        zombie: whether it was left unreaped until the end.
    """

    pid: int
    handled: frozenset[int]
    status: int | None
    said: tuple[int, ...] = ()
    dead_at: int | None = None
    zombie: bool = False

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.status is None


@dataclass(frozen=True, slots=True)
class Book:
    """One stop as the journal has it.

    Args:
        members: the pids it is in truth about, the root first.
        ending: the ending in the stop's row; None while it is open.
        owned: whether somebody still stands as its owner.
        events: (boot-time seconds, event), in order.
    """

    stop: int
    members: tuple[int, ...]
    ending: Ending | None
    owned: bool
    events: tuple[tuple[float, Event], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One run that was cut off, with all that followed.

    Args:
        books: the journal at the end, one for each stop.
        snapshots: the journal after each run but the last.
        truths: of each victim.
        ledgers: what each run of lastcall did: "point ..." and "sent PID SIGNUM", in order.
        ask_again: whether a resume was told to repeat its ask.
        consent: whether force was allowed at the start.
    """

    books: tuple[Book, ...]
    snapshots: tuple[tuple[Book, ...], ...]
    truths: tuple[Truth, ...]
    ledgers: tuple[tuple[str, ...], ...]
    ask_again: bool = False
    consent: bool = False
    roots: tuple[int, ...] = field(default=())


def complaints(case: Case) -> list[str]:
    """Everything that is wrong; nothing when all is well."""
    truths = {truth.pid: truth for truth in case.truths}
    found = list(_of_sending(case, truths))
    booked = [pid for book in case.books for pid in book.members[:1]]
    found += [f"pid {pid} has several stops" for pid in {*booked} if booked.count(pid) > 1]
    for pid in {*case.roots} - {*booked}:
        if not truths[pid].alive or truths[pid].said:
            found.append(f"pid {pid} was touched, and the journal knows nothing of it")
    for book in case.books:
        members = [truths[pid] for pid in book.members if pid in truths]
        wrong = [*of_book(book), *_of_ending(book, members, case), *of_force(book)]
        found += [f"stop {book.stop} (pid {book.members[0]}): {each}" for each in wrong]
    return found


# -- the journal alone


def of_book(book: Book) -> Iterator[str]:
    """One ending, told once, and nothing after it."""
    endings = [event for _, event in book.events if isinstance(event, Finished)]
    if len(endings) != 1:
        yield f"{len(endings)} endings in its timeline"
    elif endings[0].ending is not book.ending:
        yield f"its row says {book.ending}, its timeline {endings[0].ending}"
    if book.owned:
        yield "it has an ending and still an owner"
    if book.events and endings and not isinstance(book.events[-1][1], Finished):
        yield f"something happened after its ending: {book.events[-1][1]}"
    over = False
    for _, event in book.events:
        if over and isinstance(event, Resumed | Missing | Intended):
            yield f"{type(event).__name__} after its end had been recorded"
        over = over or isinstance(event, Ended | Missing)


# -- signals


def _of_sending(case: Case, truths: dict[int, Truth]) -> Iterator[str]:
    """Each signal needs its own intent on disk before it; a soft one is sent once, ever."""
    sent: Counter[tuple[int, int]] = Counter()
    intents: Counter[tuple[int, int]] = Counter()
    for what, key in _deeds(case):
        if what == "intended":
            intents[key] += 1
            continue
        sent[key] += 1
        if sent[key] > intents[key]:
            yield f"signal {key[1]} was sent to pid {key[0]} without a record before it"
        if key[1] == signal.SIGKILL and not case.consent:
            yield f"pid {key[0]} was forced without consent"
    for (pid, signum), times in sent.items():
        if signum != signal.SIGKILL and times > 1 and not case.ask_again:
            yield f"signal {signum} was sent {times} times to pid {pid}"
    for truth in truths.values():
        for signum, times in Counter(truth.said).items():
            if times > sent[truth.pid, signum]:
                yield f"signal {signum} came to pid {truth.pid} from nobody we know"


def _deeds(case: Case) -> Iterator[tuple[str, tuple[int, int]]]:
    """What the ledgers tell, in order: ("intended" or "sent", (pid, signal))."""
    books = {book.stop: book for book in case.books}
    for line in (line for ledger in case.ledgers for line in ledger):
        if line.startswith("sent "):
            _, pid, sent = line.split()
            yield "sent", (int(pid), int(sent))
        elif line.startswith("point after commit "):
            for stop, intent in intended(line):
                rung = started(books[stop]).ladder[int(intent.partition(":")[0])]
                signum, _, audience = rung.id.partition("@")
                root, *rest = books[stop].members
                for member in {"root": [root], "rest": rest}.get(audience, [root, *rest]):
                    yield "intended", (member, int(signum))


def intended(line: str) -> Iterator[tuple[int, str]]:
    """The (stop, rung:attempt) that one commit in the ledger held."""
    for part in line.partition(" commit ")[2].split(", "):
        words = part.split()
        if words and words[0] == "intended":
            yield int(words[1]), words[2]


def started(book: Book) -> Started:
    """How a stop began."""
    return next(event for _, event in book.events if isinstance(event, Started))


def of_force(book: Book) -> Iterator[str]:
    """Each force had a valid consent; a second attempt came after a probe; doubt is recorded."""
    for index, (at_s, event) in enumerate(book.events):
        if not isinstance(event, Intended):
            continue
        before = fold(book.events[:index])
        if before.ladder[event.rung].consent is not Consent.FORCE:
            continue
        if not before.may_force(at_s):
            yield "force was intended without a valid consent"
        if at_s < before.deadline_s:
            yield "force was intended before the deadline"
        last = before.last
        if event.attempt > 1 and (last is None or not last.in_doubt):
            yield f"force was repeated (attempt {event.attempt}) with nothing in doubt"
        later = [e for _, e in book.events[index + 1 :]]
        untold = takewhile(lambda e: not isinstance(e, Asked | Finished), later)
        if any(isinstance(e, Resumed) for e in untold) and not _doubted(book, event):
            yield f"force attempt {event.attempt} is in doubt, and not recorded as such"


def _doubted(book: Book, intent: Intended) -> bool:
    return any(
        attempt.in_doubt
        for attempt in fold(book.events).attempts
        if (attempt.rung, attempt.number) == (intent.rung, intent.attempt)
    )


# -- the ending against the truth


def _of_ending(book: Book, members: Sequence[Truth], case: Case) -> Iterator[str]:
    alive = [truth.pid for truth in members if truth.alive]
    unseen = [t.pid for t in members if _unseen(book, t, case)]
    if book.ending is None:
        yield "no ending"
    elif book.ending is Ending.STILL_RUNNING:
        if not alive:
            yield "still running, says the journal, and nobody is alive"
    elif alive:
        yield f"{book.ending}, says the journal, and pid {alive[0]} is alive"
    elif book.ending is Ending.UNKNOWN:
        if not unseen:
            yield "unknown, says the journal, and it could be known"
    elif unseen and book.ending is not Ending.FORCED:
        yield f"{book.ending}, says the journal, and nobody can have seen how {unseen[0]} ended"
    else:
        yield from _against_truth(book, book.ending, members)


def _against_truth(book: Book, ending: Ending, members: Sequence[Truth]) -> Iterator[str]:
    asked, forced, in_doubt = _recorded(book)
    # Of a set, the ending is that of its gravest member: orderly is true of all, others of one.
    against = [_contradiction(ending, t, asked, forced=forced, doubt=in_doubt) for t in members]
    if all(against) or (ending is Ending.ORDERLY and any(against)):
        yield f"{ending}, says the journal, and {next(filter(None, against))}"
    if in_doubt and not forced and ending is Ending.FORCED:
        detail = next(e.detail for _, e in book.events if isinstance(e, Finished))
        if "doubt" not in detail:
            yield f"a force in doubt is told as if it were certain: {detail!r}"


def _unseen(book: Book, truth: Truth, case: Case) -> bool:
    """Whether it ended and was reaped while no lastcall ran, with no end on record by then."""
    if truth.zombie or truth.dead_at is None:
        return False
    if truth.dead_at == 0:
        return False
    snapshot = case.snapshots[truth.dead_at - 1]
    then = next((each for each in snapshot if each.stop == book.stop), None)
    return then is None or not any(isinstance(e, Ended | Finished) for _, e in then.events)


def _recorded(book: Book) -> tuple[frozenset[int], bool, bool]:
    """The soft signals that were sent or may have been; whether force was; whether it may have."""
    ladder = started(book).ladder
    soft, force = set(), []
    for attempt in fold(book.events).attempts:
        rung = ladder[attempt.rung]
        if rung.consent is Consent.FORCE:
            force.append(attempt.outcome)
        elif attempt.outcome in {Outcome.DONE, None}:
            soft.add(int(rung.id.partition("@")[0]))
    return frozenset(soft), Outcome.DONE in force, None in force


def _contradiction(
    ending: Ending, truth: Truth, asked: frozenset[int], *, forced: bool, doubt: bool
) -> str | None:
    """The table: what an ending claims of how the process ended; None when that is true.

    | ending             | the wait status that its parent saw                                   |
    |--------------------|-----------------------------------------------------------------------|
    | orderly            | asked; exit 0, 128 + an asked signal, or dead of one it had a handler |
    |                    | for; no force was used                                                |
    | abrupt             | asked; dead of an asked signal that it had no handler for; not forced |
    | crashed            | asked; another exit status than those of an orderly end; not forced   |
    | forced             | any, if a force was delivered; dead of SIGKILL, if one is in doubt    |
    | killed from outside| dead of a signal that was never asked, and no force                   |
    | ended before       | any that no ask of ours can have brought about: nothing was asked     |
    | still running, unknown: see `_of_ending`                                                    |
    """
    status = truth.status or 0
    exited = os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None
    signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    how = f"pid {truth.pid} " + (f"exited with {exited}" if signum is None else f"died of {signum}")
    soft_exit = exited == 0 or (exited is not None and exited - 128 in asked)
    handled = signum in asked and signum in truth.handled
    unhandled = signum in asked and signum not in truth.handled
    killed = signum == signal.SIGKILL
    true = {
        Ending.ORDERLY: bool(asked) and not forced and (soft_exit or handled),
        Ending.ABRUPT: bool(asked) and not forced and unhandled,
        Ending.CRASHED: bool(asked) and not forced and exited is not None and not soft_exit,
        Ending.FORCED: forced or (doubt and killed),
        Ending.KILLED_OUTSIDE: not (forced or doubt) and signum is not None and signum not in asked,
        Ending.ENDED_BEFORE: not asked and not forced and not doubt,
    }[ending]
    return None if true else how
