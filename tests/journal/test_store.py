"""The journal's SQLite side: claims, owners, intents, retention, privacy, format versions."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journals import (
    FINISHED,
    ME,
    OTHER,
    STARTED,
    WAY,
    begin,
    claim,
    events,
    plain_user,
    pragma,
    state_of,
    usable,
    whole_stop,
    write,
)
from lastcall.errors import JournalError, JournalNewer, NoSuchStop
from lastcall.journal import place, schema
from lastcall.journal.store import KEEP_S, KEEP_STOPS, Store
from lastcall.model import Ending, Finished, Identity, Intended, Looked, Why
from lastcall.stop.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTDATA = Path(__file__).parent / "testdata"
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open journal in a folder of its own."""
    with closing(Store.open(str(tmp_path / "state"))) as made:
        yield made


# -- claims and owners


def test_a_claim_begins_a_stop_or_finds_the_open_one(store: Store) -> None:
    """One identity has at most one stop without an ending; another identity has its own."""
    first, again, other = begin(store), begin(store, owner=OTHER), begin(store, "b")
    assert (first.fresh, first.owner, first.events) == (True, ME, ((10.0, STARTED),))
    assert (again.stop, again.fresh, again.owner) == (first.stop, False, ME)
    assert other.fresh
    assert other.stop > first.stop


def test_the_stops_of_one_command_are_one_operation(store: Store) -> None:
    """They carry the number of the first stop that the command began."""
    old = begin(store, "b")
    made = store.claim([claim("b"), claim("c"), claim("d")], ME, 1.0, 2.0)
    assert [one.fresh for one in made] == [False, True, True]
    operations = [store.row(one.stop).operation for one in made]
    assert operations == [old.stop, made[1].stop, made[1].stop]


def test_an_ending_makes_room_for_the_next_stop(store: Store) -> None:
    """The same thing can be stopped again after an ending, under a higher number."""
    first = whole_stop(store)
    second = begin(store)
    assert second.fresh
    assert second.stop > first


def test_a_dead_owner_is_replaced_once(store: Store) -> None:
    """Of two that take over, one gets it; nobody takes over a stop that has ended."""
    stop = begin(store).stop
    assert store.take_over(stop, ME, OTHER)
    assert not store.take_over(stop, ME, "boot/30/300")
    assert store.row(stop).owner == OTHER
    write(store, stop, FINISHED, owner=OTHER)
    assert not store.take_over(stop, None, ME)


def test_a_released_stop_is_free_and_open(store: Store) -> None:
    """Only its owner can release it; then whoever comes takes it."""
    stop = begin(store).stop
    store.release(stop, OTHER)
    assert store.row(stop).owner == ME
    store.release(stop, ME)
    assert (store.row(stop).owner, store.row(stop).ending) == (None, None)
    assert store.take_over(stop, None, OTHER)


def test_only_the_owner_writes(store: Store) -> None:
    """Who lost a stop can write no intent, no ending and nothing else to it."""
    stop = begin(store).stop
    store.take_over(stop, ME, OTHER)
    assert write(store, stop, *WAY, owner=ME) == [False] * len(WAY)
    assert write(store, stop, WAY[0], owner=OTHER) == [True]
    assert events(store, stop) == [STARTED, WAY[0]]


def test_a_stop_has_one_ending(store: Store) -> None:
    """What is written after the ending is refused, a second ending too."""
    stop = whole_stop(store)
    late = Finished(Ending.FORCED, Why.ENDED, "SIGKILL")
    assert write(store, stop, late, WAY[0]) == [False, False]
    assert store.row(stop).ending == "orderly"
    assert events(store, stop) == [STARTED, *WAY]


def test_an_intent_is_written_once(store: Store) -> None:
    """The same rung and attempt is refused the second time; the next attempt is not."""
    stop = begin(store).stop
    assert write(store, stop, Intended(0, 1), Intended(0, 1)) == [True, False]
    assert write(store, stop, Intended(0, 1), Intended(0, 2)) == [False, True]
    assert write(store, begin(store, "b").stop, Intended(0, 1)) == [True]


def test_a_refused_event_does_not_take_others_along(store: Store) -> None:
    """In one group, what is in order is written although its neighbour is not."""
    mine, lost = begin(store).stop, begin(store, "b").stop
    store.take_over(lost, ME, OTHER)
    assert write(store, lost, Intended(0, 1)) == [False]
    assert write(store, mine, Intended(0, 1), Intended(0, 1), FINISHED) == [True, False, True]
    assert events(store, mine) == [STARTED, Intended(0, 1), FINISHED]


