"""`lastcall check`: will it stop? What is known before anything is sent. Changes nothing."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from lastcall.cli import guests, show
from lastcall.errors import ExitCode, LastcallError, NotRunning, Refused, UsageError, gravest
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.model import GUESTS, Address, Finding, Severity
from lastcall.record import record
from lastcall.targets.process import signals
from lastcall.targets.process.before.effect import Effect, Sight, effect, sight
from lastcall.targets.process.runtime import Runtime

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.cli import check_guest
    from lastcall.kernel.identity import ProcessIdentity

# Always shown; others when the program does something of its own with them.
ALWAYS = tuple(signals.number(word) for word in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"))
_IF_HANDLED = tuple(signals.number(word) for word in ("WINCH", "RTMIN+3", "RTMIN+4"))
# The process is looked at, not stopped: nothing is too dangerous for that.
_ALLOW = frozenset({"init", "ancestor"})
_STYLES: dict[Effect, tuple[str, ...]] = {
    Effect.HANDLED: ("green",),
    Effect.READ: ("green",),
    Effect.RUNTIME: ("yellow",),
    Effect.KILLS: ("yellow",),
    Effect.NOTHING: ("dim",),
}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@record
class Report:
    """What is known of one target.

    Args:
        seen: None for a process that has ended already.
        age_s: how long it has been running, in seconds.
    """

    address: Address
    label: str
    identity: ProcessIdentity
    age_s: float
    asked: tuple[int, ...]
    seen: Sight | None
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> ExitCode:
        """FOUND when something would cost work or keep it from ending."""
        grave = any(finding.severity is not Severity.NOTE for finding in self.findings)
        return ExitCode.FOUND if grave else ExitCode.ORDERLY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall check` takes."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="pid:, pidfile:, port:, name:, and guests: qmp:, libvirt:",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--signal", metavar="SIG", help="the signal that a stop would send (default TERM)"
    )
    which.add_argument(
        "--signals", metavar="SEQ", help="the sequence it would send: INT:5s,TERM:20s"
    )
    parser.add_argument("--tree", action="store_true", help="its descendants are asked as well")
    parser.add_argument("--grace", metavar="TIME", help="how long it would be given (default 30s)")
    asks = parser.add_argument_group("guests")
    asks.add_argument("--ask", metavar="SEQ", help="how it would be asked: press, agent")
    asks.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=guests.ALLOW,
        help="what a stop would be allowed; monitor: read libvirt's monitor now (it taints)",
    )
    guests.add_guest_os(asks)
    guests.add_connect(asks)
    parser.add_argument("--json", action="store_true", help="one object a line for each target")


def run(args: argparse.Namespace) -> int:
    """Check each target; a target that cannot be checked does not keep the others from it."""
    asked = asked_signals(args.signal or "TERM", args.signals)
    grace_s = _grace_s(args.grace, args.signals)
    addresses = [Address.parse(text) for text in args.targets]
    guests.refuse_stray_options(args, addresses)
    if args.grace is not None and all(address.kind in GUESTS for address in addresses):
        raise UsageError("--grace is for processes", "a check of a guest does not depend on it")
    palette, width = show.Palette.of(sys.stdout), show.width_of(sys.stdout)
    codes: list[ExitCode] = []
    of_guests = _guests(addresses, args)
    for index, address in enumerate(addresses):
        try:
            report = of_guests.get(address) or look(address, asked, tree=args.tree, grace_s=grace_s)
            if isinstance(report, LastcallError):
                raise report
        except LastcallError as error:
            if len(addresses) == 1:
                raise
            codes.append(error.exit_code)
            print_error(address, error, as_json=args.json)
            continue
        codes.append(report.exit_code)
        _show(report, args, width, palette, first=index == 0)
    return gravest(codes)


def _guests(
    addresses: Sequence[Address], args: argparse.Namespace
) -> dict[Address, check_guest.Report | LastcallError]:
    """What is known of those that are guests; all of them are looked at side by side."""
    wanted = list(dict.fromkeys(a for a in addresses if a.kind in GUESTS))
    if not wanted:
        return {}
    from lastcall.cli import check_guest

    reports = check_guest.look(wanted, guests.wish_of(args))
    return dict(zip(wanted, reports, strict=True))


def _show(
    report: Report | check_guest.Report,
    args: argparse.Namespace,
    width: int | None,
    palette: show.Palette,
    *,
    first: bool,
) -> None:
    """One report, as a line for programs or as lines for people."""
    if isinstance(report, Report):
        data, own = as_plain(report), lines(report, width, palette)
    else:
        data, own = report.as_plain(), report.lines(width, palette)
    if args.json:
        print_json(data)
        return
    if not first:
        print()
    style = "yellow" if report.exit_code is ExitCode.FOUND else "green"
    for line in (*own, "", palette.paint(_verdict(report), style, "bold")):
        print(line)


def asked_signals(one: str, sequence: str | None) -> tuple[int, ...]:
    """The signals of `--signal` or `--signals`, each once, in order.

    Raises:
        BadPolicy: they make no sense.
    """
    if sequence is None:
        return (signals.soft(one),)
    return tuple(dict.fromkeys(signum for signum, _ in signals.sequence(sequence)))


def _grace_s(grace: str | None, sequence: str | None) -> float:
    """What a stop with these options would give.

    Raises:
        BadPolicy: they make no sense.
    """
    from lastcall.durations import parse_duration
    from lastcall.stop.policy import whole_grace_s

    said_s = None if grace is None else parse_duration(grace)
    steps = signals.sequence(sequence) if sequence is not None else ((0, None),)
    return whole_grace_s(said_s, [wait_s for _, wait_s in steps])


def look(
    address: Address, asked: tuple[int, ...], *, tree: bool = False, grace_s: float | None = None
) -> Report:
    """All that is known of a target. Changes nothing.

    Args:
        address: where it is.
        asked: the signals that a stop would send.
        tree: whether its descendants are asked as well.
        grace_s: how long it would be given, in seconds; None: that is not known.

    Raises:
        LastcallError: it is not there, or the address is not clear.
    """
    import asyncio

    from lastcall.targets.process.before import preflight
    from lastcall.targets.process.lookup.resolve import resolve

    notes: tuple[Finding, ...] = ()
    try:
        found = resolve(address)
    except Refused as error:
        if not _is_guarded(address):
            raise
        found = resolve(address, allow=_ALLOW)
        notes = (_guarded(error),)
    try:
        identity = found.handle.identity
        others = _below(identity) if tree else None
        findings = asyncio.run(preflight.findings(identity, asked, others, grace_s))
        seen, age_s = _see(identity, asked)
        return Report(
            address, found.label, identity, age_s, asked, seen, (*notes, *found.notes, *findings)
        )
    finally:
        found.handle.close()


def _below(identity: ProcessIdentity) -> list[ProcessIdentity]:
    found = []
    for pid in procfs.family(identity.pid)[1:]:
        with contextlib.suppress(LastcallError), contextlib.closing(Handle.open(pid)) as handle:
            found.append(handle.identity)
    return found


def _is_guarded(address: Address) -> bool:
    """Whether the refusal is only about pid 1 or an ancestor, which may well be looked at."""
    import os

    if address.kind != "pid" or not address.name.isdecimal():
        return False
    return int(address.name) in {1, *procfs.ancestors(os.getpid())}


def _guarded(error: LastcallError) -> Finding:
    return Finding("refused", error.what, Severity.BLOCKER, advice=error.advice)


def _see(identity: ProcessIdentity, asked: tuple[int, ...]) -> tuple[Sight | None, float]:
    import time

    pid = identity.pid
    try:
        entry = procfs.stat(pid)
        if entry.start_ticks != identity.start_ticks:
            raise NotRunning(f"process {pid} ended while we looked")
        seen = None if procfs.over(entry) else sight(pid, (*ALWAYS, *_IF_HANDLED, *asked))
    except ProcessLookupError:
        raise NotRunning(f"process {pid} ended while we looked") from None
    since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return seen, max(0.0, since_boot_s - entry.start_ticks / procfs.TICKS_PER_S)


# -- showing


def lines(report: Report, width: int | None, palette: show.Palette) -> list[str]:
    """A report as people read it."""
    title = f"{report.address}  {report.label}"
    shown = [palette.paint(show.harmless(title), "bold"), palette.paint(_identity(report), "dim")]
    if report.seen is not None:
        shown += ["", *show.table_lines(_rows(report.seen, report.asked), width, palette)]
    for finding in report.findings:
        shown += ["", *show.finding_lines(finding, width, palette)]
    return shown


def _identity(report: Report) -> str:
    pid = report.identity.pid
    words = [f"process {pid}", f"up {_age(report.age_s)}"]
    try:
        entry = procfs.stat(pid)
        words.append(f"user id {procfs.status(pid).get('Uid', '?').split()[0]}")
        if entry.ppid:
            words.append(f"parent {entry.ppid} ({procfs.label(entry.ppid, 32)})")
    except (ProcessLookupError, PermissionError):
        pass
    if report.seen is not None and report.seen.runs_on.evidence:
        words.append(f"on {report.seen.runs_on.runtime.value}")
    return show.harmless("  " + ", ".join(words))


def _age(age_s: float) -> str:
    for unit_s, unit, lower_s, lower in (
        (_DAY_S, "d", _HOUR_S, "h"),
        (_HOUR_S, "h", _MINUTE_S, "min"),
        (_MINUTE_S, "min", 1, "s"),
    ):
        if age_s >= unit_s:
            return f"{int(age_s // unit_s)} {unit} {int(age_s % unit_s // lower_s)} {lower}"
    return f"{age_s:.1f} s"


def worth_showing(seen: Sight, asked: Sequence[int]) -> list[int]:
    """The signals to show: the asked ones first, then the usual, then others that do something."""
    extra = [s for s in _IF_HANDLED if effect(seen, s) in {Effect.HANDLED, Effect.READ}]
    return list(dict.fromkeys((*asked, *ALWAYS, *extra)))


def _rows(seen: Sight, asked: Sequence[int]) -> list[list[str | show.Cell]]:
    rows: list[list[str | show.Cell]] = []
    for signum in worth_showing(seen, asked):
        kind = effect(seen, signum)
        meaning = signals.MEANING.get(signum)
        rows.append(
            [
                show.Cell(signals.name(signum), ("bold",) if signum in asked else ()),
                show.Cell(effect_words(seen, kind), _STYLES.get(kind, ("red",))),
                show.Cell(meaning.says if meaning else "", ("dim",)),
            ]
        )
    return rows


def effect_words(seen: Sight, kind: Effect) -> str:
    """An effect in words, with the runtime's name where that matters."""
    if kind is Effect.RUNTIME and seen.runs_on.runtime is not Runtime.UNKNOWN:
        return f"caught by {seen.runs_on.runtime.value}"
    return kind.value


