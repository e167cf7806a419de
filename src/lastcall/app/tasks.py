"""The end of tasks that the application was given: cancelled, or left to end by themselves."""

from __future__ import annotations

import threading
from time import monotonic

from lastcall.app.hooks import CANCEL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection
    from typing import Any

    from lastcall.app.events import Happening
    from lastcall.app.hooks import HookRun

    Tasks = Collection[asyncio.Task[Any]]


def end_tasks(tasks: Tasks, draining: Happening, run: HookRun) -> list[str]:
    """Wait until all have ended.

    They are cancelled first, but for those that have waited for `draining`: they end by themselves,
    and are cancelled at the limit.

    Args:
        tasks: those to end, of any loops.
        draining: what tells them.
        run: the hook that does this, with the limit.

    Returns:
        The names of those that had not ended at the limit.
    """
    heeding = [task for task in tasks if draining.is_heeded_by(task)]
    over = [_over(task, cancel=task not in heeding) for task in tasks]
    run.on_cancel.extend(each.set for each in over)
    for each in over:
        if run.cancelled.is_set():
            break
        each.wait()
    late = [task for task in tasks if not task.done()] if run.cancelled.is_set() else []
    until_s = monotonic() + CANCEL_S
    for each in [_over(task, cancel=True) for task in late if task in heeding]:
        each.wait(max(0.0, until_s - monotonic()))
    return [task.get_name() for task in late]


def _over(task: asyncio.Task[Any], *, cancel: bool) -> threading.Event:
    """What happens when a task is over; it is cancelled, if wanted, in its own loop."""
    over = threading.Event()

    def inside() -> None:
        task.add_done_callback(lambda _: over.set())
        if cancel:
            task.cancel()

    try:
        task.get_loop().call_soon_threadsafe(inside)
    except RuntimeError:  # its loop is closed, and the task with it
        over.set()
    return over
