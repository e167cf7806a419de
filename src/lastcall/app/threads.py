"""The threads of an application that its end waits for."""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

# How often a thread pool's thread is asked whether it is done: nothing tells us.
LOOK_S = 0.02


def of_the_program(
    last_words: Collection[threading.Thread], not_these: Collection[int | None]
) -> list[threading.Thread]:
    """The threads that would hold the interpreter's exit, and daemons that get a last word.

    Args:
        last_words: daemons that count.
        not_these: idents of threads that do not.
    """
    us = {threading.main_thread(), threading.current_thread()}
    return [
        thread
        for thread in threading.enumerate()
        if (not thread.daemon or thread in last_words)
        and thread not in us
        and thread.ident not in not_these
        # anyio's end with the loop, which may wait for us (an ASGI server's does).
        and not type(thread).__module__.startswith("anyio.")
        and not _rests(thread)
    ]


def _rests(thread: threading.Thread) -> bool:
    """Whether it is an executor's that has nothing to do: the interpreter itself ends those.

    Source: Lib/concurrent/futures/thread.py, _worker() and _python_exit(); process.py,
    _ExecutorManagerThread.pending_work_items.
    """
    pools = sys.modules.get("concurrent.futures.thread")
    pooled: Mapping[Any, Any] = getattr(pools, "_threads_queues", {})
    if thread in pooled:
        frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 (the only way to see it)
        code = None if frame is None else frame.f_code
        return code is None or code is getattr(getattr(pools, "_worker", None), "__code__", None)
    processes = sys.modules.get("concurrent.futures.process")
    if thread in getattr(processes, "_threads_wakeups", {}):
        return not getattr(thread, "pending_work_items", None)
    return False


def wait_a_little(thread: threading.Thread) -> None:
    """Wait until a thread has ended, or might have gone to rest."""
    pools = sys.modules.get("concurrent.futures")
    thread.join(1.0 if pools is None else LOOK_S)
