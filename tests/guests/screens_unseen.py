"""Draws the screens of the measurement: wordings, fonts, sizes and layouts by a seeded choice.

A guest of the zoo shows two colours, so the letters are not smoothed; and some screens have specks,
as a reader of print meets them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from guests.wordings_unseen import CONSOLE, DIALOG, MESSAGE, PAGE, SECURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guests.wordings_unseen import Wording

FOLDER = Path("/usr/share/fonts/truetype")
LATIN = (
    "dejavu/DejaVuSans.ttf",
    "dejavu/DejaVuSansCondensed.ttf",
    "dejavu/DejaVuSerif.ttf",
    "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSerif-Regular.ttf",
    "liberation/LiberationSansNarrow-Regular.ttf",
)
FIXED = ("dejavu/DejaVuSansMono.ttf", "liberation/LiberationMono-Regular.ttf")
KOREAN = (
    "nanum/NanumGothic.ttf",
    "nanum/NanumMyeongjo.ttf",
    "nanum/NanumBarunGothic.ttf",
    "nanum/NanumSquareR.ttf",
    "nanum/NanumGothicCoding.ttf",
    "unfonts-core/UnBatang.ttf",
    "unfonts-core/UnDotum.ttf",
)
PACKAGES = ("fonts-dejavu-core", "fonts-liberation", "fonts-nanum", "fonts-unfonts-core")
SIZES = ((640, 480), (800, 600), (1024, 768))
# Heights of the letters, in pixels, by width of the screen and form.
LETTERS = {
    640: {MESSAGE: (17, 22), DIALOG: (14, 16), PAGE: (14, 16), CONSOLE: (14, 17)},
    800: {MESSAGE: (18, 27), DIALOG: (14, 17), PAGE: (14, 18), CONSOLE: (15, 18)},
    1024: {MESSAGE: (19, 34), DIALOG: (14, 19), PAGE: (15, 20), CONSOLE: (16, 20)},
}
# Hangul is denser: nobody sets it smaller than this on a screen of today.
_LEAST_KOREAN = 16
_SPECKS = (0.0, 0.0, 0.0005, 0.002)  # shares of the pixels
_MARGIN = 24


@dataclass(frozen=True, slots=True)
class Drawn:
    """A screen as a guest shows it.

    Args:
        pixels: as `zoo.picture_image` wants them.
        size: width and height, in pixels.
        how: how it was drawn, in words.
    """

    pixels: bytes
    size: tuple[int, int]
    how: str


def draw(wording: Wording, seed: str) -> Drawn:
    """Draw it; the same seed draws the same.

    Raises:
        AssertionError: a font is missing; which package has it.
    """
    chance = random.Random(seed)
    size = chance.choice(SIZES)
    form = DIALOG if wording.form == SECURE else wording.form
    least, most = LETTERS[size[0]][form]
    if wording.korean:
        least, most = max(least, _LEAST_KOREAN), max(most, _LEAST_KOREAN)
    letters = chance.randint(least, most)
    fonts = KOREAN if wording.korean else FIXED if wording.form == CONSOLE else LATIN
    name = chance.choice(fonts)
    dark = wording.form in {MESSAGE, CONSOLE} and chance.random() < 0.8
    paper = _Paper(size, _font(name, letters), letters, chance)
    _FORMS[wording.form](paper, wording)
    image = paper.image if not dark else Image.eval(paper.image, lambda value: 255 - value)
    specks = chance.choice(_SPECKS)
    _speckle(image, specks, chance)
    two = image.point([0] * 128 + [255] * 128).convert("1", dither=Image.Dither.NONE)
    shown = f"{Path(name).stem} {letters} px, {size[0]}x{size[1]}, {wording.form}"
    how = f"{shown}, {'light on dark' if dark else 'dark on light'}, specks {specks * 100:g} %"
    return Drawn(two.tobytes(), size, how)


@cache
def _font(name: str, letters: int) -> ImageFont.FreeTypeFont:
    path = FOLDER / name
    assert path.exists(), f"the font {path} is missing; Debian: {' '.join(PACKAGES)}"
    return ImageFont.truetype(str(path), letters)


class _Paper:
    """A white screen, and how to write on it."""

    def __init__(
        self,
        size: tuple[int, int],
        font: ImageFont.FreeTypeFont,
        letters: int,
        chance: random.Random,
    ) -> None:
        self.image = Image.new("L", size, 255)
        self.draw = ImageDraw.Draw(self.image)
        self.size = size
        self.font = font
        self.letters = letters
        self.step = round(letters * chance.uniform(1.35, 1.7))
        self.chance = chance

    def wrapped(self, lines: Sequence[str], width: float) -> list[str]:
        """The lines, none wider than this many pixels."""
        made = []
        for line in lines:
            now = ""
            for word in line.split(" "):
                longer = f"{now} {word}" if now else word
                if now and self.draw.textlength(longer, self.font) > width:
                    made.append(now)
                    now = word
                else:
                    now = longer
            made.append(now)
        return made

    def write(self, lines: Sequence[str], left: float, top: float, width: float) -> float:
        """Write them below each other: where the next one would stand."""
        for line in self.wrapped(lines, width):
            self.draw.text((left, top), line, fill=0, font=self.font)
            top += self.step
        return top

    def frame(self, box: tuple[float, float, float, float], fill: int | None = None) -> None:
        """A box with a line around it."""
        self.draw.rectangle(box, fill=fill, outline=0)


def _message(paper: _Paper, wording: Wording) -> None:
    width, height = paper.size
    lines = paper.wrapped(wording.lines, width - 2 * _MARGIN)
    top = (height - len(lines) * paper.step) * paper.chance.choice((0.5, 0.5, 0.35, 0.7))
    centred = paper.chance.random() < 0.75
    for line in lines:
        space = width - paper.draw.textlength(line, paper.font)
        paper.draw.text((space / 2 if centred else _MARGIN * 2, top), line, 0, font=paper.font)
        top += paper.step


def _dialog(paper: _Paper, wording: Wording) -> None:
    width, height = paper.size
    if wording.form == DIALOG:
        _desktop(paper)
    inner = min(width - 4 * _MARGIN, paper.letters * 32)
    lines = paper.wrapped(wording.lines, inner)
    bar = paper.letters + 12
    tall = bar + (len(lines) + 1) * paper.step + (paper.step * 2 if wording.buttons else 0)
    left = paper.chance.uniform(_MARGIN, max(_MARGIN, width - inner - 3 * _MARGIN))
    top = paper.chance.uniform(8, max(8, height - tall - 40))
    right = left + inner + 2 * _MARGIN
    paper.frame((left, top, right, top + tall), fill=255)
    dark = paper.chance.random() < 0.5
    paper.frame((left, top, right, top + bar), fill=0 if dark else 255)
    paper.draw.text((left + 8, top + 4), wording.title, 255 if dark else 0, font=paper.font)
    paper.write(lines, left + _MARGIN, top + bar + paper.step / 2, inner)
    _buttons(paper, wording.buttons, right - 12, top + tall - paper.step * 1.6)


def _buttons(paper: _Paper, buttons: Sequence[str], right: float, top: float) -> None:
    for words in reversed(buttons):
        wide = paper.draw.textlength(words, paper.font) + 24
        paper.frame((right - wide, top, right, top + paper.letters + 12), fill=255)
        paper.draw.text((right - wide + 12, top + 4), words, 0, font=paper.font)
        right -= wide + 12


def _desktop(paper: _Paper) -> None:
    """Icons and a bar, sometimes on a pattern."""
    width, height = paper.size
    if paper.chance.random() < 0.3:
        for row in range(0, height, 4):
            paper.draw.point([(x, row) for x in range(row % 8, width, 8)], 0)
    for place, name in enumerate(("My Computer", "Recycle Bin")):
        top = 20 + place * 90
        paper.frame((24, top, 60, top + 34), fill=200)
        paper.draw.text((14, top + 40), name, 0, font=_font(LATIN[3], 12))
    paper.frame((0, height - 30, width, height), fill=255)
    paper.draw.text((10, height - 23), "Start", 0, font=_font(LATIN[3], 14))


def _page(paper: _Paper, wording: Wording) -> None:
    """A window over the whole screen, with a title and text; half of them have a menu."""
    width, height = paper.size
    bar = paper.letters + 12
    paper.frame((0, 0, width - 1, height - 1))
    paper.frame((0, 0, width - 1, bar))
    paper.draw.text((10, 4), wording.title, 0, font=paper.font)
    menu = "파일   편집   보기   도움말" if wording.korean else "File   Edit   View   Help"
    if paper.chance.random() < 0.5:
        paper.draw.text((10, bar + 4), menu, 0, font=paper.font)
        paper.draw.line((0, 2 * bar, width, 2 * bar), 0)
    paper.write(wording.lines, _MARGIN, 2 * bar + paper.step / 2, width - 2 * _MARGIN)


def _console(paper: _Paper, wording: Wording) -> None:
    paper.write(wording.lines, 4, 4, paper.size[0] - 8)


_FORMS = {MESSAGE: _message, DIALOG: _dialog, SECURE: _dialog, PAGE: _page, CONSOLE: _console}


def _speckle(image: Image.Image, share: float, chance: random.Random) -> None:
    width, height = image.size
    for _ in range(round(width * height * share)):
        place = chance.randrange(width), chance.randrange(height)
        image.putpixel(place, 255 - int(image.getpixel(place)))  # type: ignore[arg-type]
