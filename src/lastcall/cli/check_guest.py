"""`lastcall check` of a guest: will it hear the power button, and what keeps it from going off?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lastcall.cli import guests, show
from lastcall.errors import ExitCode, LastcallError
from lastcall.model import Finding, Severity
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.model import Address, Identity
    from lastcall.targets.base import Target
    from lastcall.targets.guest.memory import Memory
    from lastcall.targets.guest.wish import GuestWish


@record
class Report:
    """What is known of one guest.

    Args:
        told: (word, what it is), for people.
    """

    address: Address
    label: str
    identity: Identity
    asked: tuple[str, ...]
    told: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> ExitCode:
        """FOUND when something would cost work or keep it from ending."""
        grave = any(finding.severity is not Severity.NOTE for finding in self.findings)
        return ExitCode.FOUND if grave else ExitCode.ORDERLY

    def lines(self, width: int | None, palette: show.Palette) -> list[str]:
        """As people read it."""
        title = f"{self.address}  {self.label}"
        shown = [palette.paint(show.harmless(title), "bold")]
        shown += [f"  {palette.paint(f'{w:10}', 'dim')} {show.harmless(t)}" for w, t in self.told]
        for finding in self.findings:
            shown += ["", *show.finding_lines(finding, width, palette)]
        return shown

    def as_plain(self) -> dict[str, object]:
        """As `--json` prints it."""
        from lastcall.journal.codec import plain

        return {
            "event": "check",
            "target": str(self.address),
            "label": self.label,
            "identity": plain(self.identity),
            "asked": list(self.asked),
            "guest": dict(self.told),
            "findings": plain(self.findings),
            "exit_code": int(self.exit_code),
        }


def look(addresses: Sequence[Address], wish: GuestWish) -> list[Report | LastcallError]:
    """All that is known of these guests, side by side. Changes nothing.

    Raises:
        UsageError: an address makes no sense.
    """
    return asyncio.run(_look(addresses, wish))


async def _look(addresses: Sequence[Address], wish: GuestWish) -> list[Report | LastcallError]:
    from dataclasses import replace

    found = await guests.open_each(addresses, wish)
    targets = {id(t): t for t in found.values() if not isinstance(t, LastcallError)}

    async def check(target: Target) -> Report:
        try:
            return await _report(target)
        finally:
            target.close()

    reports = await asyncio.gather(*map(check, targets.values()))
    of_target = dict(zip(targets, reports, strict=True))
    told: list[Report | LastcallError] = []
    for address in addresses:
        one = found[address]
        if isinstance(one, LastcallError):
            told.append(one)
        else:
            told.append(replace(of_target[id(one)], address=address))
    return told


async def _report(target: Target) -> Report:
    from lastcall.targets.guest.target import GuestTarget

    findings = await target.preflight()
    told = _told(target.memory) if isinstance(target, GuestTarget) else ()
    asked = tuple(r.means for r in target.ladder if r.consent.value == "none" and not r.on_call)
    return Report(target.address, target.label, target.identity, asked, told, findings)


def _told(memory: Memory) -> tuple[tuple[str, str], ...]:
    setup, agent = memory.setup, memory.agent_before
    words = [
        ("machine", setup.machine),
        ("state", memory.power.value),
        ("button", setup.button.value),
        ("registers", str(memory.registers or "")),
        ("system", (agent and agent.name) or ("" if memory.system == "unknown" else memory.system)),
    ]
    if agent is not None and agent.users is not None:
        words.append(("logged on", ", ".join(agent.users) or "nobody"))
    return tuple((word, text) for word, text in words if text)