def _verdict(report: Report | check_guest.Report) -> str:
    counts = [
        (sum(f.severity is kind for f in report.findings), kind.value)
        for kind in (Severity.BLOCKER, Severity.WARNING)
    ]
    said = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count]
    if said:
        return f"{report.address}: {', '.join(said)}"
    asked = [a if isinstance(a, str) else signals.name(a) for a in report.asked]
    names = ", ".join(asked)
    return f"{report.address}: nothing found that keeps {names} from ending it in order"


# -- for programs


def as_plain(report: Report) -> dict[str, object]:
    """A report as `--json` prints it."""
    from lastcall.journal.codec import plain

    seen = report.seen
    return {
        "event": "check",
        "target": str(report.address),
        "label": report.label,
        "identity": plain(report.identity.as_model()),
        "age_s": round(report.age_s, 2),
        "runtime": seen.runs_on.runtime.name.lower() if seen else None,
        "asked": [signals.name(signum) for signum in report.asked],
        "signals": effects(seen, worth_showing(seen, report.asked)) if seen else {},
        "findings": plain(report.findings),
        "exit_code": int(report.exit_code),
    }


def effects(seen: Sight, signums: Sequence[int]) -> dict[str, str]:
    """The effect of each signal by name, in stable words."""
    return {signals.name(s): effect(seen, s).name.lower().replace("_", "-") for s in signums}


def print_json(value: object) -> None:
    """One object on one line."""
    import json

    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_error(address: Address, error: LastcallError, *, as_json: bool) -> None:
    """One target of several could not be checked."""
    if as_json:
        print_json({"event": "error", "target": str(address), **error.as_data()})
        return
    for line in show.error_lines(error, address):
        print(line, file=sys.stderr)
