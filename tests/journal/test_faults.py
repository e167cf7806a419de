"""The journal spoiled in every way, and real stops on top of it.

Each time: the stop works, says what is wrong with the journal, and exits as it would have; what was
there is kept whole; and as soon as it can be, the next stop is recorded and read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import PATIENCE_S, Victim, victim
from journals import begin, events, plain_user, state_of, usable, whole_stop
from lastcall.errors import JournalError
from lastcall.journal import schema
from lastcall.journal.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.model import Event

_READY = "import os, signal, sys, time; out = lambda s: print(s, flush=True);"
_WAIT = "out(f'ready (pid: {os.getpid()})');\nwhile True: signal.pause()"
ORDERLY = f"{_READY} signal.signal(15, lambda *_: sys.exit(0)); {_WAIT}"
STUBBORN = f"{_READY} signal.signal(15, lambda *_: out('not now')); {_WAIT}"


def orderly() -> contextlib.AbstractContextManager[Victim]:
    """A victim that ends when it is asked."""
    return victim(sys.executable, "-c", ORDERLY)


def stubborn() -> contextlib.AbstractContextManager[Victim]:
    """A victim that says `not now` when it is asked."""
    return victim(sys.executable, "-c", STUBBORN)


@dataclass(slots=True)
class Command:
    """A `lastcall ... --json` under way."""

    child: subprocess.Popen[str]

    def until(self, event: str) -> dict[str, Any]:
        """Read up to the first message of this kind.

        Raises:
            AssertionError: it ended before.
        """
        assert self.child.stdout is not None
        while line := self.child.stdout.readline():
            message: dict[str, Any] = json.loads(line)
            if message["event"] == event:
                return message
        raise AssertionError(f"lastcall ended without saying {event!r}")

    def result(self) -> Said:
        """All the rest, and its exit code."""
        said, _ = self.child.communicate(timeout=PATIENCE_S)
        return Said(self.child.returncode, [json.loads(line) for line in said.splitlines()])


@dataclass(slots=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    messages: list[dict[str, Any]]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The messages of a kind."""
        return [message for message in self.messages if message["event"] == event]

    @property
    def journal(self) -> dict[str, str]:
        """What it said about the journal: title, evidence and advice by the finding's code."""
        found = [f for m in self.of("started") for f in m["data"]["findings"]]
        found += [m["data"]["finding"] for m in self.of("warned")]
        return {
            f["code"]: " ".join([f["title"], *f["evidence"], f["advice"]])
            for f in found
            if f["code"].startswith("journal-")
        }


def run(state: Path, *words: str, under: tuple[str, ...] = ()) -> Said:
    """Run a command to its end."""
    with command(state, *words, under=under) as begun:
        return begun.result()


@contextlib.contextmanager
def command(state: Path, *words: str, under: tuple[str, ...] = ()) -> Iterator[Command]:
    """Start a command with `--json`."""
    child = subprocess.Popen(
        [*under, sys.executable, "-m", "lastcall", *words, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LASTCALL_STATE_DIR": str(state)},
    )
    try:
        yield Command(child)
    finally:
        child.kill()
        child.communicate()


def stop_orderly(state: Path, under: tuple[str, ...] = ()) -> Said:
    """Stop an orderly victim; it must have ended in order, whatever the journal is like."""
    with orderly() as one, command(state, "stop", f"pid:{one.pid}", under=under) as begun:
        assert one.wait() == 0
        said = begun.result()
    assert said.code == 0
    assert said.of("result")[0]["ending"] == "orderly"
    return said


def recorded(state: Path, under: tuple[str, ...] = ()) -> int:
    """Stop an orderly victim, and see it in the log of another process; its number."""
    said = stop_orderly(state, under)
    assert said.journal == {}
    number = int(said.of("result")[0]["stop"])
    log = run(state, "log", str(number), under=under)
    assert log.code == 0
    assert [m["event"] for m in log.messages] == [
        "started", "intended", "asked", "ended", "finished",
    ]  # fmt: skip
    assert log.messages[-1]["data"]["ending"] == "orderly"
    return number


def damaged_state(folder: Path) -> Path:
    """A journal of a few stops, closed and whole, ready to be spoiled."""
    with closing(Store.open(str(folder))) as store:
        for n in range(20):
            whole_stop(store, str(n), time.time())
        begin(store, "left open", time.time())
    assert list(state_of(folder)) == ["journal.db"]
    return folder / "journal.db"


def timelines(folder: Path) -> dict[int, list[Event]]:
    """All that the journal says."""
    with closing(Store.open_to_read(str(folder))) as store:
        return {row.stop: events(store, row.stop) for row in store.rows(10_000)}


def put_aside(folder: Path) -> list[Path]:
    """The damaged journals that were kept, each with its -wal if that holds anything."""
    kept = sorted(folder.glob("journal.db.damaged-*"))
    return [path for path in kept if not path.name.endswith("-shm") and path.stat().st_size] or kept


# -- damaged: kept aside, whole, and a new one begun


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(20_000))


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _text(path: Path) -> None:
    path.write_text("this is no database\n")