def test_numbers_only_grow(store: Store) -> None:
    """A number that was forgotten never names another stop."""
    last = [whole_stop(store, str(n)) for n in range(3)][-1]
    store.prune(1e12)
    assert store.rows() == []
    assert begin(store).stop == last + 1


def test_what_was_read_is_what_was_written(store: Store) -> None:
    """Row and timeline hold every field, and the fold of the events is the state."""
    stop = whole_stop(store)
    row = store.row(stop)
    assert (row.address, row.label, row.begun_by, row.begun_wall_s) == (
        "pid:7", "sleep 600", "me", 1000.0,
    )  # fmt: skip
    assert Identity(row.identity_key, row.identity) == claim().identity
    assert (row.owner, row.ending, row.why) == (None, "orderly", "ENDED")
    assert [(at, wall) for at, wall, _ in store.timeline(stop)][:2] == [(10.0, 1000.0), (11, 1001)]
    assert fold((at, event) for at, _, event in store.timeline(stop)).finished == FINISHED


def test_an_unknown_number_is_told(store: Store) -> None:
    """Asking for a stop that is not there names it."""
    with pytest.raises(NoSuchStop, match="no stop 10000"):  # more than SQLite can count to
        store.row(10**30)
    with pytest.raises(NoSuchStop, match="no stop 99"):
        store.row(99)


def test_names_that_are_no_text_are_recorded(store: Store) -> None:
    """A file's name may hold any byte; its stop is recorded all the same."""
    address = "pidfile:run/" + os.fsdecode(b"\xff\xfe") + "\u00fc.pid"
    [made] = store.claim([claim(address=address)], ME, 1.0, 2.0)
    assert store.row(made.stop).address == r"pidfile:run/\udcff\udcfe" + "\u00fc.pid"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET kind = 'melted'",
        "UPDATE event SET data = '{'",
        "UPDATE event SET data = '{}'",
        "DELETE FROM event WHERE kind = 'started'",
    ],
)
def test_events_that_make_no_sense_are_a_journal_error(store: Store, damage: str) -> None:
    """Whoever reads them gets an error of ours, not a surprise from JSON."""
    stop = whole_stop(store)
    store._db.execute(damage)
    with pytest.raises(JournalError):
        store.timeline(stop)


@pytest.mark.parametrize("identity", ["{", "[]"])
def test_an_identity_that_makes_no_sense_is_a_journal_error(store: Store, identity: str) -> None:
    """The same for the identity of a stop, in the list and alone."""
    stop = whole_stop(store)
    store._db.execute("UPDATE stop SET identity = ?", (identity,))
    with pytest.raises(JournalError):
        store.row(stop)
    with pytest.raises(JournalError):
        store.rows()


# -- retention


def test_old_stops_are_forgotten_with_their_events(store: Store) -> None:
    """What began longer ago than the limit goes, what did not stays."""
    old, young = whole_stop(store, "a", 1000.0), whole_stop(store, "b", 2000.0)
    store.prune(2500.0, keep_s=600.0)
    assert [row.stop for row in store.rows()] == [young]
    left = store._db.execute("SELECT count(*) FROM event WHERE stop = ?", (old,)).fetchone()
    assert left == (0,)


def test_no_more_stops_are_kept_than_the_limit(store: Store) -> None:
    """The latest ones stay."""
    stops = [whole_stop(store, str(n)) for n in range(5)]
    store.prune(1000.0, keep_stops=2)
    assert [row.stop for row in store.rows()] == [stops[4], stops[3]]


def test_open_stops_survive_any_pruning(store: Store) -> None:
    """However old, and however many came after it: a stop without an ending is not forgotten."""
    left = begin(store, "left", wall_s=0.0).stop
    for n in range(5):
        whole_stop(store, str(n))
    store.prune(1e12, keep_s=1.0, keep_stops=1)
    assert [row.stop for row in store.rows()] == [left]
    assert events(store, left) == [STARTED]
    assert write(store, left, *WAY) == [True] * len(WAY)


def test_tidying_writes_only_when_it_is_worth_it(store: Store) -> None:
    """A stop that is a little too old waits for the next day; then all that are too old go."""
    whole_stop(store, "a", 1000.0)
    young = whole_stop(store, "b", 200_000.0)
    store.tidy(1000.0 + KEEP_S + 60)
    assert len(store.rows()) == 2
    store.tidy(1000.0 + KEEP_S + 25 * 3600)
    assert [row.stop for row in store.rows()] == [young]


