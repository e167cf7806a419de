"""One look at all threads and tasks of the process: their frames, and who of them holds a lock."""

# ruff: noqa: ANN401 (what is looked at are objects of the program, of any type)

from __future__ import annotations

import _thread
import sys
import threading
import types

from lastcall.app.stuck_site import MISSING, attribute, held_by, local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType
    from typing import Any

    from lastcall.app.stuck_site import Held

    Key = tuple[str, int]

_DEPTH = 128  # frames of a thread that are looked at: endless recursion is stuck as well
_OURS = "lastcall.app.stuck"
_TRIES = 5  # for a set that another thread changes meanwhile
_CHAIN_LINKS = {
    types.CoroutineType: "cr",
    types.GeneratorType: "gi",
    types.AsyncGeneratorType: "ag",
}
_LOCK = type(_thread.allocate_lock())
_RLOCK = type(_thread.RLock())


class Holder:
    """Who holds a lock: its key and words, where it took it (empty: unknown), and how certain."""

    __slots__ = ("key", "label", "sure", "where")

    def __init__(self, key: Key, label: str, where: str = "", *, sure: bool = True) -> None:
        self.key: Key = key
        self.label: str = label
        self.where: str = where
        self.sure: bool = sure


class Scene:
    """What the threads and tasks do at one moment. Takes no lock and changes nothing."""

    __slots__ = ("_held", "_loop", "_tasks", "frames", "names")

    def __init__(self, names: Mapping[Key, str] | None = None, loop: object = None) -> None:
        self.names: dict[Key, str] = dict(names or {})
        self._loop = loop  # a loop that is to be looked at in any case
        found = sys._current_frames()  # noqa: SLF001 (the documented way)
        # Of this thread without our own frames: they would keep this scene, and all it saw, alive.
        mine = chain(found.pop(_thread.get_ident(), None))
        mine = [frame for frame in mine if not module_of(frame).startswith(_OURS)]
        self.frames: dict[int, list[FrameType]] = {
            ident: chain(frame) for ident, frame in found.items()
        }
        self.frames[_thread.get_ident()] = mine
        self._tasks: list[Any] | None = None
        self._held: dict[bool, list[tuple[Key, list[FrameType], list[Held]]]] = {}

    def label(self, key: Key) -> str:
        """What was given for it, or `thread 'x'`, `task 'x'` by its own name or number."""
        kind, ident = key
        if given := self.names.get(key, ""):
            return given
        if kind == "thread":
            thread = threads().get(ident)
            name = str(ident) if thread is None else thread.name
        else:
            mine = (task.get_name() for task in self.tasks() if id(task) == ident)
            name = next(mine, str(ident))
        return f"{kind} {name!r}"

    def tasks(self) -> list[Any]:
        """The unfinished tasks of every loop that runs in some thread."""
        if self._tasks is None:
            loops = {id(loop): loop for _, loop in self.loops()}
            if self._loop is not None:
                loops[id(self._loop)] = self._loop
            self._tasks = [task for loop in loops.values() for task in tasks_of(loop)]
        return self._tasks

    def loops(self) -> Iterator[tuple[int, Any]]:
        """Thread idents with the asyncio loop that they run."""
        for ident, frames in self.frames.items():
            for frame in frames:
                where = named(frame)
                if where == "asyncio.base_events.BaseEventLoop.run_forever":
                    yield ident, local(frame, "self")
                elif where == "asyncio.runners.Runner.run":  # a loop that is not written in Python
                    runner = local(frame, "self")
                    yield ident, attribute(runner, "_loop")

    def holders(self, lock: object) -> list[Holder]:
        """Who holds a lock, semaphore or condition: by its owner, or by the frames that took it."""
        target = core(lock)
        found: dict[Key, Holder] = {}
        for key, frames, things in self._all_held(asyncio_only=kind_of(lock).startswith("asyncio")):
            for held in things:
                if key not in found and held.thing is target and not _gave_back(frames, target):
                    found[key] = Holder(key, self.label(key), held.where, sure=held.sure)
        if (owner := owner_of(target)) is not None:
            key = ("thread", owner)
            return [found.get(key) or Holder(key, self.label(key))]
        sure = [holder for holder in found.values() if holder.sure]
        return sure or list(found.values())

    def running(self, future: object) -> Holder | None:
        """The pool's thread that works for a concurrent future."""
        for ident, frames in self.frames.items():
            for frame in frames:
                if named(frame) == "concurrent.futures.thread._WorkItem.run":
                    item = local(frame, "self")
                    if item is not MISSING and attribute(item, "future") is future:
                        return Holder(("thread", ident), self.label(("thread", ident)))
        return None

    def _all_held(self, *, asyncio_only: bool) -> list[tuple[Key, list[FrameType], list[Held]]]:
        """Everyone with what he holds; found out once."""
        if asyncio_only not in self._held:
            everyone = self._everyone(asyncio_only=asyncio_only)
            self._held[asyncio_only] = [
                (key, frames, [held for frame in frames for held in held_by(frame)])
                for key, frames in everyone
            ]
            for _, _, things in self._held[asyncio_only]:
                for held in things:
                    held.thing = core(held.thing)
        return self._held[asyncio_only]

    def _everyone(self, *, asyncio_only: bool) -> Iterable[tuple[Key, list[FrameType]]]:
        if not asyncio_only:
            yield from ((("thread", ident), frames) for ident, frames in self.frames.items())
        for task in self.tasks():
            frames, awaited = coroutine_chain(task.get_coro())
            if asyncio_only or awaited is not None:  # a running task's frames are its thread's
                yield ("task", id(task)), frames[::-1]


