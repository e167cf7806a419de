"""The journal's file: opened with care, brought to this version, or kept aside when damaged.

Nothing is overwritten that cannot be read: a damaged file is moved away whole, a newer one is left
alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import time
from typing import TYPE_CHECKING

from lastcall.errors import JournalCorrupt, JournalError, JournalNewer
from lastcall.journal import place, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_S = 2.0
CHECKED_BYTES = 16 * 1024 * 1024
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def open_to_write(folder: str) -> tuple[sqlite3.Connection, str | None]:
    """Open the journal; make it, or bring it to this version, where needed.

    Returns:
        The connection, and where a damaged predecessor was put (None when there was none).

    Raises:
        JournalNewer: it was written by a newer version.
        JournalError: it cannot be used: no permission, read-only, full, locked.
    """
    place.prepare(folder)
    path = os.path.join(folder, "journal.db")
    if (database := _open_ready(path)) is not None:
        return database, None
    with _alone(folder):
        try:
            return _open(path), None
        except JournalCorrupt:
            aside = keep_aside(path)
            return _open(path), aside


def open_to_read(folder: str) -> sqlite3.Connection:
    """Open the journal to read it only; nothing is made or changed.

    Raises:
        JournalError: there is none, or it cannot be read.
    """
    path = os.path.join(folder, "journal.db")
    # Without write permission SQLite can read a WAL database only if nobody is writing it.
    lone = not os.access(folder, os.W_OK) and not os.path.exists(f"{path}-wal")
    with translated(path):
        if not place.check_regular(path):
            raise JournalError(f"there is no journal in {folder} yet", "it begins with a stop")
        database = sqlite3.connect(
            f"file:{_quoted(path)}?mode=ro{'&immutable=1' if lone else ''}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
        )
        if _check_version(database, path) == 0:
            # Its lastcall died before it had written anything: it reads like an empty journal.
            database.close()
            database = sqlite3.connect(":memory:", isolation_level=None)
            _migrate(database)
        return database


def keep_aside(path: str) -> str:
    """Move a damaged journal out of the way, whole, and say where it is now.

    Raises:
        JournalError: it is in use, or cannot be moved.
    """
    _refuse_in_use(path)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = f"{path}.damaged-{stamp}", 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    try:
        for suffix in ("-wal", "-shm", "-journal", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    except OSError as error:
        raise JournalError(
            f"the damaged journal {path} cannot be moved aside: {error.strerror}",
            "move it away by hand; this stop is not recorded",
        ) from error
    return aside


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn SQLite's errors into ours.

    Raises:
        JournalCorrupt: the file is damaged.
        JournalError: anything else that SQLite or the codec complains of.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE:
            raise JournalCorrupt(
                f"the journal in {place} is damaged: {error}",
                "the next stop keeps it aside and begins a new one",
            ) from error
        advice = {
            sqlite3.SQLITE_BUSY: "another program holds it locked; try again",
            sqlite3.SQLITE_FULL: "the disk is full; free some space",
            sqlite3.SQLITE_READONLY: "the folder or its file is read-only",
            sqlite3.SQLITE_CANTOPEN: "the folder or its file may not be opened by this user",
            sqlite3.SQLITE_IOERR: "the disk, or a limit on file sizes (ulimit -f), does not let it",
        }.get(code, "")
        raise JournalError(f"the journal in {place} cannot be used: {error}", advice) from error
    except (ValueError, OSError) as error:
        raise JournalError(f"the journal in {place} cannot be used: {error}") from error


def _refuse_in_use(path: str) -> None:
    """Whoever has it open still would remove the new journal's -wal on closing: SQLite does that by
    name. An open WAL database holds a shared lock.

    Source: "How To Corrupt An SQLite Database File", 4.2; `PENDING_BYTE` and `SHARED_SIZE` in os.h.
    """  # noqa: D205 (the reason needs the room)
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0x40000002, 510, 0)
        found = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))
        if found[0] != fcntl.F_UNLCK:
            raise JournalError(
                f"the journal {path} is damaged, and process {found[4]} has it open",
                f"it is kept aside at the first stop after that one ends: lastcall check"
                f" pid:{found[4]}",
            )


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Nobody else makes, migrates or moves away this folder's journal meanwhile.

    Raises:
        JournalError: somebody does, and takes too long.
    """
    with translated(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        give_up_s = time.monotonic() + BUSY_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_s:
                    raise JournalError(
                        f"another lastcall holds {folder} while it makes the journal", "try again"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _open_ready(path: str) -> sqlite3.Connection | None:
    """The journal, if it is there, whole and of this version; None when there is work to do."""
    try:
        with translated(path):
            if place.check_regular(path) and _examine(path) == schema.VERSION:
                return _connect(path)
    except JournalCorrupt:
        pass
    return None


def _open(path: str) -> sqlite3.Connection:
    """The journal, made or migrated where needed. For use under `_alone`."""
    with translated(path):
        place.check_regular(path)
        place.create_private(path)
        version = _examine(path)
        database = _connect(path)
        try:
            if version < schema.VERSION:
                _migrate(database)
        except BaseException:
            database.close()
            raise
        return database


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        database.close()
        raise
    return database


def _examine(path: str) -> int:
    """Its version, if it is whole and ours.

    Read-only: the last one to close a writable database writes its -wal back into it, and a
    damaged, newer or foreign one must stay as it is.

    Raises:
        JournalCorrupt: it is damaged.
        JournalNewer: a newer version wrote it.
        JournalError: it belongs to another program.
    """
    size_bytes = os.path.getsize(path)
    wal = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
    if size_bytes == 0:
        # SQLite would take it for new and remove the -wal, which holds what is left.
        if wal:
            raise JournalCorrupt(f"the journal {path} is empty, but its -wal is not")
        return 0
    if not wal and size_bytes % _page_bytes(path):
        # SQLite would fill up the last page with zeros and believe it.
        raise JournalCorrupt(f"the journal {path} is cut off in the middle of a page")
    # Cut off while it was made: only a writable connection can roll that back.
    mode = "rw" if os.path.exists(f"{path}-journal") else "ro"
    database = sqlite3.connect(
        f"file:{_quoted(path)}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None
    )
    try:
        version = _check_version(database, path)
        if size_bytes <= CHECKED_BYTES:
            complaint = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if complaint != "ok":
                raise JournalCorrupt(f"the journal {path} is damaged: {complaint}")
        _check_ours(database, path)
        return version
    finally:
        database.close()


def _page_bytes(path: str) -> int:
    """The size of its pages. Source: "Database File Format", 1.3.2."""
    with open(path, "rb") as file:
        head = file.read(18)
    stored = int.from_bytes(head[16:18], "big")
    return 65536 if stored == 1 else max(stored, 512)


def _check_ours(database: sqlite3.Connection, path: str) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != schema.APPLICATION_ID:
        raise JournalError(
            f"{path} is a database of another program",
            "set LASTCALL_STATE_DIR to a folder of your own",
        )


def _check_version(database: sqlite3.Connection, path: str) -> int:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > schema.VERSION:
        raise JournalNewer(
            f"the journal {path} was written by a newer lastcall (format {version}, this one"
            f" knows {schema.VERSION})",
            "use that version, or set LASTCALL_STATE_DIR to another folder",
        )
    return version


def _migrate(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    for number in range(version, schema.VERSION):
        for statement in schema.MIGRATIONS[number].split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {schema.VERSION}")
    database.execute("COMMIT")
