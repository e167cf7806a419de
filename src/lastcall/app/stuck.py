"""Who is stuck, and on what: told from another thread of the same process, without stopping it.

Nothing here raises, takes a lock, logs, or runs code of the program that it looks at. It sees
what the interpreter shows: with C code that holds the GIL no Python runs at all, ours included.
"""

from __future__ import annotations

import _thread

from lastcall.app import stuck_site

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from types import FrameType
    from typing import Any

    from lastcall.app.stuck_scene import Key, Scene
    from lastcall.app.stuck_waits import Wait

_STACK_FRAMES = 12
_BEGINNINGS = {"_bootstrap", "_bootstrap_inner", "run"}  # of every thread: they tell nothing


class Stuck:
    """A thread or task that does not go on.

    Attributes:
        key: what it is: `thread` and its ident, or `task` and its id.
        what: what to call it: `thread 'pump'`, `hook 'close_pool'`.
        since_s: seconds since it was asked to go on; None when the caller does not know.
        stack: innermost last, `file:line in function: source line`, at most 12 frames.
        waiting_for: in words; empty when unknown, or when it runs Python code.
        holders: the threads and tasks that could end the wait, in words.
        waits_on: the keys of the holders, in the same order.
    """

    __slots__ = ("holders", "key", "since_s", "stack", "waiting_for", "waits_on", "what")

    def __init__(
        self,
        key: Key,
        what: str,
        since_s: float | None = None,
        *,
        stack: tuple[str, ...] = (),
        waiting_for: str = "",
    ) -> None:
        self.key: Key = key
        self.what: str = what
        self.since_s: float | None = since_s
        self.stack: tuple[str, ...] = stack
        self.waiting_for: str = waiting_for
        self.holders: tuple[str, ...] = ()
        self.waits_on: tuple[Key, ...] = ()

    def __repr__(self) -> str:
        return f"Stuck({self.what!r}, waiting_for={self.waiting_for!r})"

    def as_data(self) -> dict[str, object]:
        """The same for JSON."""
        return {
            "what": self.what,
            "since_s": self.since_s,
            "waiting_for": self.waiting_for,
            "holders": list(self.holders),
            "stack": list(self.stack),
        }


def prepare() -> None:
    """Import what the other functions need, while no stuck thread can hold an import lock.

    Takes two milliseconds, once.
    """
    import gc  # noqa: F401 (loaded for later)

    from lastcall.app import looking, stuck_scene, stuck_tasks, stuck_waits  # noqa: F401 (loaded for later)

    stuck_site.prepare()


def of_thread(
    ident: int,
    name: str = "",
    *,
    since_s: float | None = None,
    names: Mapping[Key, str] | None = None,
) -> Stuck:
    """Say what a thread does.

    Args:
        ident: the thread's `ident`.
        name: what to call it: `hook 'flush'`; empty for `thread` and its own name.
        since_s: seconds that it has been waited for; None when unknown.
        names: better names for others, by key: `{("thread", ident): "hook 'flush'"}`.
    """
    made = Stuck(("thread", ident), name or f"thread {ident}", since_s)
    try:  # noqa: SIM105 (contextlib is not worth its import)
        _look_at_thread(made, _scene(made.key, name, names))
    except Exception:  # noqa: BLE001, S110 (a report with less in it is better than none)
        pass
    return made


def of_task(
    task: asyncio.Task[Any],
    *,
    name: str = "",
    since_s: float | None = None,
    names: Mapping[Key, str] | None = None,
) -> Stuck:
    """Say what an asyncio task does; from any thread.

    Args:
        task: the `asyncio.Task`.
        name: what to call it: `hook 'flush'`; empty for `task` and its own name.
        since_s: seconds that it has been waited for; None when unknown.
        names: better names for others, by key: `{("task", id(task)): "hook 'flush'"}`.
    """
    made = Stuck(("task", id(task)), name or "a task", since_s)
    try:
        from lastcall.app.stuck_tasks import task_frames, task_wait

        made.what = name or f"task {task.get_name()!r}"
        made.stack = _stack(task_frames(task))
        scene = _scene(made.key, name, names, task.get_loop())
        wait, frames = task_wait(task, scene)
        made.stack = _stack(frames)
        _take_over(made, wait)
    except Exception:  # noqa: BLE001, S110 (see above)
        pass
    return made


