"""`lastcall resume [STOP...]`: go on with stops that were left, or whose lastcall died."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from lastcall.cli.room import make_room
from lastcall.cli.stop import add_output, add_policy, carry_out, policy_of
from lastcall.errors import ExitCode, JournalError, UsageError
from lastcall.model import GUESTS

if TYPE_CHECKING:
    import argparse

    from lastcall.journal.store import Row
    from lastcall.stop.news import Result
    from lastcall.stop.operation import Operation

EPILOG = """\
Without a number: every stop that has no ending yet. What was asked is not asked again, and a
consent to force holds only until its own expiry (a minute past the deadline): --force renews it.
--grace, --extend-up-to and --ask-again count from now.
"""
_MOST = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `resume`."""
    parser.epilog = EPILOG
    parser.add_argument("stops", nargs="*", type=int, metavar="STOP", help="numbers, as in the log")
    parser.add_argument(
        "--ask-again",
        action="store_true",
        help="repeat the last ask; a second signal may mean 'at once' to some programs",
    )
    add_policy(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resume; returns the gravest exit code."""
    policy = policy_of(arguments)
    rows = _rows(arguments.stops)
    if not rows:
        if not arguments.quiet and not arguments.json:
            sys.stdout.write("Nothing to resume: every stop has an ending.\n")
        return ExitCode.ORDERLY
    make_room(len(rows), guests=sum(row.address.partition(":")[0] in GUESTS for row in rows))

    async def work(operation: Operation) -> list[Result]:
        return await operation.resume(rows)

    return carry_out(arguments, policy, work, failed=[], targets=len(rows))


def _rows(numbers: list[int]) -> list[Row]:
    from lastcall.journal.place import state_dir
    from lastcall.journal.store import Store

    folder = state_dir()
    if not os.path.exists(os.path.join(folder, "journal.db")):
        if numbers:
            raise JournalError(f"there is no journal in {folder} yet", "it begins with a stop")
        return []
    store = Store.open_to_read(folder)
    try:
        if not numbers:
            return store.rows(_MOST, only_open=True)
        rows = [store.row(number) for number in dict.fromkeys(numbers)]
    finally:
        store.close()
    for row in rows:
        if row.ending is not None:
            raise UsageError(
                f"stop {row.stop} is over: {row.address} {row.ending}",
                f"see: lastcall log {row.stop}",
            )
    return rows
