"""`lastcall log [STOP]`: what was stopped and how it ended; one of them in full, as a timeline."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from lastcall.cli.describe import describe
from lastcall.cli.show import Palette, finding_lines, harmless, table_lines, width_of
from lastcall.clock import iso
from lastcall.errors import ExitCode
from lastcall.model import Started

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.journal.store import Row, Store
    from lastcall.model import Event, Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `log`."""
    parser.add_argument("stop", nargs="?", type=int, metavar="STOP", help="one stop, in full")
    parser.add_argument("--most", type=_many, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--open", action="store_true", help="only those without an ending")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _many(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Show the journal."""
    from lastcall.journal.place import state_dir
    from lastcall.journal.store import Store

    folder = state_dir()
    if arguments.stop is None and not os.path.exists(os.path.join(folder, "journal.db")):
        if not arguments.json:
            sys.stdout.write(f"Nothing yet: the journal in {folder} begins with the first stop.\n")
        return ExitCode.ORDERLY
    store = Store.open_to_read(folder)
    try:
        if arguments.stop is not None:
            _one(store, arguments.stop, as_json=arguments.json)
        else:
            _list(store, arguments)
    finally:
        store.close()
    return ExitCode.ORDERLY


def _list(store: Store, arguments: argparse.Namespace) -> None:
    rows = store.rows(arguments.most, only_open=arguments.open)
    if arguments.json:
        for row in reversed(rows):
            sys.stdout.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")
        return
    palette = Palette.of(sys.stdout)
    table = [
        (
            str(row.stop),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.begun_wall_s)),
            row.ending or _open_state(row),
            row.address,
            row.label,
        )
        for row in reversed(rows)
    ]
    if not table:
        sys.stdout.write("No stop is open.\n" if arguments.open else "Nothing yet.\n")
    sys.stdout.write("".join(f"{line}\n" for line in table_lines(table, None, palette, "")))


def _open_state(row: Row) -> str:
    from lastcall.stop.ownership import alive

    if row.owner is not None and alive(row.owner):
        return f"under way (pid {row.owner.split('/')[1]})"
    return "open: resume it"


def _plain(row: Row) -> dict[str, object]:
    return {
        "stop": row.stop,
        "operation": row.operation,
        "target": row.address,
        "label": row.label,
        "identity": row.identity,
        "begun": iso(row.begun_wall_s),
        "by": row.begun_by,
        "owner": row.owner,
        "ending": row.ending,
        "why": row.why and row.why.lower().replace("_", "-"),
    }


def _one(store: Store, number: int, *, as_json: bool) -> None:
    row, lines = store.row(number), store.timeline(number)
    if as_json:
        from lastcall.journal.codec import encode

        for at_s, wall_s, event in lines:
            kind, data = encode(event)
            message = {"event": kind, "stop": number, "at_s": at_s, "at": iso(wall_s), "data": data}
            sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
        return
    palette, width = Palette.of(sys.stdout), width_of(sys.stdout)
    sys.stdout.write(palette.paint(f"stop {row.stop}: {row.address}", "bold") + "\n")
    facts = [
        ("what", row.label),
        ("which", row.identity_key),
        ("begun", f"{iso(row.begun_wall_s)} by {row.begun_by}"),
        ("ending", row.ending or _open_state(row)),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in table_lines(facts, width, palette)) + "\n")
    for line in _timeline(lines, width, palette):
        sys.stdout.write(line + "\n")


def _timeline(
    lines: list[tuple[float, float, Event]], width: int | None, palette: Palette
) -> list[str]:
    shown: list[str] = []
    told: Sequence[Finding] = ()
    started_s = next((at for at, _, event in lines if isinstance(event, Started)), None)
    for at_s, _, event in lines:
        begun_s = at_s if started_s is None else started_s
        line = describe(event, begun_s, full=True)
        if line is None:
            continue
        tag = palette.paint(f"{line.tag:9}", line.style) if line.style else f"{line.tag:9}"
        shown.append(f"{at_s - begun_s:9.3f} s  {tag} {harmless(line.text)}")
        # An ending carries what the last look found: told once is enough.
        news = [finding for finding in line.findings if finding not in told]
        told = line.findings
        for finding in news:
            shown += [
                f"{'':13}{each}" for each in finding_lines(finding, width and width - 13, palette)
            ]
    return shown
