"""`lastcall drill compare`: the same drill over every server that is found here, in one table."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeVar

from lastcall.cli import drill_together
from lastcall.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.cli.show import Palette
    from lastcall.drill.compare import Comparison, Row
    from lastcall.drill.how import How
    from lastcall.drill.servers import Server

T = TypeVar("T")

_MOST_RUNS = 100
_MOST_COUNT = 5000
_COUNT = 20
_PATIENCE = "45s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall drill compare` takes."""
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="only these; default: all")
    parser.add_argument("--also", metavar="FILE", help="more servers, from a TOML file")
    parser.add_argument("--sources", metavar="DIR", help="where the sources in Node, Go, Java are")
    parser.add_argument("--list", action="store_true", help="tell what is found here, and end")
    parser.add_argument("--how", metavar="SIGNAL", default="TERM", help="default: TERM")
    parser.add_argument("--to", choices=("main", "group", "tree"), default="main")
    parser.add_argument("--twice", metavar="TIME", help="the signal once more, after so long")
    parser.add_argument("--runs", type=int, metavar="N", help="so often; default: 1")
    parser.add_argument("--count", type=int, metavar="N", help="requests in flight; default: 20")
    parser.add_argument(
        "--patience", metavar="TIME", help="for each stop; default: 45s, with --together 12s"
    )
    parser.add_argument("--markdown", metavar="FILE", help="the table for a page")
    parser.add_argument("--json", action="store_true", help="one object a line for each server")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--with-lastcall", action="store_true", help="the same servers, run by lastcall's modules"
    )
    which.add_argument("--both", action="store_true", help="each without lastcall and with it")
    drill_together.add_arguments(parser.add_argument_group("many short stops"))


def run(args: argparse.Namespace) -> int:
    """Drill each server. 0 when any could be drilled, whatever came of it."""
    from lastcall.cli.drill import carry_out, refuse_empty, refuse_unwritable

    refuse_empty(args)
    refuse_unwritable([args.markdown] if args.markdown else [])
    if not args.together:
        drill_together.refuse_alone(args)
    long = None if args.together else _wanted(args)
    short = drill_together.wanted(args) if args.together else None
    servers = _chosen(args)
    if args.list:
        return carry_out(_list(servers, args), lambda: "nothing was drilled")
    if short is not None:
        return drill_together.run(args, servers, short)
    assert long is not None  # noqa: S101 (it is the one or the other)
    return _run_long(args, servers, long)


def _run_long(args: argparse.Namespace, servers: Sequence[Server], wanted: Comparison) -> int:
    from lastcall.cli.drill import carry_out, write_private

    rows: list[Row] = []

    def advice() -> str:
        return f"{len(rows)} of {len(servers)} servers were drilled; what it had started is gone"

    carry_out(_compare(servers, wanted, rows, as_json=args.json), advice)
    if args.markdown:
        from lastcall.drill.compare import markdown

        write_private(args.markdown, markdown(rows))
    drilled = [row for row in rows if not row.missing]
    return ExitCode.ORDERLY if drilled else ExitCode.INCONCLUSIVE


def _chosen(args: argparse.Namespace) -> list[Server]:
    """The servers to drill: all, or those that are named, as they come or with lastcall.

    Raises:
        UsageError: one is not known, or none is left.
    """
    from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL

    known = [*SERVERS, *SERVERS_WITH_LASTCALL]
    if args.also:
        from lastcall.drill.servers_file import load

        known += load(args.also)
    named = _named(known, args.servers) if args.servers else [s for s in known if not s.beside]
    if not args.with_lastcall and not args.both:
        return named
    twins = {server.beside: server for server in known if server.beside}
    chosen: list[Server] = []
    for server in named:
        twin = server if server.beside else twins.get(server.name)
        if twin is not None:
            chosen += [server, twin] if args.both else [twin]
    if not chosen:
        raise UsageError(
            "none of these has a module of lastcall", "leave --with-lastcall and --both away"
        )
    return list(dict.fromkeys(chosen))


def _named(known: Sequence[Server], words: Sequence[str]) -> list[Server]:
    chosen = [s for s in known if s.key in words or s.name in words]
    names = {s.key for s in chosen} | {s.name for s in chosen}
    for word in words:
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

    runs, count = _or(args.runs, 1), _or(args.count, _COUNT)
    if not 1 <= runs <= _MOST_RUNS:
        raise UsageError(f"--runs {runs}: from 1 to {_MOST_RUNS}", "such as 3")
    if not 1 <= count <= _MOST_COUNT:
        raise UsageError(f"--count {count}: from 1 to {_MOST_COUNT}", "such as 20")
    how = how_of(args)
    patience_s = length_of("--patience", _or(args.patience, _PATIENCE), zero=False)
    return Comparison(how, runs, count, patience_s, args.sources or "")


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def how_of(args: argparse.Namespace) -> How:
    """How each server is stopped.

    Raises:
        UsageError: the options make no sense.
    """
    from lastcall.cli.drill import length_of
    from lastcall.drill.how import How, To

    if args.sources and not os.path.isdir(args.sources):
        raise UsageError(f"--sources {args.sources}: there is no such folder", "check its name")
    again_s = length_of("--twice", args.twice) if args.twice else None
    how = How.parse(args.how, To(args.to), again_s)
    if how.rolling:
        raise UsageError(
            "a comparison stops each server by a signal", "for rolling: use lastcall drill http"
        )
    return how


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
