"""The journal's asyncio side: order, groups, failures, and a disk that does not answer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from journals import FINISHED, ME, OTHER, STARTED, begin, claim, events, usable
from lastcall.errors import JournalError
from lastcall.journal.store import Entry, LostOwnership, Store
from lastcall.journal.writer import Writer
from lastcall.model import Intended, Progressed, Reached, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from lastcall.model import Event

GATE_S = 30.0


@asynccontextmanager
async def _writer(folder: Path, answer_s: float = 10.0) -> AsyncIterator[Writer]:
    writer = Writer(str(folder), ME, answer_s)
    await writer.open()
    try:
        yield writer
    finally:
        await writer.close()
        assert not writer._thread.is_alive() or answer_s < GATE_S


def test_no_thread_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on processes leaves none for the journal: it cannot be used, and says so."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def opened() -> None:
        writer = Writer(str(tmp_path), ME)
        with pytest.raises(JournalError, match="thread"):
            await writer.open()
        await writer.close()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    asyncio.run(opened())


async def _begin(writer: Writer, key: str = "a") -> int:
    return (await writer.do(lambda store: begin(store, key))).stop


def _entry(stop: int, event: Event) -> Entry:
    return Entry(stop, 11.0, 1001.0, event)


def _read(folder: Path, stop: int) -> list[Event]:
    with closing(Store.open_to_read(str(folder))) as store:
        return events(store, stop)


class _Gate:
    """Holds the journal's thread inside `Store.append` until it is opened, and counts groups."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.groups: list[int] = []


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Gate]:
    """Every append waits at this gate."""
    made, append = _Gate(), Store.append

    def gated(store: Store, entries: Sequence[Entry], owner: str) -> Any:
        made.groups.append(len(entries))
        made.entered.set()
        assert made.opened.wait(GATE_S)
        return append(store, entries, owner)

    monkeypatch.setattr(Store, "append", gated)
    yield made
    made.opened.set()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Another program holds the journal's write lock."""
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def _soon(check: Callable[[], bool]) -> Any:
    async def wait() -> None:
        async with asyncio.timeout(GATE_S):
            while not check():  # noqa: ASYNC110 (a thread sets it, which no event of asyncio hears)
                await asyncio.sleep(0)

    return wait()


def test_order_is_kept_over_notes_and_commits(tmp_path: Path) -> None:
    """Events stand in the journal in the order in which they were given."""
    wanted = [Progressed(float(n), "more") for n in range(200)]

    async def run() -> int:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            for n, event in enumerate(wanted):
                if n % 7:
                    writer.note(_entry(stop, event))
                else:
                    await writer.commit(_entry(stop, event))
            return stop

    assert _read(tmp_path, asyncio.run(run())) == [STARTED, *wanted]


def test_a_commit_returns_when_it_is_on_disk_with_all_before_it(tmp_path: Path) -> None:
    """Another process reads the event, and the notes before it, at once."""

    async def run() -> None:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            writer.note(_entry(stop, Reached(Stage.ASKED)))
            await writer.commit(_entry(stop, Intended(0, 1)))
            assert _read(tmp_path, stop) == [STARTED, Reached(Stage.ASKED), Intended(0, 1)]

    asyncio.run(run())


def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    """Notes that nobody waits for are on disk after `close`."""
    wanted = [Progressed(float(n), "more") for n in range(500)]

    async def run() -> int:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            for event in wanted:
                writer.note(_entry(stop, event))
            return stop

    assert _read(tmp_path, asyncio.run(run())) == [STARTED, *wanted]


def test_whoever_waits_together_is_written_together(tmp_path: Path, gate: _Gate) -> None:
    """A hundred commits that come while the disk is busy cost one more transaction."""

    async def run() -> None:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            first = asyncio.ensure_future(writer.commit(_entry(stop, Intended(0, 0))))
            await _soon(gate.entered.is_set)
            commits = [
                asyncio.ensure_future(writer.commit(_entry(stop, Intended(0, n))))
                for n in range(1, 101)
            ]
            await _soon(lambda: writer._jobs.qsize() == 100)
            gate.opened.set()
            await asyncio.gather(first, *commits)

    asyncio.run(run())
    assert gate.groups == [1, 100]


def test_a_slow_disk_does_not_hold_up_the_loop(tmp_path: Path, gate: _Gate) -> None:
    """While the thread is stuck in a write, the loop goes on."""

    async def run() -> None:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            commit = asyncio.ensure_future(writer.commit(_entry(stop, FINISHED)))
            await _soon(gate.entered.is_set)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not commit.done()
            gate.opened.set()
            await commit

    asyncio.run(run())


def test_a_locked_database_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """The same with a real lock; when SQLite gives up, the error says who is in the way."""
    usable(tmp_path)

    async def run() -> None:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            with _locked(tmp_path):
                commit = asyncio.ensure_future(writer.commit(_entry(stop, FINISHED)))
                for _ in range(1000):
                    await asyncio.sleep(0)
                assert not commit.done()
                with pytest.raises(JournalError, match="locked") as caught:
                    await commit
            assert "another program" in caught.value.advice
            assert writer.failure is caught.value

    asyncio.run(run())


