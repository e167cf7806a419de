"""The background load: requests at a fixed rate over connections that are kept open.

An open loop: the n-th request is due n/rate seconds after the start, whatever becomes of those
before, and its time counts from then. When no connection is free it waits, and that shows: leaving
it out, or sending it later and counting from then, would hide the very moments in which a server is
slow ("coordinated omission", a term of Gil Tene's, author of wrk2).

A connection is opened when the first request is there for it, so none stands about without a byte.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients import message
from lastcall.drill.clients.lag import Lag, Ticker, quiet
from lastcall.drill.clients.line import Line
from lastcall.drill.clients.wire import Broken, addresses
from lastcall.drill.history import Failure, Kind
from lastcall.drill.scenario import KEY
from lastcall.drill.trail import Trail
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.drill.place import Place
    from lastcall.drill.scenario import Load, Request

__all__ = ["Lag", "Tally", "quiet", "run"]

# A connection that was refused, or died before it carried a request, is not tried again sooner.
RETRY_S = 0.05
# Where a thousand requests fail at once, other clients get their turn in between.
_BATCH = 50
# At high rates several requests are begun at a time: waking up costs more than a request.
_TICK_S = 0.0002
_SWEEP_S = 0.02


@record
class Tally:
    """What a background load did.

    Args:
        due: how many requests were due.
        begun: how many of them are in the history: what was still waiting when the load was
            broken off was never an attempt.
        connects: how many connections were tried.
        most_waiting: how many requests waited for a connection at the worst moment.
        late_s: how late this process was, at worst, to begin a request, in seconds.
    """

    due: int = 0
    begun: int = 0
    connects: int = 0
    most_waiting: int = 0
    late_s: float = 0.0


async def run(
    place: Place,
    spec: Load,
    trails: list[Trail],
    ids: Iterator[int],
    until: asyncio.Event,
    patience_s: float,
) -> Tally:
    """Put a load on a server until told to end, and follow what is under way then to its end.

    Args:
        place: where the server is.
        spec: what each request is, how many a second, over how many connections.
        trails: is filled with the attempts, in the order in which they were begun.
        ids: numbers for them.
        until: no new ones once this is set.
        patience_s: how long one waits for a connection, and then for its answer, in seconds.
    """
    if spec.rate <= 0 or spec.connections <= 0:
        return Tally()
    load = _Load(place, spec, trails, ids, patience_s)
    try:
        load.start()
        await until.wait()
        load.end()
        await load.over.wait()
    finally:
        load.close()
    return load.tally()


class _Load:
    """The requests that are due, and the lines that carry them.

    The queue needs no list: requests are taken in the order in which they are due, so it is the
    numbers from `_taken` up to `_due`.
    """

    def __init__(
        self,
        place: Place,
        spec: Load,
        trails: list[Trail],
        ids: Iterator[int],
        patience_s: float,
    ) -> None:
        self.over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._every_s = 1 / spec.rate
        self._trails = trails
        self._before = len(trails)
        self._ids = ids
        self._patience_s = patience_s
        self._render = _renderer(place, spec.request)
        try:
            known = addresses(place)
        except Broken:
            known = ()  # each attempt says so
        head_only = spec.request.method == "HEAD"
        self._lines = [
            Line(self, place, known, self._loop, head_only=head_only)
            for _ in range(spec.connections)
        ]
        self._shut, self._free = deque(self._lines), deque[Line]()
        self._opening = set[Line]()
        self._start = self._late_s = 0.0
        self._taken = self._due = self._connects = self._most_waiting = 0
        self._dispatching = self._ending = self._closed = False
        self._ticker: Ticker | None = None

    # -- from outside

    def start(self) -> None:
        """The first request is due a moment from now."""
        self._start = monotonic() + self._every_s
        self._ticker = Ticker(self._start, max(self._every_s, _TICK_S), self._tick)
        self._loop.call_later(_SWEEP_S, self._sweep)

    def end(self) -> None:
        """Nothing more is due."""
        self._ending = True
        if self._ticker is not None:
            self._ticker.close()
            self._ticker = None
        self._maybe_over()

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self.end()
        for line in self._lines:
            line.close()

    def tally(self) -> Tally:
        """What was done."""
        begun = len(self._trails) - self._before
        return Tally(self._due, begun, self._connects, self._most_waiting, self._late_s)

    # -- the queue

    def _at(self, number: int) -> float:
        """When a request is due."""
        return self._start + number * self._every_s

    def _tick(self) -> None:
        now = monotonic()
        due = int((now - self._start) / self._every_s) + 1
        if due > self._due:
            self._late_s = max(self._late_s, now - self._at(self._due))
            self._due = due
            self._dispatch()

    def _dispatch(self) -> None:
        """Bring requests and connections together."""
        if self._dispatching or self._closed:
            return  # what is called from here comes back here
        self._dispatching = True
        try:
            while (waiting := self._due - self._taken) > 0:
                if self._shut and waiting > len(self._opening):
                    line = self._shut.popleft()
                    self._opening.add(line)
                    self._connects += 1
                    line.open()
                elif self._free:
                    self._begin(self._free.popleft())
                else:
                    break
        finally:
            self._dispatching = False
        self._most_waiting = max(self._most_waiting, waiting)

    def _begin(self, line: Line) -> None:
        """Send the next request.

        On a line that was kept open and has died unnoticed it is no attempt: another line takes it.
        On one that was opened for it, that is how this server receives it.
        """
        trail = self._next()
        broken = line.take(trail, self._render(trail.key))
        if broken is not None and not line.carried:
            trail.connected, trail.connection = line.connected, line.number
            trail.fail(broken.failure, broken.note)
        if broken is None or not line.carried:
            self._trails.append(trail)
            self._taken += 1
        if broken is not None:
            self.gone(line)

    def _next(self) -> Trail:
        number = next(self._ids)
        trail = Trail(number, Kind.LOAD, message.key_of(number, Kind.LOAD, self._ids))
        trail.attempted = self._at(self._taken)
        return trail

    def _fail(self, before: float, failure: Failure, note: str, line: Line | None = None) -> None:
        """What was due by this time fails; with a line that had a connection, one of them."""
        for _ in range(1 if line is not None else _BATCH):
            if self._closed or self._taken >= self._due or self._at(self._taken) > before:
                self._maybe_over()
                return
            trail = self._next()
            self._trails.append(trail)
            self._taken += 1
            trail.steady = True
            if line is not None:
                trail.connected, trail.connection = line.connected, line.number
            trail.fail(failure, note)
        if line is None:
            self._loop.call_soon(self._fail, before, failure, note)

    # -- what lines tell

    def free(self, line: Line) -> None:
        """It stands, and carries nothing."""
        self._opening.discard(line)
        self._free.append(line)
        self._dispatch()
        self._maybe_over()

    def gone(self, line: Line) -> None:
        """It is closed."""
        if line in self._free:
            self._free.remove(line)
        if line.carried:
            self._shut.append(line)
            self._dispatch()
        else:
            self._rest(line)
        self._maybe_over()

    def unconnected(self, line: Line, failure: Failure | None, note: str) -> None:
        """There was no connection for what was due when it was tried."""
        self._opening.discard(line)
        if failure is not None:
            had_one = None if line.connected is None else line
            self._fail(line.began, failure, note, had_one)
        self._rest(line)
        self._maybe_over()

    def _rest(self, line: Line) -> None:
        wait_s = max(0.0, line.began + RETRY_S - monotonic())
        self._loop.call_later(wait_s, self._rested, line)

    def _rested(self, line: Line) -> None:
        self._shut.append(line)
        self._dispatch()

    # -- time

    def _sweep(self) -> None:
        """Give up what has waited for too long."""
        if self._closed:
            return
        before = monotonic() - self._patience_s
        for line in self._lines:
            line.expire(before)
        self._fail(before, Failure.UNREACHED, "every connection was busy")
        self._maybe_over()
        self._loop.call_later(_SWEEP_S, self._sweep)

    def _maybe_over(self) -> None:
        if self._ending and self._taken == self._due and all(x.trail is None for x in self._lines):
            self.over.set()


def _renderer(place: Place, request: Request) -> Callable[[str], bytes]:
    """What makes the bytes of a request from its key."""
    whole = message.message(place, request).whole
    key = KEY.encode()
    if key not in whole:
        return lambda _: whole
    if key not in request.body:
        return lambda own: whole.replace(key, own.encode())
    return lambda own: message.message(place, message.filled(request, own)).whole
