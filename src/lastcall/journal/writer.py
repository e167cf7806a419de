"""The journal's asyncio side: one thread owns the database and commits in groups.

Whatever is waiting when the thread gets to it goes into one synced transaction, so that a thousand
targets cost a handful of syncs, and no slow disk ever holds up the event loop. A disk that does not
answer at all (a dead NFS server) is given up after a while: the stop goes on unrecorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lastcall.errors import JournalError, LastcallError
from lastcall.journal.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Longer than SQLite waits for a lock (`file.BUSY_S`), and than a busy disk needs for a sync.
ANSWER_S = 10.0


@dataclass(slots=True)
class _Job(Generic[T]):
    """Work for the thread: an entry to append, or a function of the store."""

    done: asyncio.Future[T] | None
    entry: Entry | None = None
    work: Callable[[Store], T] | None = None


class Writer:
    """The journal as the runner uses it.

    Args:
        folder: the state folder.
        owner: who writes, as `boot_id/pid/start_ticks`.
        answer_s: how long to wait for the disk, in seconds.
    """

    def __init__(self, folder: str, owner: str, answer_s: float = ANSWER_S) -> None:
        self.owner = owner
        self._answer_s = answer_s
        self.failure: JournalError | None = None
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._shut = False
        self._thread = threading.Thread(target=self._serve, name="lastcall-journal", daemon=True)

    async def open(self) -> str | None:
        """Start; says where a damaged predecessor was put, None when there was none.

        Raises:
            JournalError: the journal cannot be used.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self.failure = JournalError(
                f"the journal needs a thread, and there is none to be had: {error}",
                "raise the limit on processes (ulimit -u, or the cgroup's pids.max)",
            )
            raise self.failure from None
        return await self.do(lambda store: store.set_aside)

    async def do(self, work: Callable[[Store], T]) -> T:
        """Run a function of the store in the journal's thread.

        Raises:
            JournalError: the journal cannot be used.
        """
        return await self._answer(_Job(self._loop.create_future(), work=work))

    async def commit(self, entry: Entry) -> None:
        """Write an event; returns when it is on disk, with all that was noted before it.

        Raises:
            LostOwnership: an intent that must not be acted on.
            JournalError: it could not be written.
        """
        await self._answer(_Job[None](self._loop.create_future(), entry=entry))

    def note(self, entry: Entry) -> None:
        """Write an event soon; a failure shows in `failure` and at the next `commit`."""
        self._jobs.put(_Job(None, entry=entry))

    async def close(self) -> None:
        """Write what is left and let go of the database; a thread that hangs is left behind."""
        if self._thread.is_alive() and not self._closed.done():
            self._jobs.put(None)
            await asyncio.wait((self._closed,), timeout=self._answer_s)
        self._shut = True

    async def _answer(self, job: _Job[T]) -> T:
        if self._shut or job.done is None:
            raise self.failure or JournalError("the journal is closed")
        self._jobs.put(job)
        try:
            async with asyncio.timeout(self._answer_s):
                return await job.done
        except TimeoutError:
            # It may be written yet, or not: from now on nothing is, so that no order is broken.
            self.failure = self.failure or JournalError(
                f"the journal in {self._folder} did not answer for {self._answer_s:g} s",
                "look at the disk or the file server that it is on",
            )
            raise self.failure from None

    def _serve(self) -> None:
        store: Store | None = None
        try:
            store = Store.open(self._folder)
        except Exception as error:  # noqa: BLE001 (whoever waits for this thread must get an answer)
            self.failure = _ours(error)
        stopping = False
        while not stopping:
            batch = [self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            stopping = None in batch
            self._carry_out(store, [job for job in batch if job is not None])
        if store is not None:
            store.close()
        self._tell([(self._closed, None)])

    def _carry_out(self, store: Store | None, batch: list[_Job[Any]]) -> None:
        results: list[tuple[asyncio.Future[Any], object]] = []
        entries = [job for job in batch if job.entry is not None]
        failures = self._append(store, entries)
        results += [(j.done, f) for j, f in zip(entries, failures, strict=True) if j.done]
        for job in batch:
            if job.work is not None and job.done is not None:
                results.append((job.done, self._work(store, job.work)))
        self._tell(results)

    def _tell(self, results: list[tuple[asyncio.Future[Any], object]]) -> None:
        # Nobody waits on a loop that is closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, results)

    def _append(self, store: Store | None, jobs: list[_Job[Any]]) -> list[LastcallError | None]:
        if not jobs:
            return []
        if store is not None and self.failure is None:
            try:
                return list(store.append([j.entry for j in jobs if j.entry], self.owner))
            except Exception as error:  # noqa: BLE001 (every waiter gets an answer)
                self.failure = _ours(error)
        return [self.failure] * len(jobs)

    def _work(self, store: Store | None, work: Callable[[Store], object]) -> object:
        if store is None:
            return self.failure
        try:
            return work(store)
        except Exception as error:  # noqa: BLE001 (raised again where it is awaited)
            return error


def _ours(error: Exception) -> JournalError:
    if isinstance(error, JournalError):
        return error
    return JournalError(f"the journal cannot be used: {error!r}")


def _settle(results: list[tuple[asyncio.Future[Any], object]]) -> None:
    for done, result in results:
        if done.done():  # Whoever waited was cancelled, or gave up.
            continue
        if isinstance(result, BaseException):
            done.set_exception(result)
        else:
            done.set_result(result)
