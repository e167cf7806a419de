"""Every guest of the zoo, stopped or explained by `lastcall stop qmp:...` on real QEMU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from guests import stopping, zoo
from guests.expected import STOPS, Expected

if TYPE_CHECKING:
    from pathlib import Path

    from guests.stopping import Said


def _groups() -> dict[tuple[str, tuple[str, ...]], list[Expected]]:
    """Those that one command stops together: the same machine, the same options."""
    groups: dict[tuple[str, tuple[str, ...]], list[Expected]] = {}
    for machine in zoo.MACHINES:
        for each in STOPS:
            if machine in each.machines:
                groups.setdefault((machine, each.options), []).append(each)
    return groups


CASES = [(machine, each) for (machine, _), group in _groups().items() for each in group]


@pytest.fixture(scope="module")
def stopped() -> dict[tuple[str, str], Said]:
    """What `lastcall stop` said of each, by machine and name; filled as it is asked for."""
    return {}


@pytest.mark.parametrize(
    ("machine", "each"), CASES, ids=[f"{machine}-{each.name}" for machine, each in CASES]
)
def test_it_is_stopped_or_explained(
    machine: str, each: Expected, stopped: dict[tuple[str, str], Said], tmp_path: Path
) -> None:
    """The ending is the right one, and the first finding names what holds it up."""
    if (machine, _key(each)) not in stopped:
        stopped.update(_stop_group(machine, _groups()[machine, each.options], tmp_path))
    check(each, stopped[machine, _key(each)])


def check(each: Expected, said: Said) -> None:
    """What a stop said is what the table expects.

    Raises:
        AssertionError: it is not.
    """
    told = {"ending": said.ending, "findings": said.findings, "beforehand": said.beforehand}
    assert said.ending == each.ending.value, told
    assert said.result["exit_code"] == each.ending.exit_code, told
    if each.finding:
        assert said.findings[:1] == [each.finding], told
    if each.beforehand:
        assert each.beforehand in said.beforehand, told
    presses = [rung for rung in said.carried if rung in {"press", "press-again"}]
    assert len(presses) == each.presses, said.carried
    assert "end" not in said.carried
    assert "kill" not in said.carried


def _key(each: Expected) -> str:
    return f"{each.name} {sorted(each.numbers.items())}"


def _stop_group(machine: str, group: list[Expected], state: Path) -> dict[tuple[str, str], Said]:
    with contextlib.ExitStack() as stack:
        guests = [
            stack.enter_context(zoo.start(each.guest, machine, (), None, **each.numbers))
            for each in group
        ]
        for each, guest in zip(group, guests, strict=True):
            if each.guest not in {"late", "firmware"}:
                guest.wait_up()
            if each.guest == "sleeps":
                guest.side.wait_event("SUSPEND")
        said = stopping.stop([f"qmp:{guest.qmp}" for guest in guests], group[0].options, state)
        for each, guest in zip(group, guests, strict=True):
            if each.guest == "cancels-on-second":
                assert "cancelled" not in guest.milestones()
        return {
            (machine, _key(each)): said[f"qmp:{guest.qmp}"]
            for each, guest in zip(group, guests, strict=True)
        }
