"""Who is stuck: real threads and tasks in real waits, and the words and names that come of it."""

# ruff: noqa: PLW0108 (the source of the lambda is what is read)

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from helpers import python, victim, wait_until
from lastcall.app import stuck

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from lastcall.app.stuck import Stuck

stuck.prepare()


@contextlib.contextmanager
def thread_in(
    target: Callable[[], object], end: Callable[[], object], name: str = "pump"
) -> Iterator[int]:
    """A thread in some wait, which `end` ends."""

    def run() -> None:
        with contextlib.suppress(OSError, sqlite3.OperationalError):
            target()

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        assert thread.ident is not None
        yield thread.ident
    finally:
        for _ in range(100):  # again, as SQLite forgets an interrupt that came too early
            with contextlib.suppress(OSError):
                end()
            thread.join(0.3)
            if not thread.is_alive():
                break
        assert not thread.is_alive()


def seen(ident: int, words: str) -> Stuck:
    """The report of a thread, as soon as it waits for what begins with these words."""
    last = [stuck.of_thread(ident)]

    def fits() -> bool:
        last[0] = stuck.of_thread(ident)
        return last[0].waiting_for.startswith(words)

    try:
        wait_until(fits, words, 10)
    except AssertionError:
        assert last[0].waiting_for == words
    return last[0]


@contextlib.contextmanager
def loop_with(
    make: Callable[[], Coroutine[Any, Any, object]], name: str = "job"
) -> Iterator[asyncio.Task[object]]:
    """A task in a loop that runs in a thread of its own, cancelled at the end."""
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[object]] = []
    started = threading.Event()

    async def main() -> None:
        tasks.append(loop.create_task(make(), name=name))
        started.set()
        await asyncio.wait(tasks)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, name="loop")
    thread.start()
    try:
        assert started.wait(30)
        yield tasks[0]
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(30)
        assert not thread.is_alive()


def seen_task(task: asyncio.Task[object], words: str) -> Stuck:
    """The report of a task, as soon as it waits for what begins with these words."""
    last = [stuck.of_task(task)]

    def fits() -> bool:
        last[0] = stuck.of_task(task)
        return last[0].waiting_for.startswith(words)

    try:
        wait_until(fits, words, 10)
    except AssertionError:
        assert last[0].waiting_for == words
    return last[0]


def report(kind: str) -> list[str]:
    """What the program of deadlocks says."""
    with victim(*python("app_stuck_deadlock.py", kind)) as child:
        lines: list[str] = []
        while (line := child.line()) != "end":
            assert line or child.child.poll() is None, lines
            lines.append(line)
        return lines


def test_a_deadlock_of_two_hooks_names_both_both_stacks_and_the_locks() -> None:
    """Two plain locks taken crosswise: the ring, and for each hook its line of source."""
    lines = report("locks")
    text = "\n".join(lines)
    first = "hook 'close_pool', for 5.0 s, waits for lock `pool.cache_lock` held by thread"
    assert lines[0].startswith(f"{first} 'flush_cache' (taken at app_stuck_deadlock.py:")
    assert "in close_pool: with pool.cache_lock:" in text
    assert "in flush_cache: pool.pool_lock.acquire()" in text
    (ring,) = [line for line in lines if line.startswith("ring:")]
    assert "hook 'close_pool' waits for lock `pool.cache_lock` held by hook 'flush_cache'" in ring
    assert "hook 'flush_cache' waits for lock `pool.pool_lock` held by hook 'close_pool'" in ring
    assert "in flush_cache)" in ring


def test_a_reentrant_lock_tells_its_owner() -> None:
    """An RLock is held by whom its repr says, and where the `with` began."""
    (ring,) = [line for line in report("reentrant") if line.startswith("ring:")]
    assert "lock `pool.again` held by hook 'close_pool_again' (taken at app_stuck" in ring


def test_a_lock_taken_twice_is_held_by_the_waiter_itself() -> None:
    """`with lock, lock:` waits for its own first item."""
    (ring,) = [line for line in report("twice") if line.startswith("ring:")]
    assert "hook 'twice' waits for lock `pool.pool_lock` held by itself (taken at" in ring


def test_a_lock_acquired_by_hand_is_probably_held() -> None:
    """An acquire above the current line without its release is a guess, and called so."""
    (ring,) = [line for line in report("by_hand") if line.startswith("ring:")]
    assert "`pool.pool_lock` probably held by hook 'by_hand' (taken at app_stuck" in ring


