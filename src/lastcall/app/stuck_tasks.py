"""What an asyncio task waits for, when it is a future, another task, a pool, or its own loop."""

# ruff: noqa: ANN401 (what is looked at are objects of the program, of any type)

from __future__ import annotations

import _thread
import sys
import types

from lastcall.app.stuck_scene import Holder, coroutine_chain, module_of, named
from lastcall.app.stuck_site import MISSING, standing_at
from lastcall.app.stuck_waits import Wait, listed, wait_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType
    from typing import Any

    from lastcall.app.stuck_scene import Scene

_DEPTH = 4  # futures behind futures
_IDLE = {"selectors", "asyncio.windows_events"}  # where a loop waits for events


def task_wait(task: Any, scene: Scene, depth: int = 0) -> tuple[Wait, list[FrameType]]:
    """What a task waits for, and its frames, innermost first."""
    frames = task_frames(task)
    if task.done():
        return Wait("nothing: it has ended"), frames
    ident, thread_frames = _thread_of(task.get_loop(), scene)
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done():
        if frames and frames[-1] in thread_frames:  # it runs now
            inner = thread_frames[: thread_frames.index(frames[-1]) + 1]
            return wait_of(inner, scene, ("thread", ident)), inner
        return _held_up(Wait("its turn"), ident, thread_frames, scene), frames
    known = wait_of(frames, scene, ("task", id(task))) if _in_asyncio(frames) else Wait()
    wait = known if known.words else _future_wait(future, _awaited_text(frames), scene, depth)
    return _held_up(wait, ident, thread_frames, scene), frames


def task_frames(task: Any) -> list[FrameType]:
    """The frames of a task's coroutines, innermost first."""
    frames, _ = coroutine_chain(task.get_coro())
    return frames[::-1]


def concurrent_wait(future: object, words: str, scene: Scene) -> Wait:
    """A wait for a `concurrent.futures.Future`: its pool's thread, or the task behind it."""
    if (worker := scene.running(future)) is not None:
        return Wait(f"{words}, in work on {worker.label}", [worker])
    for task in scene.tasks():
        if any(cell is future for cell in _behind(task)):
            holder = holder_of(task, scene)
            return Wait(f"{words}, from {holder.label}", [holder])
    for ident, loop in scene.loops():
        for handle in _copy(getattr(loop, "_ready", ())):
            callback = getattr(handle, "_callback", None)
            if any(cell is future for cell in _cells(callback)):
                holder = Holder(("thread", ident), scene.label(("thread", ident)))
                return Wait(f"{words}, not yet begun by the loop of {holder.label}", [holder])
    return Wait(words)


def holder_of(task: Any, scene: Scene) -> Holder:
    """A task as somebody who is waited for."""
    key = ("task", id(task))
    return Holder(key, scene.names.get(key) or f"task {task.get_name()!r}")


def holders_of(futures: Iterable[Any], scene: Scene) -> list[Holder]:
    """The unfinished tasks of these futures."""
    return [holder_of(one, scene) for one in _copy(futures) if _is_task(one) and not one.done()]


def one_of_them(future: Any, scene: Scene) -> Wait:
    """What the future waits for that is wrapped by another wait."""
    if _is_task(future):
        return task_wait(future, scene, 1)[0]
    return Wait() if future is MISSING else _future_wait(future, "", scene, 1)


def _future_wait(future: Any, text: str, scene: Scene, depth: int) -> Wait:
    if _is_task(future):
        holder = holder_of(future, scene)
        return Wait(holder.label, [holder])
    if type(future).__name__ == "_GatheringFuture":
        children = getattr(future, "_children", ())  # its instances show no __dict__
        holders = holders_of(children, scene)
        return Wait(f"gather of {listed(holders) or 'futures'}", holders)
    for inner in _behind(future) if depth < _DEPTH else ():
        if inner is future:
            continue
        if _is_a(inner, "concurrent.futures", "Future"):
            return concurrent_wait(inner, "a future of a pool", scene)
        if _is_a(inner, "asyncio", "Future") and not inner.done():
            return _future_wait(inner, text, scene, depth + 1)
    return Wait(f"a future, in `{text}`" if text else "a future")


def _held_up(wait: Wait, ident: int, frames: list[FrameType], scene: Scene) -> Wait:
    """Adds that the loop itself does not turn, as its thread stands in something else."""
    if not frames or ident == _thread.get_ident():
        return wait
    if module_of(frames[0]) in _IDLE or named(frames[0]).startswith("asyncio.runners."):
        return wait
    blocked = wait_of(frames, scene, ("thread", ident))
    if not blocked.words:
        return wait
    holder = Holder(("thread", ident), scene.label(("thread", ident)))
    words = f"{wait.words}; its loop is held up by {holder.label}, which waits for {blocked.words}"
    return Wait(words, [*wait.holders, holder])


def _thread_of(loop: object, scene: Scene) -> tuple[int, list[FrameType]]:
    """The thread that runs a loop, and its frames; 0 when none does."""
    for ident, other in scene.loops():
        if other is loop:
            return ident, scene.frames.get(ident, [])
    return 0, []


def _in_asyncio(frames: list[FrameType]) -> bool:
    return bool(frames) and module_of(frames[0]).startswith("asyncio.")


def _awaited_text(frames: list[FrameType]) -> str:
    at = standing_at(frames[0]) if frames else None
    return "" if at is None else at.text


def _is_task(thing: Any) -> bool:
    return _is_a(thing, "asyncio", "Task")


def _is_a(thing: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), "__dict__", {}).get(name)
    return kind is not None and kind in type(thing).__mro__


def _behind(future: Any) -> Iterator[Any]:
    """What the callbacks of a future pass its result on to, or cancel with it."""
    for callback in _copy(getattr(future, "_callbacks", None) or ()):
        yield from _cells(callback[0] if type(callback) is tuple else callback)


def _cells(callback: Any) -> Iterator[Any]:
    """The variables that a function closes over."""
    if type(callback) is not types.FunctionType:
        return
    for cell in callback.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet bound
            continue


def _copy(things: Iterable[Any]) -> list[Any]:
    for _ in range(5):
        try:
            return list(things)
        except RuntimeError:  # changed under our hands
            continue
    return []