def test_tidying_keeps_a_thousand(store: Store) -> None:
    """A twentieth more than are kept is still no reason to write, one more is."""
    with store._transaction():
        store._db.executemany(
            "INSERT INTO stop (operation, address, label, identity_key, identity, begun_wall_s,"
            " begun_by, ending) VALUES (1, '', '', '', '{}', 1000.0, '', 'orderly')",
            [()] * (KEEP_STOPS + KEEP_STOPS // 20),
        )
    store.tidy(2000.0)
    assert len(store.rows(10**6)) == KEEP_STOPS + KEEP_STOPS // 20
    whole_stop(store)
    store.tidy(2000.0)
    assert len(store.rows(10**6)) == KEEP_STOPS


# -- privacy


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_can_look_into_it(umask: int) -> None:
    """Folder 0700 and files 0600, -wal and -shm too, whatever the umask."""
    code = (
        "import os, sys; from contextlib import closing; from lastcall.journal.store import Store;"
        "from journals import whole_stop; os.umask(int(sys.argv[2]));"
        "store = Store.open(sys.argv[1]); whole_stop(store);"
        "print(*sorted(os.listdir(sys.argv[1])));"
        "print(*{oct(os.stat(os.path.join(sys.argv[1], n)).st_mode & 0o7777)"
        " for n in os.listdir(sys.argv[1])})"
    )
    # Not as root, whom no mode stops: it could use what umask 0777 makes all the same.
    with plain_user() as user:
        made = user.folder / "new" / "state"
        said = user.run("-c", code, str(made), str(umask))[1]
        modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (made.parent, made)]
    assert said.splitlines() == ["journal.db journal.db-shm journal.db-wal", "0o600"]
    assert modes == [0o700, 0o700]


def test_a_journal_that_lies_open_is_closed(tmp_path: Path) -> None:
    """A copy that was put back with the usual modes becomes private again."""
    usable(tmp_path / "state")
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "state" / "journal.db").chmod(0o644)
    usable(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "journal.db").stat().st_mode) == 0o600


