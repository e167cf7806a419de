"""What the text on a guest's screen says about its end: signs, each with a score. Pure.

A wrong name is worse than none. A wording alone is not enough: people write about updates, and
pages quote what Windows says. So it also counts where it stands. What a system says while it ends,
it says on a line of its own; Windows clears the whole screen for it, so next to no other words are
there, and no desktop; systemd, a kernel and a firmware say it on the last lines of a console, with
no prompt behind. The limits on other words below are the most that real screens have: names of
applications, a clock, an edition's mark, and some rubbish from the reader.

Source: see `wordings`; agetty(8) for the console's prompt.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from lastcall.kernel.run import printable
from lastcall.record import record
from lastcall.targets.guest.screen.near import Found, Squashed, find, pattern, squash
from lastcall.targets.guest.screen.tongues import WORDINGS
from lastcall.targets.guest.screen.wordings import Kind, Place, Wording

__all__ = ["LIMIT_CHARS", "Kind", "Sign", "signs"]

LIMIT_CHARS = 20_000  # no screen we know holds more; a console of 240 by 67 is full with 16,000
_WORDS_CHARS = 80
_ENOUGH = 1.0

# How many other words of three letters or more such a screen may hold.
_OTHER_WORDS = {
    Kind.UPDATING: 14,
    Kind.REASON: 60,
    Kind.APP_BLOCKS: 30,
    Kind.LOGON: 14,
    Kind.SHUTTING_DOWN: 6,
    Kind.HALTED: 6,
    Kind.PANIC: 40,
    Kind.FIRMWARE: 40,
    Kind.DISK_CHECK: 30,
    Kind.NO_DISPLAY: 3,
}
# How many lines a console may hold from there to its end.
_LAST_LINES = {
    Kind.STOP_JOB: 6,
    Kind.SHUTTING_DOWN: 8,
    Kind.HALTED: 3,
    Kind.FIRMWARE: 4,
    Kind.DISK_CHECK: 6,
}
_FIRMWARE_WORDS = 1
_CURT = (Kind.SHUTTING_DOWN, Kind.HALTED)  # so short that nothing else may be in their line
# A page that quotes such a screen has an address; the screen itself has none.
_NOT_ON_A_PAGE = (Kind.LOGON, Kind.APP_BLOCKS, Kind.UPDATING)
_EAST = "\u2e80"
_OPEN_END = (Kind.STOP_JOB, Kind.PANIC)  # the line goes on with a name

_PROMPT = re.compile(r"((?:[#$>]|(?<!\d)%)\s?[_|]?|^:|\(END\)|^:\s*\S{0,3}|^~|lines \d+-\d+.*)$")
_SHELL = re.compile(r"^(\S{1,40}@\S{1,60}?[:\s].{0,60}[#$]|(PS )?[A-Z]:\\.{0,80}>)", re.MULTILINE)
_LOGIN = re.compile(r"^([A-Za-z0-9][\w.-]{0,63})\s+[lI1|]og[il1|]n\s?[:;]\s?[_|]?$")
_MENU = frozenset(
    [
        "file",
        "edit",
        "view",
        "help",
        "format",
        "tools",
        "insert",
        "window",
        "history",
        "bookmarks",
        "terminal",
        "파일",
        "편집",
        "보기",
        "도움말",
        "서식",
        "도구",
        "datei",
        "bearbeiten",
        "ansicht",
        "hilfe",
    ]
)
_DESKTOP = re.compile(
    r"recycle ?bin|휴지통|papierkorb|this pc$|내 pc$|type here to search|search the web"
    r"|activities\b",
    re.IGNORECASE | re.MULTILINE,
)
_WEB = re.compile(r"://|\bwww\.|\.(com|org|net|kr|de|html?)\b", re.IGNORECASE)
_SET = re.compile(r"\w\s*=\s*[\"'“]?$")  # a line of a file of settings, not of a system
_WORD = re.compile(r"[^\W\d_]{3,}|[가-힣]{2,}")
_TIME = re.compile(r"^\W{0,3}([01]?\d|2[0-3])\s?[:.]\s?[0-5]\d(\s?[AP]M)?\W{0,3}$", re.IGNORECASE)
_DATE = re.compile(
    r"^\W{0,3}((sun|mon|tues|wednes|thurs|fri|satur)day,? \w{3,9} \d{1,2}(, \d{4})?"
    r"|\d{1,2} ?월 ?\d{1,2} ?일,? ?[일월화수목금토] ?요일"
    r"|(mon|diens|donners|frei|sams|sonn)tag, \d{1,2}\. \w{3,9}"
    r"|mittwoch, \d{1,2}\. \w{3,9})\W{0,3}$",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"(?<![\d.,])(\d{1,2}|100)(?:[.,]\d)?\s?%")
_COUNT = re.compile(r"(\d{1,3}) (?:of|von) (\d{1,3})")
_COUNT_KO = re.compile(r"(\d{1,3})개 중 (\d{1,3})")
_STOP_CODE = re.compile(r"(?:stop code|중지 코드)\W{0,3}([A-Z][A-Z_ ]{3,60})", re.IGNORECASE)
_SERVICE = re.compile(
    r"(.{1,120}?)\s*[(\[{](?=[^)]{0,40}\d\s?(?:s|min|m|h)\b|[^)]{0,40}no limit)(.*)"
)


@record
class Sign:
    """Something that a screen says.

    Args:
        kind: what it says.
        words: the words it rests on, as they were read.
        language: of the words (ISO 639-1).
        score: how sure it is, 0 to 1; what is below 0.5 is not told.
        value: of UPDATING and DISK_CHECK how far it is ("35%", "3 of 10"); of APP_BLOCKS the
            application; of STOP_JOB the unit's description; of PANIC the cause; of LOGON "console"
            for a text console's prompt, "clock" for a screen with nothing but time and date, else
            "dialog"; empty: not readable.
    """

    kind: Kind
    words: str
    language: str
    score: float
    value: str = ""


@record
class _Hit:
    """A wording on the screen; lines count from 0."""

    wording: Wording
    found: Found
    first: int
    last: int


class _Screen:
    """The text of a screen, and what in it is known."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.squashed: Squashed = squash(text)
        starts, at = [], 0
        for line in self.lines:
            starts.append(at)
            at += len(line) + 1
        self.starts = starts
        filled = [number for number, line in enumerate(self.lines) if line.strip()]
        self.filled = filled
        self.known = bytearray(len(text))
        self.hits = self._hits()
        for hit in self.hits:
            first, end = self.raw(hit.found)
            self.known[first:end] = b"\1" * (end - first)
        self.others = [
            self.line_of(word.start())
            for word in _WORD.finditer(text)
            if 2 * sum(self.known[word.start() : word.end()]) < len(word[0])
        ]
        lines = (set(line.casefold().split()) for line in self.lines)
        menu = any(len(words & _MENU) > 1 for words in lines)
        self.desktop = menu or _DESKTOP.search(text) is not None
        last = self.lines[filled[-1]].strip() if filled else ""
        self.prompt = _PROMPT.search(last) is not None
        self.last = last
        self.shell = self.prompt or _SHELL.search(text) is not None

    def raw(self, found: Found) -> tuple[int, int]:
        """Where a find begins and ends in the text."""
        at = self.squashed.at
        return at[found.start], at[found.end - 1] + 1

    def line_of(self, at: int) -> int:
        """The number of the line at a place of the text."""
        return bisect_right(self.starts, at) - 1

    def line(self, number: int) -> tuple[int, int]:
        """Where a line begins and ends in the text."""
        return self.starts[number], self.starts[number] + len(self.lines[number])

    def _hits(self) -> list[_Hit]:
        """All known wordings; where two claim the same words, what explains more of them."""
        every: list[tuple[float, Found, Wording]] = [
            (found.likeness * (found.end - found.start), found, wording)
            for wording in WORDINGS
            for found in find(pattern(wording.text), self.squashed)
        ]
        every.sort(key=lambda each: -each[0])
        taken = bytearray(len(self.squashed.text))
        hits = []
        for _, found, wording in every:
            size = found.end - found.start
            if size < 1 or 3 * sum(taken[found.start : found.end]) > size:
                continue
            taken[found.start : found.end] = b"\1" * size
            first, end = self.raw(found)
            hits.append(_Hit(wording, found, self.line_of(first), self.line_of(end - 1)))
        return hits

    def unknown(self, first: int, end: int) -> int:
        """How many letters there are unknown; a syllable or sign of East Asia counts as two."""
        part = range(first, end)
        return sum(1 for at in part if not self.known[at] and self.text[at].isalpha())


