"""Running hooks: sync ones on threads made beforehand, async ones on their own loop."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from contextlib import suppress

from lastcall.app.hooks import Outcome
from lastcall.app.voice import complain
from lastcall.app.work import _inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from lastcall.app.hooks import HookRun

    Done = Callable[[HookRun, Outcome, str], None]

# Threads that exist before the stop: a system that is out of threads can still end in order.
_BEFOREHAND = 2


class Crew:
    """The threads that run hooks. They are daemons: a hook that hangs must not hold the exit."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None] | None] = deque()
        self._ready = threading.Semaphore(0)
        self._idle = self._made = 0
        self._lock = threading.Lock()
        self.idents: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Make the first threads."""
        for _ in range(_BEFOREHAND):
            self._add()

    def dismiss(self) -> None:
        """Let the threads go once they are done; also one that has not come to its first step."""
        with self._lock:
            made, self._made = self._made, 0
        for _ in range(made):
            self._put(None)
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed: they were let go before
                self._loop.call_soon_threadsafe(self._loop.stop)

    def do(self, job: Callable[[], None]) -> None:
        """Run something on a thread, on a new one if all are busy."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
                enough = True
            else:
                enough = False
        if not enough:
            # No more threads here: it waits for one of those that are busy.
            with suppress(RuntimeError):
                self._add(idle=False)
        self._put(job)

    def _put(self, job: Callable[[], None] | None) -> None:
        self._jobs.append(job)
        self._ready.release()

    def _add(self, *, idle: bool = True) -> None:
        threading.Thread(target=self._work, name="lastcall-hooks", daemon=True).start()
        with self._lock:
            self._made += 1
            self._idle += idle

    def _work(self) -> None:
        ident = threading.get_ident()
        self.idents.add(ident)
        while True:
            self._ready.acquire()
            job = self._jobs.popleft()
            if job is None:
                break
            try:
                job()
            except BaseException:  # noqa: BLE001 (the thread is needed for the others)
                complain("a fault in lastcall itself")
            with self._lock:
                self._idle += 1
        self.idents.discard(ident)

    def start_hook(self, run: HookRun, done: Done, loop: asyncio.AbstractEventLoop | None) -> None:
        """Begin a hook; `done` is told what came of it, in another thread.

        Args:
            run: the hook.
            done: takes the run, the outcome and a detail.
            loop: the application's loop, for async hooks without one of their own.
        """
        self.do(lambda: self._call(run, done, loop))

    def _call(self, run: HookRun, done: Done, loop: asyncio.AbstractEventLoop | None) -> None:
        run.thread, us = threading.get_ident(), os.getpid()
        _inside.set(True)  # what a hook does belongs to the ending: the gate lets it through
        try:
            given: Any = run.hook.function(*([run] if takes_run(run.hook.function) else []))
            if hasattr(given, "__await__"):
                run.thread = None
                self._await(run, given, done, run.hook.loop or loop)
                return
        except BaseException as error:  # noqa: BLE001 (SystemExit too: a hook ends nothing but itself)
            if os.getpid() != us:
                _end_child(error)
            done(run, Outcome.FAILED, told(error))
        else:
            if os.getpid() != us:
                _end_child()
            done(run, Outcome.DONE, "")
        finally:
            _inside.set(False)

    def _await(
        self,
        run: HookRun,
        given: Coroutine[Any, Any, object],
        done: Done,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        if loop is not None and (loop.is_closed() or not loop.is_running()):
            if run.hook.loop is not None:
                state = "closed" if loop.is_closed() else "not running any more"
                if hasattr(given, "close"):
                    given.close()
                done(run, Outcome.LOOP_GONE, f"its event loop is {state}")
                return
            loop = None
        loop = loop or self._own_loop()

        async def whole() -> None:
            import asyncio

            run.task = asyncio.current_task()
            _inside.set(True)
            if run.cancelled.is_set():
                given.close()
                return
            try:
                await given
            except asyncio.CancelledError:
                done(run, Outcome.CUT, "cancelled")
            except BaseException as error:  # noqa: BLE001 (as above)
                done(run, Outcome.FAILED, told(error))
            else:
                done(run, Outcome.DONE, "")

        loop.call_soon_threadsafe(lambda: _spawn(whole(), loop))

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """A loop for async hooks of an application that has none."""
        import asyncio

        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                started = threading.Event()

                def turn() -> None:
                    self.idents.add(threading.get_ident())
                    loop.call_soon(started.set)
                    loop.run_forever()
                    loop.close()

                threading.Thread(target=turn, name="lastcall-loop", daemon=True).start()
                started.wait(1.0)
        return self._loop


def _end_child(error: BaseException | None = None) -> None:
    """A hook has forked, and its child comes back from it: the shutdown is the parent's.

    Such a child has this one thread, and nothing that would ever end it.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


_tasks: set[asyncio.Task[None]] = set()


def _spawn(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    task = loop.create_task(coroutine)
    _tasks.add(task)  # the loop itself keeps only a weak reference
    task.add_done_callback(_tasks.discard)


def takes_run(function: Callable[..., object]) -> bool:
    """Whether a hook wants its `HookRun`: it has one required positional argument."""
    return len(arguments(function)) == 1


def arguments(function: Callable[..., object]) -> tuple[str, ...]:
    """The positional arguments that a function does not go without; () if nobody can tell."""
    import functools

    given = 0
    while isinstance(function, functools.partial):
        given += len(function.args)
        if function.keywords:
            return ()
        function = function.func
    bound = getattr(function, "__self__", None) is not None
    plain = getattr(function, "__func__", function)
    if not hasattr(plain, "__code__"):  # an object that can be called, or C code
        plain = type(function).__call__
        bound = True
    code = getattr(plain, "__code__", None)
    if code is None:
        return ()
    required = code.co_argcount - len(getattr(plain, "__defaults__", None) or ())
    names: tuple[str, ...] = code.co_varnames[bound + given : required]
    return names


def told(error: BaseException) -> str:
    """An exception in a line, with the place it came from."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"
        trace = trace.tb_next
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}){place}: a hook ends nothing but itself"
    try:
        words = f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 (its own `__str__`, which must not hold the stop)
        words = f"{type(error).__name__} (it cannot be told)"
    return words[:500] + place