def test_a_deadlock_of_two_tasks() -> None:
    """Two asyncio locks taken crosswise, one by `async with`, one by `acquire`."""
    lines = report("tasks")
    (ring,) = [line for line in lines if line.startswith("ring:")]
    assert "task 'one' waits for asyncio lock `second` held by task 'other' (taken at" in ring
    assert "task 'other' waits for asyncio lock `first` held by task 'one' (taken at" in ring
    assert any("in one: async with second:" in line for line in lines)


def test_a_deadlock_across_a_task_and_a_thread() -> None:
    """A task holds a thread's lock while it awaits that very thread."""
    (ring,) = [line for line in report("across") if line.startswith("ring:")]
    assert "task 'holds' waits for a future of a pool, in work on thread 'asyncio_" in ring
    assert "waits for lock `pool.pool_lock` held by task 'holds' (taken at" in ring


def test_a_coroutine_that_blocks_on_its_own_loop() -> None:
    """A blocking wait for a coroutine that only the waiting thread could begin."""
    text = "\n".join(report("own_loop"))
    assert "Future.result, not yet begun by the loop of thread 'MainThread'" in text
    assert "ring: " in text


def test_waits_of_the_standard_library_by_their_own_names() -> None:
    """Event, queue, condition, semaphore and join are named, with the caller's word for them."""
    ready, box = threading.Event(), queue.Queue[int]()
    changed, seats = threading.Condition(), threading.Semaphore(0)

    def wait_changed() -> None:
        with changed:
            changed.wait()

    def notify() -> None:
        with changed:
            changed.notify_all()

    with thread_in(lambda: ready.wait(), ready.set) as ident:
        assert seen(ident, "Event.wait").waiting_for == "Event.wait on `ready`"
        with thread_in(lambda: join(ident), ready.set, "waiter") as other:
            one = seen(other, "join")
            assert one.waiting_for == "join of thread 'pump'"
            assert one.holders == ("thread 'pump'",)
    with thread_in(lambda: box.get(), lambda: box.put(1)) as ident:
        assert seen(ident, "queue.Queue").waiting_for == "queue.Queue.get on `box`"
    with thread_in(wait_changed, notify) as ident:
        assert seen(ident, "Condition").waiting_for == "Condition.wait on `changed`"
    with thread_in(lambda: seats.acquire(), seats.release) as ident:
        assert seen(ident, "semaphore").waiting_for == "semaphore `seats`, holder unknown"


def join(ident: int) -> None:
    """Join a thread by its ident."""
    next(thread for thread in threading.enumerate() if thread.ident == ident).join()


def test_who_waits_in_a_condition_does_not_hold_its_lock() -> None:
    """`Condition.wait` gives the plain lock back: another holder is the right one."""
    lock = threading.Lock()
    changed = threading.Condition(lock)
    inside, leave = threading.Event(), threading.Event()

    def waits() -> None:
        with changed:
            changed.wait()

    def holds() -> None:
        with lock:
            inside.set()
            leave.wait()
            changed.notify_all()

    def wants() -> None:
        with changed:
            pass

    with thread_in(waits, leave.set, "waits") as first:
        seen(first, "Condition.wait")
        with thread_in(holds, leave.set, "holds"):
            assert inside.wait(30)
            with thread_in(wants, leave.set, "wants") as ident:
                one = seen(ident, "condition")
                assert one.holders == ("thread 'holds'",)
                assert one.waiting_for.startswith("condition `changed` held by thread 'holds' (")


def test_calls_into_c_are_told_from_the_source() -> None:
    """A sleep shows its seconds; a query that runs without the GIL its method, not its text."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    endless = (
        "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM t) SELECT x FROM t WHERE x<0"
    )
    with thread_in(lambda: time.sleep(1.5), lambda: None) as ident:
        assert seen(ident, "time.sleep").waiting_for == "time.sleep(1.5)"
    with thread_in(lambda: database.execute(endless).fetchall(), database.interrupt) as ident:
        assert seen(ident, "sqlite3").waiting_for == "sqlite3.Connection.execute(...)"
    database.close()


def test_sockets_tell_their_peer() -> None:
    """A recv names the peer, directly and through a file; an accept its own address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with socket.create_connection((host, port)) as client, listener.accept()[0] as server:
            where = f"from {host}:{port}"
            with thread_in(lambda: client.recv(1), lambda: server.send(b"x")) as ident:
                assert seen(ident, "socket").waiting_for == f"socket recv {where}"
            with (
                client.makefile("rb") as file,
                thread_in(lambda: file.readline(), lambda: server.send(b"\n")) as ident,
            ):
                assert seen(ident, "socket").waiting_for == f"socket recv {where}"

        def knock() -> None:
            socket.create_connection((host, port)).close()

        with thread_in(lambda: listener.accept()[0].close(), knock) as ident:
            assert seen(ident, "socket").waiting_for == f"socket accept on {host}:{port}"


