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
import pickle
import sys

from lastcall.cli.drill_compare import lines_of
from lastcall.cli.show import Palette
from lastcall.drill.compare import Comparison, Row, drill_server, markdown
from lastcall.drill.how import How
from lastcall.drill.servers import SERVERS, Server
from lastcall.drill.servers_file import load

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "servers.md")
KEPT = os.path.join(ROOT, "build", "servers")
BEGIN, END = "<!-- measured: begin (written by `make servers`) -->", "<!-- measured: end -->"


def main() -> int:
    """Drill, show, and write when all were drilled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--also", help="more servers, from a TOML file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reuse", action="store_true", help="take what an earlier run kept")
    words = parser.parse_args()
    servers = [*SERVERS, *(load(words.also) if words.also else ())]
    if words.names:
        servers = [s for s in servers if s.key in words.names]
    rows = _drill(servers, words.runs, reuse=words.reuse)
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


def _drill(servers: list[Server], runs: int, *, reuse: bool) -> list[Row]:
    """Each server's row; it is kept in build/servers, as all of them take half an hour."""
    sources = os.path.join(ROOT, "examples", "drill")
    os.makedirs(KEPT, exist_ok=True)
    rows = []
    for server in servers:
        kept = os.path.join(KEPT, f"{server.key}.pickle")
        if reuse and os.path.exists(kept):
            with open(kept, "rb") as file:
                row = pickle.load(file)  # noqa: S301 (we wrote it)
        else:
            row = asyncio.run(drill_server(server, Comparison(How(), runs, sources=sources)))
            if not row.missing:
                with open(kept, "wb") as file:
                    pickle.dump(row, file)
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
