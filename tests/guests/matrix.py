"""What each guest was, and what lastcall named: the judge and tables of docs/guests-matrix.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from guests import wordings_beside as beside
from guests import wordings_unseen as words
from lastcall.drill.sweep import wilson
from lastcall.model import Ending
from lastcall.targets.guest.during import CANDIDATE_SETS
from lastcall.targets.guest.during.facts import SURE
from lastcall.targets.guest.screen import phrases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guests.wordings_unseen import Wording

CANDIDATES, NOTHING = "candidates", "nothing"
_GRACE = ("--grace", "7s")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the matrix.

    Args:
        name: of the row.
        guests: of the zoo; more than one take turns.
        right: the one name that is right: a finding's code, an ending, or `CANDIDATES`.
        screens: what they show, in turn; empty: what the guest shows by itself.
        numbers: of the guest.
        options: of `lastcall stop`.
    """

    name: str
    guests: tuple[str, ...]
    right: str
    screens: tuple[Wording, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    options: tuple[str, ...] = _GRACE

    def screen(self, run: int, seed: int, runs: int) -> Wording | None:
        """What it shows in that run; other seeds begin elsewhere in the list."""
        return self.screens[(run + runs * (seed - 1)) % len(self.screens)] if self.screens else None


def _own(guest: str, right: str, **numbers: float) -> Case:
    return Case(guest, (guest,), right, numbers=numbers)


def _shows(guest: str, right: str, screens: tuple[Wording, ...], **numbers: float) -> Case:
    return Case(guest, (guest,), right, screens, numbers)


_HALF = len(beside.NOTHING) // 2
# Every guest of the zoo; what it shows are screens that the rules were not written from.
CASES = (
    _own("stops", Ending.ORDERLY.value),
    _own("slow", Ending.ORDERLY.value, delay_s=3),
    _own("cancels-on-second", Ending.ORDERLY.value),
    Case(
        "late",
        ("late",),
        Ending.ORDERLY.value,
        beside.BOOT,
        {"delay_s": 5},
        ("--grace", "45s"),
    ),
    _own("hibernates", Ending.HIBERNATED.value),
    _own("reboots", Ending.REBOOTED.value),
    _own("triple-faults", Ending.REBOOTED.value),
    _own("panics", Ending.PANICKED.value),
    _own("deaf", "press-dropped"),
    _own("firmware", "press-dropped"),
    _own("halts", "halted"),
    _own("sleeps", "asleep"),
    _own("sleeps-on-press", "fell-asleep"),
    _shows("updates", "updating", words.UPDATING, delay_s=300),
    _shows("reason", "waits-for-reason", words.REASON),
    _shows("app-blocks", "app-blocks", words.APP_BLOCKS),
    _shows("logon", "logon-screen", words.LOGON),
    _own("takes-and-ignores", CANDIDATES),
    _shows("needs-two", CANDIDATES, beside.CLOCK),
    Case("another screen, still", ("app-blocks", "logon"), CANDIDATES, beside.NOTHING),
    Case(
        "another screen, at work",
        ("updates",),
        CANDIDATES,
        beside.NOTHING[_HALF:] + beside.NOTHING[:_HALF],
        {"delay_s": 300},
    ),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run.

    Args:
        case: the name of its row.
        machine: "pc" or "q35".
        ending: how the stop ended.
        findings: the codes of its findings, the answer first.
        screen: the words on its screen; empty: the guest's own.
        how: how that was drawn.
        read: what lastcall told of the answer: its evidence, a fact a line.
        detail: what lastcall said of the ending.
    """

    case: str
    machine: str
    ending: str
    findings: tuple[str, ...] = ()
    screen: str = ""
    how: str = ""
    read: tuple[str, ...] = ()
    detail: str = ""

    @property
    def code(self) -> str:
        """What was named: an ending, or the code of what holds it up; `NOTHING`: neither."""
        if self.ending != Ending.STILL_RUNNING.value:
            return self.ending
        return self.findings[0] if self.findings else NOTHING

    @property
    def named(self) -> str:
        """The same, with one name for all that leave it open."""
        return CANDIDATES if self.code in CANDIDATE_SETS else self.code


def wrong(case: Case, results: Sequence[Result]) -> list[Result]:
    """Those runs in which something was named that it was not."""
    return [r for r in results if r.named not in {case.right, CANDIDATES, NOTHING}]


def missing(results: Mapping[str, Sequence[Result]], runs: int) -> list[str]:
    """The rows that do not have all of their runs."""
    return [case.name for case in CASES if len(results.get(case.name, ())) < runs]


def matrix(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The confusion matrix: rows what it was, columns what was named."""
    rights = dict.fromkeys(case.right for case in CASES if case.right != CANDIDATES)
    others = sorted({r.named for rows in results.values() for r in rows} - {CANDIDATES, NOTHING})
    columns = [*rights, *(each for each in others if each not in rights), CANDIDATES, NOTHING]
    lines = _head(["it was", "runs", *columns, "wrong"])
    for case in CASES:
        rows = results.get(case.name, ())
        counts = [sum(r.named == column for r in rows) for column in columns]
        cells = [
            _count(n, bold=column == case.right) for n, column in zip(counts, columns, strict=True)
        ]
        wrongs = str(len(wrong(case, rows)))
        lines.append(_row([case.name, str(len(rows)), *cells, wrongs]))
    return lines


def _count(number: int, *, bold: bool) -> str:
    if bold:
        return f"**{number}**"
    return str(number) if number else ""


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def by_screen(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """What was made of the screens that say what it is: by language, and by how they were drawn."""
    lines = _head(["screens", "runs", "words known", "named", "candidates", "wrong"])
    telling = [case for case in CASES if case.screens and case.right not in _NO_REASON]
    found = [(case, r) for case in telling for r in results.get(case.name, ())]
    for case in telling:
        mine = [(of, r) for of, r in found if of is case]
        for tongue, korean in (("English", False), ("Korean", True)):
            texts = {each.text for each in case.screens if each.korean == korean}
            rows = [(of, r) for of, r in mine if r.screen in texts]
            lines.append(_counted(f"{case.name}, {tongue}", rows))
    for name, drawn in _DRAWN.items():
        lines.append(_counted(name, [(of, r) for of, r in found if drawn in r.how]))
    return lines


_NO_REASON = {CANDIDATES, Ending.ORDERLY.value}
_DRAWN = {
    "all four, no specks": "specks 0 %",
    "all four, specks on 0.05 %": "specks 0.05 %",
    "all four, specks on 0.2 %": "specks 0.2 %",
    "all four, 640x480": " 640x480,",
    "all four, 800x600": " 800x600,",
    "all four, 1024x768": " 1024x768,",
}


def _counted(name: str, found: Sequence[tuple[Case, Result]]) -> str:
    right = sum(r.named == case.right for case, r in found)
    left = sum(r.named in {CANDIDATES, NOTHING} for _, r in found)
    wrongs = sum(len(wrong(case, [r])) for case, r in found)
    known = sum(_known(r.screen) for _, r in found)
    return _row([name, *map(str, (len(found), known, right, left, wrongs))])


@cache
def _known(words: str) -> bool:
    """Whether the rules know these words, read without a mistake."""
    return any(sign.score >= SURE for sign in phrases.signs(words))


def summary(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """How many names were wrong, and how often it was left open though there was one."""
    runs = sum(map(len, results.values()))
    wrongs = sum(len(wrong(case, results.get(case.name, ()))) for case in CASES)
    screens = [case for case in CASES if case.screens and case.right not in _NO_REASON]
    others = [case for case in CASES if not case.screens and case.right != CANDIDATES]
    return [
        f"Wrong names: **{wrongs} of {runs}** ({_share(wrongs, runs)}). Left open:",
        f"{_left(screens, results)} of the screens that say the reason, and",
        f"{_left(others, results)} where the machine itself tells.",
    ]


def _left(cases: Sequence[Case], results: Mapping[str, Sequence[Result]]) -> str:
    rows = [r for case in cases for r in results.get(case.name, ())]
    left = sum(r.named in {CANDIDATES, NOTHING} for r in rows)
    return f"**{left} of {len(rows)}** ({_share(left, len(rows))})"


def _share(hits: int, of: int) -> str:
    if not of:
        return "no runs"
    low, high = wilson(hits, of)
    return f"{low * 100:.3g} to {high * 100:.3g} %"


def listed(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The wrong names, with the words on the screen."""
    found = [(case, r) for case in CASES for r in wrong(case, results.get(case.name, ()))]
    return [_told(case.name, r) for case, r in found] or ["None."]


def left_open(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The screens that said something and were left open."""
    cases = [case for case in CASES if case.right != CANDIDATES]
    found = [
        (case, r)
        for case in cases
        for r in results.get(case.name, ())
        if r.named in {CANDIDATES, NOTHING}
    ]
    return [_told(case.name, r) for case, r in found] or ["None."]


def _told(name: str, result: Result) -> str:
    screen = " / ".join(line.strip() for line in result.screen.splitlines() if line.strip())
    screen = re.sub(r"([\\`*_\[\]<>])", r"\\\1", screen)  # words, not Markdown
    shown = f": “{screen}” ({result.how})" if screen else f" ({result.machine})"
    return f"- {name}, `{result.code}`{shown}{': ' if result.detail else ''}{result.detail}"
