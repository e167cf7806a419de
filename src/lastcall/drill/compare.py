"""The same drills over many servers, and what came of each in one row."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill import presets
from lastcall.drill.experiment import drill, words_of
from lastcall.drill.history import Kind
from lastcall.drill.installed import CannotBuild, Found, Missing, find, prepare
from lastcall.drill.judge import BAD, Fate, Verdict, Work
from lastcall.drill.plan import Plan
from lastcall.errors import LastcallError
from lastcall.model import Severity
from lastcall.proc.ready import Ready
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.how import How
    from lastcall.drill.judge import Judged
    from lastcall.drill.result import Result
    from lastcall.drill.scenario import Scenario, State
    from lastcall.drill.servers import Server
    from lastcall.model import Finding

# The columns of the table, and which states each sums up.
COLUMNS: dict[str, frozenset[Kind]] = {
    "in flight": frozenset({Kind.IN_HANDLER, Kind.LONG_POLL, Kind.UNREAD, Kind.SENT}),
    "pipelined": frozenset({Kind.PIPELINED}),
    "accept queue": frozenset({Kind.BACKLOG, Kind.JUST_SENT}),
    "half sent": frozenset({Kind.SILENT, Kind.HALF_LINE, Kind.HALF_HEADERS}),
    "upload": frozenset({Kind.HALF_BODY, Kind.EXPECT_CONTINUE}),
    "late on keep-alive": frozenset({Kind.IDLE_THEN_REQUEST}),
    "streams": frozenset({Kind.STREAMING_CHUNKED, Kind.STREAMING_LENGTH, Kind.EVENTS}),
    "WebSocket": frozenset({Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO}),
    "HTTP/2": frozenset({Kind.HTTP2_STREAM}),
    "newcomers": frozenset({Kind.NEWCOMER}),
}
_FAR_S = 5.0
_WORDS = {
    Fate.ACKNOWLEDGED: "answered",
    Fate.REFUSED_CLEANLY: "refused",
    Fate.LET_GO: "let go",
    Fate.REFUSED_BADLY: "reset",
    Fate.LOST: "lost",
    Fate.HUNG: "hung",
    Fate.UNPROVEN: "not proved",
}


@record
class Row:
    """What came of one server.

    Args:
        name: of the server and its settings.
        version: as it says itself; empty: unknown.
        results: of its drills, even load.
        uneven: of the drills with one single request in flight.
        missing: why it was not drilled; empty: it was.
    """

    name: str
    version: str
    results: tuple[Result, ...] = ()
    uneven: tuple[Result, ...] = ()
    missing: str = ""

    @property
    def verdict(self) -> Verdict:
        """The gravest of its drills: it keeps its word only if it always did."""
        verdicts = {r.judgement.verdict for r in (*self.results, *self.uneven)}
        if Verdict.LOSES in verdicts:
            return Verdict.LOSES
        return Verdict.KEEPS if verdicts == {Verdict.KEEPS} else Verdict.INCONCLUSIVE

    def cell(self, column: str) -> str:
        """One column in words: `20 answered`, `19 lost, 1 answered`; empty: nothing was tried."""
        found = Counter[Fate]()
        for each in self.judged(COLUMNS[column]):
            found[each.fate] += 1
        return counted(found)

    def judged(self, kinds: frozenset[Kind]) -> list[Judged]:
        """Its attempts of these kinds over all even drills; newcomers only after the stop."""
        return [
            j
            for result in self.results
            for j in result.judgement.judged
            if j.attempt.kind in kinds
            and (j.attempt.kind is not Kind.NEWCOMER or j.attempt.attempted_s > 0)
        ]

    @property
    def alone(self) -> str:
        """What came of the one request in flight, where the other workers had none."""
        found = Counter[Fate]()
        for result in self.uneven:
            found.update(
                j.fate for j in result.judgement.judged if j.attempt.kind is not Kind.NEWCOMER
            )
        return counted(found)

    @property
    def half(self) -> int:
        """How many payments were taken without their order."""
        return sum(
            j.work is Work.HALF
            for result in (*self.results, *self.uneven)
            for j in result.judgement.judged
        )

    @property
    def end(self) -> str:
        """How and when it ended: of the first drill, and of a later one that took far longer."""
        if not self.results:
            return ""
        first = self.results[0].aftermath
        if first.ended_s is None:
            return "not ended in time"
        said = f"{words_of(first.status)} after {first.ended_s:.1f} s"
        ends = [result.aftermath.ended_s for result in self.results]
        if None in ends:
            return f"{said}; once not in time"
        latest = max(end for end in ends if end is not None)
        return f"{said}; {latest:.1f} s at most" if latest > first.ended_s + _FAR_S else said

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Why it lost work: each cause once, gravest first."""
        found: dict[str, Finding] = {}
        for result in (*self.results, *self.uneven):
            for finding in result.findings:
                if finding.severity is not Severity.NOTE:
                    found.setdefault(finding.code, finding)
        return tuple(found.values())


