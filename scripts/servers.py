"""Drills every server we know, and writes what came of it into docs/servers.md.

    .venv/bin/python scripts/servers.py                     everything, about three hours
    .venv/bin/python scripts/servers.py uvicorn             some of them, shown and not written
    .venv/bin/python scripts/servers.py --only together     many short stops, with lastcall and not

The many short stops go on where they were interrupted, as every finished one is kept in
build/servers/together; the long drills do with --reuse. Spring Boot is built first; see
tests/programs/spring.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import pickle
import sys

from lastcall.cli.drill import carry_out
from lastcall.cli.drill_compare import lines_of
from lastcall.cli.drill_together import endure_all
from lastcall.cli.show import Palette, error_lines
from lastcall.drill.before_after import table
from lastcall.drill.compare import Comparison, Row, drill_server, markdown
from lastcall.drill.endurance import Endured, Wanted
from lastcall.drill.how import How
from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL, Server
from lastcall.drill.servers_file import load
from lastcall.drill.tally_file import kept_in
from lastcall.errors import LastcallError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "servers.md")
KEPT = os.path.join(ROOT, "build", "servers")
TOGETHER = os.path.join(KEPT, "together")
BEGIN, END = "<!-- measured: begin (written by `make servers`) -->", "<!-- measured: end -->"
TOGETHER_BEGIN = "<!-- together: begin (written by `make servers`) -->"
TOGETHER_END = "<!-- together: end -->"


def main() -> int:
    """Drill, show, and write when all were drilled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--only", choices=("long", "together"), help="one of the two tables")
    parser.add_argument("--also", help="more servers for the long drills, from a TOML file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reuse", action="store_true", help="take what an earlier run kept")
    parser.add_argument("--stops", type=int, default=0, help="short stops a server")
    parser.add_argument("--jobs", type=int, default=1, help="so many servers at a time, short ones")
    words = parser.parse_args()
    failed = 0
    if words.only != "together":
        failed |= _long(words)
    if words.only != "long":
        failed |= _together(words)
    return failed


def _long(words: argparse.Namespace) -> int:
    servers = [*SERVERS, *(load(words.also) if words.also else ())]
    if words.names:
        servers = [s for s in servers if s.key in words.names]
    rows, days = _drill(servers, words.runs, reuse=words.reuse)
    missing = [row.name for row in rows if row.missing]
    if words.names or missing:
        print(f"not written; not drilled: {', '.join(missing) or 'all but those named'}")
        return 1 if missing else 0
    _write(BEGIN, _measured(rows, days, words.runs), END)
    return 0


def _together(words: argparse.Namespace) -> int:
    twins = {twin.beside: twin for twin in SERVERS_WITH_LASTCALL}
    both = [(bare, twins[bare.name]) for bare in SERVERS if bare.name in twins]
    servers = [s for pair in both for s in pair if not words.names or s.key in words.names]
    rows: list[Endured] = []
    try:
        with kept_in(TOGETHER):
            wanted = Wanted(words.stops, keep=TOGETHER)
            carry_out(endure_all(servers, wanted, rows, words.jobs), lambda: "it goes on from here")
    except LastcallError as error:
        print("\n".join(error_lines(error)))
        return int(error.exit_code)
    short = [row.server.name for row in rows if row.tally.stops < row.wanted]
    if words.names or short:
        print(f"not written; not complete: {', '.join(short) or 'all but those named'}")
        return 1 if short else 0
    rows.sort(key=lambda row: servers.index(row.server))
    _write(TOGETHER_BEGIN, _endured(rows), TOGETHER_END)
    return 0


def _write(begin: str, lines: list[str], end: str) -> None:
    """Put the lines between the two marks of the page."""
    with open(PAGE, encoding="utf-8") as file:
        before, _, rest = file.read().partition(begin)
    after = rest.partition(end)[2]
    text = "\n".join([begin, "", *lines, "", end])
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(before + text + after)
    print(f"written: {os.path.relpath(PAGE)}")


def _drill(servers: list[Server], runs: int, *, reuse: bool) -> tuple[list[Row], list[dt.date]]:
    """Each server's row, and when it was drilled; kept, as all of them take half an hour."""
    sources = os.path.join(ROOT, "examples", "drill")
    os.makedirs(KEPT, exist_ok=True)
    rows, days = [], []
    for server in servers:
        day, kept = dt.datetime.now(dt.UTC).date(), os.path.join(KEPT, f"{server.key}.pickle")
        if reuse and os.path.exists(kept):
            with open(kept, "rb") as file:
                row = pickle.load(file)  # noqa: S301 (we wrote it)
            day = dt.datetime.fromtimestamp(os.path.getmtime(kept), dt.UTC).date()
        else:
            row = asyncio.run(drill_server(server, Comparison(How(), runs, sources=sources)))
            if not row.missing:
                with open(kept, "wb") as file:
                    pickle.dump(row, file)
        rows.append(row)
        days.append(day)
        print("\n".join(lines_of(row, None, Palette())), flush=True)
    return rows, days


def _measured(rows: list[Row], days: list[dt.date], runs: int) -> list[str]:
    when = " to ".join(dict.fromkeys(f"{day}" for day in (min(days), max(days))))
    how = f"{runs} runs of each drill, SIGTERM to the main process, {os.cpu_count()} CPUs"
    return [
        f"Measured on {when}: {how}, CPython {sys.version.split()[0]}.",
        "The counts are those of all runs together.",
        "",
        markdown(rows),
    ]


def _endured(rows: list[Endured]) -> list[str]:
    versions = dict.fromkeys(row.version for row in rows if row.version)
    minutes = sum(row.tally.took_s for row in rows) / 60
    how = f"SIGTERM to the main process, {os.cpu_count()} CPUs, CPython {sys.version.split()[0]}"
    return [
        f"Measured until {dt.datetime.now(dt.UTC).date()}: {how}; {minutes:.0f} minutes of stops.",
        f"Versions: {'; '.join(versions)}.",
        "",
        table(rows).rstrip(),
    ]


if __name__ == "__main__":
    sys.exit(main())
