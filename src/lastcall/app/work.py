"""Work in flight: what was accepted and is not finished."""

from __future__ import annotations

import functools
import threading
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from time import monotonic

from lastcall.errors import Draining

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized
    from types import TracebackType
    from typing import Any, Protocol, Self, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

    class Requests(Sized, Protocol):
        """What a server's middleware tells of the requests in flight, by marks of its own."""

        def __contains__(self, mark: object, /) -> bool:
            """Whether the request with this mark is in flight."""

        def values(self) -> Iterable[tuple[Any, ...]]:
            """Of each its ASGI scope or WSGI environ, and since when, on the monotonic clock."""

    class Ledger(Protocol):
        """Where work in flight is written down, to be read after a crash."""

        def enter(self, name: str) -> int:
            """It has begun: which slot it got."""

        def leave(self, slot: int) -> None:
            """It is done."""


# Work inside accepted work is part of it: it is never refused. Tasks inherit what they were made
# in, and may outlive it: so it is the work itself, and counts as long as that is in flight.
# True: it is never refused at all, False: it stands alone. A number: a request's mark.
_inside: ContextVar[Flight | int] = ContextVar("lastcall_inside", default=False)


class Flight:
    """One piece of work: used in a `with` or `async with`, or as a decorator."""

    __slots__ = ("_accepted", "_gate", "_name", "_slot", "_token", "since_s")

    def __init__(self, gate: Gate, name: object, *, accepted: bool) -> None:
        self._gate = gate
        self._name = name
        self._accepted = accepted
        self.since_s: float = 0.0

    @property
    def name(self) -> str:
        """What it is."""
        try:
            return str(self._name)
        except BaseException:  # noqa: BLE001 (a name that cannot be told must not hold the stop)
            return f"a {type(self._name).__name__}"

    @property
    def age_s(self) -> float:
        """For how long it has been in flight, in seconds."""
        return monotonic() - self.since_s

    def __enter__(self) -> Self:
        self.since_s = monotonic()
        gate = self._gate
        flights = gate.flights
        if self in flights:
            raise RuntimeError(f"{self.name} is in flight already: say work() for each piece")
        flights[self] = None  # first in, then look: what `close` does not see was refused
        if gate.closed and not self._accepted and not gate.within(_inside.get()):
            del flights[self]
            gate.left()
            raise Draining(
                f"{self.name} is refused: the application is ending",
                "take it elsewhere, or again after the restart",
            )
        self._token = _inside.set(self)
        ledger = gate.ledger
        self._slot = -1 if ledger is None else ledger.enter(self.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        gate = self._gate
        if gate.flights.pop(self, gate) is gate:
            return  # it is over already: cut off by another thread
        if self._slot >= 0 and gate.ledger is not None:
            gate.ledger.leave(self._slot)
        # It may end in another context than it began: an async generator closed from outside.
        with suppress(ValueError):
            _inside.reset(self._token)
        if gate.closed:
            gate.left()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.__exit__()

    def __call__(self, function: F) -> F:
        """Decorate a function, sync or async: each call is such a piece of work."""
        gate, name, accepted = self._gate, self._name, self._accepted
        if is_async(function):

            @functools.wraps(function)
            async def tracked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as the function)
                with Flight(gate, name, accepted=accepted):
                    return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def tracked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as the function)
                with Flight(gate, name, accepted=accepted):
                    return function(*args, **kwargs)

        return tracked  # type: ignore[return-value]


class Request(Flight):
    """A request in flight, named by its ASGI scope or its WSGI environ."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Such as `GET /orders/17`."""
        told: Any = self._name
        if "wsgi.version" in told:
            return f"{told.get('REQUEST_METHOD', '?')} {told.get('PATH_INFO', '')}"
        return f"{told.get('method', 'WebSocket')} {told['path']}"


class Gate:
    """Counts work in flight, and lets none in once it is closed.

    Without a lock: entering is one insertion, and closing waits for whatever was inserted before.
    """

    def __init__(self) -> None:
        self.flights: dict[Flight, None] = {}
        # Each request of a busy server costs less as an entry here than as a `Flight`: made by
        # its middleware alone, which calls `left` as well.
        self.requests: Requests = {}
        self.closed: bool = False
        self.ledger: Ledger | None = None
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []

    def enter(self, name: object, *, accepted: bool = False) -> Flight:
        """A piece of work, not yet begun.

        Args:
            name: what it is; `str` is only called when somebody asks.
            accepted: whether it is never refused.
        """
        return Flight(self, name, accepted=accepted)

    def count(self) -> int:
        """How much is in flight."""
        return len(self.flights) + len(self.requests)

    def oldest(self, most: int | None = None) -> list[Flight]:
        """What is in flight, the oldest first.

        Args:
            most: so many; None: all.
        """
        while True:
            try:
                told = list(islice(self.requests.values(), most))
                # Both are in the order of their beginning.
                found = [*islice(self.flights, most), *map(self._request, told)]
            except RuntimeError:  # it changed meanwhile
                continue
            return sorted(found, key=lambda flight: flight.since_s)[:most]

    def _request(self, told: tuple[Any, ...]) -> Request:
        request = Request(self, told[0], accepted=True)
        request.since_s = told[1]
        return request

    def within(self, work: Flight | int) -> bool:
        """Whether what is done inside this work is part of it still.

        Args:
            work: what `_inside` says. A middleware whose requests have a thread each marks them
                with that.
        """
        if work is True or threading.get_ident() in self.requests:
            return True
        return work in (self.flights if isinstance(work, Flight) else self.requests)

    def close(self) -> None:
        """Let no new work in."""
        self.closed = True

    def renew(self) -> None:
        """After a fork, in the child: what is in flight there is its parent's."""
        self.flights.clear()
        self.requests = {}
        self.closed = False
        self.ledger = None
        self._changed = threading.Condition()
        self._listeners.clear()

    def listen(self, listener: Callable[[], object]) -> None:
        """Have something called whenever work has ended while the gate is closed."""
        self._listeners.append(listener)

    def left(self) -> None:
        """Somebody has left a closed gate."""
        with self._changed:
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def wait_empty(self, given_up: Callable[[], bool]) -> bool:
        """Wait in a thread until nothing is in flight.

        Args:
            given_up: asked after each change, and each `poke`.

        Returns:
            Whether nothing is in flight.
        """
        with self._changed:
            while self.count() and not given_up():
                self._changed.wait()
        return not self.count()

    def poke(self) -> None:
        """Have those who wait ask again whether they are to give up."""
        with self._changed:
            self._changed.notify_all()


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine, as far as can be told without `inspect`."""
    return bool(_flags(function) & 0x180)  # CO_COROUTINE, CO_ITERABLE_COROUTINE


def is_generator(function: Callable[..., object]) -> bool:
    """Whether calling it runs nothing of it, because there is a `yield` in it."""
    return bool(_flags(function) & 0x220) and not is_async(function)  # CO_(ASYNC_)GENERATOR


def _flags(function: Callable[..., object]) -> int:
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    found: int = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return found