def signs(text: str) -> tuple[Sign, ...]:
    """What a screen says, from the text that was read off it; the surest first.

    Several signs can stand on one screen: which of them holds the shutdown up is not decided here.
    Text beyond `LIMIT_CHARS` is not looked at.
    """
    screen = _Screen(text[:LIMIT_CHARS])
    found = [sign for kind in Kind for sign in _of_kind(kind, screen)]
    if not any(sign.kind is Kind.LOGON for sign in found):
        found.extend(_prompt(screen) or _clock(screen))
    return tuple(sorted(found, key=lambda sign: -sign.score))


def _of_kind(kind: Kind, screen: _Screen) -> list[Sign]:
    hits = [hit for hit in screen.hits if hit.wording.kind is kind and _stands(hit, screen)]
    best: dict[str, _Hit] = {}
    for hit in hits:
        known = best.get(hit.wording.text)
        if known is None or hit.found.likeness > known.found.likeness:
            best[hit.wording.text] = hit
    telling = [hit for hit in best.values() if hit.wording.sure]
    sure = sum(hit.wording.sure for hit in telling)
    if sure < _ENOUGH:
        return []
    likeness = sum(hit.found.likeness for hit in telling) / len(telling)
    crowd = 0.0
    if any(hit.wording.place is not Place.END for hit in telling):
        crowd = len(screen.others) / max(1, _OTHER_WORDS[kind])
    score = likeness * (1 - 0.3 * min(1.0, crowd)) * (1.0 if len(telling) > 1 else 0.95)
    main = min(telling, key=lambda hit: (-hit.wording.sure, hit.first))
    value = _value(kind, main, telling, screen)
    if kind is Kind.STOP_JOB and not value:
        return []
    words = " / ".join(_seen(hit, screen) for hit in sorted(telling, key=lambda hit: hit.first))
    words = printable(words, _WORDS_CHARS)
    return [Sign(kind, words, main.wording.language, round(score, 2), value)]