def threads() -> dict[int, threading.Thread]:
    """The threads by ident; unlike `threading.enumerate` without its lock, which may be held."""
    active: dict[int, threading.Thread] = getattr(threading, "_active", {})
    return active.copy()


def chain(frame: FrameType | None) -> list[FrameType]:
    """A frame and its callers, innermost first."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < _DEPTH:
        frames.append(frame)
        frame = frame.f_back
    return frames


def coroutine_chain(coroutine: Any) -> tuple[list[FrameType], Any]:
    """The frames of a suspended coroutine, outermost first, and what the last one awaits."""
    frames: list[FrameType] = []
    awaited = coroutine
    while awaited is not None and len(frames) < _DEPTH:
        prefix = _CHAIN_LINKS.get(type(awaited))
        if prefix is None:
            inner = _wrapped(awaited)
            if inner is None:
                break
            awaited = inner
            continue
        frame = getattr(awaited, f"{prefix}_frame")
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
    return frames, awaited


def _wrapped(awaitable: object) -> Any:
    """The coroutine in an object of the interpreter that only passes it on."""
    import gc  # built into the interpreter

    wrappers = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"}
    if type(awaitable).__name__ not in wrappers | {"anext_awaitable"}:
        return None
    inside = gc.get_referents(awaitable)
    return next((one for one in inside if type(one) in _CHAIN_LINKS), None)


def tasks_of(loop: object) -> list[Any]:
    """The unfinished tasks of a loop, asked from any thread."""
    asyncio = sys.modules.get("asyncio")
    for _ in range(_TRIES if asyncio is not None else 0):
        try:
            return list(asyncio.all_tasks(loop))  # type: ignore[union-attr]
        except RuntimeError:  # the set changed under our hands
            continue
    return []


def named(frame: FrameType) -> str:
    """`threading.Event.wait`."""
    return f"{module_of(frame)}.{frame.f_code.co_qualname}"


def module_of(frame: FrameType) -> str:
    """The module's name, also of frozen ones."""
    name = frame.f_globals.get("__name__", "")
    return name if type(name) is str else ""


def kind_of(thing: object) -> str:
    """`lock`, `semaphore`, `condition`, `asyncio lock` ... for what can be held; else empty."""
    if type(thing) in {_LOCK, _RLOCK}:
        return "lock"
    for base in type(thing).__mro__:
        kind = _KINDS.get(f"{base.__module__}.{base.__qualname__}")
        if kind is not None:
            return kind
    return ""


_KINDS = {
    "threading._RLock": "lock",
    "threading.Condition": "condition",
    "threading.Semaphore": "semaphore",
    "asyncio.locks.Lock": "asyncio lock",
    "asyncio.locks.Condition": "asyncio condition",
    "asyncio.locks.Semaphore": "asyncio semaphore",
    "importlib._bootstrap._ModuleLock": "import lock",
    "_frozen_importlib._ModuleLock": "import lock",
}


def core(thing: Any) -> Any:
    """The lock inside a condition; otherwise the thing itself."""
    if kind_of(thing).endswith("condition"):
        inner = attribute(thing, "_lock")
        return thing if inner is MISSING else inner
    return thing


def owner_of(lock: Any) -> int | None:
    """The ident of the thread that owns a reentrant lock; None when free, or of another kind."""
    if type(lock) is _RLOCK:  # which tells its owner by nothing but its repr
        _, found, rest = repr(lock).partition("owner=")
        owner = rest.split(" ", 1)[0]
        return int(owner) if found and owner.isdigit() and owner != "0" else None
    mine = attribute(lock, "_owner") if kind_of(lock) == "lock" else MISSING
    mine = attribute(lock, "owner") if kind_of(lock) == "import lock" else mine
    return mine if type(mine) is int else None


def is_free(lock: Any) -> bool:
    """Whether nobody holds it at this moment: its waiter is about to go on."""
    return type(lock) is _LOCK and not lock.locked()


def _gave_back(frames: list[FrameType], target: object) -> bool:
    """Whether it stands in the `wait` of a condition, which releases its lock meanwhile."""
    waits = {"threading.Condition.wait", "asyncio.locks.Condition.wait"}
    mine = (local(frame, "self") for frame in frames if named(frame) in waits)
    return any(core(condition) is target for condition in mine)
