"""What a thread or task waits for, in words: a table of the standard library's known waits.

A thread that waits in the standard library has its functions as innermost frames; the outermost
of these that the table knows is the wait (`Queue.get`, not the `Condition.wait` within it), and
the caller's source gives the name of the queue. A call that waits in C code is told from the
source of the line that makes it.
"""

# ruff: noqa: ANN401 (what is looked at are objects of the program, of any type)

from __future__ import annotations

import sys
import types

from lastcall.app.stuck_scene import (
    Holder,
    Scene,
    is_free,
    kind_of,
    module_of,
    named,
    threads,
)
from lastcall.app.stuck_site import MISSING, Expression, attribute, local, standing_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from lastcall.app.stuck_scene import Key

_C_FUNCTIONS = {
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.MethodWrapperType,
}
_TAKE = {"acquire", "acquire_lock", "__enter__", "_acquire_restore"}
_PLAIN = {int, float, bool, type(None)}  # a string may be a secret
_MANY = 3  # names that one line of a report bears


class Wait:
    """What is waited for, in words (empty: unknown), and who could end it."""

    __slots__ = ("holders", "words")

    def __init__(self, words: str = "", holders: Sequence[Holder] = ()) -> None:
        self.words: str = words
        self.holders: tuple[Holder, ...] = tuple(holders)


class Found:
    """A known wait of the standard library: its frame, its object, and the caller's name for it."""

    __slots__ = ("frame", "frames", "me", "name", "scene", "thing")

    def __init__(self, frames: list[FrameType], index: int, scene: Scene, me: Key) -> None:
        self.frames: list[FrameType] = frames
        self.frame: FrameType = frames[index]
        self.scene: Scene = scene
        self.me: Key = me
        self.thing: Any = local(self.frame, "self")
        self.name: str = ""
        for caller in frames[index + 1 :]:
            if not _is_library(module_of(caller)):
                self.name = _name_of(self.thing, standing_at(caller))
                break

    @property
    def on(self) -> str:
        """` on `name``, or nothing."""
        return f" on `{self.name}`" if self.name else ""


def wait_of(frames: list[FrameType], scene: Scene, me: Key) -> Wait:
    """What the innermost of these frames (the first one) waits for."""
    best: int | None = None
    for index, frame in enumerate(frames):
        if not _is_library(module_of(frame)):
            break
        name = named(frame)
        if name in KNOWN and (best is None or name not in LAST_RESORTS):
            best = index
    if best is None:
        return _call_into_c(frames[0], scene, me) if frames else Wait()
    found, known = Found(frames, best, scene, me), KNOWN[named(frames[best])]
    return Wait(known.format(on=found.on)) if isinstance(known, str) else known(found)


def lock_wait(thing: object, name: str, scene: Scene, me: Key) -> Wait:
    """A wait for something that somebody holds, with the holders as far as they can be told."""
    kind = kind_of(thing)
    article = "an" if kind[:1] in "aeiou" else "a"
    words = f"{kind} `{name}`" if name else f"{article} {kind}"
    holders = scene.holders(thing)
    if not holders:
        return Wait(words + (", free at this moment" if is_free(thing) else ", holder unknown"))
    by = []
    for holder in holders[:_MANY]:
        label = "itself" if holder.key == me else holder.label
        by.append(label + (f" (taken at {holder.where})" if holder.where else ""))
    verb = "held by" if holders[0].sure else "probably held by"
    return Wait(f"{words} {verb} {', '.join(by)}{_more(holders)}", holders)


def listed(holders: Sequence[Holder]) -> str:
    """The first few labels, and how many more there are."""
    return ", ".join(holder.label for holder in holders[:_MANY]) + _more(holders)


def _more(holders: Sequence[Holder]) -> str:
    return f" and {len(holders) - _MANY} more" if len(holders) > _MANY else ""


