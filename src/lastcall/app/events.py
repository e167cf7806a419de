"""Something that happens once, for whom it may concern: threads, tasks and callbacks."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, MutableSet
    from typing import Any


class Happening:
    """Happens once. Threads `wait` for it, tasks `await` it, callbacks are called.

    Args:
        name: for people.
    """

    __slots__ = ("_callbacks", "_event", "_heeding", "_lock", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._heeding: MutableSet[asyncio.Task[Any]] | None = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    __bool__ = is_set

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait in a thread. Under asyncio, await it instead.

        Args:
            timeout_s: for how long, in seconds; None: until it happens.

        Returns:
            Whether it has happened.
        """
        return self._event.wait(timeout_s)

    def __await__(self) -> Generator[object, None, None]:
        return self.wait_async().__await__()

    async def wait_async(self) -> None:
        """Wait in a task."""
        import asyncio

        self.heed()
        loop = asyncio.get_running_loop()
        happened = loop.create_future()
        remove = self.add_callback(lambda: _wake(loop, happened))
        try:
            await happened
        finally:
            remove()

    def heed(self) -> None:
        """Note that the task we are in waits for this, and will act on it by itself."""
        import asyncio
        from weakref import WeakSet

        task = asyncio.current_task()
        if task is not None:
            if self._heeding is None:
                self._heeding = WeakSet()
            self._heeding.add(task)

    def is_heeded_by(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task has waited for this."""
        return self._heeding is not None and task in self._heeding

    def add_callback(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have something called when it happens; at once if it has. It must not block.

        Args:
            callback: called in whatever thread makes it happen; what it raises is dropped.

        Returns:
            What takes it back.
        """
        key = object()
        with self._lock:
            happened = self._event.is_set()
            if not happened:
                self._callbacks[key] = callback
        if happened:
            _call(callback)
        return lambda: self._callbacks.pop(key, None) and None

    def set(self) -> None:
        """Let it happen."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            _call(callback)

    def renew(self) -> None:
        """After a fork, in the child: it has not happened there, and nobody waits for it."""
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks = {}

    def clear(self) -> None:
        """Take it back: somebody objected."""
        self._event.clear()


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001 (one listener's fault, or sys.exit, is not the others')
        from lastcall.app.voice import complain

        complain(f"a callback failed: {callback!r}")


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def settle() -> None:
        if not future.done():
            future.set_result(None)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more
