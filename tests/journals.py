"""What the tests of the journal share: claims to write, and looking at the file from outside."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from lastcall.journal.store import Claim, Claimed, Entry, Store
from lastcall.model import (
    Asked,
    Cause,
    Consent,
    Ended,
    Ending,
    Event,
    Finished,
    Identity,
    Intended,
    Outcome,
    Rung,
    Started,
    Why,
)

if TYPE_CHECKING:
    from pathlib import Path

ME = "boot/10/100"
OTHER = "boot/20/200"
STARTED = Started((Rung("15@", "SIGTERM"), Rung("9@", "SIGKILL", 10.0, Consent.FORCE)), 40.0, 40.0)
FINISHED = Finished(Ending.ORDERLY, Why.ENDED, "exit status 0")
WAY: tuple[Event, ...] = (
    Intended(0, 1, {"members": "7/70/700/15//OTHER"}),
    Asked(0, 1, Outcome.DONE, "SIGTERM to pid 7"),
    Ended(Cause.BY_ITSELF, "exit status 0"),
    FINISHED,
)


def claim(key: str = "a", address: str = "pid:7") -> Claim:
    """A wish to stop the thing of this key."""
    return Claim(address, "sleep 600", Identity(key, {"pid": 7, "inode": None}), "me", STARTED)


def begin(store: Store, key: str = "a", wall_s: float = 1000.0, owner: str = ME) -> Claimed:
    """Begin a stop, or find the open one."""
    [made] = store.claim([claim(key)], owner, 10.0, wall_s)
    return made


def write(store: Store, stop: int, *events: Event, owner: str = ME) -> list[bool]:
    """Append events; for each whether it was written."""
    entries = [Entry(stop, 11.0 + i, 1001.0 + i, event) for i, event in enumerate(events)]
    return [refused is None for refused in store.append(entries, owner)]


def whole_stop(store: Store, key: str = "a", wall_s: float = 1000.0) -> int:
    """Write one stop from its beginning to its end; its number."""
    stop = begin(store, key, wall_s).stop
    assert write(store, stop, *WAY) == [True] * len(WAY)
    return stop


def events(store: Store, stop: int) -> list[Event]:
    """What the journal says of a stop."""
    return [event for _, _, event in store.timeline(stop)]


def usable(folder: str | Path) -> int:
    """Append a whole stop to the journal and read it again, as a later command would; its number."""
    with closing(Store.open(str(folder))) as store:
        stop = whole_stop(store, "usable")
    with closing(Store.open_to_read(str(folder))) as store:
        assert events(store, stop) == [STARTED, *WAY]
        assert store.row(stop).ending == "orderly"
    return stop


def state_of(folder: Path) -> dict[str, str]:
    """Each file of the journal with a hash of all its bytes, `-shm` apart: it holds no data."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("journal.db*"))
        if not path.name.endswith("-shm")
    }


def pragma(path: Path, name: str) -> int:
    """A number in the header of a database."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"PRAGMA {name}").fetchone()[0])