def _is_library(module: str) -> bool:
    return module in _MODULES or module.startswith(_PACKAGES)


def _name_of(thing: object, at: Expression | None) -> str:
    """The caller's words for the object whose method waits, when they do mean that object."""
    node: Any = None if at is None else at.node
    if at is None or node is None:
        return ""
    node = node.value if type(node).__name__ == "Await" else node
    parts = [node]
    if type(node).__name__ == "Call":
        # `wait_for(lock.acquire(), 5)`: the method may be called in an argument.
        calls = [node, *(arg for arg in node.args if type(arg).__name__ == "Call")]
        parts = [call.func.value for call in calls if type(call.func).__name__ == "Attribute"]
    for part in parts:
        if at.of(part).value is thing:
            return at.of(part).text
    return ""


def _call_into_c(frame: FrameType, scene: Scene, me: Key) -> Wait:
    at = standing_at(frame)
    if at is None:
        return Wait()
    node: Any = at.node
    if type(node).__name__ != "Call":
        thing = at.value
        return lock_wait(thing, at.text, scene, me) if kind_of(thing) else Wait()
    if type(node.func).__name__ == "Attribute":
        owner, method = at.of(node.func.value), node.func.attr
        thing = owner.value
        if kind_of(thing) and method in _TAKE:
            return lock_wait(thing, owner.text, scene, me)
        if (words := socket_words(thing, method)) is not None:
            return Wait(words)
    function = at.of(node.func).value
    if type(function) in _C_FUNCTIONS:
        return Wait(_c_words(function, at, node))
    # A Python function has just been left, or is about to begin: that is no wait.
    if type(function) in {types.FunctionType, types.MethodType}:
        return Wait()
    return Wait(f"the call `{at.text}`")


def _c_words(function: Any, at: Expression, node: Any) -> str:
    """`time.sleep(30)`, `sqlite3.Cursor.execute(...)`."""
    owner = getattr(function, "__objclass__", None)
    module = str(getattr(owner or function, "__module__", None) or "")
    name = f"{module}.{function.__qualname__}".removeprefix("builtins.").removeprefix(".")
    name = "os." + name.removeprefix("posix.") if name.startswith("posix.") else name
    values = [at.of(arg).value for arg in node.args]
    if name in {"os.waitpid", "os.wait4"} and values and type(values[0]) is int:
        return f"subprocess pid {values[0]}"
    words = [repr(value) if type(value) in _PLAIN else "..." for value in values]
    return f"{name}({', '.join(words + ['...'] * bool(node.keywords))})"


def socket_words(thing: object, method: str) -> str | None:
    """`socket recv from 10.0.0.1:5432`; None when it is no socket, or does not wait there."""
    module = sys.modules.get("_socket")
    if module is None or module.socket not in type(thing).__mro__:
        return None
    for begin, word in _SOCKET_WORDS.items():
        if method.startswith(begin):
            asks = module.socket.getsockname if begin == "accept" else module.socket.getpeername
            try:
                address = asks(thing)
            except OSError:
                return f"socket {method}"
            plain = isinstance(address, tuple)
            where = f"{address[0]}:{address[1]}" if plain else str(address)
            return f"socket {method} {word} {where}" if where else f"socket {method}"
    return None


def _lock(found: Found) -> Wait:
    name = found.name
    if kind_of(found.thing) == "import lock":
        name = str(attribute(found.thing, "name"))
    return lock_wait(found.thing, name, found.scene, found.me)


def _condition(found: Found) -> Wait:
    at = standing_at(found.frames[0])
    if at is not None and "_acquire_restore" in at.text:  # notified, now it wants the lock back
        return _lock(found)
    return Wait(f"Condition.wait{found.on}")


def _join(found: Found) -> Wait:
    key = ("thread", getattr(found.thing, "_ident", None) or 0)
    holder = Holder(key, found.scene.label(key) if key[1] else f"thread {found.thing.name!r}")
    return Wait(f"join of {holder.label}", [holder])


