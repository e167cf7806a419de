"""A process, or one with its descendants, or a process group, as a target.

All three are a set of members, the root first, each held by its pidfd. A lone process is a set of
one. New members are looked for before every ask and when all known ones have ended; one that forks
away between two looks and loses its parent meanwhile escapes a `--tree`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.errors import NotRunning, Refused
from lastcall.model import (
    Address,
    Consent,
    Depth,
    Ended,
    Finding,
    Identity,
    Outcome,
    Rung,
    Served,
    Severity,
)
from lastcall.targets.base import Answer, TargetEvent
from lastcall.targets.process import procfs
from lastcall.targets.process.ending import Asks, explain, gravest
from lastcall.targets.process.identity import Handle, ProcessIdentity
from lastcall.targets.process.runtime import Runtime, recognise
from lastcall.targets.process.signals import name as signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lastcall.targets.process.sockets import Socket

FORCE_WAIT_S = 10.0
_ROOT, _REST = "root", "rest"


class Scope(StrEnum):
    """How far a stop reaches."""

    ONE = "one"
    TREE_CHILDREN_LAST = "tree, children last"
    TREE_CHILDREN_FIRST = "tree, children first"
    GROUP = "group"


def ladder_of(signals: Sequence[tuple[int, float | None]], scope: Scope) -> tuple[Rung, ...]:
    """The rungs for a sequence of (signal, seconds to wait) in a scope, and then the force."""
    audiences = {
        Scope.TREE_CHILDREN_LAST: (_ROOT, _REST),
        Scope.TREE_CHILDREN_FIRST: (_REST, _ROOT),
    }.get(scope, ("",))
    to = {_ROOT: " to the process itself", _REST: " to its descendants"}
    soft = tuple(
        Rung(
            id=f"{signum}@{audience}",
            means=f"{signal_name(signum)}{to.get(audience, '')}",
            wait_s=wait_s,
            audience=audience,
        )
        for audience in audiences
        for signum, wait_s in signals
    )
    kill = Rung(f"{int(signal.SIGKILL)}@", "SIGKILL", FORCE_WAIT_S, Consent.FORCE)
    return (*soft, kill)


@dataclass(slots=True)
class _Member:
    handle: Handle
    asks: Asks
    end: tuple[object, str] | None = None
    hangup: select.epoll | None = None


class ProcessTarget:
    """See the module. Make one with `open_process` or `reopen_process`.

    Args:
        address: where it was found.
        root: the identity of its root.
        handles: the open members, and what each was asked; the target owns them from now on.
        label: what a person would call it.
        scope: how far the stop reaches.
        ladder: how it is asked.
        listeners: the listening sockets it was found by (`port:`), to be seen free at the end.
        notes: what was noticed while it was looked up.
    """

    def __init__(
        self,
        address: Address,
        root: ProcessIdentity,
        handles: Sequence[tuple[Handle, Asks]],
        label: str,
        scope: Scope,
        ladder: tuple[Rung, ...],
        listeners: tuple[Socket, ...] = (),
        notes: tuple[Finding, ...] = (),
    ) -> None:
        self.address = address
        self.label = label
        self.ladder = ladder
        self._scope = scope
        self._root = root
        self._listeners = listeners
        self._notes = notes
        self._members = {h.identity: _Member(h, asks) for h, asks in handles}
        self._notify: Callable[[TargetEvent], None] | None = None
        self._ended = False

    @property
    def identity(self) -> Identity:
        """The root's identity, with what is needed to find the whole set again."""
        model = self._root.as_model()
        return replace(model, facts={**model.facts, "scope": self._scope.value})

    async def preflight(self) -> tuple[Finding, ...]:
        """Will it stop? Also remembers what it listens on, for later looks."""
        from lastcall.targets.process import preflight, sockets

        asked = [int(r.id.partition("@")[0]) for r in self.ladder if r.consent is Consent.NONE]
        if not self._listeners:
            self._listeners = tuple(sockets.listening_of(procfs.family(self._root.pid)))
        findings = await preflight.findings(self._root, list(dict.fromkeys(asked)))
        return (*self._notes, *findings)

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        """Report the end of each audience, and of all, when the kernel says so."""
        self._notify = notify
        for member in list(self._members.values()):
            self._watch_member(member)

    def _watch_member(self, member: _Member) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(member.handle.fd, self._member_ready, member)

    def _member_ready(self, member: _Member) -> None:
        """It ended. How may be unreadable until its parent reaps it: then wait for just that."""
        loop = asyncio.get_running_loop()
        status = member.handle.wait_status()
        if status is None and not member.handle.reaped() and member.hangup is None:
            loop.remove_reader(member.handle.fd)
            member.hangup = select.epoll()
            member.hangup.register(member.handle.fd, 0)
            loop.add_reader(member.hangup.fileno(), self._member_ready, member)
            return
        self._let_go(member)
        member.end = explain(status, member.asks)
        self._report()

    def _let_go(self, member: _Member) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(member.handle.fd)
        if member.hangup is not None:
            loop.remove_reader(member.hangup.fileno())
            member.hangup.close()
            member.hangup = None

    def _report(self) -> None:
        if self._notify is None or self._ended:
            return
        alive = self._alive()
        if not alive and self._scope is not Scope.ONE:
            self.adopt()
            alive = self._alive()
        if not alive:
            self._ended = True
            cause, detail = gravest([m.end for m in self._members.values() if m.end])  # type: ignore[misc]
            if len(self._members) > 1:
                detail = f"{detail} ({len(self._members)} processes)"
            self._notify(Ended(cause, detail))
            return
        rest = any(m.handle.identity != self._root for m in alive)
        if all(m.handle.identity != self._root for m in alive):
            self._notify(Served(_ROOT))
        elif not rest:
            self._notify(Served(_REST))

    def _alive(self) -> list[_Member]:
        return [m for m in self._members.values() if m.end is None]

    def facts(self, rung: Rung) -> dict[str, str | int | None]:
        """Who is about to be asked, and who of them has a handler for it."""
        signum, members = self._audience(rung)
        for member in members:
            member.asks = _asked(member, signum)
        return {"members": ";".join(_pack(m) for m in self._members.values() if m.asks.sent)}

    async def carry(self, rung: Rung) -> Answer:
        """Send the rung's signal to those it addresses."""
        signum, members = self._audience(rung)
        refused, gone = [], 0
        for member in members:
            try:
                member.handle.send(signum)
            except ProcessLookupError:
                gone += 1
            except PermissionError:
                refused.append(member.handle.identity.pid)
            except OSError as error:
                return Answer(Outcome.FAILED, f"{rung.means}: {error.strerror}")
        if refused and len(refused) + gone == len(members):
            return Answer(Outcome.NOT_PERMITTED, f"{rung.means} to {_pids(refused)}: not permitted")
        if gone == len(members):
            return Answer(Outcome.GONE, f"{rung.means}: nobody is left")
        sent = [m.handle.identity.pid for m in members if m.handle.identity.pid not in refused]
        but = f"; not permitted for {_pids(refused)}" if refused else ""
        return Answer(Outcome.DONE, f"{rung.means} to {_pids(sent)}{but}")

    def _audience(self, rung: Rung) -> tuple[int, list[_Member]]:
        signum, _, audience = rung.id.partition("@")
        if self._scope is not Scope.ONE:
            self.adopt()
        alive = self._alive()
        if audience == _ROOT:
            alive = [m for m in alive if m.handle.identity == self._root]
        elif audience == _REST:
            alive = [m for m in alive if m.handle.identity != self._root]
        return int(signum), alive

    def adopt(self) -> None:
        """Take in whoever belongs to the set by now."""
        known = {identity.pid for identity, m in self._members.items() if m.end is None}
        known |= _ourselves()
        for pid in self._family_pids():
            if pid in known:
                continue
            try:
                handle = Handle.open(pid)
            except NotRunning:
                continue
            if handle.identity in self._members:
                handle.close()
                continue
            member = _Member(handle, Asks())
            self._members[handle.identity] = member
            if self._notify is not None:
                self._watch_member(member)

    def _family_pids(self) -> list[int]:
        """The pids that belong to the set, by a fresh look at `/proc`."""
        table = procfs.every_stat()
        if self._scope is Scope.GROUP:
            group = {s.pgrp for i, s in self._known(table)}
            return [s.pid for s in table.values() if s.pgrp in group and s.state not in "ZX"]
        found: list[int] = []
        for identity, _ in self._known(table):
            found += procfs.descendants(identity.pid, table)
        return [pid for pid in dict.fromkeys(found) if table[pid].state not in "ZX"]

    def _known(self, table: dict[int, procfs.Stat]) -> list[tuple[ProcessIdentity, procfs.Stat]]:
        known = [(identity, table.get(identity.pid)) for identity in self._members]
        return [(i, s) for i, s in known if s is not None and s.start_ticks == i.start_ticks]

    async def look(self, depth: Depth) -> tuple[Finding, ...]:
        """What holds it up."""
        from lastcall.targets.process import holdup

        alive = [m.handle for m in self._alive()]
        if not alive:
            return ()
        sent = frozenset().union(*(m.asks.sent for m in self._members.values()))
        return await holdup.findings(alive, self._listeners, sorted(sent), depth)

    async def verify(self) -> tuple[Finding, ...]:
        """Is the port free, and has nobody been left behind?"""
        from lastcall.targets.process import sockets

        if self.address.kind != "port":
            return ()
        holders = sockets.holders_of_ports(self._listeners)
        if not holders:
            return ()
        return (
            Finding(
                code="port-still-held",
                title=f"{self.address} is still listened on, by another process",
                severity=Severity.WARNING,
                evidence=tuple(f"pid {pid}  {procfs.label(pid)}" for pid in holders),
                advice="a supervisor may have started it again, or a child was left behind: "
                f"lastcall check pid:{holders[0]}",
            ),
        )

    def close(self) -> None:
        """Stop watching; the processes are left alone."""
        for member in self._members.values():
            if member.handle.fd >= 0:
                if self._notify is not None:
                    self._let_go(member)
                member.handle.close()