def _stands(hit: _Hit, screen: _Screen) -> bool:
    """Whether a wording stands where a system would write it."""
    first, end = screen.raw(hit.found)
    before = screen.unknown(screen.line(hit.first)[0], first)
    after = screen.unknown(end, screen.line(hit.last)[1])
    size = hit.found.end - hit.found.start
    kind, place = hit.wording.kind, hit.wording.place
    if place is Place.WINDOW:
        return before + after <= max(10, size // 2) and len(screen.others) <= _OTHER_WORDS[kind]
    if place is Place.SCREEN:
        return (
            before + after <= (2 if kind in _CURT else max(4, size // 3))
            and not screen.desktop
            and not screen.shell
            and not (kind in _NOT_ON_A_PAGE and _WEB.search(screen.text))
            and not (
                kind is Kind.UPDATING and _SET.search(screen.text, screen.starts[hit.first], first)
            )
            and len(screen.others) <= _OTHER_WORDS[kind]
        )
    return (
        before <= max(4, size // 3)
        and (kind in _OPEN_END or after <= max(8, size))
        and not screen.desktop
        and _at_end(hit, screen)
    )


def _at_end(hit: _Hit, screen: _Screen) -> bool:
    kind = hit.wording.kind
    later = [number for number in screen.filled if number > hit.last]
    if kind is Kind.FIRMWARE:
        # Whatever was started next would have written more than that.
        mine = {hit.first for hit in screen.hits if hit.wording.kind is kind}
        words = sum(len(_WORD.findall(screen.lines[n])) for n in later if n not in mine)
        return len(later) <= _LAST_LINES[kind] and words <= _FIRMWARE_WORDS
    if screen.prompt or _LOGIN.match(screen.last):
        return False
    if kind is Kind.PANIC:
        # A kernel that panicked says the rest in its own way, and then nothing more.
        return all(screen.lines[number].lstrip()[:1] in "[({|" for number in later[:-2])
    return len(later) < _LAST_LINES[kind]


def _seen(hit: _Hit, screen: _Screen) -> str:
    first, end = screen.raw(hit.found)
    return " ".join(screen.text[first:end].split())


def _value(kind: Kind, main: _Hit, hits: list[_Hit], screen: _Screen) -> str:
    around = range(
        max(0, min(hit.first for hit in hits) - 3),
        min(len(screen.lines), max(hit.last for hit in hits) + 4),
    )
    near = "\n".join(screen.lines[number] for number in around)
    rest = screen.text[screen.raw(main.found)[1] : screen.line(main.last)[1]]
    value = ""
    if kind in (Kind.UPDATING, Kind.DISK_CHECK):
        value = _progress(near)
    elif kind is Kind.APP_BLOCKS:
        value = _application(hits, screen)
    elif kind is Kind.STOP_JOB:
        service = _SERVICE.match(rest)
        value = service[1] if service else ""
    elif kind is Kind.PANIC:
        code = _STOP_CODE.search(near)
        value = code[1] if code else rest.lstrip(" :-") if main.wording.place is Place.END else ""
    elif kind is Kind.LOGON:
        value = "dialog"
    return printable(" ".join(value.split()), _WORDS_CHARS)


def _progress(near: str) -> str:
    if percent := _PERCENT.search(near):
        return f"{percent[1]}%"
    if count := _COUNT.search(near):
        return f"{count[1]} of {count[2]}"
    if count := _COUNT_KO.search(near):
        return f"{count[2]} of {count[1]}"
    return ""


def _application(hits: list[_Hit], screen: _Screen) -> str:
    """The line above the one that says "this app": Windows puts the application's name there."""
    for hit in sorted(hits, key=lambda hit: hit.first):
        above = [number for number in screen.filled if number < hit.first]
        if above and screen.unknown(*screen.line(above[-1])):
            return screen.lines[above[-1]].strip()
    return ""


def _prompt(screen: _Screen) -> list[Sign]:
    """The prompt of a text console, where nobody has logged on."""
    login = _LOGIN.match(screen.last)
    if login is None or screen.desktop:
        return []
    return [Sign(Kind.LOGON, printable(screen.last, _WORDS_CHARS), "en", 0.9, "console")]


def _clock(screen: _Screen) -> list[Sign]:
    """A lock screen that shows the time and the date, and nothing else."""
    lines = [screen.lines[number].strip() for number in screen.filled]
    times = [line for line in lines if _TIME.match(line)]
    dates = [line for line in lines if _DATE.match(line)]
    other = [line for line in lines if line not in times and line not in dates]
    if len(times) != 1 or len(dates) != 1 or sum(len(line) for line in other) > len(dates[0]):
        return []
    language = "ko" if "요일" in dates[0] else "en" if "day" in dates[0].lower() else "de"
    return [Sign(Kind.LOGON, f"{times[0]} / {dates[0]}", language, 0.6, "clock")]