def _all_threads(found: Found) -> Wait:
    keys = [
        ("thread", i) for i, t in threads().items() if not t.daemon and ("thread", i) != found.me
    ]
    holders = [Holder(key, found.scene.label(key)) for key in keys]
    return Wait(f"the end of {listed(holders) or 'other threads'}", holders)


def _pid(found: Found) -> Wait:
    pid = attribute(found.thing, "pid")
    return Wait("a subprocess" if pid is MISSING else f"subprocess pid {pid}")


def _process_join(found: Found) -> Wait:
    popen = attribute(found.thing, "_popen")
    pid = MISSING if popen is MISSING else attribute(popen, "pid")
    return Wait("join of a process" + ("" if pid is MISSING else f", pid {pid}"))


def _socket_file(found: Found) -> Wait:
    method = "recv" if found.frame.f_code.co_name.startswith("read") else "send"
    return Wait(socket_words(attribute(found.thing, "_sock"), method) or f"socket {method}")


def _socket_method(found: Found) -> Wait:
    method = found.frame.f_code.co_name
    return Wait(socket_words(found.thing, method) or f"socket {method}")


def _future(found: Found) -> Wait:
    from lastcall.app.stuck_tasks import concurrent_wait

    return concurrent_wait(found.thing, f"Future.result{found.on}", found.scene)


def _loop(found: Found) -> Wait:
    from lastcall.app.stuck_tasks import holder_of

    inner = found.frames[0]
    if named(inner) == "asyncio.events.Handle._run":  # a function in C, called by the loop itself
        callback = attribute(local(inner, "self"), "_callback")
        return Wait(f"the callback {getattr(callback, '__qualname__', type(callback).__name__)}")
    for frame in found.frames:
        if named(frame) == "asyncio.runners.Runner.run":
            task = local(frame, "task")
            if task is not MISSING:
                return Wait("events of its asyncio loop", [holder_of(task, found.scene)])
    return Wait("events of its asyncio loop")


def _sleep(found: Found) -> Wait:
    delay = local(found.frame, "delay")
    return Wait(f"asyncio.sleep({delay:g})" if type(delay) in {int, float} else "asyncio.sleep")


def _several(what: str, get: Callable[[Found], Any]) -> Callable[[Found], Wait]:
    """A wait for the futures that `get` finds."""

    def wait(found: Found) -> Wait:
        from lastcall.app.stuck_tasks import holders_of, one_of_them

        futures = get(found)
        if what == "wait_for":
            return one_of_them(futures, found.scene)
        holders = holders_of(() if futures is MISSING else futures, found.scene)
        return Wait(f"{what} of {listed(holders) or 'nothing known'}", holders)

    return wait


_PACKAGES = ("asyncio.", "concurrent.futures.", "multiprocessing.")
_MODULES = {
    "threading",
    "queue",
    "subprocess",
    "selectors",
    "socket",
    "ssl",
    "importlib._bootstrap",
}
_SOCKET_WORDS = {"accept": "on", "recv": "from", "read": "from", "send": "to", "write": "to"}
_SOCKET_WORDS |= {"connect": "to", "do_handshake": "with"}
LAST_RESORTS = {"asyncio.tasks.wait_for"}  # wrappers: what they wrap says more