def test_a_subprocess_and_a_pool() -> None:
    """A wait for a child names its pid, one for a pool's future the thread that works on it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        with thread_in(lambda: child.wait(), lambda: child.send_signal(signal.SIGKILL)) as ident:
            assert seen(ident, "subprocess").waiting_for == f"subprocess pid {child.pid}"
    finally:
        child.kill()
        child.wait()
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1, "workers") as pool:
        work = pool.submit(done.wait)
        with thread_in(lambda: work.result(), done.set) as ident:
            one = seen(ident, "Future.result on `work`, in work")
            assert one.holders == ("thread 'workers_0'",)


async def event() -> None:
    """Waits for an event within a time."""
    ready = asyncio.Event()
    await asyncio.wait_for(ready.wait(), 100)


async def box() -> None:
    """Waits for an item."""
    orders: asyncio.Queue[int] = asyncio.Queue()
    await orders.get()


async def reader() -> None:
    """Waits for a line."""
    one, other = socket.socketpair()
    with other:
        lines, writer = await asyncio.open_connection(sock=one)
        try:
            await lines.readline()
        finally:
            writer.close()


async def other_task() -> None:
    """Waits for a task."""
    await asyncio.create_task(asyncio.sleep(100), name="other")


async def gather() -> None:
    """Waits for several."""
    await asyncio.gather(asyncio.create_task(asyncio.sleep(100), name="other"))


async def group() -> None:
    """Waits for its group."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(100), name="other")


async def bare() -> None:
    """Waits for a future of nobody."""
    answer = asyncio.get_running_loop().create_future()
    await answer


async def ticks() -> Any:
    """A slow stream."""
    await asyncio.sleep(100)
    yield 1


async def stream() -> None:
    """Waits in a stream."""
    async for _ in ticks():
        pass


def test_waits_of_asyncio_by_their_own_names() -> None:
    """Event, queue, sleep, reader, task, gather and group, also behind `wait_for`."""
    for make, words in (
        (event, "asyncio.Event.wait"),
        (box, "asyncio.Queue.get on `orders`"),
        (reader, "StreamReader.readline on `lines`"),
        (other_task, "task 'other'"),
        (gather, "gather of task 'other'"),
        (group, "task group of task 'other'"),
        (bare, "a future, in `await answer`"),
        (stream, "asyncio.sleep(100)"),
    ):
        with loop_with(make) as task:
            one = seen_task(task, words)
            assert one.what == "task 'job'"
            assert any(f"in {make.__name__}: " in line for line in one.stack), one.stack


def test_a_blocked_loop_is_named_by_those_who_wait_in_it() -> None:
    """A task that blocks its loop stands in its thread's call; the others name it."""
    go = threading.Event()

    async def blocks() -> None:
        sleeper = asyncio.create_task(asyncio.sleep(100), name="sleeper")
        found.append(sleeper)
        await asyncio.sleep(0)
        go.wait()
        sleeper.cancel()

    found: list[asyncio.Task[None]] = []
    with loop_with(blocks) as task:
        try:
            one = seen_task(task, "Event.wait")
            assert one.waiting_for == "Event.wait on `go`"
            assert "in blocks: go.wait()" in "\n".join(one.stack)
            other = stuck.of_task(found[0], name="hook 'commit'")
            assert other.what == "hook 'commit'"
            assert other.waiting_for == (
                "asyncio.sleep(100); its loop is held up by thread 'loop', "
                "which waits for Event.wait on `go`"
            )
        finally:
            go.set()


def test_code_without_source_gives_less_words_and_no_error() -> None:
    """What was made by exec has no lines to read: the known waits stay, names do not."""
    lock, ready = threading.Lock(), threading.Event()
    space: dict[str, Any] = {"lock": lock, "ready": ready}
    exec("def f():\n with lock: pass\ndef g():\n ready.wait()", space)  # noqa: S102 (the point)
    lock.acquire()
    with thread_in(space["f"], lock.release) as ident:
        wait_until(lambda: any(" in f" in line for line in stuck.of_thread(ident).stack), "in f")
        assert stuck.of_thread(ident).waiting_for == ""
        assert stuck.of_thread(ident).stack[-1] == "<string>:2 in f"
    with thread_in(space["g"], ready.set) as ident:
        assert seen(ident, "Event.wait").waiting_for == "Event.wait"


