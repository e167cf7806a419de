"""Drills every server we know, and writes what came of it into docs/servers.md.

    .venv/bin/python scripts/servers.py              everything, about half an hour
    .venv/bin/python scripts/servers.py uvicorn      some of them, shown and not written

Spring Boot is built first; see tests/programs/spring.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import sys

from lastcall.cli.drill_compare import lines_of
from lastcall.cli.show import Palette
from lastcall.drill.compare import Comparison, Row, drill_server, markdown
from lastcall.drill.how import How
from lastcall.drill.servers import SERVERS
from lastcall.drill.servers_file import load

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "servers.md")
BEGIN, END = "<!-- measured: begin (written by `make servers`) -->", "<!-- measured: end -->"


def main() -> int:
    """Drill, show, and write when all were drilled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--also", help="more servers, from a TOML file")
    parser.add_argument("--runs", type=int, default=3)
    words = parser.parse_args()
    servers = [*SERVERS, *(load(words.also) if words.also else ())]
    if words.names:
        servers = [s for s in servers if s.key in words.names]
    rows = asyncio.run(_drill(servers, words.runs))
    missing = [row.name for row in rows if row.missing]
    if words.names or missing:
        print(f"not written; not drilled: {', '.join(missing) or 'all but those named'}")
        return 1 if missing else 0
    with open(PAGE, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    after = rest.partition(END)[2]
    text = "\n".join([BEGIN, "", *_measured(rows, words.runs), "", END])
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(before + text + after)
    print(f"written: {os.path.relpath(PAGE)}")
    return 0


async def _drill(servers: list, runs: int) -> list[Row]:
    rows = []
    for server in servers:
        row = await drill_server(server, Comparison(How(), runs))
        rows.append(row)
        print("\n".join(lines_of(row, None, Palette())), flush=True)
    return rows


def _measured(rows: list[Row], runs: int) -> list[str]:
    how = f"{runs} runs of each drill, SIGTERM to the main process, {os.cpu_count()} CPUs"
    return [
        f"Measured on {dt.datetime.now(dt.UTC).date()}: {how}, CPython {sys.version.split()[0]}.",
        "The counts are those of all runs together.",
        "",
        markdown(rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
