"""`lastcall signals`: what each signal means for a stop, and what a process does with them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lastcall.cli import show
from lastcall.targets.process import signals

if TYPE_CHECKING:
    import argparse

    from lastcall.targets.process.before.effect import Sight

_CONVENTION = "By convention only: a program may do anything. What one does: lastcall signals pid:N"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall signals` takes."""
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="show what this process does with each signal"
    )
    parser.add_argument("--json", action="store_true", help="one object a line for each signal")


def run(args: argparse.Namespace) -> int:
    """Show the table, or a target's own."""
    if args.target is not None:
        return _of_target(args.target, as_json=args.json)
    if args.json:
        from lastcall.cli.check import print_json
        from lastcall.journal.codec import plain

        for signum, meaning in signals.MEANING.items():
            row = {"signal": signals.name(signum), "number": signum, **plain(meaning)}
            print_json({"event": "signal", **row})
        return 0
    palette, width = show.Palette.of(sys.stdout), show.width_of(sys.stdout)
    for line in (*table(width, palette), "", palette.paint(_CONVENTION, "dim")):
        print(line)
    return 0


def table(width: int | None, palette: show.Palette) -> list[str]:
    """Each signal: its number, what it means, what well-known programs make of it."""
    head = ("signal", "no.", "unhandled", "what it means for a stop")
    rows: list[list[str | show.Cell]] = [[show.Cell(text, ("dim",)) for text in head]]
    for signum, meaning in signals.MEANING.items():
        name = show.Cell(signals.name(signum), ("bold",))
        rows.append([name, f"{signum:3}", meaning.default, meaning.says])
        rows += [["", "", "", show.Cell(custom, ("dim",))] for custom in meaning.customs]
    return show.table_lines(rows, width, palette, indent="")


def _of_target(text: str, *, as_json: bool) -> int:
    from lastcall.cli.check import effects, look, print_json
    from lastcall.errors import NotRunning
    from lastcall.model import Address

    every = tuple(range(1, signals.LAST + 1))
    report = look(Address.parse(text), every)
    seen = report.seen
    if seen is None:
        raise NotRunning(f"process {report.identity.pid} has ended already (a zombie)")
    if as_json:
        said = effects(seen, every)
        for signum in every:
            row = {"signal": signals.name(signum), "number": signum}
            state = seen.states[signum]
            row |= {"effect": said[signals.name(signum)], "pending": state.pending}
            print_json({"event": "signal", "target": text, **row})
        return 0
    palette, width = show.Palette.of(sys.stdout), show.width_of(sys.stdout)
    print(palette.paint(show.harmless(f"{report.address}  {report.label}"), "bold"))
    for line in _dispositions(seen, width, palette):
        print(line)
    return 0


def _dispositions(seen: Sight, width: int | None, palette: show.Palette) -> list[str]:
    """What the process does: with the signals that matter for a stop, and others it handles."""
    from lastcall.cli.check import effect_words
    from lastcall.targets.process.before.effect import effect

    rows: list[list[str | show.Cell]] = []
    for signum, state in seen.states.items():
        touched = state.handled or state.ignored or state.blocked or state.pending
        if signum not in signals.MEANING and not touched:
            continue
        kind = effect(seen, signum)
        notes = [seen.read[signum]] if signum in seen.read else []
        notes += ["was sent and waits to be taken"] if state.pending else []
        rows.append(
            [
                show.Cell(signals.name(signum), ("bold",)),
                str(signum),
                effect_words(seen, kind),
                show.Cell("; ".join(notes), ("dim",)),
            ]
        )
    return show.table_lines(rows, width, palette)