KNOWN: dict[str, str | Callable[[Found], Wait]] = {
    "threading.Event.wait": "Event.wait{on}",
    "threading.Condition.wait": _condition,
    "threading.Condition.wait_for": _condition,
    "threading.Condition.__enter__": _lock,
    "threading._RLock.acquire": _lock,
    "threading.Semaphore.acquire": _lock,
    "threading.Barrier.wait": "Barrier.wait{on}",
    "threading.Thread.join": _join,
    "threading._shutdown": _all_threads,
    "importlib._bootstrap._ModuleLock.acquire": _lock,
    "queue.Queue.get": "queue.Queue.get{on}",
    "queue.Queue.put": "queue.Queue.put{on}, which is full",
    "queue.Queue.join": "queue.Queue.join{on}",
    "concurrent.futures._base.Future.result": _future,
    "concurrent.futures._base.Future.exception": _future,
    "concurrent.futures._base.wait": "concurrent.futures.wait",
    "concurrent.futures._base.as_completed": "concurrent.futures.as_completed",
    "concurrent.futures.thread._worker": "work for its thread pool",
    "multiprocessing.process.BaseProcess.join": _process_join,
    "multiprocessing.connection._ConnectionBase.recv": "data of a multiprocessing pipe",
    "multiprocessing.queues.Queue.get": "multiprocessing.Queue.get{on}",
    "multiprocessing.pool.ApplyResult.get": "a result of a multiprocessing pool",
    "subprocess.Popen.wait": _pid,
    "subprocess.Popen.communicate": _pid,
    "socket.SocketIO.readinto": _socket_file,
    "socket.SocketIO.write": _socket_file,
    "socket.socket.accept": _socket_method,
    "ssl.SSLSocket.recv": _socket_method,
    "ssl.SSLSocket.recv_into": _socket_method,
    "ssl.SSLSocket.read": _socket_method,
    "ssl.SSLSocket.send": _socket_method,
    "ssl.SSLSocket.sendall": _socket_method,
    "ssl.SSLSocket.do_handshake": _socket_method,
    "selectors.SelectSelector.select": "input or output (select)",
    "selectors._PollLikeSelector.select": "input or output (poll)",
    "selectors.EpollSelector.select": "input or output (epoll)",
    "selectors.KqueueSelector.select": "input or output (kqueue)",
    "asyncio.base_events.BaseEventLoop._run_once": _loop,
    "asyncio.locks.Lock.acquire": _lock,
    "asyncio.locks.Semaphore.acquire": _lock,
    "asyncio.locks.Condition.wait": "asyncio.Condition.wait{on}",
    "asyncio.locks.Condition.wait_for": "asyncio.Condition.wait{on}",
    "asyncio.locks.Event.wait": "asyncio.Event.wait{on}",
    "asyncio.locks.Barrier.wait": "asyncio.Barrier.wait{on}",
    "asyncio.queues.Queue.get": "asyncio.Queue.get{on}",
    "asyncio.queues.Queue.put": "asyncio.Queue.put{on}, which is full",
    "asyncio.queues.Queue.join": "asyncio.Queue.join{on}",
    "asyncio.tasks.sleep": _sleep,
    "asyncio.tasks.wait_for": _several("wait_for", lambda f: local(f.frame, "fut")),
    "asyncio.tasks._wait": _several("asyncio.wait", lambda f: local(f.frame, "fs")),
    "asyncio.taskgroups.TaskGroup.__aexit__": _several(
        "task group", lambda f: attribute(f.thing, "_tasks")
    ),
    "asyncio.streams.StreamReader._wait_for_data": "StreamReader.read{on}",
    "asyncio.streams.StreamReader.read": "StreamReader.read{on}",
    "asyncio.streams.StreamReader.readline": "StreamReader.readline{on}",
    "asyncio.streams.StreamReader.readexactly": "StreamReader.readexactly{on}",
    "asyncio.streams.StreamReader.readuntil": "StreamReader.readuntil{on}",
    "asyncio.streams.StreamWriter.drain": "StreamWriter.drain{on}: the peer does not read",
    "asyncio.streams.StreamWriter.wait_closed": "StreamWriter.wait_closed{on}",
    "asyncio.base_events.Server.wait_closed": "the end of a server's connections",
    "asyncio.base_events.Server.serve_forever": "the end of a server",
    "asyncio.subprocess.Process.wait": _pid,
    "asyncio.subprocess.Process.communicate": _pid,
}
