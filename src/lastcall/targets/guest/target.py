"""A virtual machine as a target, whatever shows it: QEMU's own monitor or libvirt."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.model import Address, Depth, Finding, Outcome, Progressed, Rung
from lastcall.targets.base import Answer, TargetEvent
from lastcall.targets.guest import ladder
from lastcall.targets.guest.advice import LOSES
from lastcall.targets.guest.album import Page
from lastcall.targets.guest.following import Follower
from lastcall.targets.guest.looking import AWAKE, Looker, button
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.memory import Memory, Pressed
from lastcall.targets.guest.press import SETTLE_S
from lastcall.targets.guest.trying import attempt
from lastcall.targets.guest.wish import Allow
from lastcall.targets.guest.words import Power, System

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lastcall.model import Identity
    from lastcall.targets.guest.evidence import Evidence
    from lastcall.targets.guest.machine import Machine
    from lastcall.targets.guest.wish import GuestWish
    from lastcall.targets.guest.words import AgentSight, Happening, Pm1, Setup

# The press waits no longer than this for the registers before it.
_BEFORE_S = 1.5
# While the way to the hypervisor is being mended (libvirtd restarts), a press waits so long.
_MEND_S = 5.0
_MEND_STEP_S = 0.25


class GuestTarget:
    """See the module. Make one with `open_guest` or `reopen_guest`, on the running loop.

    Args:
        address: where it was found.
        machine: shows the guest; owned by the target from now on.
        wish: what the caller wants.
        memory: what the journal says of the stop so far; None: nothing.
        rungs: the ladder of the journal; None: a new one.
    """

    def __init__(
        self,
        address: Address,
        machine: Machine,
        wish: GuestWish,
        memory: Memory | None = None,
        rungs: tuple[Rung, ...] | None = None,
    ) -> None:
        self.address = address
        self.machine = machine
        self.memory: Memory = memory or Memory()
        self._wish = wish
        self._rungs = rungs
        self._updating = False
        if wish.system is not System.UNKNOWN:
            self.memory.system = wish.system
        self._looker = Looker(machine, self.memory, Page(wish.screens, address.name))
        self._follower = Follower(machine, self.memory, wish, self._looker, lambda: self.ladder)
        machine.listen(self._heard)

    @property
    def identity(self) -> Identity:
        """What makes it this guest and not a later one of the same name, and what is wanted."""
        identity = self.machine.identity
        return replace(identity, facts={**identity.facts, **self._wanted()})

    def _wanted(self) -> dict[str, str | int | None]:
        """What its ladder does not show of what is wanted, for a later owner."""
        return {
            "system": self.memory.system.value,
            "monitor": int(Allow.MONITOR in self._wish.allow),
            "press_again": int(self._wish.press_again),
        }

    @property
    def label(self) -> str:
        """Its name, and where it runs."""
        return self.machine.label

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """How it is asked; what the preflight learns of its system may change it."""
        return self._rungs or ladder.ladder_of(self._wish, self.memory.system)

    def living(self) -> frozenset[str]:
        """It is one part."""
        gone = self._follower.over or self.memory.power is Power.GONE
        return frozenset() if gone else frozenset({self.identity.key})

    def _heard(self, happening: Happening) -> None:
        self._follower.heard(happening)

    async def preflight(self) -> tuple[Finding, ...]:
        """Will it hear the button, and what keeps it from powering off? Changes nothing."""
        from lastcall.targets.guest import before

        troubles: list[Trouble] = []
        memory = self.memory
        registers, agent = await self._learn(troubles)
        if registers is not None:
            memory.sampled(registers, now_s())
        return before.findings(
            memory.setup, memory.power, registers, agent, self._wish, troubles, now_s()
        )

    async def _learn(self, troubles: list[Trouble]) -> tuple[Pm1 | None, AgentSight | None]:
        setup: Setup | None
        power: Power | None
        state = asyncio.ensure_future(
            attempt(self.machine.power(), troubles, "the machine's state")
        )

        async def awake_agent() -> AgentSight | None:
            if (await state or Power.UNKNOWN) not in AWAKE:
                return None
            return await attempt(self.machine.agent(), troubles, "the guest agent")

        setup, power, registers, agent = await asyncio.gather(
            attempt(self.machine.setup(), troubles, "how the machine is built"),
            state,
            attempt(self.machine.pm1(), troubles, "the power button"),
            awake_agent(),
        )
        memory = self.memory
        memory.setup = setup or memory.setup
        memory.power = power or memory.power
        memory.agent_before = agent
        if agent is not None and agent.system is not System.UNKNOWN:
            memory.system = agent.system
        return registers, agent

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        """Report what happens to it from now on, on the running loop."""
        self._follower.follow(notify)

    def facts(self, rung: Rung) -> dict[str, str | int | None]:
        """The rung, and whether the guest was listening to its button before it."""
        facts = {"rung": rung.id, **self._wanted()}
        if rung.id in {ladder.PRESS, ladder.AGAIN} and self.memory.registers is not None:
            facts["hears"] = int(self.memory.registers.hears)
        return facts

    async def carry(self, rung: Rung) -> Answer:
        """Carry out one rung, to this guest or to nobody."""
        do = {
            ladder.PRESS: self._press,
            ladder.AGAIN: self._press,
            ladder.AGENT: self._ask_agent,
            ladder.AGENT_FORCE: self._ask_agent_by_force,
            ladder.WAKE: self._wake,
            ladder.RESUME: self._resume,
            ladder.FINISH: self._finish,
            ladder.END: self._end,
            ladder.KILL: self._kill,
        }[rung.id]
        try:
            detail = await do()
        except Trouble as trouble:
            self.memory.agent_failed |= rung.id in {ladder.AGENT, ladder.AGENT_FORCE}
            if rung.on_call:
                self._follower.failed(rung.id)
            return Answer(_OUTCOMES.get(trouble.fault, Outcome.FAILED), _in_words(trouble))
        finally:
            self._follower.asked()
        return Answer(Outcome.DONE, detail)

    async def _press(self) -> str:
        try:
            return await self._press_once()
        except Trouble as trouble:
            if trouble.fault is not Fault.REFUSED:
                raise
            roused = await self._rouse(trouble)
        return f"{roused}; {await self._press_once()}"

    async def _rouse(self, refused: Trouble) -> str:
        """Wake it or let it go on where that is allowed, as it cannot be pressed before.

        libvirt presses no button of a guest that does not run (9.0, src/qemu/qemu_driver.c,
        qemuDomainShutdownFlagsMonitor).

        Raises:
            Trouble: it may not be roused, or the press was refused for something else.
        """
        power = await attempt(self.machine.power(), [], "the machine's state")
        allow = {Power.SUSPENDED: Allow.WAKE, Power.PAUSED: Allow.RESUME}.get(power or Power.OFF)
        if power is None or allow is None:
            raise refused
        if allow not in self._wish.allow:
            raise Trouble(
                Fault.REFUSED,
                f"{refused.what} (its machine is: {power})",
                f"allow it to be roused first: --allow {allow}",
            ) from refused
        if allow is Allow.RESUME:
            return await self._resume()
        done = await self._wake()
        await self._settled()
        return done

    async def _settled(self) -> None:
        """Wait for a while until a guest that was woken listens; it throws away earlier presses."""
        give_up_s = now_s() + 2 * SETTLE_S
        while now_s() < give_up_s:
            read = button(self.machine, self.memory)
            await attempt(read, [], "the power button", _BEFORE_S)
            since_s = self.memory.listens_since_s
            if since_s is not None and now_s() - since_s >= SETTLE_S:
                return
            await asyncio.sleep(_MEND_STEP_S)

    async def _press_once(self) -> str:
        before = await attempt(self.machine.pm1(), [], "the power button", _BEFORE_S)
        # What follows a press may be told before QEMU's answer to it.
        pressed = Pressed(now_s(), before, made=False)
        self.memory.presses.append(pressed)

        async def press() -> None:
            pressed.at_s, pressed.made = now_s(), None
            try:
                await self.machine.press()
            except Trouble as trouble:
                pressed.made = trouble.fault in _IN_DOUBT
                raise
            pressed.made = True

        try:
            await self._mended(press)
        except Trouble as trouble:
            if not pressed.made:
                self.memory.presses.remove(pressed)
                raise
            pressed.before = None  # whether it was made is in doubt: nothing is to rest on it
            broken = trouble.fault is Fault.BROKEN
            may = "may have come through" if broken else "may come through later"
            return f"ACPI power button, but {trouble.what}: it {may}"
        finally:
            self.memory.woken = False
        if before is None:
            return "ACPI power button pressed"
        listens = "the guest listens" if before.hears else "nobody listens"
        return f"ACPI power button pressed; {listens} ({before})"

    async def _mended(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it; while the connection is being mended, try again for a while.

        Only what surely did not come through is tried again: a connection that breaks before
        anything was sent.
        """
        give_up_s = now_s() + _MEND_S
        while True:
            try:
                return await act()
            except Trouble as trouble:
                if trouble.fault is not Fault.CUT or now_s() > give_up_s:
                    raise
            await asyncio.sleep(_MEND_STEP_S)

    async def _ask_agent(self) -> str:
        sight = await self.machine.agent()
        unheard = not sight.answers and self.memory.system is System.UNKNOWN
        if sight.answers is False or sight.connected is False or unheard:
            closed = "nothing in it holds the agent's port open"
            why = sight.detail or (closed if sight.connected is False else "it did not answer")
            raise Trouble(
                Fault.HUNG,
                f"no guest agent answers, so that nobody was asked: {why}",
                "start qemu-guest-agent in it, or ask by the power button: --ask press",
            )
        system = self.memory.system if sight.system is System.UNKNOWN else sight.system
        if system in {System.WINDOWS, System.UNKNOWN}:
            raise Trouble(
                Fault.NOT_ALLOWED,
                "the guest runs Windows, or does not say what it runs: there the agent closes"
                " applications by force",
                "say what it runs (--guest-os linux); with consent (--force) it is asked all the"
                " same, before the power is cut",
            )
        await self._tell_agent()
        return f"guest agent asked to power off{f' ({sight.name})' if sight.name else ''}"

    async def _ask_agent_by_force(self) -> str:
        windows = self.memory.system in {System.WINDOWS, System.UNKNOWN}
        if self.memory.agent_asked_s is not None and not windows:
            raise Trouble(Fault.REFUSED, "its agent was asked already, and closes nothing by force")
        await self._tell_agent()
        return "guest agent asked to power off: on Windows it closes applications by force"

    async def _tell_agent(self) -> None:
        """Ask it; what follows, such as its port that closes, may be told before this is over."""
        before_s = self.memory.agent_asked_s
        self.memory.agent_asked_s = before_s or now_s()
        try:
            await self.machine.ask_agent()
        except Trouble:
            self.memory.agent_asked_s = before_s
            raise

    async def _wake(self) -> str:
        await self._mended(self.machine.wake)
        return "woken from sleep"

    async def _resume(self) -> str:
        await self._mended(self.machine.resume)
        return "resumed after its pause"

    async def _finish(self) -> str:
        if await self.machine.power() is not Power.OFF:
            raise Trouble(Fault.REFUSED, "the guest is not off: its QEMU is left alone")
        await self.machine.end()
        return "QEMU told to end: its guest is off"

    async def _end(self) -> str:
        await self.machine.end()
        return f"QEMU told to end: {self._risk()}"

    async def _kill(self) -> str:
        await self.machine.kill()
        return f"QEMU killed: {self._risk()}; so is what QEMU itself had not written out"

    def _risk(self) -> str:
        """What is lost by force; more than that while an update is under way."""
        worse = "; it was in the middle of an update or a repair: it may not start any more"
        return f"{LOSES}{worse if self._updating else ''}"

    async def look(self, depth: Depth) -> tuple[Finding, ...]:
        """What holds it up. A guest that is really at work pleads for more time on the way."""
        from lastcall.targets.guest import during

        evidence: Evidence = await self._looker.look(deep=depth is Depth.DEEP)
        if evidence.power in {Power.OFF, Power.GONE}:
            self._follower.asked()  # it may not have been told
        if (plea := during.progress(evidence)) is not None:
            self._follower.say(Progressed(*plea))
        findings = during.diagnose(evidence)
        self._updating = any(finding.code in _UPDATES for finding in findings)
        return findings

    async def verify(self) -> tuple[Finding, ...]:
        """Nothing is held by a guest that could be seen from here."""
        return ()

    def rest(self) -> None:
        """Leave its monitor, which serves one at a time, to another."""
        self.machine.rest()

    def close(self) -> None:
        """Stop watching; the guest is left alone."""
        self._follower.close()
        self._looker.close()
        self.machine.close()


# What a power cut may damage for good.
_UPDATES = frozenset({"updating", "update-stands-still", "disk-check"})
# Whether the press was made is not known then.
_IN_DOUBT = frozenset({Fault.HUNG, Fault.BROKEN})
_OUTCOMES = {
    Fault.GONE: Outcome.GONE,
    Fault.DENIED: Outcome.NOT_PERMITTED,
}


def _in_words(trouble: Trouble) -> str:
    return f"{trouble.what}: {trouble.advice}" if trouble.advice else trouble.what
