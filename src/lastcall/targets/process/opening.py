"""Making a process target: from an address, or from what the journal says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.errors import NotRunning, Refused
from lastcall.targets.process import procfs
from lastcall.targets.process.ending import Asks
from lastcall.targets.process.identity import Handle, ProcessIdentity
from lastcall.targets.process.ladder import Scope, ladder_of
from lastcall.targets.process.member import unpack
from lastcall.targets.process.resolve import resolve
from lastcall.targets.process.sockets import Socket
from lastcall.targets.process.target import ProcessTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.model import Address, Rung


def open_process(
    address: Address,
    signals: Sequence[tuple[int, float | None]],
    scope: Scope = Scope.ONE,
    allow: frozenset[str] = frozenset(),
) -> ProcessTarget:
    """Find the process at an address and fix its identity.

    Args:
        address: where to look.
        signals: (signal, seconds to wait for it; None: until the deadline), in order.
        scope: the process alone, its tree, or its group.
        allow: what is otherwise refused: "init", "ancestor".

    Raises:
        LastcallError: as `resolve`; `Refused` also when the group holds ourselves.
    """
    found = resolve(address, allow=allow)
    target = ProcessTarget(
        address,
        found.handle.identity,
        [(found.handle, Asks())],
        found.label,
        scope,
        ladder_of(signals, scope),
        found.listeners,
        found.notes,
    )
    try:
        if scope is Scope.GROUP:
            _refuse_own_group(found.handle.identity.pid)
        if scope is not Scope.ONE:
            target.adopt()
    except BaseException:
        target.close()
        raise
    return target


def _refuse_own_group(pid: int) -> None:
    group = procfs.stat(pid).pgrp
    for ours in sorted(procfs.ourselves()):
        if procfs.stat(ours).pgrp == group:
            raise Refused(
                f"the process group of {pid} also holds pid {ours} ({procfs.label(ours)}),"
                " which runs this command",
                "use --tree, or start the program in a session of its own (setsid)",
            )


def reopen_process(
    address: Address,
    label: str,
    facts: dict[str, str | int | None],
    ladder: tuple[Rung, ...],
    intents: Sequence[dict[str, str | int | None]],
) -> ProcessTarget:
    """Find the same process (and the same members) again, from the journal.

    Args:
        address: as it was given.
        label: as it was then.
        facts: of its identity.
        ladder: as it was then.
        intents: the facts of each intent, oldest first. A member that is gone by now ended
            while nobody watched.

    Raises:
        NotRunning: none of them is there any more.
    """
    root = ProcessIdentity.from_facts(facts)
    asks: dict[ProcessIdentity, Asks] = {root: Asks()}
    listeners: tuple[Socket, ...] = ()
    for intent in intents:
        for member in filter(None, str(intent.get("members") or "").split(";")):
            identity, known = unpack(member, root.boot_id)
            asks[identity] = known
        packed = str(intent.get("listeners") or "").split(";")
        listeners = tuple(Socket.unpack(text) for text in packed if text) or listeners
    members = [(_reopen(identity), known) for identity, known in asks.items()]
    if all(handle.closed for handle, _ in members):
        raise NotRunning(f"process {root.pid} is gone, and nobody saw how it ended")
    scope = Scope(str(facts["scope"]))
    return ProcessTarget(address, root, members, label, scope, ladder, listeners)


def _reopen(identity: ProcessIdentity) -> Handle:
    """A handle of the very same process; a closed one when it is gone."""
    try:
        return Handle.reopen(identity)
    except NotRunning:
        return Handle(identity, -1)