def _cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _cut_off_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _root_page_torn(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 2 + 2048)
        file.write(bytes(2048))
        file.seek(4096)
        file.write(bytes(4096))


@pytest.mark.parametrize(
    "spoil", [_garbage, _zeroed, _text, _cut_off, _cut_off_within_a_page, _root_page_torn]
)
def test_a_damaged_journal_is_kept_aside(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """The stop works and says so; every byte is kept; the next stops are recorded."""
    path = damaged_state(tmp_path)
    spoil(path)
    before = path.read_bytes()
    log = run(tmp_path, "log")
    assert log.code == 0 or log.messages[0]["code"] == "journal-corrupt"
    assert path.read_bytes() == before
    said = stop_orderly(tmp_path)
    [kept] = put_aside(tmp_path)
    assert str(kept) in said.journal["journal-damaged"]
    assert kept.read_bytes() == before
    assert said.of("result")[0]["stop"] == 1
    assert recorded(tmp_path) == 2
    assert put_aside(tmp_path) == [kept]
    assert kept.read_bytes() == before


def test_the_next_damaged_one_does_not_replace_the_first(tmp_path: Path) -> None:
    """Two within one second get two names."""
    for n in range(3):
        tmp_path.joinpath("journal.db").write_bytes(b"garbage %d" % n * 1000)
        usable(tmp_path)
    assert sorted(p.read_bytes()[:9] for p in put_aside(tmp_path)) == [
        b"garbage %d" % n for n in range(3)
    ]


def test_cut_off_anywhere_nothing_is_overwritten(tmp_path: Path) -> None:
    """At every offset tried: the remains are kept whole and the journal is usable again."""
    whole = damaged_state(tmp_path / "made").read_bytes()
    offsets = {*range(1, 130, 8), *range(256, len(whole), 1024), *range(4096, len(whole), 4096)}
    offsets |= {offset - 1 for offset in range(4096, len(whole) + 1, 4096)}
    for offset in sorted(offsets):
        folder = tmp_path / str(offset)
        folder.mkdir()
        (folder / "journal.db").write_bytes(whole[:offset])
        usable(folder)
        [kept] = put_aside(folder)
        assert kept.read_bytes() == whole[:offset], offset


def test_any_page_zeroed_or_torn_nothing_is_invented(tmp_path: Path) -> None:
    """Kept aside whole, or else it still says what it said, and is usable in either case."""
    whole = damaged_state(tmp_path / "made").read_bytes()
    said = timelines(tmp_path / "made")
    noticed = 0
    for page in range(0, len(whole), 4096):
        for first, last in ((0, 4096), (0, 2048), (2048, 4096)):
            folder = tmp_path / f"{page}-{first}-{last}"
            folder.mkdir()
            torn = bytearray(whole)
            torn[page + first : page + last] = bytes(last - first)
            (folder / "journal.db").write_bytes(torn)
            number = usable(folder)
            if put_aside(folder):
                noticed += 1
                assert put_aside(folder)[0].read_bytes() == torn
                assert timelines(folder).keys() == {number}
            else:
                now = timelines(folder)
                now.pop(number)
                assert now == said
    assert noticed >= len(whole) // 4096


def test_an_empty_file_is_begun_anew(tmp_path: Path) -> None:
    """Nothing was in it, so nothing is kept and nothing is said."""
    (tmp_path / "journal.db").touch()
    assert recorded(tmp_path) == 1
    assert put_aside(tmp_path) == []


def _with_wal(folder: Path, to: Path) -> None:
    """Copy a journal as a crash leaves it: a part of it stands only in its -wal."""
    with closing(Store.open(str(folder))) as store:
        for n in range(5):
            whole_stop(store, f"late {n}", time.time())
        to.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{folder}/journal.db{suffix}", to)


def test_a_torn_wal_loses_its_end_and_nothing_else(tmp_path: Path) -> None:
    """What stands before the tear is read again; the journal is appended to and read again."""
    damaged_state(tmp_path / "made")
    early = timelines(tmp_path / "made")
    _with_wal(tmp_path / "made", tmp_path / "crashed")
    wal = (tmp_path / "crashed" / "journal.db-wal").read_bytes()
    late = timelines(tmp_path / "made")
    seen = set()
    for offset in range(0, len(wal), len(wal) // 40):
        for rest in (b"", random.Random(offset).randbytes(len(wal) - offset)):
            folder = tmp_path / f"{offset}-{len(rest)}"
            shutil.copytree(tmp_path / "crashed", folder)
            (folder / "journal.db-wal").write_bytes(wal[:offset] + rest)
            with closing(Store.open(str(folder))) as store:
                assert store.set_aside is None
            now = timelines(folder)
            seen.add(len(now))
            assert {stop: now[stop] for stop in early} == early
            for stop, told in now.items():
                assert told == late[stop][: len(told)]
            usable(folder)
    assert len(seen) > 3  # Tears at different places lost more or fewer stops.


def test_an_emptied_file_beside_its_wal_is_kept_with_it(tmp_path: Path) -> None:
    """SQLite would take the empty file for new and delete the -wal: what is left is kept first."""
    damaged_state(tmp_path / "made")
    folder = tmp_path / "crashed"
    _with_wal(tmp_path / "made", folder)
    wal = (folder / "journal.db-wal").read_bytes()
    os.truncate(folder / "journal.db", 0)
    assert "journal-damaged" in stop_orderly(folder).journal
    [kept] = put_aside(folder)
    assert kept.name.endswith("Z-wal")
    assert kept.read_bytes() == wal
    assert kept.with_name(kept.name.removesuffix("-wal")).read_bytes() == b""
    assert recorded(folder) == 2


def test_a_damaged_journal_with_a_wal_is_kept_byte_by_byte(tmp_path: Path) -> None:
    """Looking at it does not write its -wal back into it."""
    damaged_state(tmp_path / "made")
    folder = tmp_path / "crashed"
    _with_wal(tmp_path / "made", folder)
    _zeroed(folder / "journal.db")
    before = [path.read_bytes() for path in (folder / "journal.db", folder / "journal.db-wal")]
    usable(folder)
    kept = {path.name.rpartition("Z")[2]: path.read_bytes() for path in put_aside(folder)}
    assert [kept[""], kept["-wal"]] == before


def test_a_damaged_journal_that_is_in_use_stays_in_its_place(tmp_path: Path) -> None:
    """Its user would delete the new one's -wal on closing; so the stop goes unrecorded."""
    damaged_state(tmp_path)
    with stubborn() as one, command(tmp_path, "stop", f"pid:{one.pid}", "--grace", "60s") as user:
        user.until("asked")
        with (tmp_path / "journal.db").open("r+b") as file:
            file.write(b"garbage" * 3000)
        before = (tmp_path / "journal.db").read_bytes()
        said = stop_orderly(tmp_path)
        assert f"process {user.child.pid} has it open" in said.journal["journal-unusable"]
        assert put_aside(tmp_path) == []
        assert (tmp_path / "journal.db").read_bytes() == before
    assert "journal-damaged" in stop_orderly(tmp_path).journal
    assert recorded(tmp_path) == 2


def test_a_shm_of_garbage_does_no_harm(tmp_path: Path) -> None:
    """SQLite makes that file anew; nothing of the journal stands in it."""
    damaged_state(tmp_path)
    said = timelines(tmp_path)
    for suffix in ("-shm", "-wal"):
        (tmp_path / f"journal.db{suffix}").write_bytes(b"garbage" * 5000)
        number = recorded(tmp_path)
        now = timelines(tmp_path)
        assert {stop: now[stop] for stop in said} == said
        assert number in now
    assert put_aside(tmp_path) == []


def test_what_is_too_old_is_forgotten_by_the_next_stop(tmp_path: Path) -> None:
    """Retention needs no command of its own; an open stop is kept however old it is."""
    with closing(Store.open(str(tmp_path))) as store:
        old, left = whole_stop(store), begin(store, "left").stop
    number = recorded(tmp_path)
    assert sorted(timelines(tmp_path)) == [left, number]
    assert run(tmp_path, "log", str(old)).messages[0]["code"] == "no-such-stop"


# -- not damaged, but not to be used: left alone


def _folder_in_place(path: Path) -> None:
    path.mkdir()


def _fifo_in_place(path: Path) -> None:
    os.mkfifo(path)


def _socket_in_place(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _link_in_place(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    damaged_state(elsewhere)
    path.symlink_to(elsewhere / "journal.db")


def _loop_in_place(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_folder_in_place, "is a folder"),
        (_fifo_in_place, "is a FIFO"),
        (_socket_in_place, "is a socket"),
        (_link_in_place, "is a symbolic link"),
        (_loop_in_place, "is a symbolic link"),
    ],
)
def test_what_is_no_file_is_left_alone(
    tmp_path: Path, spoil: Callable[[Path], None], what: str
) -> None:
    """The stop works, names what is there, and hangs on nothing; `log` neither."""
    state = tmp_path / "state"
    state.mkdir()
    spoil(state / "journal.db")
    before = os.lstat(state / "journal.db")
    assert what in stop_orderly(state).journal["journal-unusable"]
    after = os.lstat(state / "journal.db")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    for words in (("log", "1"), ("resume", "1")):
        said = run(state, *words)
        assert said.code == 1
        assert what in said.messages[0]["what"] or "no journal" in said.messages[0]["what"]
    if (state / "journal.db").is_dir():
        (state / "journal.db").rmdir()
    else:
        (state / "journal.db").unlink()
    assert recorded(state) == 1


def test_a_newer_journal_is_left_byte_identical(tmp_path: Path) -> None:
    """The stop works unrecorded and says which version is needed; the file is as before."""
    usable(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.execute("PRAGMA user_version = 99")
    before = state_of(tmp_path)
    assert "format 99" in stop_orderly(tmp_path).journal["journal-unusable"]
    log = run(tmp_path, "log")
    assert (log.code, log.messages[0]["code"]) == (1, "journal-newer")
    assert state_of(tmp_path) == before


def test_a_journal_that_somebody_holds_locked(tmp_path: Path) -> None:
    """The stop waits a moment for the lock, goes on unrecorded, and says what holds it up."""
    usable(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "another program holds it" in stop_orderly(tmp_path).journal["journal-unusable"]
        other.execute("ROLLBACK")
    assert recorded(tmp_path) == 2


def test_a_locked_journal_that_is_yet_to_be_made(tmp_path: Path) -> None:
    """The same when the one who holds it was there first."""
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "journal-unusable" in stop_orderly(tmp_path).journal
        other.execute("ROLLBACK")
    assert recorded(tmp_path) == 1


@pytest.mark.parametrize(
    ("folder_mode", "file_mode"), [(0o500, 0o600), (0o700, 0o400), (0o500, 0o400), (0o000, 0o600)]
)
def test_read_only_for_a_plain_user(folder_mode: int, file_mode: int) -> None:
    """A folder or a file that may not be written, as somebody whom modes concern."""
    with plain_user() as user:
        state = user.folder / "state"
        env = {"LASTCALL_STATE_DIR": str(state)}

        def stop() -> tuple[int, str]:
            with user.start("-c", ORDERLY) as one:
                try:
                    assert one.stdout is not None
                    assert one.stdout.readline().startswith("ready")
                    return user.run("-m", "lastcall", "stop", f"pid:{one.pid}", env=env)
                finally:
                    one.kill()

        assert stop()[0] == 0
        before = (state / "journal.db").read_bytes()
        (state / "journal.db").chmod(file_mode)
        state.chmod(folder_mode)
        code, said = stop()
        assert code == 0, said
        assert "orderly: " in said
        assert "this stop is not recorded" in said
        state.chmod(0o700)
        assert (state / "journal.db").read_bytes() == before
        (state / "journal.db").chmod(0o600)
        code, said = stop()
        assert (code, "[stop 2]" in said) == (0, True), said


# -- full


@dataclass(slots=True)
class Disk:
    """A tiny file system of its own, that only those see who enter its namespace.

    Args:
        folder: where it is, for us.
        state: the state folder on it, for those who entered.
        under: what to run a command with so that it enters.
    """

    folder: Path
    state: Path
    under: tuple[str, ...]

    def fill(self) -> None:
        """Leave not one byte free."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A tmpfs in a mount namespace of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    script = 'mount -t tmpfs -o size=400k tiny "$1" && echo ready && exec sleep 600'
    with victim(*words, "sh", "-c", script, "sh", str(place), ready="") as holder:
        said = holder.line()
        assert said == "ready", f"{said}: needs unshare, mount (package util-linux) and namespaces"
        spaces = ["--mount", *(["--user", "--preserve-credentials"] if os.geteuid() else [])]
        under = ("nsenter", "--target", str(holder.pid), *spaces)
        yield Disk(Path(f"/proc/{holder.pid}/root{place}"), place / "state", under)


def test_a_full_disk(disk: Disk) -> None:
    """No room for a journal, then none in the journal: each stop works and says so."""
    for number in (1, 2):
        disk.fill()
        said = stop_orderly(disk.state, disk.under)
        assert "the disk is full" in said.journal["journal-unusable"]
        disk.free()
        assert recorded(disk.state, disk.under) == number


@pytest.mark.parametrize("limit_bytes", [0, 4096, 30_000])
def test_a_limit_on_file_sizes(tmp_path: Path, limit_bytes: int) -> None:
    """`ulimit -f`, as some services have it, is no reason to die of SIGXFSZ or to hang."""
    under = ("prlimit", f"--fsize={limit_bytes}")
    assert "journal-unusable" in stop_orderly(tmp_path / "state", under).journal
    recorded(tmp_path / "state")


def test_the_disk_becomes_full_between_intent_and_outcome(disk: Disk) -> None:
    """The victim fills the disk when it is asked: the stop goes on to its end, and says so."""
    recorded(disk.state, disk.under)
    fills = (
        f"{_READY}\ndef fill(*_):\n try:\n  f = open({str(disk.folder / 'filler')!r}, 'ab', 0)\n"
        "  while True: f.write(b'x' * 4096)\n except OSError: pass\n try:\n"
        "  while True: f.write(b'x')\n except OSError: sys.exit(0)\n"
        f"signal.signal(15, fill); {_WAIT}"
    )
    with (
        victim(sys.executable, "-c", fills) as one,
        command(disk.state, "stop", f"pid:{one.pid}", under=disk.under) as begun,
    ):
        assert one.wait() == 0
        said = begun.result()
    assert said.code == 0
    assert said.of("result")[0]["ending"] == "orderly"
    assert "journal-unusable" in said.journal
    disk.free()
    number = said.of("result")[0]["stop"]
    log = run(disk.state, "log", str(number), under=disk.under)
    assert [m["event"] for m in log.messages][:2] == ["started", "intended"]
    resumed = run(disk.state, "resume", under=disk.under)
    assert resumed.of("result")[0]["ending"] == "unknown"
    recorded(disk.state, disk.under)


# -- force, with and without a record


def _unusable(state: Path) -> None:
    (state / "journal.db").mkdir(parents=True)


def test_force_on_this_command_line_holds_without_a_journal(tmp_path: Path) -> None:
    """It is forced, and the output says that this is not recorded, in words and in JSON."""
    _unusable(tmp_path)
    with stubborn() as one:
        said = run(tmp_path, "stop", f"pid:{one.pid}", "--grace", "0.2s", "--force")
        assert one.wait() == -signal.SIGKILL
    assert (said.code, said.of("result")[0]["stop"]) == (11, 0)
    assert "not recorded" in said.journal["journal-unusable"]
    with stubborn() as one:
        words = ["stop", f"pid:{one.pid}", "--grace", "0.2s", "--force"]
        plain = subprocess.run(
            [sys.executable, "-m", "lastcall", *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LASTCALL_STATE_DIR": str(tmp_path)},
        )
    assert plain.returncode == 11
    assert "this stop is not recorded" in plain.stdout
    assert "[not recorded]" in plain.stdout


def test_without_consent_nothing_is_forced(tmp_path: Path) -> None:
    """A journal that cannot be used is no consent."""
    _unusable(tmp_path)
    with stubborn() as one:
        said = run(tmp_path, "stop", f"pid:{one.pid}", "--grace", "0.2s")
        assert said.code == 20
        assert [m["data"]["rung"] for m in said.of("asked")] == [0]
        assert one.line() == "not now"
        assert one.child.poll() is None


@contextlib.contextmanager
def _left_with_consent(
    state: Path, one: Victim, grace: str, under: tuple[str, ...] = ()
) -> Iterator[None]:
    """A stop with consent to force whose lastcall was killed after the ask."""
    words = ("stop", f"pid:{one.pid}", "--grace", grace, "--force")
    with command(state, *words, under=under) as killed:
        killed.until("asked")
        assert one.line() == "not now"
        killed.child.kill()
        killed.child.wait()
        yield


@pytest.mark.parametrize("broken", [False, True])
def test_a_consent_that_only_the_journal_holds(disk: Disk, *, broken: bool) -> None:
    """Resumed, it is used as long as it can be recorded; with a full disk it is not used."""
    with (
        stubborn() as one,
        _left_with_consent(disk.state, one, "4s", disk.under),
        command(disk.state, "resume", under=disk.under) as begun,
    ):
        begun.until("resumed")
        if broken:
            disk.fill()
        said = begun.result()
        if broken:
            assert said.of("result")[0]["why"] == "unrecorded"
            assert said.code == 20
            assert "journal-unusable" in said.journal
            assert one.child.poll() is None
        else:
            assert said.code == 11
            assert one.wait() == -signal.SIGKILL


def test_a_new_stop_brings_its_own_consent_to_a_broken_journal(disk: Disk) -> None:
    """The journal's consent is not used, the command line's is: forced, unrecorded."""
    words = ("--grace", "2s", "--force")
    with (
        stubborn() as one,
        command(disk.state, "stop", f"pid:{one.pid}", *words, under=disk.under) as begun,
    ):
        begun.until("asked")
        disk.fill()
        said = begun.result()
        assert one.wait() == -signal.SIGKILL
    assert said.code == 11
    assert "journal-unusable" in said.journal


@pytest.mark.parametrize(
    "damage", ["UPDATE event SET data = '{'", "DELETE FROM event", "UPDATE stop SET identity = ''"]
)
def test_an_open_stop_that_cannot_be_read_does_not_keep_anybody_from_stopping(
    tmp_path: Path, damage: str
) -> None:
    """SQLite finds nothing wrong, but the record makes no sense: the stop goes on without it."""
    with stubborn() as one, _left_with_consent(tmp_path, one, "600s"):
        with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
            database.execute(damage)
            database.commit()
        assert run(tmp_path, "resume").code == 1
        assert one.child.poll() is None
        said = run(tmp_path, "stop", f"pid:{one.pid}", "--grace", "0.2s")
        assert (said.code, set(said.journal)) == (20, {"journal-unusable"})
        assert one.line() == "not now"
        said = run(tmp_path, "stop", f"pid:{one.pid}", "--grace", "0.2s", "--force")
        assert said.code == 11
        assert one.wait() == -signal.SIGKILL
    recorded(tmp_path)


def test_stopping_to_watch_with_a_broken_journal(disk: Disk) -> None:
    """Ctrl+C leaves the target alone and exits as always, recorded or not."""
    with (
        stubborn() as one,
        command(disk.state, "stop", f"pid:{one.pid}", under=disk.under) as begun,
    ):
        begun.until("asked")
        disk.fill()
        begun.child.send_signal(signal.SIGINT)
        assert begun.result().code == 130
        assert one.child.poll() is None


def test_what_cannot_be_used_is_told_by_its_place() -> None:
    """A journal error names the folder, for people have several."""
    with pytest.raises(JournalError, match="/proc/nowhere"):
        Store.open("/proc/nowhere")
    assert schema.VERSION >= 1
