"""Every guest of the zoo, stopped or explained by `lastcall stop libvirt:...` with a real libvirtd.

With QEMU's monitor (`--allow monitor`) it is told as much as over QMP. Without it some causes
stay unknown, and the findings say so; then it is not tainted by it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from guests import stopping, zoo
from guests.expected import STOPS, UNREAD, Expected
from guests.libvirtd import libvirtd
from guests.test_stop_zoo_qmp import check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from guests.libvirtd import Guest, Libvirtd
    from guests.stopping import Said

READING = ("--allow", "monitor")
TAINT = "is tainted: custom-monitor"
# Guests of one command: what runs at once is to stay small.
MOST = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One guest on one machine, and the options that it is stopped with."""

    machine: str
    each: Expected
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the test."""
        return f"{self.machine}-{self.each.name}"


def _groups(table: Sequence[Expected], *extra: str) -> list[list[Case]]:
    """Those that one command stops together: the same options."""
    by_options: dict[tuple[str, ...], list[Case]] = {}
    for machine in zoo.MACHINES:
        for each in table:
            if machine in each.machines:
                case = Case(machine, each.over_libvirt, (*each.options, *extra))
                by_options.setdefault(case.options, []).append(case)
    return [
        cases[first : first + MOST]
        for cases in by_options.values()
        for first in range(0, len(cases), MOST)
    ]


READ, NOT_READ = _groups(STOPS, *READING), _groups(UNREAD)


class Shelf:
    """What was said of each guest, and what libvirt wrote of it; filled as it is asked for."""

    def __init__(self, daemon: Libvirtd) -> None:
        self._daemon = daemon
        self._found: dict[int, tuple[Said, str]] = {}

    def find(self, case: Case, groups: list[list[Case]], state: Path) -> tuple[Said, str]:
        """What was said of this one, and libvirt's log of it."""
        if id(case) not in self._found:
            self._stop(next(group for group in groups if case in group), state)
        return self._found[id(case)]

    def _stop(self, group: list[Case], state: Path) -> None:
        with contextlib.ExitStack() as stack:
            guests = [stack.enter_context(self._start(case)) for case in group]
            for case, guest in zip(group, guests, strict=True):
                _ready(case.each, guest)
            addresses = [f"libvirt:{guest.name}" for guest in guests]
            options = ("--connect", self._daemon.uri, *group[0].options)
            said = stopping.stop(addresses, options, state)
            for case, guest, address in zip(group, guests, addresses, strict=True):
                if case.each.guest == "cancels-on-second":
                    assert "cancelled" not in guest.milestones()
                self._found[id(case)] = said[address], guest.log()

    def _start(self, case: Case) -> contextlib.AbstractContextManager[Guest]:
        numbers: dict[str, Any] = dict(case.each.numbers)
        return self._daemon.guest(case.each.guest, machine=case.machine, **numbers)


def _ready(each: Expected, guest: Guest) -> None:
    if each.guest not in {"late", "firmware"}:
        guest.wait_up()
    if each.guest == "sleeps":
        guest.wait_asleep()


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    """One libvirtd for all."""
    with libvirtd() as daemon:
        yield Shelf(daemon)


@pytest.mark.parametrize("case", [case for group in READ for case in group], ids=lambda c: c.name)
def test_it_is_stopped_or_explained(case: Case, shelf: Shelf, tmp_path: Path) -> None:
    """The ending and the first finding are those over QMP; the monitor that was read taints."""
    said, log = shelf.find(case, READ, tmp_path)
    check(case.each, said)
    assert TAINT in log


@pytest.mark.parametrize(
    "case", [case for group in NOT_READ for case in group], ids=lambda c: c.name
)
def test_without_the_monitor_it_says_what_is_not_known(
    case: Case, shelf: Shelf, tmp_path: Path
) -> None:
    """The ending is the same, the cause is named as far as it can be, and nothing is tainted."""
    said, log = shelf.find(case, NOT_READ, tmp_path)
    check(case.each, said)
    assert TAINT not in log