def test_a_disk_that_does_not_answer_is_given_up(tmp_path: Path, gate: _Gate) -> None:
    """Commit, do and close each return; what comes after is refused at once."""

    async def run() -> None:
        async with _writer(tmp_path, answer_s=0.2) as writer:
            stop = await _begin(writer)
            with pytest.raises(JournalError, match="did not answer"):
                await writer.commit(_entry(stop, FINISHED))
            assert writer.failure is not None
            with pytest.raises(JournalError):
                await writer.do(lambda store: store.rows())
        with pytest.raises(JournalError):
            await writer.do(lambda store: store.rows())

    asyncio.run(run())
    gate.opened.set()


def test_what_is_given_up_is_not_followed_by_later_events(tmp_path: Path, gate: _Gate) -> None:
    """The disk comes back: the late write may stand there, but nothing after the gap."""

    async def run() -> int:
        async with _writer(tmp_path, answer_s=0.3) as writer:
            stop = await _begin(writer)
            with pytest.raises(JournalError):
                await writer.commit(_entry(stop, Intended(0, 1)))
            writer.note(_entry(stop, Reached(Stage.ASKED)))
            gate.opened.set()
            with pytest.raises(JournalError):
                await writer.commit(_entry(stop, FINISHED))
            return stop

    stop = asyncio.run(run())
    assert _read(tmp_path, stop) in ([STARTED], [STARTED, Intended(0, 1)])


def test_a_failure_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one failed write nothing more is written: a record with a hole would mislead."""
    append, broken = Store.append, [JournalError("the disk is full")]

    def failing(store: Store, entries: Sequence[Entry], owner: str) -> Any:
        if broken:
            raise broken.pop()
        return append(store, entries, owner)

    monkeypatch.setattr(Store, "append", failing)

    async def run() -> int:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            writer.note(_entry(stop, Reached(Stage.ASKED)))
            for event in (Intended(0, 1), FINISHED):
                with pytest.raises(JournalError, match="full"):
                    await writer.commit(_entry(stop, event))
            assert writer.failure is not None
            return stop

    assert _read(tmp_path, asyncio.run(run())) == [STARTED]


def test_a_lost_stop_is_no_failure_of_the_journal(tmp_path: Path) -> None:
    """One stop was taken over: its commit says so, and the other stops are recorded further on."""

    async def run() -> tuple[int, int]:
        async with _writer(tmp_path) as writer:
            lost, mine = await _begin(writer), await _begin(writer, "b")
            assert await writer.do(lambda store: store.take_over(lost, ME, OTHER))
            answers = await asyncio.gather(
                writer.commit(_entry(lost, Intended(0, 1))),
                writer.commit(_entry(mine, Intended(0, 1))),
                return_exceptions=True,
            )
            assert [type(a) for a in answers] == [LostOwnership, type(None)]
            assert writer.failure is None
            return lost, mine

    lost, mine = asyncio.run(run())
    assert (_read(tmp_path, lost), _read(tmp_path, mine)) == ([STARTED], [STARTED, Intended(0, 1)])


@pytest.mark.parametrize("error", [TypeError("a bug"), KeyError("kind"), MemoryError()])
def test_every_waiter_gets_an_answer_when_the_thread_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Even an error that nobody thought of reaches all who wait, and those who come later."""

    def breaking(*_: object) -> Any:
        raise error

    monkeypatch.setattr(Store, "append", breaking)

    async def run() -> None:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            answers = await asyncio.gather(
                *(writer.commit(_entry(stop, Intended(0, n))) for n in range(20)),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {JournalError}
            with pytest.raises(JournalError):
                await writer.commit(_entry(stop, FINISHED))
            with pytest.raises(ZeroDivisionError):
                await writer.do(lambda _: 1 / 0)

    asyncio.run(run())


@pytest.mark.parametrize("error", [JournalError("no"), TypeError("a bug")])
def test_a_journal_that_cannot_be_opened_answers_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Opening fails, and so does all that is asked for afterwards; nothing waits."""

    def breaking(_: str) -> Store:
        raise error

    monkeypatch.setattr(Store, "open", breaking)

    async def run() -> None:
        writer = Writer(str(tmp_path), ME)
        with pytest.raises(JournalError):
            await writer.open()
        writer.note(_entry(1, FINISHED))
        with pytest.raises(JournalError):
            await writer.commit(_entry(1, FINISHED))
        with pytest.raises(JournalError):
            await writer.do(lambda store: store.claim([claim()], ME, 1.0, 2.0))
        await writer.close()
        await writer.close()

    asyncio.run(run())


def test_whoever_stops_waiting_disturbs_nobody(tmp_path: Path, gate: _Gate) -> None:
    """A cancelled commit is written all the same, and its neighbours get their answers."""

    async def run() -> int:
        async with _writer(tmp_path) as writer:
            stop = await _begin(writer)
            first = asyncio.ensure_future(writer.commit(_entry(stop, Intended(0, 1))))
            await _soon(gate.entered.is_set)
            second = asyncio.ensure_future(writer.commit(_entry(stop, Intended(0, 2))))
            await _soon(lambda: writer._jobs.qsize() == 1)
            first.cancel()
            second.cancel()
            third = asyncio.ensure_future(writer.commit(_entry(stop, Intended(0, 3))))
            gate.opened.set()
            await third
            return stop

    wanted = [Intended(0, n) for n in (1, 2, 3)]
    assert _read(tmp_path, asyncio.run(run())) == [STARTED, *wanted]
