"""One server, stopped again and again in every state at once until enough stops said something.

Each stop that is finished is counted and kept at once (`tally_file`), so that an interruption costs
the one that was under way.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill import tally_file
from lastcall.drill.experiment import drill, words_of
from lastcall.drill.how import How
from lastcall.drill.installed import CannotBuild, Missing, find, prepare
from lastcall.drill.plan import Plan
from lastcall.drill.tally import Tally
from lastcall.drill.together import SETTLE_S, together, unreached, varied
from lastcall.errors import LastcallError
from lastcall.proc.ready import Ready
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.installed import Found
    from lastcall.drill.judge import Verdict
    from lastcall.drill.servers import Server

BARE_STOPS, STOPS = 20, 200
PATIENCE_S = 12.0
# Newcomers are tried so long after the end, to see that they are refused.
_LINGER_S = 0.2
# So many stops that say nothing, one after the other, and it is left alone.
_IN_A_ROW = 5
# And so many in all: a tenth of those wanted, but some at least.
_UNSAID_LEAST, _UNSAID_PART = 10, 10


@record
class Wanted:
    """What each server is put through.

    Args:
        stops: how many have to say something; 0: `BARE_STOPS` for a server as it comes, `STOPS`
            for one with lastcall.
        how: how it is stopped.
        patience_s: how long each stop may take, in seconds.
        sources: the folder with the sources in other languages; empty: that of the checkout.
        keep: the folder in which the counts are kept; empty: nowhere.
    """

    stops: int = 0
    how: How = How()
    patience_s: float = PATIENCE_S
    sources: str = ""
    keep: str = ""

    def stops_of(self, server: Server) -> int:
        """How many stops of this server have to say something."""
        return self.stops or (STOPS if server.beside else BARE_STOPS)


@record
class Endured:
    """A server and what its stops came to.

    Args:
        server: which.
        wanted: how many stops were to say something.
        version: of the server, as it says itself; empty: unknown.
        tally: the count.
        missing: why it was not drilled, or not any further; empty: it was.
        anew: why an earlier count was dropped; empty: none was.
    """

    server: Server
    wanted: int
    version: str = ""
    tally: Tally = Tally()
    missing: str = ""
    anew: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the count says."""
        return self.tally.verdict(self.wanted)


async def endure(server: Server, wanted: Wanted, tell: Callable[[Endured], None]) -> Endured:
    """Stop a server until enough stops have said something.

    Args:
        server: which.
        wanted: how often, and how.
        tell: takes what is known after each stop, and at the beginning.

    Returns:
        The count, with whatever kept it from being complete in `missing`.

    Raises:
        CannotKeep: the count cannot be read or kept.
    """
    found = await find(server, wanted.sources)
    stops = wanted.stops_of(server)
    if isinstance(found, Missing):
        return Endured(server, stops, missing=f"{found.what}: {found.advice}")
    so_far = Endured(server, stops, found.version)
    try:
        await prepare(found)
    except CannotBuild as error:
        return replace(so_far, missing=": ".join((error.what, *error.evidence[-1:])))
    return await _Series(found, wanted, tell).go_on(so_far)


def _why(tally: Tally) -> str:
    """What the last stop that said nothing gave as its reason, and the server as its last word."""
    if not tally.details:
        return ""
    last = tally.details[-1]
    return "".join(f": {text}" for text in (*last.reasons[:2], *last.output[-1:]))


class _Series:
    """The stops of one server."""

    def __init__(self, found: Found, wanted: Wanted, tell: Callable[[Endured], None]) -> None:
        self._found = found
        self._wanted = wanted
        self._tell = tell
        self._scenario = together(found.server)
        self._about: dict[str, str] = {}

    async def go_on(self, so_far: Endured) -> Endured:
        """As many stops as are missing."""
        unsaid = in_a_row = 0
        most = max(_UNSAID_LEAST, so_far.wanted // _UNSAID_PART)
        so_far = self._the_same(so_far)
        self._tell(so_far)
        while so_far.tally.stops < so_far.wanted:
            before = so_far.tally
            tally = await self._once(before)
            said = tally.stops > before.stops
            unsaid, in_a_row = unsaid + (not said), 0 if said else in_a_row + 1
            so_far = self._the_same(replace(so_far, tally=tally))
            self._tell(so_far)
            if unsaid >= most or in_a_row >= _IN_A_ROW:
                return replace(
                    so_far, missing=f"given up: {unsaid} stops said nothing{_why(tally)}"
                )
        return so_far

    def _the_same(self, so_far: Endured) -> Endured:
        """Keep the count; if what is counted has changed meanwhile, begin anew."""
        wanted = self._wanted
        how = f"{wanted.how}, {wanted.patience_s:g} s"
        about = tally_file.identity(self._found, self._scenario, how)
        path = tally_file.path_of(wanted.keep, so_far.server.key) if wanted.keep else ""
        if not self._about and path:
            kept = tally_file.load(path, about)
            so_far = replace(so_far, tally=kept.tally, anew=kept.anew)
        elif self._about and about != self._about:
            so_far = replace(so_far, tally=Tally(), anew="its source was changed meanwhile")
        if self._about and path:
            tally_file.save(path, about, so_far.tally)
        self._about = about
        return so_far

    async def _once(self, tally: Tally) -> Tally:
        """One stop more."""
        begun = monotonic()
        with tempfile.TemporaryDirectory(prefix="lastcall-compare-") as folder:
            plan = self._plan(os.path.join(folder, "ledger"), tally.number)
            try:
                result = (await drill(plan)).result
            except LastcallError as error:
                return tally.failed(error.what, error.evidence, monotonic() - begun)
        ended = result.aftermath.ended_s is not None
        end = words_of(result.aftermath.status) if ended else "not ended in time"
        missed = unreached(result, self._found.server)
        return tally.added(result, missed, monotonic() - begun, end)

    def _plan(self, ledger: str, number: int) -> Plan:
        found = self._found
        return Plan(
            command=found.command,
            scenario=varied(self._scenario, number),
            how=self._wanted.how,
            ready=Ready.parse(found.server.ready),
            ready_within_s=found.server.ready_within_s,
            lead_s=max(Plan().lead_s, found.server.warm_s),
            settle_s=SETTLE_S,
            patience_s=self._wanted.patience_s,
            linger_s=_LINGER_S,
            cwd=os.path.dirname(ledger),  # some servers load what lies in the current folder
            env=(*found.env, ("LASTCALL_LEDGER", ledger)),
            ledger=ledger,
        )
