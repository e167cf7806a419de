"""All the clients of one drill: begun, brought into their states, proved, and followed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients import load, make, message, newcomers
from lastcall.drill.clients.backlog import Backlog
from lastcall.drill.history import Found, Kind
from lastcall.drill.proof import proved

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lastcall.drill.clients.gate import Client, Gate
    from lastcall.drill.history import Attempt
    from lastcall.drill.place import Place
    from lastcall.drill.scenario import Request, Scenario, State
    from lastcall.drill.trail import Trail
    from lastcall.drill.watch import Watch

# Nothing tells us when the server has read what was sent: we look this often.
_SETTLED_EVERY_S = 0.005
# All at once would overflow a short accept queue, and that is not what is to be tested.
_APART_S = 0.003
_ENOUGH_S = 0.7
# The second request of their state is what they are about.
_BEHIND = {Kind.PIPELINED, Kind.IDLE_THEN_REQUEST}
_READ_KINDS = {Kind.IN_HANDLER, Kind.LONG_POLL}


class Traffic:
    """The clients of one drill.

    Args:
        place: where the server is.
        scenario: what they do.
        not_offered: states that the server does not speak: left out.
        gate: the moment of the stop.
    """

    def __init__(
        self, place: Place, scenario: Scenario, not_offered: Collection[Kind], gate: Gate
    ) -> None:
        self._place = place
        self._scenario = scenario
        self._states = [
            s
            for s in scenario.states
            if s.count > 0 and (s.kind not in not_offered or not s.optional)
        ]
        self._gate = gate
        self._ids = message.Ids()
        self._over = asyncio.Event()
        self._coming: list[Trail] = []
        self._held: list[Trail] = []
        self._backlogs = [
            (s, Backlog(place, s, gate, self._ids)) for s in self._states if s.kind is Kind.BACKLOG
        ]
        self._holding: list[asyncio.Task[None]] = []
        self._flowing: list[asyncio.Task[newcomers.Untried] | asyncio.Task[load.Tally]] = []
        self._reached: set[int] = set()
        self._keyless: set[int] = set()

    @property
    def wanted(self) -> tuple[Kind, ...]:
        """The states that are to be reached."""
        return tuple(dict.fromkeys(s.kind for s in self._states))

    @property
    def open(self) -> int:
        """How many attempts of the states are not over yet."""
        return sum(trail.over is None for trail in self._held)

    def flow(self) -> None:
        """Begin what goes on all the time: newcomers and background load."""
        place, scenario, coming, ids = self._place, self._scenario, self._coming, self._ids
        limit_s = self._gate.patience_s
        if scenario.newcomers.rate:
            trying = newcomers.run(
                place, scenario.newcomers, coming, ids, self._over, limit_s=limit_s
            )
            self._flowing.append(asyncio.create_task(trying))
        if scenario.load.rate:
            loading = load.run(place, scenario.load, coming, ids, self._over, limit_s)
            self._flowing.append(asyncio.create_task(loading))

    async def begin(self) -> None:
        """Begin to bring connections into their states, one after the other."""
        for state in self._states:
            if state.kind is Kind.BACKLOG:
                continue
            for client in make.clients(self._place, state, self._gate, self._ids):
                self._hold(client, state)
                await asyncio.sleep(_APART_S)

    def _hold(self, client: Client, state: State) -> None:
        self._held.extend(client.trails)
        self._keyless.update(t.id for t in client.trails if not _request(state, t).keyed)
        self._holding.append(asyncio.ensure_future(client.run()))

    async def settle(self, watch: Watch, limit_s: float) -> None:
        """Wait until every connection is in its state, or over, or the limit has passed."""
        begun = monotonic()
        while (waited_s := monotonic() - begun) < limit_s:
            # The states around the requests in hand may not cost us those.
            core = waited_s > _ENOUGH_S
            steady = all(
                t.steady or t.over is not None
                for t in self._held
                if not core or t.kind in _READ_KINDS
            )
            # Once the first is answered, waiting for others only loses more of them.
            ends = any(t.over is not None for t in self._held if t.kind in _READ_KINDS)
            if steady and (ends or self._read(await watch.found())):
                return
            await asyncio.sleep(_SETTLED_EVERY_S)

    def _read(self, found: dict[int, Found]) -> bool:
        """Whether the server has read every request that is to be in a handler."""
        # Behind a first request, a second may stay unread as long as it likes.
        shared = {t.connection for t in self._held if t.kind is Kind.PIPELINED}
        return not found or all(
            found.get(t.connection) is Found.TAKEN
            for t in self._held
            if t.kind in _READ_KINDS and t.over is None and t.connection not in shared
        )

    async def look(self, watch: Watch) -> None:
        """Ask the server's side about every connection, right before the stop."""
        found = await watch.found()
        # What its kernel does not know, though it knows others, it never let in.
        _tell(self._held, found, absent=Found.OVERFLOWN if found else Found.UNKNOWN)

    @property
    def fills(self) -> bool:
        """Whether anything is to stand in the accept queue."""
        return bool(self._backlogs)

    def fill(self) -> None:
        """Send what is to stand in the accept queue when the stop comes. Blocks for a moment."""
        for _, backlog in self._backlogs:
            backlog.fill()

    def look_at_last(self, watch: Watch) -> None:
        """Ask where those are that came in the last moment."""
        last = [t for _, b in self._backlogs for c in b.clients for t in c.trails]
        # A server that died at once has no connections any more: that tells nothing.
        _tell(last, watch.between([t.connection for t in last]), absent=Found.UNKNOWN)

    def stopped(self, at: float, begun: Collection[str]) -> None:
        """The stop was sent: prove the states, and let the clients go on.

        Args:
            at: when, on the monotonic clock.
            begun: the keys that the server's ledger had by then.
        """
        self._gate.open(at)
        for state, backlog in self._backlogs:
            for client in backlog.clients:
                self._hold(client, state)
        self._reached.update(t.id for t in self._held if proved(t, at, begun=t.key in begun))

    async def followed(self) -> None:
        """Wait until every connection that was in a state has come to its end."""
        if self._holding:
            await asyncio.wait(self._holding)

    async def finish(self, limit_s: float) -> None:
        """No more newcomers; wait for those under way up to a limit; then end all clients."""
        self._over.set()
        if self._flowing:
            await asyncio.wait(self._flowing, timeout=limit_s)
        await self.cancel()
        # One that we broke off before its time was over is no attempt.
        hung_before = monotonic() - self._gate.patience_s / 2
        self._coming = [
            t for t in self._coming if t.over is not None or (t.attempted or 0.0) < hung_before
        ]

    @property
    def untried(self) -> int:
        """Newcomers that were due and not tried, as we were not in time for them."""
        done = [t.result() for t in self._flowing if t.done() and not t.cancelled()]
        return sum(said.late for said in done if isinstance(said, newcomers.Untried))

    async def cancel(self) -> None:
        """End all clients now; what has no end yet stays open in the history.

        Raises:
            Exception: a client failed, which none may.
        """
        tasks = [*self._holding, *self._flowing]
        for task in tasks:
            task.cancel()
        for said in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(said, Exception):
                raise said

    def attempts(self, zero: float) -> tuple[Attempt, ...]:
        """The history, in the order in which it began."""
        scenario = self._scenario
        keyed = {
            Kind.NEWCOMER: scenario.newcomers.request.keyed,
            Kind.LOAD: scenario.load.request.keyed,
        }
        held = [t.attempt(zero, reached=t.id in self._reached) for t in self._held]
        came = [t.attempt(zero, reached=True) for t in self._coming]
        everything = (
            a if keyed.get(a.kind, a.id not in self._keyless) else replace(a, key="")
            for a in (*held, *came)
        )
        return tuple(sorted(everything, key=lambda a: (a.attempted_s, a.id)))


def _request(state: State, trail: Trail) -> Request:
    """What an attempt of a state carries."""
    if state.second is not None and trail.kind in _BEHIND:
        return state.second
    return state.request


def _tell(trails: Iterable[Trail], found: dict[int, Found], *, absent: Found) -> None:
    """Note where the server's side has these."""
    for trail in trails:
        if trail.over is None and trail.connection:
            trail.found = found.get(trail.connection, absent)
