"""One drill: traffic in every state, the stop, every request followed to its end, the judgement."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients import load
from lastcall.drill.clients.gate import Gate
from lastcall.drill.clients.lag import Lag
from lastcall.drill.clients.offered import offered
from lastcall.drill.commanding import NOT_ENDED
from lastcall.drill.history import OPTIONAL, Kind
from lastcall.drill.judge import Circumstances, judge
from lastcall.drill.ledger import read_ledger
from lastcall.drill.result import Aftermath, Moment, Result, Subject
from lastcall.drill.serving import End, serving
from lastcall.drill.software import software
from lastcall.drill.traffic import Traffic
from lastcall.drill.watch import Watch
from lastcall.drill.why import explain
from lastcall.errors import NotRunning
from lastcall.model import Finding, Severity
from lastcall.proc.ending import status_in_words
from lastcall.proc.ready import NotReady
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.history import Attempt
    from lastcall.drill.how import Aim
    from lastcall.drill.judge import Deed
    from lastcall.drill.plan import Plan
    from lastcall.drill.serving import Serving

_OFFER_LIMIT_S = 3.0
_LAST_LINES = 40
_GONE_EVERY_S = 0.02
# Around the stop the times must be right; what is late long after it is late in the same order.
_BEFORE_S, _AFTER_S = 0.1, 1.0
_PROGRESS_EVERY_S = 0.5
# Once a rolling replacement is done, newcomers are watched this much longer.
_ROLLED_S = 2.0


@record
class Drilled:
    """A drill with its whole history.

    Args:
        result: what it came to.
        attempts: all of them.
        moment_s: when the stop came, in seconds after the last state was begun; None: it never did.
    """

    result: Result
    attempts: tuple[Attempt, ...]
    moment_s: float | None = None


async def drill(plan: Plan, tell: Callable[[Moment], None] = lambda _: None) -> Drilled:
    """Run one drill.

    Args:
        plan: what to do.
        tell: takes each thing that happens, as it happens; its times count from the start of the
            drill until the stop was sent, and from the stop afterwards.

    Raises:
        LastcallError: the experiment could not be made as it was asked for. That the server never
            got ready, or was gone before the stop, is a judgement and no error.
    """
    run = _Drill(plan, tell)
    try:
        async with serving(plan, run.note) as server:
            await run.on(server)
    except NotReady as error:
        run.never_ready(error)
    return run.drilled()


class _Drill:
    """The state of one drill."""

    def __init__(self, plan: Plan, tell: Callable[[Moment], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._begun = monotonic()
        self._zero: float | None = None
        self._idle = ""
        self._aside: tuple[str, ...] = ()
        self._unseen = False
        self._all_begun = 0.0
        self._moments: list[tuple[float, str, str]] = []
        self._attempts: tuple[Attempt, ...] = ()
        self._around = Circumstances(ready=False, stopped=False)
        self._findings: tuple[Finding, ...] = ()
        self._aftermath = Aftermath()
        self._not_offered: frozenset[Kind] = frozenset()
        self._subject = Subject(plan.command, how=str(plan.how), again=plan.again)

    def note(self, code: str, what: str, at: float | None = None) -> None:
        """Something happened."""
        at = monotonic() if at is None else at
        self._moments.append((at, what, code))
        since = self._begun if self._zero is None else self._zero
        self._tell(Moment(round(at - since, 4), what, code))

    def never_ready(self, error: NotReady) -> None:
        """There was nothing to drill."""
        self.note("never-ready", error.what)
        self._findings = (
            Finding(
                "not-ready",
                error.what,
                Severity.BLOCKER,
                evidence=error.evidence,
                advice=error.advice,
            ),
        )

    def _closed(self, at: float) -> None:
        self.note("listener-closed", "nobody listens on its port any more", at)

    async def _tell_progress(self, traffic: Traffic) -> None:
        """Say how many are in flight still, as long as it takes; this is not kept."""
        while self._zero is not None:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            if not traffic.open:
                return
            what = f"{traffic.open} connections and streams still open"
            self._tell(Moment(round(monotonic() - self._zero, 4), what, "draining"))

    # -- the steps

    async def on(self, server: Serving) -> None:
        """Everything between readiness and the last answer."""
        plan, place = self._plan, server.place
        self.note("ready", f"ready at {place}")
        said = await software(place, plan.command, server.pid)
        self._subject = replace(self._subject, software=said, place=str(place))
        self._findings = await server.beforehand(plan.how)
        speaks = await offered(place, plan.scenario.states, _OFFER_LIMIT_S)
        self._not_offered = OPTIONAL - speaks - ({Kind.TLS_HALF} if place.tls else set())
        traffic = Traffic(place, plan.scenario, self._not_offered, Gate(plan.patience_s))
        watch = Watch(place)
        looking = asyncio.create_task(watch.go_on(self._closed))
        end: End | None = None
        with load.quiet(), Lag() as lag:
            try:
                await self._prepare(server, traffic, watch)
                if server.running:
                    end = await self._stop_and_follow(server, traffic, watch)
                await traffic.finish(self._left_s(plan.linger_s))
            finally:
                looking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await looking
                await traffic.cancel()
        zero = self._zero or monotonic()
        self._attempts = traffic.attempts(zero)
        self._aftermath = self._what_became(server, watch, end, zero)
        self._around = Circumstances(
            ready=True,
            stopped=self._zero is not None,
            ended=self._zero is None or plan.how.rolling or end is not None or self._unseen,
            replaced=plan.how.rolling,
            effect_s=self._effect_s(),
            untried=traffic.untried,
            idle=self._idle,
            left=self._aftermath.left if end is not None else (),
            clock_error_s=lag.worst_between_s(zero - _BEFORE_S, zero + _AFTER_S),
            wanted=traffic.wanted,
        )

    async def _prepare(self, server: Serving, traffic: Traffic, watch: Watch) -> None:
        """Bring the traffic to where the stop is to find it."""
        traffic.flow()
        await asyncio.sleep(self._plan.lead_s)
        if traffic.fills and not self._plan.how.command:
            # Before the states are begun: among many processes it takes longer than some of them.
            await server.find_accepting()
        await traffic.begin()
        self._all_begun = monotonic()
        if self._plan.moment_s is not None:
            await asyncio.sleep(self._plan.moment_s)
        else:
            await traffic.settle(watch, self._plan.settle_s)
        self.note("settled", f"{traffic.open} connections and streams in their states")

    async def _stop_and_follow(self, server: Serving, traffic: Traffic, watch: Watch) -> End | None:
        """The stop, and all that comes of it. Returns how the server ended; None: not seen."""
        plan = self._plan
        begun = {deed.key for deed in self._deeds() or ()}
        try:
            aim = server.aim(plan.how)
        except NotRunning:
            return None
        with contextlib.ExitStack() as held:
            if aim is not None:
                held.callback(aim.close)
            await traffic.look(watch)
            # From here to the signal nothing else may run: it would change what was just seen.
            with server.paused() if aim is not None else contextlib.nullcontext():
                traffic.fill()
                self._zero = monotonic() if aim is None else aim.send(plan.how.signum)
                traffic.look_at_last(watch)
            traffic.stopped(self._zero, begun)
            self.note("stop-sent", str(plan.how), self._zero)
            return await self._follow(server, traffic, watch, aim)

    async def _follow(
        self, server: Serving, traffic: Traffic, watch: Watch, aim: Aim | None
    ) -> End | None:
        """Wait for the end of the server and of every request, as long as patience lasts."""
        ending = asyncio.create_task(self._ending(server, watch))
        others = [asyncio.create_task(traffic.followed()), asyncio.create_task(self._again(aim))]
        progress = asyncio.create_task(self._tell_progress(traffic))
        try:
            await asyncio.wait({ending, *others}, timeout=self._left_s(0.0))
            if not ending.done():
                self.note("patience-over", f"not ended after {self._plan.patience_s:g} s")
            await asyncio.sleep(self._plan.linger_s)
            return ending.result() if ending.done() else None
        finally:
            for task in (ending, progress, *others):
                task.cancel()
            await asyncio.gather(ending, progress, *others, return_exceptions=True)

    async def _ending(self, server: Serving, watch: Watch) -> End | None:
        """Wait until the stop has come to its end. None: nothing was to end."""
        how = self._plan.how
        if how.command:
            status = await server.carry_out(how)
            said = f"failed, with exit status {status}"
            if status == NOT_ENDED:
                said = f"did not end within {self._plan.patience_s:g} s"
            self.note("command-ended", f"the stop command {said if status else 'ended'}")
            if status:
                self._idle = f"the command that stops it {said}"
                self._aside = server.command_output
        if how.rolling:
            await asyncio.sleep(_ROLLED_S)
            if server.unchanged and not self._idle:
                self._idle = "nothing was replaced: every process of it runs on as before"
            return None
        if server.pid is None:
            if not watch.knows:
                self._unseen = True
                return None
            while watch.look():  # noqa: ASYNC110 (nothing wakes us when a listener is closed)
                await asyncio.sleep(_GONE_EVERY_S)
            end = End(monotonic(), None)
        else:
            end = await server.ended()
        self.note("main-ended", f"the server ended: {words_of(end.status)}", end.at)
        return end

    def _left_s(self, least_s: float) -> float:
        """How much of the patience is left, in seconds."""
        if self._zero is None:
            return least_s
        return max(least_s, self._zero + self._plan.patience_s - monotonic())

    def _effect_s(self) -> float | None:
        """When a stop command showed its effect: nobody listened any more, or the server ended."""
        if not self._plan.how.command or self._plan.how.rolling or self._idle:
            return None
        seen = (self._aftermath.listening_s, self._aftermath.ended_s)
        return min((at for at in seen if at is not None), default=None)

    async def _again(self, aim: Aim | None) -> None:
        how = self._plan.how
        if aim is not None and how.again_s is not None and self._zero is not None:
            await asyncio.sleep(max(0.0, self._zero + how.again_s - monotonic()))
            self.note("stop-sent-again", f"{how} (the second time)", aim.send(how.signum))

    # -- what it comes to

    def _what_became(
        self, server: Serving, watch: Watch, end: End | None, zero: float
    ) -> Aftermath:
        watch.look()
        closed_s = watch.closed(zero)
        return Aftermath(
            status=None if end is None else end.status,
            ended_s=None if end is None else round(end.at - zero, 4),
            left=server.left(),
            listening_s=closed_s,
            looks=watch.looks(zero),
            output=(*self._aside, *server.output[-_LAST_LINES:]),
        )

    def _deeds(self) -> list[Deed] | None:
        """What the server wrote down; None: it keeps no ledger, or never wrote a line."""
        path = self._plan.ledger
        return read_ledger(path) if path and os.path.exists(path) else None

    def drilled(self) -> Drilled:
        """The judgement over everything."""
        judgement = judge(self._attempts, self._deeds(), self._around)
        findings = self._findings
        if self._around.stopped:
            findings = explain(self._subject, judgement, self._aftermath, findings)
        zero = self._begun if self._zero is None else self._zero
        moments = tuple(
            Moment(round(at - zero, 4), what, code) for at, what, code in sorted(self._moments)
        )
        states = self._plan.scenario.states
        result = Result(
            self._subject,
            judgement,
            findings,
            moments,
            self._aftermath,
            self._around.clock_error_s,
            tuple(s.kind for s in states if s.optional and s.kind in self._not_offered),
        )
        moment_s = None if self._zero is None else round(self._zero - self._all_begun, 4)
        return Drilled(result, self._attempts, moment_s)


def words_of(status: int | None) -> str:
    """A wait status in words; None: nobody saw it."""
    return "nobody saw how" if status is None else status_in_words(status)
