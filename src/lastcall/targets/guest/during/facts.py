"""What is read out of the evidence, and how it is put on lines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.words import Kind

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence
    from lastcall.targets.guest.screen.phrases import Sign
    from lastcall.targets.guest.screen.wordings import Kind as Says
    from lastcall.targets.guest.words import Happening

# What is read with less certainty than this names nothing.
SURE = 0.65
# A system that takes a press shows within this time, in seconds, that it acts on it.
EARLY_S = 4.0
_MOST_USERS = 5
_KILO, _MEGA = 1e3, 1e6
# A system that works on updates writes more than this, or computes more.
_STANDS_BYTES_PER_S = 8 * 1024
_STANDS_CPU = 0.1


def first_asked_s(seen: Evidence) -> float | None:
    """When it was first asked; None: it was not."""
    return min([*seen.pressed_s, *_agent_asked(seen)], default=None)


def asked_ago_s(seen: Evidence) -> float | None:
    """How long ago it was last asked, in seconds; None: it was not."""
    last_s = max([*seen.pressed_s, *_agent_asked(seen)], default=None)
    return None if last_s is None else max(0.0, seen.now_s - last_s)


def _agent_asked(seen: Evidence) -> tuple[float, ...]:
    return () if seen.agent_asked_s is None else (seen.agent_asked_s,)


def reached(seen: Evidence) -> bool:
    """Whether an ask has reached, or may have reached, the system in the guest."""
    return seen.agent_asked_s is not None or seen.press in {
        Press.TAKEN,
        Press.UNREAD,
        Press.UNSURE,
    }


def last(seen: Evidence, *kinds: Kind) -> Happening | None:
    """The latest happening of these kinds."""
    return next((each for each in reversed(seen.happened) if each.kind in kinds), None)


def still(seen: Evidence) -> bool | None:
    """Whether nothing moves: neither disk and processor, nor the picture. None: not known."""
    busy = None if seen.rates is None else seen.rates.busy
    moved = None if seen.screen is None else seen.screen.moved
    if busy or moved:
        return False
    return None if busy is None and moved is None else True


def stands(seen: Evidence) -> bool:
    """Whether it does so little, on disk as well, that it cannot be at work on an update."""
    rates = seen.rates
    if rates is None or rates.written_bytes_per_s is None or rates.cpu is None:
        return False
    little = rates.written_bytes_per_s <= _STANDS_BYTES_PER_S and rates.cpu <= _STANDS_CPU
    return little and (seen.screen is None or not seen.screen.moved)


def still_s(seen: Evidence) -> float | None:
    """For how long nothing was seen to move, in seconds; None: it moves, or that is not known."""
    if not still(seen):
        return None
    if seen.moved_s is not None:
        return max(0.0, seen.now_s - seen.moved_s)
    over_s = [each.over_s for each in (seen.rates, seen.screen) if each is not None]
    return max((each for each in over_s if each is not None), default=None)


def best(seen: Evidence) -> dict[Says, Sign]:
    """The surest sign of each kind on the screen; unsure ones are left out."""
    found: dict[Says, Sign] = {}
    for sign in () if seen.screen is None else seen.screen.signs:
        if sign.score >= SURE and (sign.kind not in found or sign.score > found[sign.kind].score):
            found[sign.kind] = sign
    return found


def services_end(seen: Evidence) -> bool:
    """Whether the agent has left since the ask: services are being ended."""
    asked_s = first_asked_s(seen)
    change = last(seen, Kind.AGENT_OPEN, Kind.AGENT_CLOSED)
    if asked_s is None:
        return False
    if change is not None and change.at_s >= asked_s:
        return change.kind is Kind.AGENT_CLOSED
    before = seen.agent_before is not None and seen.agent_before.connected is True
    return before and seen.agent is not None and seen.agent.connected is False


def users(seen: Evidence) -> tuple[str, ...] | None:
    """Who is logged on, as the agent told last; None: not known."""
    for agent in (seen.agent, seen.agent_before):
        if agent is not None and agent.users is not None:
            return agent.users
    return None


# Lines of evidence


def ask_lines(seen: Evidence) -> tuple[str, ...]:
    """What became of the ask, with the registers."""
    lines = []
    if seen.pressed_s:
        ago_s = max(0.0, seen.now_s - seen.pressed_s[-1])
        times = f", the last of {len(seen.pressed_s)} times" if len(seen.pressed_s) > 1 else ""
        became = f"; {seen.press}" if seen.press is not None else ""
        lines.append(f"pressed {ago_s:.0f} s ago{times}{became}")
    if seen.before is not None:
        lines.append(f"right before the press: {seen.before}")
    if seen.registers is not None:
        lines.append(f"now: {seen.registers}")
    if seen.agent_asked_s is not None:
        ago_s = max(0.0, seen.now_s - seen.agent_asked_s)
        lines.append(f"the guest agent was asked to shut down {ago_s:.0f} s ago")
    return tuple(lines)


def activity_lines(seen: Evidence) -> tuple[str, ...]:
    """How much moves, with figures."""
    lines = []
    rates = seen.rates
    if rates is not None:
        parts = []
        if rates.written_bytes_per_s is not None:
            parts.append(f"writes {_size(rates.written_bytes_per_s)}/s to its disks")
        if rates.cpu is not None:
            parts.append(f"keeps {rates.cpu:.2f} processors busy")
        if parts:
            lines.append(f"{', '.join(parts)} (over {rates.over_s:.1f} s)")
    screen = seen.screen
    if screen is not None and screen.moved is not None and screen.over_s is not None:
        changed = "changed within" if screen.moved else "did not change in"
        lines.append(f"its picture {changed} {screen.over_s:.0f} s")
    if screen is not None and screen.blank:
        lines.append("its screen is of one colour")
    quiet_s = still_s(seen)
    if quiet_s is not None:
        lines.append(f"nothing was seen to move in it for {quiet_s:.0f} s")
    return tuple(lines)


def _size(count: float) -> str:
    if count >= _MEGA:
        return f"{count / _MEGA:.1f} MB"
    return f"{count / _KILO:.1f} kB" if count >= _KILO else f"{count:.0f} B"


def said(sign: Sign) -> str:
    """What the screen says, with how well it could be read."""
    return f'its screen says "{printable(sign.words)}" ({sign.language}, {sign.score:.0%} alike)'


def detail(sign: Sign, form: str = " ({})") -> str:
    """What the sign is more exactly: how far, which application; empty where that is not known."""
    return form.format(printable(sign.value)) if sign.value else ""


def agent_lines(seen: Evidence) -> tuple[str, ...]:
    """What the agent says of who is there."""
    lines = []
    names = users(seen)
    if names is not None:
        shown = ", ".join(printable(name) for name in names[:_MOST_USERS]) or "nobody"
        lines.append(f"logged on, says the guest agent: {shown}")
    closed = last(seen, Kind.AGENT_CLOSED)
    if services_end(seen):
        ago_s = None if closed is None else max(0.0, seen.now_s - closed.at_s)
        when = "" if ago_s is None else f" {ago_s:.0f} s ago"
        lines.append(f"the guest agent left{when}, after the ask")
    return tuple(lines)


def picture_lines(seen: Evidence) -> tuple[str, ...]:
    """Where the picture of its screen is kept."""
    return () if seen.screen is None or not seen.screen.kept else (f"picture: {seen.screen.kept}",)


def trouble_lines(seen: Evidence) -> tuple[str, ...]:
    """What could not be found out, each once."""
    return tuple(
        dict.fromkeys(f"not known: {printable(trouble.what)}" for trouble in seen.troubles)
    )
