"""Drawing what comes in hundreds: newcomers, background load, the listening socket."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from lastcall.drill.report.svg import drawing, mark, percent
from lastcall.drill.report.timeline import Tone
from lastcall.drill.report.words import clean, many, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.drill.report.timeline import Bar, Bin, Scale
    from lastcall.drill.result import Look

# Heights in pixels.
_LANE = 14
_UP, _DOWN = 44, 24
_QUEUE, _LISTEN = 34, 7
_PAD = 7
# So many places for marks in a lane: what falls on the same place with the same end is drawn once.
_PLACES = 240
_LANES = (Tone.GOOD, Tone.CALM, Tone.BAD)


def newcomers(bars: Sequence[Bar], scale: Scale, label: str) -> str:
    """A lane for each tone, a mark for each newcomer at the time it came."""
    height = _LANE * len(_LANES) + 2 * _PAD
    lanes = []
    for i, tone in enumerate(_LANES):
        own = [bar for bar in bars if bar.tone is tone]
        middle = _PAD + _LANE * (i + 0.5)
        lanes.append(f'<g class="n {tone}">{_marks(own, scale, middle)}</g>')
    return drawing(height, label, "".join(lanes))


def _marks(bars: Iterable[Bar], scale: Scale, middle: float) -> str:
    """Marks, those on the same place together."""
    places: dict[tuple[int, object], list[Bar]] = {}
    for bar in bars:
        place = scale.at(bar.judged.attempt.attempted_s)
        places.setdefault((round(place * _PLACES), bar.end), []).append(bar)
    said = ""
    for own in places.values():
        x = percent(scale.at(own[0].judged.attempt.attempted_s))
        said += f"<g><title>{escape(_came(own))}</title>{mark(own[0].end, x, middle, 's')}</g>"
    return said


def _came(bars: Sequence[Bar]) -> str:
    first = bars[0].judged
    attempt = first.attempt
    how = f"{first.fate}" + (f" ({attempt.failure})" if attempt.failure else "")
    if attempt.status is not None:
        how += f", status {attempt.status}"
    said = f"came {when(attempt.attempted_s)}, over {when(attempt.over_s)}: {how}"
    if attempt.note:
        said += f"; {clean(attempt.note, 100)}"
    return said if len(bars) == 1 else f"{len(bars)} newcomers; the first {said}"


def load(bins: Sequence[Bin], scale: Scale, label: str) -> str:
    """Columns: answers upward, what failed downward."""
    tallest = max((b.answered for b in bins), default=0) or 1
    deepest = max((b.bad + b.other for b in bins), default=0)
    base = _PAD + _UP
    height = base + (_DOWN if deepest else 0) + _PAD
    said = f'<rect class="b" x="0" y="{base}" width="100%" height="1"/>'
    for each in bins:
        a, b = scale.at(each.from_s), scale.at(each.to_s)
        if b <= a:
            continue
        place = f'x="{percent(a)}" width="{percent((b - a) * 0.82)}"'
        up = _UP * each.answered / tallest
        parts = f'<rect class="good" {place} y="{base - up:.1f}" height="{up:.1f}"/>'
        calm = _DOWN * each.other / max(deepest, 1)
        bad = _DOWN * each.bad / max(deepest, 1)
        if each.bad:
            parts += f'<rect class="bad" {place} y="{base + 1}" height="{bad:.1f}"/>'
        if each.other:
            parts += f'<rect class="calm" {place} y="{base + 1 + bad:.1f}" height="{calm:.1f}"/>'
        said += f"<g><title>{escape(_ended(each))}</title>{parts}</g>"
    return drawing(height, label, f'<g class="l">{said}</g>')


def _ended(each: Bin) -> str:
    said = [f"{each.answered} answered"]
    said += [f"{each.other} refused cleanly"] if each.other else []
    said += [f"{each.bad} lost"] if each.bad else []
    return f"{when(each.from_s)} to {when(each.to_s)}: {', '.join(said)}"


def queue(looks: Sequence[Look], scale: Scale, label: str) -> str:
    """The accept queue as steps, and below it a band while anybody listens."""
    most = max((look.queued for look in looks), default=0) or 1
    floor = _PAD + _QUEUE
    said = f'<rect class="b" x="0" y="{floor}" width="100%" height="1"/>'
    for look, after in pairwise(looks):
        a, b = scale.at(look.at_s), scale.at(after.at_s)
        if b <= a:
            continue
        place = f'x="{percent(a)}" width="{percent(b - a)}"'
        high = max(_QUEUE * look.queued / most, 1.5 if look.queued else 0.0)
        parts = f'<rect class="k" {place} y="{floor - high:.1f}" height="{high:.1f}"/>'
        state = "on" if look.listening else "off"
        parts += f'<rect class="{state}" {place} y="{floor + 4}" height="{_LISTEN}"/>'
        said += f"<g><title>{escape(_seen(look))}</title>{parts}</g>"
    return drawing(floor + _LISTEN + _PAD + 4, label, f'<g class="a">{said}</g>')


def _seen(look: Look) -> str:
    ears = many(look.listening, "listening socket") if look.listening else "nobody listens"
    return f"{when(look.at_s)}: {ears}, {look.queued} in the accept queue"
