"""`lastcall drill compare`: the same drill over every server that is found here, in one table."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from lastcall.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.cli.show import Palette
    from lastcall.drill.compare import Comparison, Row
    from lastcall.drill.servers import Server

_MOST_RUNS = 100
_MOST_COUNT = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall drill compare` takes."""
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="only these; default: all")
    parser.add_argument("--also", metavar="FILE", help="more servers, from a TOML file")
    parser.add_argument("--sources", metavar="DIR", help="where the sources in Node, Go, Java are")
    parser.add_argument("--list", action="store_true", help="tell what is found here, and end")
    parser.add_argument("--how", metavar="SIGNAL", default="TERM", help="default: TERM")
    parser.add_argument("--to", choices=("main", "group", "tree"), default="main")
    parser.add_argument("--twice", metavar="TIME", help="the signal once more, after so long")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="so often; default: 1")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="requests in flight")
    parser.add_argument("--patience", metavar="TIME", default="45s", help="default: 45s")
    parser.add_argument("--markdown", metavar="FILE", help="the table for a page")
    parser.add_argument("--json", action="store_true", help="one object a line for each server")


def run(args: argparse.Namespace) -> int:
    """Drill each server. 0 when all could be drilled, whatever came of it."""
    from lastcall.cli.drill import carry_out, refuse_empty, refuse_unwritable, write_private

    refuse_empty(args)
    refuse_unwritable([args.markdown] if args.markdown else [])
    wanted = _wanted(args)
    servers = _chosen(args)
    rows: list[Row] = []

    def advice() -> str:
        return f"{len(rows)} of {len(servers)} servers were drilled; what it had started is gone"

    if args.list:
        return carry_out(_list(servers, args), advice)
    carry_out(_compare(servers, wanted, rows, as_json=args.json), advice)
    if args.markdown:
        from lastcall.drill.compare import markdown

        write_private(args.markdown, markdown(rows))
    drilled = [row for row in rows if not row.missing]
    return ExitCode.ORDERLY if drilled else ExitCode.INCONCLUSIVE


def _chosen(args: argparse.Namespace) -> list[Server]:
    from lastcall.drill.servers import SERVERS

    known = list(SERVERS)
    if args.also:
        from lastcall.drill.servers_file import load

        known += load(args.also)
    if not args.servers:
        return known
    chosen = [s for s in known if s.key in args.servers or s.name in args.servers]
    names = {s.key for s in chosen} | {s.name for s in chosen}
    for word in args.servers:
        if word not in names:
            keys = ", ".join(s.key for s in known)
            raise UsageError(f"no server is called {word!r}", f"known: {keys}")
    return chosen


async def _list(servers: Sequence[Server], args: argparse.Namespace) -> int:
    from lastcall.cli.show import Palette, table_lines, width_of
    from lastcall.drill.installed import Missing, find

    rows = []
    for server in servers:
        found = await find(server, args.sources or "")
        missing = isinstance(found, Missing)
        said = f"{found.what}: {found.advice}" if isinstance(found, Missing) else found.version
        rows.append([server.key, "-" if missing else "found", said])
    for line in table_lines(rows, width_of(sys.stdout), Palette.of(sys.stdout), indent=""):
        print(line)
    return ExitCode.ORDERLY


def _wanted(args: argparse.Namespace) -> Comparison:
    """What the options ask for.

    Raises:
        UsageError: they make no sense.
    """
    from lastcall.cli.drill import length_of
    from lastcall.drill.compare import Comparison
    from lastcall.drill.how import How, To

    if not 1 <= args.runs <= _MOST_RUNS:
        raise UsageError(f"--runs {args.runs}: from 1 to {_MOST_RUNS}", "such as 3")
    if not 1 <= args.count <= _MOST_COUNT:
        raise UsageError(f"--count {args.count}: from 1 to {_MOST_COUNT}", "such as 20")
    if args.sources and not os.path.isdir(args.sources):
        raise UsageError(f"--sources {args.sources}: there is no such folder", "check its name")
    again_s = length_of("--twice", args.twice) if args.twice else None
    how = How.parse(args.how, To(args.to), again_s)
    if how.rolling:
        raise UsageError(
            "a comparison stops each server by a signal", "for rolling: use lastcall drill http"
        )
    patience_s = length_of("--patience", args.patience, zero=False)
    return Comparison(how, args.runs, args.count, patience_s, args.sources or "")


async def _compare(
    servers: Sequence[Server], wanted: Comparison, rows: list[Row], *, as_json: bool
) -> None:
    """Drill one after the other; `rows` takes what came of each."""
    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.compare import drill_server

    palette, width = Palette.of(sys.stdout), width_of(sys.stdout)
    for server in servers:
        row = await drill_server(server, wanted)
        rows.append(row)
        if as_json:
            _print_json(row)
        else:
            for line in lines_of(row, width, palette):
                print(line, flush=True)


def _print_json(row: Row) -> None:
    import json

    from lastcall.drill.compare import COLUMNS
    from lastcall.journal.codec import plain

    said = {
        "event": "compared",
        "server": row.name,
        "version": row.version,
        "verdict": None if row.missing else row.verdict,
        "states": {column: row.cell(column) for column in COLUMNS},
        "uneven": row.alone,
        "half_executed": row.half,
        "end": row.end,
        "findings": plain(row.reasons),
        "missing": row.missing or None,
    }
    print(json.dumps(said, ensure_ascii=False), flush=True)


_STYLES = {"keeps its word": "green", "loses work": "red", "inconclusive": "yellow"}


def lines_of(row: Row, width: int | None, palette: Palette) -> list[str]:
    """A server as people read it: its verdict, what came of each state, and why."""
    from lastcall.cli.show import harmless, table_lines, wrap
    from lastcall.drill.compare import COLUMNS

    title = palette.paint(harmless(f"{row.name}  {row.version}".rstrip()), "bold")
    if row.missing:
        return [
            title,
            *(f"  {palette.paint(line, 'dim')}" for line in wrap(row.missing, width)),
            "",
        ]
    verdict = palette.paint(f"{row.verdict}", _STYLES[row.verdict], "bold")
    cells = [[column, row.cell(column)] for column in COLUMNS if row.cell(column)]
    cells += [["alone", row.alone]] if row.alone else []
    cells += [["end", row.end]]
    cells += [["why", f"{found.title} ({found.code})"] for found in row.reasons]
    return [f"{title}  {verdict}", *table_lines(cells, width, palette), ""]
