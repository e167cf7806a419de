"""Screens as guests show them, drawn with fonts that the rules were not written from."""

from __future__ import annotations

import glob
import io
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from lastcall.targets.guest.screen import picture

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "/usr/share/fonts/truetype/"
SANS = FOLDER + "dejavu/DejaVuSans.ttf"
MONO = FOLDER + "dejavu/DejaVuSansMono.ttf"
KOREAN = FOLDER + "nanum/NanumGothic.ttf"
KOREAN_SERIF = FOLDER + "nanum/NanumMyeongjo.ttf"
BLACK, WHITE, BLUE, GREY = (0, 0, 0), (255, 255, 255), (0, 90, 158), (170, 170, 170)

Colour = tuple[int, int, int]


def font_of(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font, or a failure that names what to install."""
    package = "fonts-nanum" if "nanum" in path else "fonts-dejavu-core"
    assert glob.glob(path), f"the font {path} is missing (Debian: {package})"
    return ImageFont.truetype(path, size)


def as_ppm(image: Image.Image) -> bytes:
    """What QEMU's screendump writes."""
    return b"P6\n%d %d\n255\n" % image.size + image.convert("RGB").tobytes()


def as_png(image: Image.Image) -> bytes:
    """The image as a PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def read(image: Image.Image) -> picture.Picture:
    """The image as lastcall reads it."""
    return picture.read(as_ppm(image))


def message(
    text: str,
    size: tuple[int, int] = (1024, 768),
    font: str = SANS,
    letters: int = 20,
    ground: Colour = BLUE,
    ink: Colour = WHITE,
) -> Image.Image:
    """A screen with nothing but a few centred lines, as Windows shows them."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    centre = (size[0] / 2, size[1] / 2)
    made = font_of(font, letters)
    draw.multiline_text(
        centre, text, fill=ink, font=made, anchor="mm", align="center", spacing=letters // 2
    )
    return image


def window(
    image: Image.Image,
    title: str,
    text: str,
    box: tuple[int, int, int, int],
    font: str = SANS,
    letters: int = 13,
    buttons: Sequence[str] = (),
) -> Image.Image:
    """A window on top of what is on the screen."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    made = font_of(font, letters)
    draw.rectangle(box, fill=(240, 240, 240), outline=(90, 90, 90))
    draw.rectangle((left, top, right, top + letters + 12), fill=WHITE)
    draw.text((left + 8, top + 5), title, fill=BLACK, font=made)
    draw.multiline_text(
        (left + 16, top + letters + 26), text, fill=BLACK, font=made, spacing=letters // 2
    )
    for number, words in enumerate(buttons):
        right_edge = right - 12 - number * 110
        edge = (right_edge - 100, bottom - 36, right_edge, bottom - 12)
        draw.rectangle(edge, fill=(225, 225, 225), outline=(120, 120, 120))
        draw.text((right_edge - 50, bottom - 24), words, fill=BLACK, font=made, anchor="mm")
    return image


def desktop(size: tuple[int, int] = (1280, 800), ground: Colour = (0, 99, 177)) -> Image.Image:
    """An empty desktop with two icons and a bar."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    made = font_of(SANS, 12)
    draw.rectangle((20, 20, 60, 60), fill=GREY)
    draw.text((40, 72), "Recycle Bin", fill=WHITE, font=made, anchor="mm")
    draw.rectangle((0, size[1] - 40, size[0], size[1]), fill=(16, 16, 16))
    draw.text((60, size[1] - 20), "Type here to search", fill=WHITE, font=made, anchor="lm")
    clock = "10:42 AM\n3/5/2026"
    draw.multiline_text((size[0] - 70, size[1] - 34), clock, fill=WHITE, font=made)
    return image


@cache
def vga_font() -> tuple[bytes, ...]:
    """The 8x16 letters of a real VGA BIOS, 16 bytes each: those that a guest's text mode shows."""
    for path in glob.glob("/usr/share/seabios/vgabios-stdvga.bin"):
        with open(path, "rb") as file:
            rom = file.read()
        # The letter A, as every VGA has drawn it since 1987.
        at = rom.find(bytes.fromhex("000010386cc6c6fec6c6c6c600000000")) - 65 * 16
        if at >= 0:
            return tuple(rom[at + 16 * n : at + 16 * n + 16] for n in range(256))
    raise AssertionError("no VGA BIOS with a font here (Debian: seabios)")


def console(
    text: str, columns: int = 80, rows: int = 25, width: int = 9, ink: Colour = GREY
) -> Image.Image:
    """A text mode's screen: 720x400 with letters of 9 pixels, 640x400 with 8 (`width`)."""
    image = Image.new("L", (columns * width, rows * 16), 0)
    lines = [
        line[at : at + columns]
        for line in text.split("\n")
        for at in range(0, max(1, len(line)), columns)
    ]
    for row, line in enumerate(lines[-rows:]):
        for column, letter in enumerate(line):
            glyph = Image.frombytes("1", (8, 16), vga_font()[ord(letter) & 255])
            image.paste(255, (column * width, row * 16), glyph)
    coloured = Image.new("RGB", image.size, BLACK)
    coloured.paste(ink, None, image)
    return coloured
