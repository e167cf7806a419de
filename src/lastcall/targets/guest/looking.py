"""Looking at a guest from outside: registers, what it does, its screen, its agent.

Two looks are compared: what was written and computed between them, and whether the screen changed.
The first look therefore tells less than the second. Nothing here changes the guest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.errors import MissingExtra
from lastcall.targets.guest.apart import apart
from lastcall.targets.guest.evidence import Evidence, Rates, Screen, rates
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.trying import LOOK_S, attempt
from lastcall.targets.guest.words import Power, System

if TYPE_CHECKING:
    from lastcall.targets.guest.album import Page
    from lastcall.targets.guest.machine import Machine
    from lastcall.targets.guest.memory import Memory
    from lastcall.targets.guest.screen.ocr import ScreenText
    from lastcall.targets.guest.screen.picture import Picture
    from lastcall.targets.guest.words import Activity, Pm1

# The agent of a guest that stands still is not asked: it would answer once nobody listens any more,
# and qemu-ga (7.2, qga/channel-posix.c) tries to do that without end.
AWAKE = frozenset({Power.RUNNING, Power.UNKNOWN})
# How long reading one screen may take, in seconds: with many guests the readers have to queue.
_READING_S = 60.0


@dataclass(slots=True)
class Looker:
    """See the module.

    Args:
        machine: shows the guest.
        memory: what is known of it.
        page: where its picture is kept.
    """

    machine: Machine
    memory: Memory
    page: Page
    _activity: Activity | None = None
    _picture: Picture | None = None
    _taken_s: float = 0.0
    _reading: asyncio.Future[ScreenText] | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def glance(self) -> None:
        """See whether anything moves, and remember when it last did."""
        async with self._looking:
            troubles: list[Trouble] = []
            await asyncio.gather(self._rates(troubles), self._screen(troubles, read_s=0.0))

    async def look(self, *, deep: bool) -> Evidence:
        """Gather all that tells what holds the guest up.

        Args:
            deep: whether to read the screen's text and to ask the agent, too.
        """
        end_s = now_s() + LOOK_S
        troubles: list[Trouble] = []
        async with self._looking:
            memory, machine = self.memory, self.machine
            registers, _, agent, rates_, screen = await asyncio.gather(
                attempt(button(machine, memory), troubles, "the power button"),
                attempt(state(machine, memory), troubles, "the machine's state"),
                attempt(machine.agent(), troubles, "the guest agent")
                if deep and memory.power in AWAKE
                else _nothing(),
                self._rates(troubles),
                self._screen(troubles, read_s=end_s - now_s() if deep else 0.0),
            )
        here_s = now_s()
        if agent is not None and agent.system is not System.UNKNOWN:
            memory.system = agent.system
        last = memory.presses[-1] if memory.presses else None
        return Evidence(
            now_s=here_s,
            setup=memory.setup,
            power=memory.power,
            system=memory.system,
            pressed_s=tuple(press.at_s for press in memory.presses),
            agent_asked_s=memory.agent_asked_s,
            agent_failed=memory.agent_failed,
            press=memory.press,
            before=None if last is None or last.recalled else last.before,
            registers=registers,
            happened=tuple(memory.happened),
            rates=rates_,
            screen=screen,
            agent_before=memory.agent_before,
            agent=agent,
            troubles=tuple(troubles),
            moved_s=memory.moved_s,
        )

    async def _rates(self, troubles: list[Trouble]) -> Rates | None:
        later = await attempt(self.machine.activity(), troubles, "its activity")
        between = rates(self._activity, later)
        if later is not None and (between is not None or self._activity is None):
            self._activity = later
        if between is not None and between.busy:
            self.memory.moved_s = now_s()
        return between

    async def _screen(self, troubles: list[Trouble], read_s: float) -> Screen | None:
        """The screen, compared with the last picture; its text, if there is time to read it."""
        from lastcall.targets.guest.screen import picture as pictures

        end_s = now_s() + read_s
        shot = await attempt(self.machine.screen(), troubles, "its screen")
        if shot is None:
            return None
        try:
            now = await apart(pictures.read, shot)
            before, moved, over_s = self._picture, None, None
            if before is not None:
                moved = pictures.moves(await apart(pictures.changed, before, now))
                over_s = now_s() - self._taken_s
                self._saw(moved=moved)
        except Trouble as trouble:
            troubles.append(trouble)
            return None
        except MissingExtra as error:
            troubles.append(Trouble(Fault.UNSUPPORTED, f"{error.what}: {error.advice}"))
            return None
        self._picture, self._taken_s = now, now_s()
        seen = Screen(moved, over_s, await apart(pictures.blank, now))
        return await self._read(now, seen, end_s - now_s()) if read_s > 0 else seen

    def _saw(self, *, moved: bool) -> None:
        if moved:
            self.memory.moved_s = now_s()
        elif self.memory.moved_s is None:
            self.memory.moved_s = self._taken_s

    async def _read(self, picture: Picture, seen: Screen, limit_s: float) -> Screen:
        """The same with what the screen says."""
        from dataclasses import replace

        from lastcall.targets.guest.screen import phrases

        seen = replace(seen, kept=await apart(self.page.keep, picture.png))
        if seen.blank:
            return replace(seen, unread="the screen is blank")
        told = await self._text_of(picture, limit_s, anew=seen.moved is not False)
        if told is None:
            return replace(seen, unread="its text is not read yet: the reader is busy")
        signs = await apart(phrases.signs, told.text)
        return replace(seen, text=told.text, signs=signs, unread=told.detail)

    async def _text_of(self, picture: Picture, limit_s: float, *, anew: bool) -> ScreenText | None:
        """What a picture says; None: not yet. A reading goes on after the look that began it.

        Args:
            picture: the screen.
            limit_s: how long to wait for it, in seconds.
            anew: whether it is another than the last one that was read.
        """
        from lastcall.targets.guest.screen import ocr

        reading = self._reading
        if anew or reading is None or (reading.done() and _came_to_nothing(reading)):
            if reading is not None:
                reading.cancel()
            reading = asyncio.ensure_future(ocr.text_of(picture, _READING_S))
            self._reading = reading
        if not reading.done():
            await asyncio.wait((reading,), timeout=max(limit_s, 0.0))
        return reading.result() if reading.done() else None

    def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()


async def button(machine: Machine, memory: Memory) -> Pm1:
    """Read the button's registers, and remember what they tell of the last press.

    Raises:
        Trouble: they cannot be read.
    """
    since = memory.pressed
    registers = await machine.pm1()
    memory.sampled(registers, now_s(), since)
    return registers


async def state(machine: Machine, memory: Memory) -> Power:
    """Ask what the machine does, and remember it, unless something happened meanwhile.

    Raises:
        Trouble: it is not told.
    """
    heard_of = memory.heard_of
    power = await machine.power()
    memory.looked(power, heard_of)
    return power


async def _nothing() -> None:
    """In place of what is not asked."""


def _came_to_nothing(reading: asyncio.Future[ScreenText]) -> bool:
    return reading.cancelled() or reading.exception() is not None or bool(reading.result().detail)
