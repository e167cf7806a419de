"""`lastcall drill compare --together`: every state in each stop, many stops, one line a server."""

from __future__ import annotations

import contextlib
import sys
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.cli.show import Palette
    from lastcall.drill.endurance import Endured, Wanted
    from lastcall.drill.servers import Server

_MOST_STOPS = 100_000
_MOST_JOBS = 16
# Where nothing can be drawn over, a line is printed this often, in seconds.
_EVERY_S = 30.0
_CLEAR = "\r\x1b[2K"


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """What `lastcall drill compare` takes for many short stops."""
    group.add_argument(
        "--together", action="store_true", help="every state in each stop, and many short stops"
    )
    group.add_argument(
        "--stops", type=int, metavar="N", help="a server; default: 20, with lastcall 200"
    )
    group.add_argument(
        "--keep", metavar="DIR", help="keep the counts there, and go on from those that are there"
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="so many servers at a time; default: 1"
    )


def wanted(args: argparse.Namespace) -> Wanted:
    """What the options ask for.

    Raises:
        UsageError: they make no sense.
    """
    from lastcall.cli.drill import length_of
    from lastcall.cli.drill_compare import how_of
    from lastcall.drill.endurance import PATIENCE_S, Wanted

    for name, most in (("stops", _MOST_STOPS), ("jobs", _MOST_JOBS)):
        given = getattr(args, name)
        if given is not None and not 1 <= given <= most:
            raise UsageError(f"--{name} {given}: from 1 to {most}", f"such as --{name} 2")
    for name in ("runs", "count"):
        if getattr(args, name) is not None:
            raise UsageError(
                f"--{name} is for the long drills", "with --together: --stops says how often"
            )
    patience_s = PATIENCE_S
    if args.patience is not None:
        patience_s = length_of("--patience", args.patience, zero=False)
    return Wanted(args.stops or 0, how_of(args), patience_s, args.sources or "", args.keep or "")


def refuse_alone(args: argparse.Namespace) -> None:
    """Options that mean nothing without `--together`.

    Raises:
        UsageError: there is one.
    """
    for name in ("stops", "keep", "jobs"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} is for many short stops", "add --together")


def run(args: argparse.Namespace, servers: Sequence[Server], asked: Wanted) -> int:
    """Stop each server as often as wanted. 0 when any could be drilled, whatever came of it."""
    from lastcall.cli.drill import carry_out, write_private
    from lastcall.drill.before_after import table
    from lastcall.drill.tally_file import kept_in

    rows: list[Endured] = []

    def advice() -> str:
        said = f"{len(rows)} of {len(servers)} servers are done; what it had started is gone"
        if not args.keep:
            return f"{said}; with --keep DIR every stop that is finished is kept"
        return f"{said}; every finished stop is kept: the same command goes on from there"

    with kept_in(args.keep) if args.keep else contextlib.nullcontext():
        carry_out(endure_all(servers, asked, rows, args.jobs or 1, as_json=args.json), advice)
    if args.markdown:
        write_private(args.markdown, table(rows))
    return ExitCode.ORDERLY if any(row.tally.stops for row in rows) else ExitCode.INCONCLUSIVE


async def endure_all(
    servers: Sequence[Server],
    wanted: Wanted,
    rows: list[Endured],
    jobs: int = 1,
    *,
    as_json: bool = False,
) -> None:
    """Stop all servers as often as wanted, some at a time.

    Args:
        servers: which.
        wanted: how often, and how.
        rows: takes what came of each, in the order in which they are done.
        jobs: so many at a time.
        as_json: one object a line instead of what people read.
    """
    import asyncio

    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.endurance import endure

    palette, width = Palette.of(sys.stdout), width_of(sys.stdout)
    live = _Live(quiet=as_json, width=width if palette.on else None)
    waiting = list(reversed(servers))

    async def one_after_the_other() -> None:
        while waiting:
            row = await endure(waiting.pop(), wanted, live.tell)
            rows.append(row)
            live.done(row)
            if as_json:
                _print_json(row)
            else:
                live.print(lines_of(row, width, palette))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(jobs, len(servers))):
                group.create_task(one_after_the_other())
    except* Exception as errors:  # noqa: BLE001 (raised again, as the one that it is)
        raise errors.exceptions[0] from None
    finally:
        live.print(())


