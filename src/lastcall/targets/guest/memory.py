"""What is known of one guest in the course of its stop: what happened, what was pressed, how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lastcall.model import (
    Asked,
    Intended,
    Looked,
    LookStarted,
    Outcome,
    Reached,
    Resumed,
    Stage,
)
from lastcall.targets.guest import ladder
from lastcall.targets.guest.ended import off_again
from lastcall.targets.guest.press import Press, became
from lastcall.targets.guest.words import (
    AgentSight,
    Happening,
    Kind,
    Pm1,
    Power,
    Setup,
    System,
    power_after,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.model import Event, Rung

_BUTTON = 0x0100
# The finding that says that nobody heard a press.
DROPPED = "press-dropped"
# A guest that resets or is paused for ever must not fill our memory: the oldest are forgotten,
# but for the power-off that counts.
_MOST_HAPPENINGS = 500
_MOST_SAMPLES = 8
# What the end is judged by: forgotten last.
_TELLING = frozenset(
    {Kind.SHUTDOWN, Kind.RESET, Kind.WAKEUP, Kind.PANICKED, Kind.SUSPEND_DISK, Kind.GONE}
)


@dataclass(slots=True)
class Pressed:
    """One press: the registers right before it, and since.

    Args:
        at_s: when (boot-time clock).
        before: None when they were not read.
        recalled: whether it is from the journal, which keeps of `before` only what it came to.
        made: whether it was made, or may have been; None: it is under way just now. Registers that
            were read before it was made say nothing of it.
        after: oldest first; only the first few and the last are kept.
    """

    at_s: float
    before: Pm1 | None = None
    after: list[Pm1] = field(default_factory=list)
    recalled: bool = False
    made: bool | None = True

    def sample(self, registers: Pm1) -> None:
        """One more look at the registers."""
        if len(self.after) >= _MOST_SAMPLES:
            del self.after[-1]
        self.after.append(registers)

    @property
    def became(self) -> Press:
        """What became of it."""
        return became(self.before, self.after)


@dataclass(slots=True)
class Memory:
    """See the module.

    Args:
        setup: how the machine is built.
        power: what it does, as far as we were told.
        agent_before: the agent before the first ask; None: it was not asked.
        system: what runs in it, as far as is known.
        happened: what happened to it, oldest first.
        presses: oldest first.
        agent_asked_s: when the agent was asked to shut down; None: it was not.
        agent_failed: whether it was to be asked, and that came to nothing.
        listens_since_s: since when the guest is known to listen to its button; None: it does not.
        moved_s: when something in it was last seen to move; None: nobody compared two looks.
        woken: whether it woke from sleep since the last press.
        registers: of the button, when they were last read; None: they never were.
        off_before: what an earlier owner of this stop heard of its power-off; empty: nothing.
        told: the stages that an earlier owner told.
        heard_of: how often something happened, also what is forgotten.
    """

    setup: Setup = field(default_factory=Setup)
    power: Power = Power.UNKNOWN
    agent_before: AgentSight | None = None
    system: System = System.UNKNOWN
    happened: list[Happening] = field(default_factory=list)
    presses: list[Pressed] = field(default_factory=list)
    agent_asked_s: float | None = None
    agent_failed: bool = False
    listens_since_s: float | None = None
    moved_s: float | None = None
    woken: bool = False
    registers: Pm1 | None = None
    off_before: tuple[Happening, ...] = ()
    told: set[Stage] = field(default_factory=set)
    heard_of: int = 0

    @property
    def asked_s(self) -> float | None:
        """When it was first asked; None: it was not."""
        times = [press.at_s for press in self.presses if press.made is not False][:1]
        if self.agent_asked_s is not None:
            times.append(self.agent_asked_s)
        return min(times, default=None)

    @property
    def press(self) -> Press | None:
        """What became of the last press; None: there was none.

        One that was made while it slept may have been used up by waking it.
        """
        if not self.presses:
            return None
        became = self.presses[-1].became
        return Press.UNSURE if self.woken and became is Press.TAKEN else became

    @property
    def pressed(self) -> Pressed | None:
        """The last press, if it was made: what is read from now on may tell what came of it."""
        return self.presses[-1] if self.presses and self.presses[-1].made else None

    def heard(self, happening: Happening) -> None:
        """Something happened to it."""
        self.heard_of += 1
        self.happened.append(happening)
        if len(self.happened) > _MOST_HAPPENINGS:
            chatter = (i for i, each in enumerate(self.happened) if each.kind not in _TELLING)
            del self.happened[next(chatter, 0)]
        self.power = power_after(self.power, happening.kind) or self.power
        if happening.kind is Kind.POWERDOWN and self.presses:
            self.presses[-1].made = True  # told before the answer to our command
        if happening.kind is Kind.WAKEUP:
            self.woken = True
            if self.presses:  # what was pending while it slept says nothing of it awake
                self.presses[-1].after.clear()
        if happening.kind in {Kind.RESET, Kind.SUSPEND, Kind.WAKEUP}:
            self.listens_since_s = None
            self.moved_s = happening.at_s

    def looked(self, power: Power, heard_of: int) -> None:
        """Its state was asked for; what happened since then is newer.

        Args:
            power: the answer.
            heard_of: as it was before the question.
        """
        if heard_of == self.heard_of:
            self.power = power

    def sampled(self, registers: Pm1, now_s: float, since: Pressed | None = None) -> None:
        """The registers were read.

        Args:
            registers: what was read.
            now_s: when.
            since: the last press when the reading began: one that came meanwhile is not in it.
        """
        self.registers = registers
        if not registers.hears:
            self.listens_since_s = None
        elif self.listens_since_s is None:
            self.listens_since_s = now_s
        if since is not None and since is self.presses[-1]:
            since.sample(registers)


def recalled(events: Iterable[tuple[float, Event]], rungs: tuple[Rung, ...]) -> Memory:
    """What the journal says of the asks so far.

    A press that is in doubt counts as made, and rests on nothing but a guest that was deaf before
    it: one that is deaf still cannot have heard it.

    Args:
        events: of this stop, oldest first.
        rungs: its ladder.
    """
    memory = Memory()
    intent: tuple[float, Intended] | None = None
    looked_at: Pressed | None = None
    for at_s, event in events:
        if isinstance(event, Intended | Resumed) and intent is not None:
            _recall(memory, rungs, *intent, known=False)
            intent = None
        last = memory.presses[-1] if memory.presses and intent is None else None
        if isinstance(event, Intended):
            intent = (at_s, event)
        elif isinstance(event, Asked) and intent is not None:
            if event.outcome is Outcome.DONE:
                _recall(memory, rungs, *intent, known=True)
            intent = None
        elif isinstance(event, LookStarted):
            looked_at = last
        elif isinstance(event, Looked) and last is not None and last is looked_at:
            _recall_look(last, event)
        elif isinstance(event, Reached):
            _recall_stage(memory, last, event, at_s)
    if intent is not None:
        _recall(memory, rungs, *intent, known=False)
    return memory


def _recall_stage(memory: Memory, last: Pressed | None, event: Reached, at_s: float) -> None:
    memory.told.add(event.stage)
    if event.stage is Stage.TAKEN and last is not None:
        last.before = Pm1(0, _BUTTON, 0)
    elif event.stage is Stage.POWERED_OFF:
        memory.off_before = memory.off_before or off_again(event.detail, at_s)


def _recall_look(last: Pressed, event: Looked) -> None:
    """A look that saw that nobody had heard the press."""
    if any(finding.code == DROPPED for finding in event.findings):
        last.before = Pm1(0, 0, 0)
        last.after = [last.before]


def _recall(
    memory: Memory, rungs: tuple[Rung, ...], at_s: float, intent: Intended, *, known: bool
) -> None:
    rung = rungs[intent.rung].id
    if rung in {ladder.PRESS, ladder.AGAIN}:
        hears = intent.facts.get("hears")
        unsaid = hears is None or (hears and not known)
        before = None if unsaid else Pm1(0, _BUTTON if hears else 0, 0)
        memory.presses.append(Pressed(at_s, before, recalled=True))
        memory.woken = False
    elif rung == ladder.WAKE:
        memory.woken = True
    elif rung in {ladder.AGENT, ladder.AGENT_FORCE} and memory.agent_asked_s is None:
        memory.agent_asked_s = at_s
