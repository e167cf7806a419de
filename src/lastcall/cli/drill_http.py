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
    from collections.abc import Callable, Iterator

    from lastcall.drill.experiment import Drilled
    from lastcall.drill.plan import Plan
    from lastcall.drill.result import Moment
    from lastcall.drill.sweep import Sweep

_MOST_TRIES = 1000

add_arguments: Callable[[argparse.ArgumentParser], None] = drill_plan.add_arguments


def run(args: argparse.Namespace) -> int:
    """Drill, show, write the reports. Returns the exit code of the verdict."""
    from lastcall.cli.drill import refuse_empty, refuse_unwritable

    refuse_empty(args)
    refuse_unwritable(_files(args))
    with _ledger(args) as ledger:
        plan = drill_plan.plan_of(args, ledger)
        several = args.sweep is not None or len(drill_plan.moments_of(args)) > 1
        return _sweep(args, plan) if several else _drill(args, plan)


def _drill(args: argparse.Namespace, plan: Plan) -> int:
    from lastcall.cli.drill import carry_out
    from lastcall.cli.drill_report import Live, lines
    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.experiment import drill

    live = Live(sys.stdout, quiet=args.quiet or args.json)
    codes: list[str] = []

    def tell(moment: Moment) -> None:
        codes.append(moment.code)
        live.moment(moment)

    try:
        work = drill(plan, tell)
        drilled = carry_out(work, lambda: _advice(plan, stopped="stop-sent" in codes))
    finally:
        live.done()
    if args.json:
        _print_json(drilled)
    else:
        shown = lines(drilled.result, width_of(sys.stdout), Palette.of(sys.stdout))
        for line in shown[-1:] if args.quiet else shown:
            print(line)
    _write_reports(args, drilled)
    return int(drilled.result.exit_code)


def _advice(plan: Plan, *, stopped: bool) -> str:
    """What to know of the server after an interrupted drill."""
    if plan.command:
        return "the server that it had started is gone, with all its processes"
    if stopped:
        return "the stop was sent already: see whether the server runs"
    return "the server was not stopped; it runs on"


def _files(args: argparse.Namespace) -> list[str]:
    return [path for path in (args.html, args.junit, args.history) if path]


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
    if not args.json:
        for path in _files(args):
            print(f"written: {path}")


def _sweep(args: argparse.Namespace, plan: Plan) -> int:
    from lastcall.cli.drill import carry_out, length_of
    from lastcall.cli.drill_report import sweep_lines, try_line
    from lastcall.cli.show import Palette, width_of
    from lastcall.drill.sweep import Try, sweep

    at = drill_plan.moments_of(args)
    if at and args.sweep is not None:
        raise UsageError("--at names the moments, and --sweep chooses them", "give --span instead")
    count = len(at) or args.sweep
    if not 1 <= count <= _MOST_TRIES:
        raise UsageError(f"--sweep {count}: from 1 to {_MOST_TRIES} stops", "such as 12")
    if not plan.command and not plan.how.command:
        raise UsageError(
            "a sweep stops the server again and again: it has to be started each time",
            "give the command that starts it, after `--`",
        )
    palette = Palette.of(sys.stdout)
    done = 0

    def tell(one: Try) -> None:
        nonlocal done
        done += 1
        if not (args.quiet or args.json):
            print(try_line(one, palette), flush=True)

    def advice() -> str:
        return f"{done} of {count} stops were done; {_advice(plan, stopped=True)}"

    span_s = length_of("--span", args.span, zero=False)
    swept: Sweep = carry_out(sweep(plan, count, span_s, args.seed, tell, at), advice)
    if args.json:
        import json

        from lastcall.drill.report.data import sweep_as_plain

        print(json.dumps(sweep_as_plain(swept), ensure_ascii=False))
    else:
        shown = sweep_lines(swept, width_of(sys.stdout), palette)
        for line in shown[-1:] if args.quiet else shown:
            print(line)
    _write_reports(args, swept.page)
    return int(swept.exit_code)


@contextlib.contextmanager
def _ledger(args: argparse.Namespace) -> Iterator[str]:
    """The file for the server's ledger; the probe application's is a temporary one."""
    if args.ledger or not args.probe:
        yield os.path.abspath(args.ledger) if args.ledger else ""
        return
    with tempfile.TemporaryDirectory(prefix="lastcall-drill-") as folder:
        yield os.path.join(folder, "ledger")