class _Live:
    """One line that says how far each server is that is being drilled.

    Args:
        quiet: say nothing.
        width: of the terminal on which the line is drawn over and over; None: it is none, and a
            line is printed now and then.
    """

    def __init__(self, *, quiet: bool, width: int | None) -> None:
        self._quiet = quiet
        self._width = width
        self._now: dict[str, Endured] = {}
        self._printed: dict[str, float] = {}

    def tell(self, row: Endured) -> None:
        """A server is so far."""
        if self._quiet:
            return
        key = row.server.key
        before = self._now.get(key)
        self._now[key] = row
        first = before is None
        if row.anew != (before.anew if before else "") or (first and row.tally.stops):
            self.print([_resumed(row)])
        if self._width is not None:
            room = max(1, self._width // len(self._now) - 2)
            # A line that wraps could not be drawn over.
            drawn = "  ".join(progress(each)[:room] for each in self._now.values())
            sys.stdout.write(_CLEAR + drawn)
            sys.stdout.flush()
        elif first or monotonic() - self._printed[key] >= _EVERY_S:
            self._printed[key] = monotonic()
            print(progress(row), flush=True)

    def done(self, row: Endured) -> None:
        """A server is done."""
        self._now.pop(row.server.key, None)

    def print(self, lines: Sequence[str]) -> None:
        """Lines that stay."""
        if self._quiet:
            return
        if self._width is not None:
            sys.stdout.write(_CLEAR)
        for line in lines:
            print(line)
        sys.stdout.flush()


def _resumed(row: Endured) -> str:
    if row.anew:
        return f"{row.server.name}: the count begins anew: {row.anew}"
    return f"{row.server.name}: goes on from {row.tally.stops} stops"


def progress(row: Endured) -> str:
    """How far a server is, in one line."""
    from lastcall.cli.show import harmless
    from lastcall.drill.before_after import percent
    from lastcall.drill.judge import Fate

    tally = row.tally
    low, high = tally.interval
    fates = (Fate.LOST, Fate.REFUSED_BADLY, Fate.HUNG)
    bad = ", ".join(f"{tally.count(fate)} {fate}" for fate in fates)
    rate = f"{tally.losing} lost work ({percent(low)} to {percent(high)} %)"
    return harmless(
        f"{row.server.name}  {tally.stops}/{row.wanted} stops: {rate}; {bad};"
        f" {tally.unsaid} inconclusive"
    )


_STYLES = {"keeps its word": "green", "loses work": "red", "inconclusive": "yellow"}


def lines_of(row: Endured, width: int | None, palette: Palette) -> list[str]:
    """A server as people read it: its verdict, what came of each state, and why."""
    from lastcall.cli.show import harmless, table_lines, wrap
    from lastcall.drill.before_after import end_of, notes_of, rate_of, states_of
    from lastcall.drill.compare import counted

    title = palette.paint(harmless(f"{row.server.name}  {row.version}".rstrip()), "bold")
    tally = row.tally
    if not tally.stops:
        return [
            title,
            *(f"  {palette.paint(each, 'dim')}" for each in wrap(row.missing, width)),
            "",
        ]
    verdict = palette.paint(f"{row.verdict}", _STYLES[row.verdict], "bold")
    cells = [["stops that lost work", rate_of(row).strip("*")]]
    cells += [[column, counted(fates)] for column, fates in states_of(tally).items()]
    ended = ", ".join(f"{number} x {how}" for how, number in tally.ends.items())
    cells += [["end", f"{ended}; after {end_of(tally)}" if tally.ended_s else ended]]
    cells += [[label, text] for label, text in notes_of(row)]
    return [f"{title}  {verdict}", *table_lines(cells, width, palette), ""]


def _print_json(row: Endured) -> None:
    import json

    print(json.dumps(said_of(row), ensure_ascii=False), flush=True)


def said_of(row: Endured) -> dict[str, object]:
    """A server as one JSON object."""
    from lastcall.drill.before_after import never_reached, states_of

    tally = row.tally
    return {
        "event": "endured",
        "server": row.server.name,
        "beside": row.server.beside or None,
        "version": row.version,
        "verdict": row.verdict if tally.stops else None,
        "wanted": row.wanted,
        "stops": tally.stops,
        "losing": tally.losing,
        "interval": [round(rate, 4) for rate in tally.interval],
        "inconclusive": tally.unsaid,
        "states": {
            column: {fate.value: number for fate, number in fates.items()}
            for column, fates in states_of(tally).items()
        },
        "never_reached": [kind.key for kind in never_reached(tally)],
        "reasons": dict(tally.reasons),
        "causes": {code: {"title": t, "advice": a} for code, (t, a) in tally.causes.items()},
        "ends": dict(tally.ends),
        "ended_s": tally.end_s,
        "took_s": tally.took_s,
        "anew": row.anew or None,
        "missing": row.missing or None,
    }
