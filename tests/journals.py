"""What the tests of the journal share: claims to write, and looking at the file from outside."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lastcall
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
    from collections.abc import Iterator

NOBODY = 65534

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
    """Append a stop to the journal and read it again, as later commands would; its number."""
    with closing(Store.open(str(folder))) as store:
        stop = whole_stop(store, "usable")
    with closing(Store.open_to_read(str(folder))) as store:
        assert events(store, stop) == [STARTED, *WAY]
        assert store.row(stop).ending == "orderly"
    return stop


def state_of(folder: Path) -> dict[str, str]:
    """Each file of the journal that holds data, with a hash of all its bytes.

    SQLite makes a -shm, and an empty -wal, even for whoever only reads.
    """
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("journal.db*"))
        if not path.name.endswith("-shm") and path.stat().st_size
    }


def pragma(path: Path, name: str) -> int:
    """A number in the header of a database."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"PRAGMA {name}").fetchone()[0])


# -- a user whom modes concern


@dataclass(frozen=True, slots=True)
class PlainUser:
    """Somebody who is not root.

    Args:
        uid: who.
        python: an interpreter that this user may run.
        folder: its own, empty but for `source`, which holds a copy of lastcall and of this module.
    """

    uid: int
    python: str
    folder: Path

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the interpreter as that user, its output piped."""
        child: subprocess.Popen[str] = subprocess.Popen(
            [self.python, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(self.folder / "source"),
                "PYTHONDONTWRITEBYTECODE": "1",
                **(env or {}),
            },
            start_new_session=True,
            **_as(self.uid),
        )
        return child

    def run(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Run the interpreter to its end: exit status and all it said."""
        with self.start(*words, env=env) as child:
            try:
                said = child.communicate(timeout=60)[0]
            finally:
                child.kill()
        return child.returncode, said


@contextlib.contextmanager
def plain_user() -> Iterator[PlainUser]:
    """Ourselves, or for root another user: root may read and write what no mode allows."""
    uid = os.geteuid() or NOBODY
    folder = Path(tempfile.mkdtemp(prefix="lastcall-user-"))
    try:
        source = folder / "source"
        for package in (Path(lastcall.__file__).parent, Path(__file__)):
            if package.is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, source / package.name, ignore=skip)
            else:
                shutil.copy(package, source)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{uid}:{uid}", str(folder)], check=True)
        yield PlainUser(uid, _python_for(uid), folder)
    finally:
        shutil.rmtree(folder)


def _as(uid: int) -> dict[str, Any]:
    return {} if os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}


@functools.cache
def _python_for(uid: int) -> str:
    """An interpreter that this user may run: ours may lie in a folder closed to others."""
    check = "import sqlite3, sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if not subprocess.run(
                [python, "-c", check], check=False, cwd="/", **_as(uid)
            ).returncode:
                return python
    raise AssertionError("no Python 3.11 that other users may run: install the package python3")