def deadlocks(stuck: Iterable[Stuck]) -> tuple[str, ...]:
    """The rings of waits among these and the threads and tasks that they wait for, in words.

    Args:
        stuck: what `of_thread` and `of_task` made, at about the same moment.
    """
    try:
        known = {one.key: one for one in stuck}
        _add_holders(known)
        rings: dict[frozenset[Key], str] = {}
        for key in list(known):
            ring = _ring(key, known)
            if ring and frozenset(ring) not in rings:
                rings[frozenset(ring)] = "; ".join(_link(known[each], known) for each in ring)
        return tuple(rings.values())
    except Exception:  # noqa: BLE001 (see above)
        return ()


def render(stuck: Stuck) -> str:
    """A few short lines for a log: what is stuck, since when, on what, and its stack."""
    since = "" if stuck.since_s is None else f", for {stuck.since_s:.1f} s"
    waits = f", waits for {stuck.waiting_for}" if stuck.waiting_for else ""
    return "\n".join([f"{stuck.what}{since}{waits}", *(f"    {line}" for line in stuck.stack)])


def _scene(key: Key, name: str, names: Mapping[Key, str] | None, loop: object = None) -> Scene:
    from lastcall.app.stuck_scene import Scene

    return Scene({**(names or {}), **({key: name} if name else {})}, loop)


def _look_at_thread(made: Stuck, scene: Scene) -> None:
    from lastcall.app.stuck_waits import wait_of

    made.what = scene.label(made.key)
    frames = scene.frames.get(made.key[1])
    if frames is None:
        made.waiting_for = "nothing: it has ended"
        return
    made.stack = _stack(frames)
    _take_over(made, wait_of(frames, scene, made.key))


def _take_over(made: Stuck, wait: Wait) -> None:
    made.waiting_for = wait.words
    made.holders = tuple(holder.label for holder in wait.holders)
    made.waits_on = tuple(holder.key for holder in wait.holders)


def _stack(frames: list[FrameType]) -> tuple[str, ...]:
    while len(frames) > 1 and _is_beginning(frames[-1]):
        frames = frames[:-1]
    return tuple(_line(frame) for frame in reversed(frames[:_STACK_FRAMES]))


def _is_beginning(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    ours = module == "lastcall.app.running"  # that a hook runs in a thread of ours tells nothing
    return ours or (module == "threading" and frame.f_code.co_name in _BEGINNINGS)


def _line(frame: FrameType) -> str:
    code, number = frame.f_code, frame.f_lineno or 0
    source = stuck_site.source_line(code.co_filename, number)
    return f"{code.co_filename}:{number} in {code.co_name}" + (f": {source}" if source else "")


def _add_holders(known: dict[Key, Stuck]) -> None:
    """Look at those as well that the others wait for."""
    from lastcall.app.stuck_scene import Scene

    names = {key: one.what for key, one in known.items()}
    waiting = [key for one in known.values() for key in one.waits_on]
    tasks = {id(task): task for task in Scene().tasks()}
    while waiting:
        key = waiting.pop()
        if key in known or key == ("thread", _thread.get_ident()):
            continue
        kind, ident = key
        if kind == "thread":
            known[key] = of_thread(ident, names=names)
        elif ident in tasks:
            known[key] = of_task(tasks[ident], names=names)
        else:
            continue
        waiting.extend(known[key].waits_on)


def _link(one: Stuck, known: Mapping[Key, Stuck]) -> str:
    """`hook 'a' waits for lock `x` held by hook 'b'`: by the names that the report uses."""
    words = one.waiting_for
    for key, label in zip(one.waits_on, one.holders, strict=True):
        words = words.replace(label, known[key].what) if key in known else words
    return f"{one.what} waits for {words}"


def _ring(begin: Key, known: Mapping[Key, Stuck]) -> list[Key]:
    """The keys of a ring of waits through `begin`, in order; empty when there is none."""
    paths = [[begin]]
    seen: set[Key] = set()
    while paths:
        path = paths.pop()
        for key in known[path[-1]].waits_on:
            if key == begin:
                return path
            if key in known and key not in seen:
                seen.add(key)
                paths.append([*path, key])
    return []