def _ourselves() -> set[int]:
    """Never part of any set: we, and those we run under."""
    return {os.getpid(), *procfs.ancestors(os.getpid())}


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
    from lastcall.targets.process.resolve import resolve

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
    for ours in sorted(_ourselves()):
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
    packed: Sequence[str],
) -> ProcessTarget:
    """Find the same process (and the same members) again, from the journal.

    Args:
        address: as it was given.
        label: as it was then.
        facts: of its identity.
        ladder: as it was then.
        packed: the `members` of each intent, oldest first.

    Raises:
        NotRunning: none of them is there any more.
    """
    root = ProcessIdentity.from_facts(facts)
    asks: dict[ProcessIdentity, Asks] = {root: Asks()}
    for text in packed:
        for member in filter(None, text.split(";")):
            identity, known = unpack(member, root.boot_id)
            asks[identity] = known
    handles: dict[ProcessIdentity, Handle] = {}
    for identity in asks:
        with contextlib.suppress(NotRunning):
            handles[identity] = Handle.reopen(identity)
    if not handles:
        raise NotRunning(f"process {root.pid} is gone, and nobody saw how it ended")
    scope = Scope(str(facts["scope"]))
    members = [(handle, asks[identity]) for identity, handle in handles.items()]
    return ProcessTarget(address, root, members, label, scope, ladder)