@record
class Comparison:
    """What every server is put through.

    Args:
        how: how each is stopped.
        runs: how often each drill is made.
        count: how many requests are to be in flight.
        patience_s: how long each stop may take, in seconds.
        sources: the folder with the sources in other languages; empty: that of the checkout.
    """

    how: How
    runs: int = 1
    count: int = presets.IN_HANDLER_COUNT
    patience_s: float = 45.0
    sources: str = ""


# With few threads a server cannot be in all states at once: those that hold one for long, and are
# not just requests in flight, have a drill of their own.
_SECOND = frozenset(
    {Kind.STREAMING_CHUNKED, Kind.STREAMING_LENGTH, Kind.EVENTS, Kind.LONG_POLL, Kind.HTTP2_STREAM}
    | {Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO, Kind.HALF_BODY, Kind.EXPECT_CONTINUE}
)

# gunicorn gives its workers 30 s: an open WebSocket must outlast that to show who waits for it.
_WEBSOCKET_S = 32.0


def rounds(count: int) -> tuple[Scenario, Scenario, Scenario]:
    """The drills of a comparison: requests in flight, everything else, one request alone."""
    paths = presets.probe_paths()
    whole = presets.scenario(paths, count)
    first = replace(whole, states=tuple(s for s in whole.states if s.kind not in _SECOND))
    second = replace(whole, states=tuple(_alone(s) for s in whole.states if s.kind in _SECOND))
    return first, second, presets.uneven(whole)


def _alone(state: State) -> State:
    if state.kind is Kind.WEBSOCKET_IDLE:
        return replace(state, count=1, after_s=_WEBSOCKET_S)
    return replace(state, count=1)


async def drill_server(server: Server, wanted: Comparison) -> Row:
    """Put one server through it. What keeps it from being drilled stands in the row."""
    found = await find(server, wanted.sources)
    if isinstance(found, Missing):
        return Row(server.name, "", missing=f"{found.what}: {found.advice}")
    try:
        await prepare(found)
        first, second, alone = rounds(wanted.count)
        even = [
            await _once(found, each, wanted) for _ in range(wanted.runs) for each in (first, second)
        ]
        uneven = [await _once(found, alone, wanted) for _ in range(wanted.runs)]
    except (LastcallError, CannotBuild) as error:
        said = (error.what, *error.evidence[-1:])
        return Row(server.name, found.version, missing=": ".join(said))
    return Row(server.name, found.version, tuple(even), tuple(uneven))


async def _once(found: Found, scenario: Scenario, wanted: Comparison) -> Result:
    server = found.server
    # What it is known to speak it must be brought to; the rest is asked for only if it says so.
    states = tuple(replace(s, optional=s.kind not in server.speaks) for s in scenario.states)
    scenario = replace(scenario, states=states)
    with tempfile.TemporaryDirectory(prefix="lastcall-compare-") as folder:
        ledger = os.path.join(folder, "ledger")
        plan = Plan(
            command=found.command,
            scenario=scenario,
            how=wanted.how,
            ready=Ready.parse(server.ready),
            ready_within_s=server.ready_within_s,
            patience_s=wanted.patience_s,
            cwd=folder,  # some servers load what lies in the current folder
            env=(*found.env, ("LASTCALL_LEDGER", ledger)),
            ledger=ledger,
        )
        return (await drill(plan)).result


def counted(found: Counter[Fate]) -> str:
    """Fates in words, the bad ones first."""
    order = sorted(found, key=lambda fate: (fate not in BAD, -found[fate]))
    return ", ".join(f"{found[fate]} {_WORDS[fate]}" for fate in order)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with the reasons below it; what was not drilled is left out."""
    drilled = [row for row in rows if not row.missing]
    lines = [
        f"| server | verdict | {' | '.join(COLUMNS)} | alone | end |",
        f"| --- | --- |{' --- |' * len(COLUMNS)} --- | --- |",
    ]
    for row in drilled:
        cells = [row.cell(column) or "—" for column in COLUMNS]
        words = (plain_text(row.name), f"{row.verdict}", *cells, row.alone or "—", row.end)
        lines.append(f"| {' | '.join(words)} |")
    lines += ["", "## Why", ""]
    for row in drilled:
        lines += [f"**{plain_text(row.name)}** ({plain_text(row.version)})", ""]
        lines += [
            f"- `{why.code}`: {plain_text(why.title)}. {plain_text(why.advice)}"
            for why in row.reasons
        ]
        lines += [] if row.reasons else ["- nothing was lost"]
        lines.append("")
    return "\n".join(lines)


def plain_text(text: str) -> str:
    """The text without anything that Markdown takes for a mark."""
    return re.sub(r"([<>|*_])", r"\\\1", text).replace("\n", " ")
