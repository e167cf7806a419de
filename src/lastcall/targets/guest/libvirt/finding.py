"""Which guest a word means.

Source: libvirt 9.0, src/libvirt-domain.c (virConnectListAllDomains).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from lastcall.errors import Ambiguous, NotRunning
from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.targets.guest.libvirt.library import Connection


@record
class Listed:
    """One guest that libvirt knows.

    Args:
        name: its name.
        uuid: its UUID.
        number: libvirt's id of this run of it; None: it does not run.
    """

    name: str
    uuid: str
    number: int | None


def list_domains(connection: Connection) -> list[Listed]:
    """All guests, whether they run or not; blocks."""
    found = []
    for each in connection.listAllDomains(0):
        number = each.ID()
        found.append(Listed(each.name(), each.UUIDString(), None if number < 0 else number))
    return found


def find(name: str, listed: list[Listed]) -> Listed:
    """The guest of that name, UUID or id. Pure.

    Raises:
        NotRunning: there is none.
        Ambiguous: the word is one guest's name and another's id.
    """
    number = int(name) if name.isascii() and name.isdecimal() else None
    found = [
        each
        for each in listed
        if each.name == name
        or each.uuid == name.lower()
        or (number is not None and each.number == number)
    ]
    if len(found) > 1:
        raise Ambiguous(
            f"{name!r} is one guest's name and another's id",
            "name it by its UUID",
            tuple((f"libvirt:{each.uuid}", each.name) for each in found),
        )
    if found:
        return found[0]
    near = difflib.get_close_matches(name, [each.name for each in listed], n=3)
    advice = f"did you mean {' or '.join(f'libvirt:{each}' for each in near)} ?" if near else ""
    raise NotRunning(
        f"libvirt knows no guest {name!r}", advice or "see what there is: virsh list --all"
    )
