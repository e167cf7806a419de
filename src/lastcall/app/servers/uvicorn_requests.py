"""Requests in flight without a cost to each: uvicorn keeps a task for every one of them anyway.

Who asks what is in flight gets it from uvicorn's tasks. That work inside a request is part of it is
told by a mark which they all inherit from the server that accepts connections: to set a context
variable for each request was measured to cost 4 % of uvicorn's throughput.

Source: uvicorn 0.54, protocols/http/httptools_impl.py and h11_impl.py: `RequestResponseCycle`, and
the task that runs its `run_asgi`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any

from lastcall.app.http.asgi import Middleware
from lastcall.app.work import _inside

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterator

    from lastcall.app.http.asgi import App, Message, Receive, Send
    from lastcall.app.lifecycle import Lifecycle
    from lastcall.app.work import Gate

# The mark of all requests: work with it is accepted as long as any of them is in flight.
A_REQUEST = -1
# When requests began is known by the second, for as many seconds.
_SECONDS = 900


class Requests:
    """The requests that uvicorn's tasks tell of; once the end is announced, each is kept here.

    Args:
        gate: which they are to leave.
        tasks: of uvicorn.
    """

    def __init__(self, gate: Gate, tasks: Collection[asyncio.Task[None]]) -> None:
        self._gate = gate
        self._tasks = tasks
        self._kept: dict[int, tuple[Message, float]] | None = None
        self._seconds: deque[tuple[object, float]] = deque(maxlen=_SECONDS)

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, mark: object) -> bool:
        return mark == A_REQUEST and bool(self._now())

    def values(self) -> Collection[tuple[Message, float]]:
        """The scope of each, and since when, the oldest first."""
        return sorted(self._now().values(), key=itemgetter(1))

    def tick(self, headers: object) -> None:
        """A second begins.

        Args:
            headers: those that uvicorn gives the requests that begin in it.
        """
        if not self._seconds or self._seconds[-1][0] is not headers:
            self._seconds.append((headers, monotonic()))

    def keep_all(self) -> None:
        """Keep those in flight: called on uvicorn's loop."""
        found = list(self._told())
        # In one: other threads ask meanwhile.
        self._kept = {id(scope): (scope, since_s) for _, scope, since_s in found}
        for task, scope, _ in found:
            task.add_done_callback(partial(self._leave, id(scope)))
        # Whoever ended while this was on its way has told nobody.
        self._gate.left()

    def keep(self, scope: Message) -> None:
        """Keep one that begins: called in its task.

        Args:
            scope: of the request.
        """
        task = asyncio.current_task()
        if task is not None and self._kept is not None:
            self._kept[id(scope)] = scope, monotonic()
            task.add_done_callback(partial(self._leave, id(scope)))

    def _leave(self, mark: int, _: object) -> None:
        if self._kept is not None:
            self._kept.pop(mark, None)
        if self._gate.closed:
            self._gate.left()

    def _now(self) -> dict[int, tuple[Message, float]]:
        if self._kept is not None:
            return self._kept
        return {id(scope): (scope, since_s) for _, scope, since_s in self._told()}

    def _told(self) -> Iterator[tuple[asyncio.Task[None], Message, float]]:
        for task in tuple(self._tasks):
            frame = getattr(task.get_coro(), "cr_frame", None)
            cycle = None if frame is None else frame.f_locals.get("self")
            scope = getattr(cycle, "scope", None)
            if scope is not None and scope["type"] == "http":
                yield task, scope, self._since_s(getattr(cycle, "default_headers", None))

    def _since_s(self, headers: object) -> float:
        seconds = tuple(self._seconds)  # in one: the loop appends to them
        for each, since_s in reversed(seconds):
            if each is headers:
                return since_s
        return seconds[0][1] if seconds else monotonic()


class Light(Middleware):
    """The middleware for a server whose requests are told by its tasks.

    Args:
        app: the application.
        lifecycle: of this process.
        requests: those that the tasks tell.
    """

    def __init__(self, app: App, lifecycle: Lifecycle, requests: Requests) -> None:
        super().__init__(app, lifecycle, guest=False, closing=False)
        self._told = requests

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Pass on one request, one WebSocket, or the server's own start and end."""
        if scope["type"] != "http":
            return self._pass(scope, receive, send)
        if not self._arrived:
            self._arrive()
        if _inside.get() != A_REQUEST:
            _inside.set(A_REQUEST)  # a loop that does not hand the context on
        if self._soon:
            self._told.keep(scope)
        return self._app(scope, receive, send)  # type: ignore[return-value]  # (of uvicorn's)

    def _announce(self) -> None:
        super()._announce()
        self._told.keep_all()