def test_a_folder_of_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    """LASTCALL_STATE_DIR=/etc must not lock everybody out of /etc."""
    (tmp_path / "other").write_text("")
    tmp_path.chmod(0o755)
    usable(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "journal.db").unlink()
    usable(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """LASTCALL_STATE_DIR=/tmp: anybody could put another journal there. /tmp stays as it is."""
    (tmp_path / "other").write_text("")
    tmp_path.chmod(0o1777)
    with pytest.raises(JournalError, match="others may write"):
        Store.open(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root does not write where a user could put a trap for it."""
    tmp_path.chmod(0o700)
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(JournalError, match=f"belongs to uid {NOBODY}"):
        Store.open(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_where_the_journal_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """LASTCALL_STATE_DIR before all; then root's own place; then XDG_STATE_HOME if absolute."""
    monkeypatch.setenv("LASTCALL_STATE_DIR", "/somewhere")
    assert place.state_dir() == "/somewhere"
    monkeypatch.delenv("LASTCALL_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert place.state_dir() == "/var/lib/lastcall"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ann/state")
    assert place.state_dir() == "/home/ann/state/lastcall"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert place.state_dir() == "/home/ann/.local/state/lastcall"


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user that no passwd knows: no folder called `~` appears where it stands."""
    for name in ("LASTCALL_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match="no home folder"):
        place.prepare(place.state_dir())
    assert os.listdir(tmp_path) == []


# -- format versions


def test_an_empty_file_becomes_the_present_version(tmp_path: Path) -> None:
    """Version 0 is a file without tables: all migrations run, and it is marked as ours."""
    (tmp_path / "journal.db").touch()
    assert usable(tmp_path) == 1
    assert pragma(tmp_path / "journal.db", "user_version") == schema.VERSION
    assert pragma(tmp_path / "journal.db", "application_id") == schema.APPLICATION_ID


def golden(folder: Path, version: int) -> None:
    """Put the journal of a version there, made from its dump."""
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        database.executescript((TESTDATA / f"version-{version}.sql").read_text())


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_a_journal_of_every_version_is_read_and_appended_to(tmp_path: Path, version: int) -> None:
    """The golden file is opened, read, appended to again, and read again, old part and new."""
    golden(tmp_path, version)
    with closing(Store.open(str(tmp_path))) as store:
        before = {row.stop: store.timeline(row.stop) for row in store.rows()}
    assert usable(tmp_path) == max(before) + 1
    with closing(Store.open_to_read(str(tmp_path))) as store:
        for stop, timeline in before.items():
            assert store.timeline(stop) == timeline
    assert pragma(tmp_path / "journal.db", "user_version") == schema.VERSION


def test_the_golden_journal_says_what_it_said(tmp_path: Path) -> None:
    """Version 1: an abrupt stop, a forced one, an orderly one, and one that was left open."""
    golden(tmp_path, 1)
    with closing(Store.open(str(tmp_path))) as store:
        rows = sorted(store.rows(), key=lambda row: row.stop)
        assert [row.ending for row in rows] == ["abrupt", "forced", "orderly", None]
        for row in rows:
            state = fold((at, event) for at, _, event in store.timeline(row.stop))
            assert (state.finished.ending.value if state.finished else None) == row.ending
        looks = [e for e in events(store, rows[1].stop) if isinstance(e, Looked)]
        assert looks[0].findings
        assert store.take_over(rows[3].stop, None, ME)
        assert write(store, rows[3].stop, Finished(Ending.UNKNOWN, Why.UNSEEN, "gone")) == [True]


@pytest.mark.parametrize("number", range(schema.VERSION))
def test_a_migration_that_is_cut_off_is_done_again(tmp_path: Path, number: int) -> None:
    """Nothing of it stays when it fails in the middle, and the next one completes it."""
    if number:
        golden(tmp_path, number)
    full = (
        "import resource, sys; from lastcall.journal.store import Store;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); Store.open(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", full, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "JournalError" in done.stderr
    assert pragma(tmp_path / "journal.db", "user_version") == number
    usable(tmp_path)


def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    """It is neither changed nor moved, not even the part of it that is still in its -wal."""
    usable(tmp_path)
    newer = (
        "import sqlite3, sys, os; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('PRAGMA user_version = 99'); d.execute('CREATE TABLE later (x)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", newer, str(tmp_path / "journal.db")], check=True)
    before = state_of(tmp_path)
    assert len(before) == 2
    for opening in (Store.open, Store.open_to_read):
        with pytest.raises(JournalNewer, match="format 99"):
            opening(str(tmp_path))
    assert state_of(tmp_path) == before


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A journal.db that is not ours is neither changed nor moved."""
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.execute("CREATE TABLE theirs (x)")
    before = state_of(tmp_path)
    with pytest.raises(JournalError, match="another program"):
        Store.open(str(tmp_path))
    assert state_of(tmp_path) == before


def test_what_was_cut_off_while_it_was_made_is_completed(tmp_path: Path) -> None:
    """A rollback journal beside it (from before WAL was on) is rolled back, not refused."""
    crash = (
        "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('PRAGMA cache_size = 1'); d.execute('BEGIN');"
        "d.execute('CREATE TABLE half (x)');"
        "d.executemany('INSERT INTO half VALUES (?)', [('x' * 3000,)] * 50); os._exit(0)"
    )
    (tmp_path / "journal.db").touch()
    subprocess.run([sys.executable, "-c", crash, str(tmp_path / "journal.db")], check=True)
    assert (tmp_path / "journal.db-journal").exists()
    assert (tmp_path / "journal.db").stat().st_size > 0
    assert usable(tmp_path) == 1


def test_many_at_once_make_one_journal(tmp_path: Path) -> None:
    """Twelve that begin at the same moment, over nothing or over a damaged file, all record."""
    code = (
        "import sys; from lastcall.journal.store import Store; from journals import whole_stop;"
        "print('ready', flush=True); sys.stdin.readline(); store = Store.open(sys.argv[1]);"
        "print(whole_stop(store, sys.argv[2])); print(store.set_aside or '-'); store.close()"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    for round_, before in enumerate((None, b"garbage" * 2000)):
        folder = tmp_path / str(round_)
        if before is not None:
            folder.mkdir()
            (folder / "journal.db").write_bytes(before)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(n)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=env,
            )
            for n in range(12)
        ]
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            for child in children:
                assert child.stdin is not None
                child.stdin.write("\n")
                child.stdin.flush()
            said = [child.communicate(timeout=60)[0].split() for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        assert sorted(int(number) for number, _ in said) == list(range(1, 13))
        asides = [aside for _, aside in said if aside != "-"]
        assert len(asides) == (before is not None)
        if before is not None:
            assert Path(asides[0]).read_bytes() == before
