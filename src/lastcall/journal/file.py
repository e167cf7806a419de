"""The journal's file: opened with care, brought to this version, or kept aside when damaged.

Nothing is overwritten that cannot be read: a damaged file is moved away whole, a newer one is left
alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
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
        if not os.path.exists(path):
            raise JournalError(f"there is no journal in {folder} yet", "it begins with a stop")
        database = sqlite3.connect(
            f"file:{_quoted(path)}?mode=ro{'&immutable=1' if lone else ''}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
        )
        _check_version(database, path)
        return database


def keep_aside(path: str) -> str:
    """Move a damaged journal out of the way, whole, and say where it is now.

    Raises:
        JournalError: it cannot be moved; nothing was changed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = f"{path}.damaged-{stamp}", 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    try:
        for suffix in ("-wal", "-shm", ""):
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
            raise JournalCorrupt(f"the journal in {place} is damaged: {error}") from error
        advice = {
            sqlite3.SQLITE_BUSY: "another program holds it locked; try again",
            sqlite3.SQLITE_FULL: "the disk is full; free some space",
            sqlite3.SQLITE_READONLY: "the folder or its file is read-only",
            sqlite3.SQLITE_CANTOPEN: "the folder or its file may not be opened by this user",
        }.get(code, "")
        raise JournalError(f"the journal in {place} cannot be used: {error}", advice) from error
    except (ValueError, OSError) as error:
        raise JournalError(f"the journal in {place} cannot be used: {error}") from error


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _open(path: str) -> sqlite3.Connection:
    with translated(path):
        place.create_private(path)
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            version = _check_version(database, path)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
            if version < schema.VERSION:
                _migrate(database)
            elif os.path.getsize(path) <= CHECKED_BYTES:
                complaint = database.execute("PRAGMA quick_check(1)").fetchone()[0]
                if complaint != "ok":
                    raise JournalCorrupt(f"the journal {path} is damaged: {complaint}")
        except BaseException:
            database.close()
            raise
        return database


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
    # Another lastcall may have migrated it while we waited for the lock.
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    for number in range(version, schema.VERSION):
        for statement in schema.MIGRATIONS[number].split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {schema.VERSION}")
    database.execute("COMMIT")
