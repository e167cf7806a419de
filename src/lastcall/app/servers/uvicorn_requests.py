"""Requests in flight without a cost to each: uvicorn keeps a task for every one of them anyway.

As long as nobody ends, a request passes by with no more than a mark that work inside it is part of
it. Who asks what is in flight gets it from uvicorn's tasks. Once the end is announced, each request
is kept as it would be under any other server.

Source: uvicorn 0.54, protocols/http/httptools_impl.py and h11_impl.py: `RequestResponseCycle`, and
the task that runs its `run_asgi`.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from lastcall.app.http.asgi import Middleware, Request
from lastcall.app.work import Flight, _inside

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Coroutine, Iterator

    from lastcall.app.http.asgi import App, Message, Receive, Send
    from lastcall.app.lifecycle import Lifecycle
    from lastcall.app.work import Gate

# When requests began is known by the second, for as many seconds.
_SECONDS = 900


class InFlight(dict[Flight, None]):
    """The work in flight: what was entered, and the requests that uvicorn's tasks tell of.

    Args:
        gate: whose work it is to be.
        tasks: of uvicorn.
    """

    def __init__(self, gate: Gate, tasks: Collection[asyncio.Task[None]]) -> None:
        super().__init__(gate.flights)
        self.apart: bool = True  # requests are not entered
        self._gate = gate
        self._tasks = tasks
        self._seconds: deque[tuple[object, float]] = deque(maxlen=_SECONDS)

    def __len__(self) -> int:
        return super().__len__() + sum(1 for _ in self._others())

    def __iter__(self) -> Iterator[Flight]:
        yield from super().__iter__()
        for _, flight in self._others():
            yield flight

    def __contains__(self, work: object) -> bool:
        if super().__contains__(work):
            return True
        # Marked with a number, see `Light`. A new request may have that of an old one, and an
        # old one's stray task then be let in.
        return isinstance(work, int) and any(
            id(getattr(_cycle(task), "scope", None)) == work for task in tuple(self._tasks)
        )

    def tick(self, headers: object) -> None:
        """A second begins.

        Args:
            headers: those that uvicorn gives the requests that begin in it.
        """
        if not self._seconds or self._seconds[-1][0] is not headers:
            self._seconds.append((headers, monotonic()))

    def enter_all(self) -> None:
        """Enter all requests, from now on: called on uvicorn's loop."""
        found = list(self._others())
        self.apart = False
        for task, flight in found:
            self[flight] = None
            task.add_done_callback(partial(self._leave, flight))

    def _leave(self, flight: Flight, _: object) -> None:
        self.pop(flight, None)
        if self._gate.closed:
            self._gate.left()

    def _others(self) -> Iterator[tuple[asyncio.Task[None], Flight]]:
        for task in tuple(self._tasks) if self.apart else ():
            cycle = _cycle(task)
            scope = getattr(cycle, "scope", None)
            if scope is not None and scope["type"] == "http":
                flight = Request(self._gate, scope, accepted=True)
                flight.since_s = self._since_s(getattr(cycle, "default_headers", None))
                yield task, flight

    def _since_s(self, headers: object) -> float:
        for each, since_s in self._seconds:
            if each is headers:
                return since_s
        return self._seconds[0][1] if self._seconds else monotonic()


def _cycle(task: asyncio.Task[None]) -> object:
    """What uvicorn runs in a task; None: it is over."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return None if frame is None else frame.f_locals.get("self")


class Light(Middleware):
    """The middleware for a server whose requests are told by its tasks.

    Args:
        app: the application.
        lifecycle: of this process.
        flights: its work in flight.
    """

    def __init__(self, app: App, lifecycle: Lifecycle, flights: InFlight) -> None:
        super().__init__(app, lifecycle, guest=False, closing=False)
        self._flights = flights

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Pass on one request, one WebSocket, or the server's own start and end."""
        if self._plain and self._flights.apart and scope["type"] == "http":
            # Each request has a task of its own: nobody else sees it. uvicorn's timer of an idle
            # connection keeps it for seconds: so it is no object that keeps more in memory.
            _inside.set(id(scope))  # type: ignore[arg-type]  # (see `InFlight.__contains__`)
            return self._app(scope, receive, send)  # type: ignore[return-value]  # (of uvicorn's)
        return super().__call__(scope, receive, send)
