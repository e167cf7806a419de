"""The journal's SQLite side, synchronous: claim, append, read, prune."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

from lastcall.errors import JournalError, NoSuchStop
from lastcall.journal import codec, file
from lastcall.journal.file import translated
from lastcall.model import Finished, Intended, Started
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lastcall.model import Event, Identity

KEEP_S = 90 * 24 * 3600.0
KEEP_STOPS = 1_000


@record
class Claim:
    """What a command wants to stop."""

    address: str
    label: str
    identity: Identity
    by: str
    started: Started


@record
class Claimed:
    """What the journal says to a claim.

    Args:
        stop: the stop's number.
        owner: who drives it: the claimer itself, or another that must be asked; empty: nobody.
        events: what has happened so far.
        fresh: whether this claim began it.
    """

    stop: int
    owner: str
    events: tuple[tuple[float, Event], ...] = ()
    fresh: bool = False


@record
class Entry:
    """One event to be written."""

    stop: int
    at_s: float
    wall_s: float
    event: Event


@record
class Row:
    """One stop as the journal keeps it."""

    stop: int
    operation: int
    address: str
    label: str
    identity_key: str
    identity: dict[str, str | int | None]
    begun_wall_s: float
    begun_by: str
    owner: str | None
    ending: str | None
    why: str | None


# SQLite's own limit.
_HIGHEST = 2**63 - 1
_SLACK_S = 24 * 3600.0
_FORGOTTEN = (
    "ending IS NOT NULL AND (begun_wall_s < ? OR id <="
    " (SELECT id FROM stop ORDER BY id DESC LIMIT 1 OFFSET ?))"
)
_ROW = (
    "id, operation, address, label, identity_key, identity, begun_wall_s, begun_by, owner, "
    "ending, why"
)


class LostOwnership(JournalError):
    """Another lastcall drives this stop now, or this very intent was written before."""

    code = "journal-lost-ownership"


class Store:
    """An open journal. Use it from one thread only.

    Args:
        folder: the state folder.
        set_aside: where a damaged predecessor was put; None when there was none.
    """

    def __init__(self, folder: str, database: sqlite3.Connection, set_aside: str | None) -> None:
        self.folder = folder
        self.set_aside = set_aside
        self._db = database

    @classmethod
    def open(cls, folder: str) -> Store:
        """Open the journal for writing. Raises as `file.open_to_write`."""
        database, set_aside = file.open_to_write(folder)
        return cls(folder, database, set_aside)

    @classmethod
    def open_to_read(cls, folder: str) -> Store:
        """Open the journal to read it only. Raises as `file.open_to_read`."""
        return cls(folder, file.open_to_read(folder), None)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def claim(
        self, claims: Sequence[Claim], owner: str, at_s: float, wall_s: float
    ) -> list[Claimed]:
        """Begin a stop for each, or find the open one of the same identity. One transaction.

        Raises:
            JournalError: it could not be written.
        """
        with self._transaction():
            made: list[Claimed] = []
            operation = None
            for claim in claims:
                found = self._db.execute(
                    "SELECT id, owner FROM stop WHERE identity_key = ? AND ending IS NULL",
                    (claim.identity.key,),
                ).fetchone()
                if found is not None:
                    made.append(Claimed(found[0], found[1] or ""))
                    continue
                stop = self._insert(claim, operation, owner, wall_s)
                operation = operation or stop
                self._append(Entry(stop, at_s, wall_s, claim.started), owner)
                made.append(Claimed(stop, owner, ((at_s, claim.started),), fresh=True))
            return made

    def _insert(self, claim: Claim, operation: int | None, owner: str, wall_s: float) -> int:
        cursor = self._db.execute(
            "INSERT INTO stop (operation, address, label, identity_key, identity, begun_wall_s,"
            " begun_by, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                operation or 0,
                _text(claim.address),
                _text(claim.label),
                claim.identity.key,
                json.dumps(claim.identity.facts),
                wall_s,
                claim.by,
                owner,
            ),
        )
        stop = int(cursor.lastrowid or 0)
        if operation is None:
            self._db.execute("UPDATE stop SET operation = id WHERE id = ?", (stop,))
        return stop

    def take_over(self, stop: int, old: str | None, new: str) -> bool:
        """Become the owner in place of a dead one; False when somebody else was quicker.

        Raises:
            JournalError: it could not be written.
        """
        with self._transaction():
            cursor = self._db.execute(
                "UPDATE stop SET owner = ? WHERE id = ? AND owner IS ? AND ending IS NULL",
                (new, stop, old),
            )
            return cursor.rowcount == 1

    def release(self, stop: int, owner: str) -> None:
        """Give a stop up, so that anybody can resume it.

        Raises:
            JournalError: it could not be written.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE stop SET owner = NULL WHERE id = ? AND owner = ?", (stop, owner)
            )

    def append(self, entries: Sequence[Entry], owner: str) -> list[LostOwnership | None]:
        """Write events in one synced transaction; for each, why it was not written, or None.

        Only the owner writes: an event is refused when the stop is over or has another owner, and
        an intent also when the same one stands already.

        Raises:
            JournalError: none of them could be written.
        """
        with self._transaction():
            return [self._append(entry, owner) for entry in entries]

    def _append(self, entry: Entry, owner: str) -> LostOwnership | None:
        event, intent = entry.event, None
        row = self._db.execute("SELECT owner FROM stop WHERE id = ?", (entry.stop,)).fetchone()
        if row is None or row[0] != owner:
            return LostOwnership(f"stop {entry.stop} is over, or driven by another lastcall now")
        if isinstance(event, Intended):
            intent = f"{event.rung}:{event.attempt}"
        kind, fields = codec.encode(event)
        try:
            self._db.execute(
                "INSERT INTO event (stop, at_s, wall_s, kind, data, intent) VALUES (?,?,?,?,?,?)",
                (entry.stop, entry.at_s, entry.wall_s, kind, json.dumps(fields), intent),
            )
        except sqlite3.IntegrityError:
            return LostOwnership(
                f"stop {entry.stop}: intent {intent} stands in the journal already"
            )
        if isinstance(event, Finished):
            self._db.execute(
                "UPDATE stop SET ending = ?, why = ?, owner = NULL WHERE id = ?",
                (event.ending.value, event.why.name, entry.stop),
            )
        return None

    def timeline(self, stop: int) -> list[tuple[float, float, Event]]:
        """(boot-time, Unix time, event) of one stop, in order, the first of them `Started`.

        Raises:
            JournalError: it cannot be read.
        """
        with translated(self.folder):
            rows = self._db.execute(
                "SELECT at_s, wall_s, kind, data FROM event WHERE stop = ? ORDER BY id", (stop,)
            ).fetchall()
            lines = [
                (at, wall, codec.decode(kind, json.loads(data))) for at, wall, kind, data in rows
            ]
            if not lines or not isinstance(lines[0][2], Started):
                raise ValueError(f"the beginning of stop {stop} is missing")
            return lines

    def row(self, stop: int) -> Row:
        """One stop.

        Raises:
            NoSuchStop: there is none of that number.
            JournalError: it cannot be read.
        """
        with translated(self.folder):
            found = self._db.execute(
                f"SELECT {_ROW} FROM stop WHERE id = ?",  # noqa: S608 (constant)
                (min(stop, _HIGHEST),),
            ).fetchone()
            if found is None:
                raise NoSuchStop(f"the journal knows no stop {stop}", "see: lastcall log")
            return _row(found)

    def rows(self, limit: int = 50, *, only_open: bool = False) -> list[Row]:
        """The latest stops, newest first.

        Raises:
            JournalError: it cannot be read.
        """
        where = "WHERE ending IS NULL" if only_open else ""
        with translated(self.folder):
            found = self._db.execute(
                f"SELECT {_ROW} FROM stop {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 (constant)
                (min(limit, _HIGHEST),),
            ).fetchall()
            return [_row(each) for each in found]

    def prune(
        self, now_wall_s: float, keep_s: float = KEEP_S, keep_stops: int = KEEP_STOPS
    ) -> None:
        """Forget finished stops that are too old, or more than are kept. Open ones stay.

        Raises:
            JournalError: it could not be written.
        """
        with self._transaction():
            self._db.execute(
                f"DELETE FROM stop WHERE {_FORGOTTEN}",  # noqa: S608 (constant)
                (now_wall_s - keep_s, keep_stops),
            )

    def tidy(self, now_wall_s: float) -> None:
        """Prune, but only when it is worth a write: a day's stops, or a twentieth, too many.

        Raises:
            JournalError: it could not be read or written.
        """
        with translated(self.folder):
            worth_it = self._db.execute(
                f"SELECT EXISTS (SELECT 1 FROM stop WHERE {_FORGOTTEN})",  # noqa: S608 (constant)
                (now_wall_s - KEEP_S - _SLACK_S, KEEP_STOPS + KEEP_STOPS // 20),
            ).fetchone()[0]
        if worth_it:
            self.prune(now_wall_s)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk may have rolled back already; then there is nothing left to undo.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _row(found: tuple[object, ...]) -> Row:
    stop, operation, address, label, key, identity, *rest = found
    facts = json.loads(str(identity))
    if not isinstance(facts, dict):
        raise ValueError(f"the identity of stop {stop} is not an object")  # noqa: TRY004 (bad data, not a bad call)
    return Row(stop, operation, address, label, key, facts, *rest)  # type: ignore[arg-type]


def _text(said: str) -> str:
    """A text that SQLite takes: a file's name may hold bytes that are no UTF-8."""
    return said.encode(errors="backslashreplace").decode()