def _asked(member: _Member, signum: int) -> Asks:
    """What is known of a member at the moment it is asked."""
    pid = member.handle.identity.pid
    asks = member.asks
    handled = asks.handled
    runtime = asks.runtime
    try:
        if int(procfs.status(pid).get("SigCgt", "0"), 16) >> (signum - 1) & 1:
            handled |= {signum}
        if runtime is Runtime.OTHER:
            runtime = recognise(pid)
    except (ProcessLookupError, PermissionError, ValueError):
        pass
    return Asks(asks.sent | {signum}, handled, runtime)


def _pack(member: _Member) -> str:
    """One member as the journal keeps it: pid/start/inode/sent/handled/runtime."""
    identity, asks = member.handle.identity, member.asks
    lists = "/".join(",".join(map(str, sorted(s))) for s in (asks.sent, asks.handled))
    inode = identity.inode or "-"
    return f"{identity.pid}/{identity.start_ticks}/{inode}/{lists}/{asks.runtime.value}"


def unpack(packed: str, boot: str) -> tuple[ProcessIdentity, Asks]:
    """One member back from the journal.

    Raises:
        ValueError: it is not of that form.
    """
    pid, start, inode, sent, handled, runtime = packed.split("/")
    numbers = [frozenset(int(n) for n in text.split(",") if n) for text in (sent, handled)]
    identity = ProcessIdentity(int(pid), int(start), boot, None if inode == "-" else int(inode))
    return identity, Asks(numbers[0], numbers[1], Runtime(runtime))


def _pids(pids: Sequence[int]) -> str:
    shown = ", ".join(str(pid) for pid in pids[:5])
    more = f" and {len(pids) - 5} more" if len(pids) > 5 else ""  # noqa: PLR2004 (enough to recognise)
    return f"pid {shown}{more}"
