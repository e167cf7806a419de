"""Follows a guest in the course of its stop: tells its stages, calls for what its moment asks for.

What happens to the guest comes by itself. Only the button's registers have to be looked at: often
right after a press, seldom later, and not at all once the guest's kernel has taken it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.model import Called, Ended, Missing, Reached, Stage
from lastcall.targets.guest import ladder
from lastcall.targets.guest.ended import ended, off_words, powered_off
from lastcall.targets.guest.looking import button, state
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.press import SETTLE_S, Press, press_again
from lastcall.targets.guest.wish import Allow
from lastcall.targets.guest.words import Happening, Kind, Power, System

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.model import Rung
    from lastcall.targets.base import TargetEvent
    from lastcall.targets.guest.looking import Looker
    from lastcall.targets.guest.machine import Machine
    from lastcall.targets.guest.memory import Memory
    from lastcall.targets.guest.wish import GuestWish
    from lastcall.targets.guest.words import Pm1

# When to look at the registers after a press: at first often, then every few seconds.
_SAMPLES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SELDOM_S = 2.0
_GLANCE_S = 5.0
# libvirt, or whoever runs QEMU with -no-shutdown, gets so long to clear it away.
_FINISH_S = 1.0
# The word of an end may come that much later than a look that finds the machine gone.
_WORD_S = 3.0
_ORDER = tuple(Stage)
# Registers that cannot be read now will not become readable by asking again.
_FOR_GOOD = {Fault.NOT_ALLOWED, Fault.UNSUPPORTED, Fault.DENIED, Fault.GONE}
# But for these: when a guest wakes or is reset, its firmware maps them some moments later.
_MAPS_ANEW = {Kind.CUT, Kind.WAKEUP, Kind.RESET}


class Follower:
    """See the module.

    Args:
        machine: shows the guest.
        memory: what is known of it; kept up to date here.
        wish: what the caller wants.
        looker: sees whether anything moves.
        rungs: the ladder; only what stands in it is called for.
    """

    def __init__(
        self,
        machine: Machine,
        memory: Memory,
        wish: GuestWish,
        looker: Looker,
        rungs: Callable[[], tuple[Rung, ...]],
    ) -> None:
        self._machine, self._memory, self._wish = machine, memory, wish
        self._looker, self._rungs = looker, rungs
        self._notify: Callable[[TargetEvent], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._told: set[Stage] = set(memory.told)
        self._called: set[tuple[str, int]] = set()
        self._failures = 0
        self._looks = 0
        self._readable = True
        self._gone_s: float | None = None
        self.over: bool = False

    def heard(self, happening: Happening) -> None:
        """Something happened to the guest."""
        if self.over:
            return
        self._memory.heard(happening)
        if self._notify is not None:
            self._tell(happening)
            self._news.set()

    def follow(self, notify: Callable[[TargetEvent], None]) -> None:
        """From now on tell what it comes to; what happened already is told at once."""
        self._notify = notify
        for happening in tuple(self._memory.happened):
            self._tell(happening)
        if not self.over:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def asked(self) -> None:
        """A rung was carried out: look soon, and see anew what was told before its answer."""
        self._tell_end()
        self._looks = 0
        self._news.set()

    def failed(self, rung_id: str) -> None:
        """A rung that was called for came to nothing: after a while it may be called for again."""
        self._failures += 1

        def forget() -> None:
            self._called = {each for each in self._called if each[0] != rung_id}
            self._news.set()

        asyncio.get_running_loop().call_later(_SELDOM_S * self._failures, forget)

    def close(self) -> None:
        """Say nothing more."""
        self._notify = None
        if self._task is not None:
            self._task.cancel()

    def say(self, event: TargetEvent) -> None:
        """Tell whoever follows, once it is told anything."""
        if self._notify is None or self.over:
            return
        if isinstance(event, Reached):
            # What is seen late (registers through a slow monitor) is no step back.
            if any(_ORDER.index(event.stage) <= _ORDER.index(told) for told in self._told):
                return
            self._told.add(event.stage)
        if isinstance(event, Ended | Missing):
            self.over = True
        self._notify(event)

    def _call(self, rung_id: str, why: str, once_for: int = 0) -> None:
        """Call for a rung, if there is one, and only once for the same occasion."""
        occasion = (rung_id, once_for)
        if occasion not in self._called and any(rung.id == rung_id for rung in self._rungs()):
            self._called.add(occasion)
            self.say(Called(rung_id, why))

    def _tell(self, happening: Happening) -> None:
        memory = self._memory
        if self._tell_end():
            return
        asked = memory.asked_s is not None
        # A guest that falls asleep closes the port as well.
        awake = memory.power in {Power.RUNNING, Power.UNKNOWN}
        by_host = happening.guest is False or happening.reason.startswith("host-")
        if happening.kind is Kind.AGENT_CLOSED and asked and awake:
            words = "the guest agent has closed its port: services are ending"
            self.say(Reached(Stage.DRAINING, words))
        elif happening.kind is Kind.SHUTDOWN and by_host:
            return  # nobody in the guest did that: the end tells who
        elif happening.kind is Kind.SHUTDOWN and powered_off(memory.happened) is happening:
            self.say(Reached(Stage.POWERED_OFF, off_words(happening, memory.happened)))
        elif happening.kind in _MAPS_ANEW:
            self._readable = True

    def _tell_end(self) -> bool:
        end = ended(self._memory.happened, self._memory.asked_s)
        if end is not None:
            self.say(end)
        return end is not None

    async def _follow(self) -> None:
        if self._memory.power is Power.UNKNOWN:  # nobody looked before: a resumed stop
            with contextlib.suppress(Trouble):
                await self._look_first()
        while not self.over:
            self._news.clear()
            wait_s = await self._step()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _look_first(self) -> None:
        """What it does now; one that is off already powered off while nobody listened."""
        memory = self._memory
        power = await self._machine.power()
        if memory.power is not Power.UNKNOWN:
            return  # told meanwhile
        memory.power = power
        if power is Power.OFF:
            what = "it was off when this lastcall found it"
            off = memory.off_before or (Happening(Kind.SHUTDOWN, now_s(), detail=what),)
            for happening in off:
                self.heard(happening)

    async def _step(self) -> float | None:
        """Look at what has to be looked at now; returns when to come again. None: on news only."""
        memory = self._memory
        if memory.power is Power.GONE:
            return self._gone()
        if memory.power is Power.OFF:
            return await self._clear_away()
        if memory.asked_s is None:
            return None
        self._call_for_power()
        if not memory.presses or not self._readable:
            return None
        if memory.press is not Press.TAKEN or memory.woken:
            await self._sample()
            self._call_for_press()
        if memory.press is Press.TAKEN and not memory.woken:
            return await self._see_whether_it_moves()
        self._looks += 1
        wait_s = _SAMPLES_S[self._looks - 1] if self._looks <= len(_SAMPLES_S) else _SELDOM_S
        if memory.listens_since_s is None:
            return wait_s
        settled_s = memory.listens_since_s + SETTLE_S - now_s()  # then it may be pressed again
        return min(wait_s, settled_s + _SAMPLES_S[0]) if settled_s > 0 else wait_s

    def _gone(self) -> float | None:
        """A look found it gone, and no event has told so: nobody will tell how it ended."""
        if self._gone_s is None:
            self._gone_s = now_s()
        left_s = self._gone_s + _WORD_S - now_s()
        if left_s > 0:
            return left_s
        self.say(Missing("its machine is gone, and nobody heard how it ended"))
        return None

    async def _sample(self) -> Pm1 | None:
        try:
            registers = await button(self._machine, self._memory)
        except Trouble as trouble:
            self._readable = trouble.fault not in _FOR_GOOD or self._memory.woken
            return None
        became = self._memory.press
        if became in {Press.PENDING, Press.TAKEN}:
            self.say(Reached(Stage.DELIVERED, f"the press has arrived ({registers})"))
        if became is Press.TAKEN:
            self.say(Reached(Stage.TAKEN, "the guest's kernel has taken the press"))
        return registers

    def _call_for_power(self) -> None:
        """A sleeping guest hears nothing, and a paused one does nothing."""
        memory = self._memory
        occasion = memory.heard_of
        if memory.power is Power.SUSPENDED and Allow.WAKE in self._wish.allow:
            self._call(ladder.WAKE, "it sleeps: a press does not wake it", occasion)
        elif memory.power is Power.PAUSED and Allow.RESUME in self._wish.allow:
            self._call(ladder.RESUME, "it is paused: the press waits until it goes on", occasion)

    def _call_for_press(self) -> None:
        memory = self._memory
        here_s = now_s()
        soft = any(rung.id == ladder.AGENT for rung in self._rungs())
        if memory.press is Press.DROPPED and soft and not memory.agent_failed:
            if memory.agent_asked_s is None:
                self._call(ladder.AGENT, "nobody listens to the button: the agent is asked instead")
            return
        why = press_again(
            memory.press or Press.UNREAD,
            listens_s=_since(memory.listens_since_s, here_s),
            still_s=_since(memory.moved_s, here_s),
            system=memory.system,
            presses=len(memory.presses),
            woken=memory.woken,
        )
        if why and (memory.woken or self._wish.press_again):
            self._call(ladder.AGAIN, why, len(memory.presses))

    async def _see_whether_it_moves(self) -> float | None:
        """Only a Windows guest may need another press; others are left to the looks."""
        if self._memory.system is not System.WINDOWS or not self._wish.press_again:
            return None
        await self._looker.glance()
        self._call_for_press()
        return _GLANCE_S

    async def _clear_away(self) -> float | None:
        """The guest is off. If QEMU stays, whoever runs it wanted that; we were asked to end it."""
        off = powered_off(self._memory.happened)
        if off is not None and (since_s := now_s() - off.at_s) < _FINISH_S:
            return _FINISH_S - since_s
        try:
            power = await state(self._machine, self._memory)
        except Trouble:
            return _SELDOM_S
        if power is not Power.OFF:
            return _FINISH_S
        if powered_off(self._memory.happened) is None:
            detail = "it was off when that was looked at"
            self.heard(Happening(Kind.SHUTDOWN, now_s(), detail=detail))
        self.say(Reached(Stage.POWERED_OFF, "the guest is off"))
        if self._memory.setup.on_poweroff in {"preserve", "restart"}:
            return None  # libvirt was told what to do with it
        self._call(ladder.FINISH, "the guest is off, and its QEMU stays (-no-shutdown)")
        return None


def _since(at_s: float | None, here_s: float) -> float | None:
    return None if at_s is None else here_s - at_s
