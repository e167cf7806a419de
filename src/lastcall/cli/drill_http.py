"""`lastcall drill http`: one server, one drill or a sweep of them, and the reports."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from lastcall.cli import drill_plan
from lastcall.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lastcall.drill.experiment import Drilled
    from lastcall.drill.plan import Plan
    from lastcall.drill.sweep import Sweep

_MOST_TRIES = 1000

add_arguments = drill_plan.add_arguments


def run(args: argparse.Namespace) -> int:
    """Drill, show, write the reports. Returns the exit code of the verdict."""
    import asyncio

    from lastcall.cli.drill_report import Live, lines
    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.experiment import drill

    with _ledger(args) as ledger:
        plan = drill_plan.plan_of(args, ledger)
        if args.sweep is not None:
            return _sweep(args, plan)
        live = Live(sys.stdout, quiet=args.quiet or args.json)
        try:
            drilled = asyncio.run(drill(plan, live.moment))
        finally:
            live.done()
    _write_reports(args, drilled)
    if args.json:
        _print_json(drilled)
    else:
        shown = lines(drilled.result, width_of(sys.stdout), Palette.of(sys.stdout))
        for line in shown[-1:] if args.quiet else shown:
            print(line)
        for path in filter(None, (args.html, args.junit, args.history)):
            print(f"written: {path}")
    return int(drilled.result.exit_code)


def _print_json(drilled: Drilled) -> None:
    import json

    from lastcall.drill.report.data import as_plain

    print(json.dumps(as_plain(drilled.result), ensure_ascii=False))


def _write_reports(args: argparse.Namespace, drilled: Drilled) -> None:
    from lastcall.cli.drill import write_private

    if args.html:
        from lastcall.drill.report.html import render

        write_private(args.html, render(drilled.result))
    if args.junit:
        from lastcall.drill.report.junit import render as render_junit

        write_private(args.junit, render_junit(drilled.result))
    if args.history:
        import io

        from lastcall.drill import history

        text = io.StringIO()
        history.write(drilled.attempts, text)
        write_private(args.history, text.getvalue())


def _sweep(args: argparse.Namespace, plan: Plan) -> int:
    import asyncio

    from lastcall.cli.drill_report import sweep_lines, try_line
    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.sweep import Try, sweep
    from lastcall.durations import parse_duration

    if not 1 <= args.sweep <= _MOST_TRIES:
        raise UsageError(f"--sweep {args.sweep}: from 1 to {_MOST_TRIES} stops")
    palette = Palette.of(sys.stdout)

    def tell(one: Try) -> None:
        if not (args.quiet or args.json):
            print(try_line(one, palette), flush=True)

    span_s = parse_duration(args.span)
    swept: Sweep = asyncio.run(sweep(plan, args.sweep, span_s, args.seed, tell))
    _write_reports(args, swept.worst.drilled)
    if args.json:
        import json

        from lastcall.drill.report.data import sweep_as_plain

        print(json.dumps(sweep_as_plain(swept), ensure_ascii=False))
    else:
        for line in sweep_lines(swept, width_of(sys.stdout), palette):
            print(line)
    return int(swept.exit_code)


@contextlib.contextmanager
def _ledger(args: argparse.Namespace) -> Iterator[str]:
    """The file for the server's ledger; the probe application's is a temporary one."""
    if args.ledger or not args.probe:
        yield os.path.abspath(args.ledger) if args.ledger else ""
        return
    with tempfile.TemporaryDirectory(prefix="lastcall-drill-") as folder:
        yield os.path.join(folder, "ledger")