def test_no_code_of_the_program_is_run() -> None:
    """A property in the expression is not evaluated: the call is shown as it is written."""
    asked: list[str] = []
    lock = threading.Lock()

    class Odd:
        @property
        def lock(self) -> threading.Lock:
            asked.append(threading.current_thread().name)
            return lock

        def __getattr__(self, name: str) -> object:
            asked.append(f"{name} {threading.current_thread().name}")
            raise AttributeError(name)

    odd = Odd()
    lock.acquire()
    with thread_in(lambda: odd.lock.acquire(), lock.release) as ident:
        one = seen(ident, "the call")
        assert one.waiting_for == "the call `odd.lock.acquire()`"
    assert asked == ["pump"]


def test_it_does_not_wait_for_locks_that_a_stuck_thread_holds() -> None:
    """With the locks of logging, threading and the import system held, it answers all the same."""
    import importlib._bootstrap as bootstrap
    import logging

    held = [logging._lock, threading._active_limbo_lock]  # type: ignore[attr-defined]
    answers: list[Stuck] = []
    ready = threading.Event()
    with thread_in(lambda: ready.wait(), ready.set) as ident:
        seen(ident, "Event.wait")
        go, answered = threading.Event(), threading.Event()

        def ask() -> None:
            go.wait()
            answers.append(stuck.of_thread(ident))
            answered.set()

        look = threading.Thread(target=ask)
        look.start()
        module = bootstrap._ModuleLock("linecache")  # type: ignore[attr-defined]
        with contextlib.ExitStack() as locks:
            for lock in held:
                locks.enter_context(lock)
            module.acquire()
            try:
                go.set()
                assert answered.wait(30)
            finally:
                module.release()
        look.join(30)
    assert answers[0].waiting_for == "Event.wait on `ready`"


def test_one_that_has_ended_and_one_that_runs() -> None:
    """An unknown ident has ended; a thread in Python code waits for nothing."""
    assert stuck.of_thread(1).waiting_for == "nothing: it has ended"
    stop: list[int] = []

    def busy() -> None:
        while not stop:
            pass

    with thread_in(busy, lambda: stop.append(1)) as ident:
        wait_until(lambda: "in busy" in "".join(stuck.of_thread(ident).stack), "busy")
        assert stuck.of_thread(ident).waiting_for == ""


def test_no_deadlock_where_somebody_can_go_on() -> None:
    """A lock that a working thread holds is a wait, not a deadlock."""
    lock, ready, inside = threading.Lock(), threading.Event(), threading.Event()

    def holds() -> None:
        with lock:
            inside.set()
            ready.wait()

    def wants() -> None:
        with lock:
            pass

    with thread_in(holds, ready.set, "holds") as first:
        assert inside.wait(30)
        with thread_in(wants, ready.set, "wants") as second:
            one = seen(second, "lock `lock` held by thread 'holds'")
            assert stuck.deadlocks([one, stuck.of_thread(first)]) == ()
            assert one.as_data()["holders"] == ["thread 'holds'"]


def test_a_report_keeps_nothing_of_the_program_alive() -> None:
    """Frames and their variables are let go with the report, without the garbage collector."""

    class Thing:
        pass

    lock, inside = threading.Lock(), threading.Event()
    gone: list[weakref.ref[Thing]] = []

    def wants() -> None:
        thing = Thing()
        gone.append(weakref.ref(thing))
        inside.set()
        with lock:
            pass

    def holds() -> str:
        with lock, thread_in(wants, inside.wait, "wants") as ident:
            words = seen(ident, "lock").waiting_for
            lock.release()
            try:
                return words
            finally:
                wait_until(lambda: ident not in sys._current_frames(), "the end of the thread")
                lock.acquire()

    gc.disable()
    try:
        assert holds().startswith("lock `lock` held by thread 'MainThread' (taken at test_stuck")
        assert gone[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("depth", [50, 900])
def test_a_deep_stack_is_cut(depth: int) -> None:
    """Twelve frames, the innermost last."""
    ready = threading.Event()

    def dig(left: int) -> None:
        if left:
            dig(left - 1)
        else:
            ready.wait()

    with thread_in(lambda: dig(depth), ready.set) as ident:
        one = seen(ident, "Event.wait on `ready`")
        assert len(one.stack) == 12
        assert "waiter.acquire()" in one.stack[-1]
