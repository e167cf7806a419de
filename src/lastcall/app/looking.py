"""What the hooks that are running sit in, and the threads that are waited for."""

from __future__ import annotations

import threading

from lastcall.app.hooks import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.app.hooks import HookRun
    from lastcall.app.house import House
    from lastcall.app.stuck import Stuck

# What the house itself calls two of its own hooks.
MAIN_CODE, USER_THREADS = "the main code", "user threads"


def look_at(house: House, at_least_s: float) -> tuple[list[tuple[Stuck, str]], tuple[str, ...]]:
    """What the hooks that are running sit in; and the threads that are waited for.

    Args:
        house: whose.
        at_least_s: leaves out those that have not run as long, in seconds.

    Returns:
        Each with the place of its registration, and the deadlocks among them.
    """
    from lastcall.app import stuck

    runs = [run for run in tuple(house.coordinator.runs) if run.outcome is Outcome.RUNNING]
    long = [run for run in runs if run.took_s >= at_least_s]
    names = {key: f"hook {run.name!r}" for run in runs if (key := _key(run)) is not None}
    found: list[tuple[Stuck, str]] = []
    for run in long:
        task, ident, name = run.task, run.thread, f"hook {run.name!r}"
        if run.hook.inner:
            continue
        if task is not None:
            one = stuck.of_task(task, name=name, since_s=run.took_s, names=names)
        elif ident is not None:
            one = stuck.of_thread(ident, name, since_s=run.took_s, names=names)
        else:
            continue
        found.append((one, run.hook.where))
    rings = stuck.deadlocks([one for one, _ in found])
    return [*found, *_threads(house, long)], rings


def _threads(house: House, runs: Sequence[HookRun]) -> list[tuple[Stuck, str]]:
    """What the main code and the user's threads sit in, where those are waited for."""
    since_s = {run.name: run.took_s for run in runs if run.hook.inner}
    if not since_s.keys() & {MAIN_CODE, USER_THREADS}:
        return []
    main, found = threading.main_thread().ident, []
    for one in house.survivors():
        name = MAIN_CODE if one.key[1] == main else USER_THREADS
        if name in since_s:
            one.since_s = since_s[name]
            found.append((one, ""))
    return found


def _key(run: HookRun) -> tuple[str, int] | None:
    if run.task is not None:
        return "task", id(run.task)
    return None if run.thread is None or run.hook.inner else ("thread", run.thread)
