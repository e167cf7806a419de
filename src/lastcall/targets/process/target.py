"""A process, or one with its descendants, or a process group, as a target.

All three are a set of members, the root first, each held by its pidfd. A lone process is a set of
one. New members are looked for before every ask and when all known ones have ended; one that forks
away between two looks and loses its parent meanwhile escapes a `--tree`.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError, NotRunning
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle, ProcessIdentity
from lastcall.model import (
    Address,
    Cause,
    Consent,
    Depth,
    Ended,
    Finding,
    Identity,
    Outcome,
    Reached,
    Rung,
    Served,
    Stage,
)
from lastcall.targets.base import Answer, TargetEvent
from lastcall.targets.process.ending import Asks, explain, gravest, pids_in_words
from lastcall.targets.process.ladder import REST, ROOT, Reach, Scope
from lastcall.targets.process.member import Member, asked, pack
from lastcall.targets.process.signals import name as signal_name
from lastcall.targets.process.signals import states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lastcall.targets.process.during.followed import Followed
    from lastcall.targets.process.sockets import Socket

# How long to wait, in seconds, for a parent to reap a process whose status we may not read.
_REAP_S = 1.0


class ProcessTarget:
    """See the module. Make one with `open_process` or `reopen_process`.

    Args:
        address: where it was found.
        root: the identity of its root.
        handles: the members, and what each was asked; the target owns them from now on. One that
            is closed already ended while nobody watched.
        label: what a person would call it.
        reach: how far the stop reaches.
        ladder: how it is asked.
        listeners: the listening sockets it was found by (`port:`), to be seen free at the end.
        notes: what was noticed while it was looked up.

    Attributes:
        grace_s: how long the stop gives it, in seconds; None: that is not known yet.
    """

    def __init__(
        self,
        address: Address,
        root: ProcessIdentity,
        handles: Sequence[tuple[Handle, Asks]],
        label: str,
        reach: Reach,
        ladder: tuple[Rung, ...],
        listeners: tuple[Socket, ...] = (),
        notes: tuple[Finding, ...] = (),
    ) -> None:
        self.address = address
        self.label = label
        self.ladder = ladder
        # The root's, with what is needed to find the whole set again.
        model = root.as_model()
        facts = {**model.facts, "scope": reach.scope.value, "pgrp": reach.pgrp}
        self.identity: Identity = Identity(model.key, facts)
        self._scope, self._pgrp = reach.scope, reach.pgrp
        self._root = root
        self._listeners = listeners
        self._notes = notes
        self.grace_s: float | None = None
        self._followed: Followed | None = None
        self._members = {
            h.identity: Member(h, asks, _unseen(h.identity.pid) if h.closed else None)
            for h, asks in handles
        }
        self._notify: Callable[[TargetEvent], None] | None = None
        self._ended = False
        self._served: set[str] = set()
        self._stage: Stage | None = None
        self._asked_s: float | None = None
        # Descendants seen while it lived, with their start times.
        self._below: dict[int, int] = {}

    def living(self) -> frozenset[str]:
        """The identity keys of the members that have not ended."""
        members = [m for m in self._alive() if not m.handle.closed and not m.handle.exited()]
        return frozenset(m.handle.identity.as_model().key for m in members)

    async def preflight(self) -> tuple[Finding, ...]:
        """Will it stop? Also remembers what it listens on, for later looks."""
        from lastcall.targets.process import sockets
        from lastcall.targets.process.before import preflight

        asked = [int(r.id.partition("@")[0]) for r in self.ladder if r.consent is Consent.NONE]
        family = self._remember_family()
        if not self._listeners:
            self._listeners = tuple(sockets.listening_of(family))
        others = None
        if self._scope is not Scope.ONE:
            others = [identity for identity in self._members if identity != self._root]
        asks = list(dict.fromkeys(asked))
        findings = await preflight.findings(self._root, asks, others, self.grace_s)
        return (*self._notes, *findings)

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        """Report the end of each audience, and of all, when the kernel says so."""
        self._notify = notify
        for member in self._alive():
            self._watch_member(member)
        if len(self._alive()) < len(self._members):
            asyncio.get_running_loop().call_soon(self._report)
        if any(member.asks.sent for member in self._alive()):
            self._follow()  # it was asked before: a stop that is resumed

    def _watch_member(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(member.handle.fd, self._member_ready, member)
        if member.handle.exited():
            loop.call_soon(self._member_ready, member)

    def _member_ready(self, member: Member) -> None:
        """It ended. How may be unreadable until its parent reaps it: then wait for just that."""
        if member.end is not None or member.handle.closed:
            return
        loop = asyncio.get_running_loop()
        # In this order: only what cannot be read after the reaping is unknown for good.
        reaped = member.handle.reaped()
        status = member.handle.wait_status()
        if status is None and not reaped:
            if member.hangup is None:
                loop.remove_reader(member.handle.fd)
                member.hangup = select.epoll()
                member.hangup.register(member.handle.fd, 0)
                loop.add_reader(member.hangup.fileno(), self._member_ready, member)
                loop.call_later(_REAP_S, self._close_case, member, status)
            return
        self._close_case(member, status)

    def _close_case(self, member: Member, status: int | None) -> None:
        """It has ended, this way; or its parent will not say, and we may not read it."""
        if member.end is not None or member.handle.closed:
            return
        self._let_go(member)
        told = self._followed is not None and self._followed.stops(member.handle.identity)
        member.end = explain(status, member.asks, lifecycle=told)
        self._report()

    def _let_go(self, member: Member) -> None:
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
            with contextlib.suppress(LastcallError):
                self.adopt()
            alive = self._alive()
        if not alive:
            self._ended = True
            if self._followed is not None:
                self._followed.finish()
            ends = {i.pid: m.end for i, m in self._members.items() if m.end is not None}
            cause, detail = gravest(ends)
            self._notify(Ended(cause, detail))
            return
        rest = any(m.handle.identity != self._root for m in alive)
        if all(m.handle.identity != self._root for m in alive):
            self._tell_served(ROOT)
        elif not rest and self._scope is Scope.TREE_CHILDREN_FIRST:
            # With the children last, more may come until the root has ended.
            self._tell_served(REST)

    def _alive(self) -> list[Member]:
        return [m for m in self._members.values() if m.end is None]

    def facts(self, rung: Rung) -> dict[str, str | int | None]:
        """Who belongs to it, who is about to be asked, and who has a handler for that."""
        signum, members = self._audience(rung)
        for member in members:
            member.asks = asked(member, signum)
        return {
            "members": ";".join(pack(m) for m in self._members.values()),
            "listeners": ";".join(s.pack() for s in self._listeners),
        }

    async def carry(self, rung: Rung) -> Answer:
        """Send the rung's signal to those it addresses."""
        followed = self._follow()
        if followed is not None:  # before it is asked: what it says to that may come at once
            await followed.settle()
        return self._send(rung)

    def _send(self, rung: Rung) -> Answer:
        signum, members = self._audience(rung)
        name, refused, gone = signal_name(signum), [], 0
        self._asked_s = self._asked_s or time.clock_gettime(time.CLOCK_BOOTTIME)
        for member in members:
            if signum not in member.asks.sent:  # it came to the set after the intent was written
                member.asks = asked(member, signum)
            try:
                if member.handle.exited():  # a zombie would take the signal and make us its cause
                    gone += 1
                else:
                    member.handle.send(signum)
            except ProcessLookupError:
                gone += 1
            except PermissionError:
                refused.append(member.handle.identity.pid)
            except OSError as error:
                return Answer(Outcome.FAILED, f"{name}: {error.strerror}")
        if refused and len(refused) + gone == len(members):
            return Answer(Outcome.NOT_PERMITTED, f"{name} to {pids_in_words(refused)}")
        if gone == len(members):
            if rung.audience:  # no end of theirs will tell that the others may be asked
                self._tell_served(rung.audience)
            return Answer(Outcome.GONE, f"{name}: nobody is left")
        sent = [m.handle.identity.pid for m in members if m.handle.identity.pid not in refused]
        but = f"; not permitted for {pids_in_words(refused)}" if refused else ""
        return Answer(Outcome.DONE, f"{name} to {pids_in_words(sent)}{but}")

    def _tell_served(self, audience: str) -> None:
        """Of this audience nobody is left, others are: told once."""
        if self._notify is not None and not self._ended and audience not in self._served:
            self._served.add(audience)
            self._notify(Served(audience))

    def _audience(self, rung: Rung) -> tuple[int, list[Member]]:
        signum, _, audience = rung.id.partition("@")
        if self._scope is not Scope.ONE:
            self.adopt()
        alive = self._alive()
        if audience == ROOT:
            alive = [m for m in alive if m.handle.identity == self._root]
        elif audience == REST:
            alive = [m for m in alive if m.handle.identity != self._root]
        return int(signum), alive

    def adopt(self) -> None:
        """Take in whoever belongs to the set by now.

        Raises:
            LastcallError: too many files are open to hold them all.
        """
        known = {identity.pid for identity, m in self._members.items() if m.end is None}
        known |= procfs.ourselves()
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
            member = Member(handle, Asks())
            self._members[handle.identity] = member
            if self._notify is not None:
                self._watch_member(member)

    def _family_pids(self) -> list[int]:
        """The pids that belong to the set, by a fresh look at `/proc`."""
        try:
            table = procfs.every_stat()
        except OSError as error:
            raise LastcallError(
                f"who belongs to process {self._root.pid} cannot be seen: {error.strerror}",
                "raise the limit on open files (ulimit -n), or name fewer targets at once",
            ) from error
        if self._scope is Scope.GROUP:
            if all(s.pgrp != self._pgrp for _, s in self._known(table)):
                return []  # none of them is in it any more: its number may be another group's
            group = [s for s in table.values() if s.pgrp == self._pgrp]
            return [s.pid for s in group if not procfs.over(s)]
        found: list[int] = []
        for identity, _ in self._known(table):
            found += procfs.descendants(identity.pid, table)
        return [pid for pid in dict.fromkeys(found) if not procfs.over(table[pid])]

    def _known(self, table: dict[int, procfs.Stat]) -> list[tuple[ProcessIdentity, procfs.Stat]]:
        known = [(identity, table.get(identity.pid)) for identity in self._members]
        return [(i, s) for i, s in known if s is not None and s.start_ticks == i.start_ticks]

    async def look(self, depth: Depth) -> tuple[Finding, ...]:
        """What holds it up. On the way, tells how far the stop has come."""
        from lastcall.targets.process.during import holdup

        if self._scope is Scope.TREE_CHILDREN_LAST and self._alive():
            self.adopt()  # once the root has ended, whoever it started meanwhile is not found
        alive = [m.handle for m in self._alive()]
        if not alive:
            return ()
        self._remember_family()
        self._follow()
        sent = frozenset().union(*(m.asks.sent for m in self._members.values()))
        since = self._asked_s
        findings = await holdup.findings(alive, self._listeners, sorted(sent), depth, since)
        self._tell_stage()
        return findings

    def _tell_stage(self) -> None:
        """Has the signal arrived, is there a handler, are the doors closed?"""
        from lastcall.targets.process import sockets

        root = self._members.get(self._root)
        if root is None or root.end is not None or self._notify is None or not root.asks.sent:
            return
        if self._followed is not None and self._followed.tells:
            return
        pid = self._root.pid
        try:
            if any(state.pending for s, state in states(pid).items() if s in root.asks.sent):
                return
            now_open = sockets.listening_of(procfs.family(pid))
        except (ProcessLookupError, PermissionError):
            return
        stage, detail = Stage.DELIVERED, "the signal has arrived"
        if root.asks.handled:
            stage, detail = Stage.TAKEN, "the signal has arrived and has a handler"
        if closed := [str(s.local) for s in self._listeners if s not in now_open]:
            stage, detail = Stage.DRAINING, f"takes no new connections on {', '.join(closed)}"
        if self._stage != stage:
            self._stage = stage
            self._notify(Reached(stage, detail))

    def _follow(self) -> Followed | None:
        """Listen to the lifecycles in it, if there are any: they tell how far their stop is."""
        if self._notify is None or self._ended:
            return None
        if self._followed is None:
            from lastcall.targets.process.during.followed import Followed

            self._followed = Followed(self._root, self._notify)
        below = [
            ProcessIdentity(pid, ticks, self._root.boot_id, None)
            for pid, ticks in self._below.items()
            if all(identity.pid != pid for identity in self._members)
        ]
        self._followed.take_in([*(m.handle.identity for m in self._alive()), *below])
        return self._followed

    def _remember_family(self) -> list[int]:
        family = procfs.family(self._root.pid)
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._below[pid] = procfs.stat(pid).start_ticks
        return family

    async def verify(self) -> tuple[Finding, ...]:
        """Is the port free, and has nobody been left behind?"""
        ports = self._listeners if self.address.kind == "port" else ()
        if not ports and not self._below:
            return ()
        from lastcall.targets.process import aftermath

        return (
            *(aftermath.held_ports(self.address, ports) if ports else ()),
            *aftermath.left_behind(self._below),
        )

    def rest(self) -> None:
        """Any number may hold a process."""

    def close(self) -> None:
        """Stop watching; the processes are left alone."""
        if self._followed is not None:
            self._followed.close()
        for member in self._members.values():
            if member.handle.fd >= 0:
                if self._notify is not None:
                    self._let_go(member)
                member.handle.close()


def _unseen(pid: int) -> tuple[Cause, str]:
    return Cause.UNKNOWN, f"process {pid} ended while nobody watched"
