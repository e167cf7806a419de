"""Measures lastcall against what people use today, in one run, and writes docs/benchmarks.md.

python benchmarks/run.py                            everything, about half an hour
python benchmarks/run.py --only starting            one part, shown and not written
python benchmarks/run.py --only guests --write      the same, in place of its lines on the page
python benchmarks/run.py --quick                    few rounds: does it work at all?
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace

# The guests are those of the tests.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))

import drilling
import guest_many
import guest_returning
import living
import many
import page
import recording
import returning
import starting
from measure import Effort, Row, load, machine
from stage import Missing, Stage


def _guests(stage: Stage, effort: Effort) -> list[Row]:
    return [*guest_returning.rows(stage, effort), *guest_many.rows(stage, effort)]


PARTS = {
    "returning": returning.rows,
    "starting": starting.rows,
    "many": many.rows,
    "recording": recording.rows,
    "drill": drilling.rows,
    "living": living.rows,
    "guests": _guests,
}
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "benchmarks.md")
# The guests of one command take long enough that it has pressed all of them before one is off.
QUICK = Effort(
    rounds=2,
    least=1,
    warm_up=0,
    processes=20,
    events=100,
    load_s=1.0,
    guests=3,
    endpoints=(20,),
    guest_s=2.0,
    endpoint_s=(1.5, 2.0),
)


def main() -> int:
    """Measure, show, and write when all parts were measured in full."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    parser.add_argument("--rounds", type=int, help="how many samples of each")
    parser.add_argument(
        "--write", action="store_true", help="with --only: the page's other lines stay as they are"
    )
    parser.add_argument("--page", help="write to this page instead of docs/benchmarks.md")
    words = parser.parse_args()
    effort = QUICK if words.quick else Effort()
    if words.rounds:
        effort = replace(effort, rounds=words.rounds)
    try:
        rows, loads = _measure(effort, words.only or list(PARTS))
    except Missing as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(page.table(rows)))
    how = f"{effort.rounds} rounds of each after {effort.warm_up} to warm up"
    text = page.measured(rows, machine(), loads, how)
    where = words.page or (None if words.only or words.quick else PAGE)
    if words.write and words.only:
        where = words.page or PAGE
        text = page.renewed(where, rows, loads, " and ".join(words.only))
    if where:
        page.write(where, text)
        print(f"written: {os.path.relpath(where)}", file=sys.stderr)
    return 0


def _measure(effort: Effort, parts: list[str]) -> tuple[list[Row], tuple[float, float]]:
    rows: list[Row] = []
    before = load()
    with tempfile.TemporaryDirectory(prefix="lastcall-bench-") as folder:
        stage = Stage(folder)
        try:
            for part in parts:
                print(f"bench: {part} ...", file=sys.stderr, flush=True)
                rows += PARTS[part](stage, effort)
        finally:
            stage.close()
    return rows, (before, load())


if __name__ == "__main__":
    sys.exit(main())
