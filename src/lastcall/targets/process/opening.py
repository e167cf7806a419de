"""Making a process target: from an address, or from what the journal says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.errors import NotRunning, Refused
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle, ProcessIdentity
from lastcall.targets.process.ending import Asks
from lastcall.targets.process.ladder import Reach, Scope, ladder_of
from lastcall.targets.process.lookup.resolve import resolve
from lastcall.targets.process.member import unpack
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
    grace_s: float | None = None,
) -> ProcessTarget:
    """Find the process at an address and fix its identity.

    Args:
        address: where to look.
        signals: (signal, seconds to wait for it; None: until the deadline), in order.
        scope: the process alone, its tree, or its group.
        allow: what is otherwise refused: "init", "ancestor".
        grace_s: how long the stop gives it, in seconds; None: that is not known yet.

    Raises:
        LastcallError: as `resolve`; `Refused` also when the group holds ourselves.
    """
    found = resolve(address, allow=allow)
    reach = Reach(scope, _group_of(found.handle) if scope is Scope.GROUP else None)
    target = ProcessTarget(
        address,
        found.handle.identity,
        [(found.handle, Asks())],
        found.label,
        reach,
        ladder_of(signals, scope),
        found.listeners,
        found.notes,
    )
    target.grace_s = grace_s
    try:
        if scope is not Scope.ONE:
            target.adopt()
    except BaseException:
        target.close()
        raise
    return target


def _group_of(handle: Handle) -> int:
    """The process group, unless it holds ourselves."""
    pid = handle.identity.pid
    try:
        group = procfs.stat(pid).pgrp
        for ours in sorted(procfs.ourselves()):
            if procfs.stat(ours).pgrp == group:
                raise Refused(
                    f"the process group of {pid} also holds pid {ours} ({procfs.label(ours)}),"
                    " which runs this command",
                    "use --tree, or start the program in a session of its own (setsid)",
                )
    except BaseException as error:
        handle.close()
        if isinstance(error, ProcessLookupError):
            raise NotRunning(f"no process {pid} is running") from None
        raise
    return group


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
    pgrp = facts.get("pgrp")
    reach = Reach(Scope(str(facts["scope"])), None if pgrp is None else int(pgrp))
    return ProcessTarget(address, root, members, label, reach, ladder, listeners)


def _reopen(identity: ProcessIdentity) -> Handle:
    """A handle of the very same process; a closed one when it is gone."""
    try:
        return Handle.reopen(identity)
    except NotRunning:
        return Handle(identity, -1)
