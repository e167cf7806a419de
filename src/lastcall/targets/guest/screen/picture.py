"""A picture of a guest's screen: read with limits, compared, kept.

The bytes come from a guest's display by way of its hypervisor, so they are read with distrust: the
header is looked at first, and what it promises must fit the limits before anything is decoded. Of
a PNG only the chunks that make the picture are handed on; texts, profiles and animations, each
with a decompressor of its own, never reach one.

A picture is held as a PNG, some KB for most screens: two looks at each of a hundred guests, held
as pixels, would be a gigabyte. Nothing here blocks, but a large screen takes tens of milliseconds:
call it off the event loop.

Source: QEMU 7.2 ui/console.c (`qmp_screendump`, `ppm_save`, `png_save`); netpbm's ppm(5);
W3C PNG (third edition), 5 and 11.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import TYPE_CHECKING

from lastcall.errors import MissingExtra
from lastcall.kernel.run import printable
from lastcall.record import record
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import SCREEN_LIMIT_BYTES

if TYPE_CHECKING:
    from PIL import Image

LIMIT_SIDE = 8192
_BYTES_A_PIXEL = 4  # what Pillow takes for one, whatever the picture has
LIMIT_PIXELS = SCREEN_LIMIT_BYTES // _BYTES_A_PIXEL

_PNG = b"\x89PNG\r\n\x1a\n"
_PPM = re.compile(rb"P6\s+(?:#[^\n]{0,200}\n\s*)?(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s")
_PPM_HEADER_BYTES = 300
_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_COLOURS = (0, 2, 3, 4, 6)
_DEPTHS = (1, 2, 4, 8)
_LIMIT_CHUNKS = 20_000  # libpng writes 8 KiB in each

_ANY = [0] + [255] * 255
_TILE = 8
_MOST_TILES = 128  # on the longer side
_ALL_OVER = 0.3
_FAINT = 12  # a difference in a channel that nobody sees


class BadPicture(Trouble):
    """What should be a picture of a screen cannot be read, or is larger than any screen."""

    def __init__(self, why: str) -> None:
        super().__init__(
            Fault.BROKEN,
            f"The picture of the guest's screen cannot be read: {why}.",
            "The rest of the evidence stands without it; look at the screen itself "
            "(virt-viewer, VNC).",
        )


@record
class Picture:
    """A picture of a screen that was read completely.

    Args:
        width: in pixels.
        height: in pixels.
        png: the picture, as a PNG with 8 bits a colour or less.
    """

    width: int
    height: int
    png: bytes


@record
class Box:
    """A part of a screen, in pixels; `right` and `bottom` are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """From top to bottom."""
        return self.bottom - self.top

    @property
    def area(self) -> int:
        """How many pixels it holds."""
        return self.width * self.height


@record
class Difference:
    """Where two pictures of a screen differ.

    Args:
        share: of the pixels, 0 to 1; pictures of different sizes differ in all.
        box: what holds all that differs; None when nothing does.
        patches: what differs, in pieces that do not touch; empty also when it is all over the
            screen.
        pixels: how many the screen has.
    """

    share: float
    box: Box | None
    patches: tuple[Box, ...]
    pixels: int

    def __str__(self) -> str:
        if self.box is None:
            return "the screen is still"
        box = self.box
        where = f"{box.width}x{box.height} pixels at {box.left},{box.top}"
        return f"{self.share:.2%} of the screen changed, within {where}"


def read(data: bytes) -> Picture:
    """Read a PNG or a PPM (P6), as QEMU and libvirt give them.

    Raises:
        BadPicture: it is neither, damaged, cut short, or beyond the limits: `SCREEN_LIMIT_BYTES`
            long, `LIMIT_SIDE` wide or high, `LIMIT_PIXELS` in all.
        MissingExtra: Pillow is not installed.
    """
    if len(data) > SCREEN_LIMIT_BYTES:
        raise BadPicture(f"it has more than {SCREEN_LIMIT_BYTES // 1024 // 1024} MiB")
    if data.startswith(_PNG):
        bare = _bare_png(data)
        image = _decoded(bare)
        # Kept as it came: to write a PNG costs more than to read one.
        return Picture(image.width, image.height, bare)
    width, height, at = _ppm_header(data)
    pixels = width * height * 3
    if len(data) - at < pixels:
        raise BadPicture(f"it ends after {len(data) - at} of {pixels} bytes")
    _need_pillow()
    from PIL import Image

    image = Image.frombytes("RGB", (width, height), memoryview(data)[at : at + pixels])
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)  # the fastest; three times the size of the smallest
    return Picture(width, height, out.getvalue())


def image_of(picture: Picture) -> Image.Image:
    """The picture's pixels, as an RGB image of Pillow's."""
    return _decoded(picture.png)


def blank(picture: Picture) -> bool:
    """Whether it is all of one colour: nothing is shown, or the display is off."""
    extrema = image_of(picture).getextrema()
    return all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in extrema)


def changed(before: Picture, after: Picture) -> Difference:
    """Where two looks at one screen differ."""
    pixels = after.width * after.height
    whole = Box(0, 0, after.width, after.height)
    if (before.width, before.height) != (after.width, after.height):
        return Difference(1.0, whole, (), pixels)
    if before.png == after.png:
        return Difference(0.0, None, (), pixels)
    mask = _mask(image_of(before), image_of(after))
    found = mask.getbbox()
    if found is None:
        return Difference(0.0, None, (), pixels)
    share = mask.histogram()[255] / pixels
    return Difference(share, Box(*found), _patches(mask, Box(*found)), pixels)


# A cursor of a text console takes 8x16 of at least 640x400 pixels, 0.05 %; a caret, a mouse pointer
# or the digits of a clock in a corner less than 0.2 %. Five new letters on a console are 0.22 % or
# more. The clock of a lock screen and the ring of dots under "Restarting" are larger, but one
# piece, and not flat as a line of text is.
_SMALL_SHARE = 0.002
_SMALL_PATCHES = 3
_CLOCK_SHARE = 0.02
_CLOCK_HEIGHT = 30
_CLOCK_FLATNESS = 5


def moves(difference: Difference) -> bool:
    """Whether more changed than a cursor, a clock or a waiting ring would.

    No proof of work: it only says that a look at the screen is worth more than its stillness.
    """
    if difference.box is None:
        return False
    if not difference.patches:
        return True
    if len(difference.patches) > _SMALL_PATCHES:
        return True
    large = [p for p in difference.patches if p.area > _SMALL_SHARE * difference.pixels]
    return bool(large) and not _like_a_clock(_around(large), difference.pixels)


def _around(boxes: list[Box]) -> Box:
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def _like_a_clock(box: Box, pixels: int) -> bool:
    return (
        box.area <= _CLOCK_SHARE * pixels
        and box.height >= _CLOCK_HEIGHT
        and box.width <= _CLOCK_FLATNESS * box.height
    )


def _need_pillow() -> None:
    try:
        import PIL  # noqa: F401 (only to say what to install)
    except ImportError as error:
        raise MissingExtra(
            "Pillow, which reads pictures of a guest's screen, is not installed",
            "pip install 'lastcall[qemu]' or pip install 'lastcall[libvirt]'",
        ) from error


def _ppm_header(data: bytes) -> tuple[int, int, int]:
    """Width, height, and where the pixels begin."""
    header = _PPM.match(data[:_PPM_HEADER_BYTES])
    if header is None:
        raise BadPicture("it is neither a PNG nor a PPM (P6)" if data else "it is empty")
    width, height, most = (int(number) for number in header.groups())
    if most != 255:  # noqa: PLR2004 (a byte a colour)
        raise BadPicture(f"it has colours up to {most}, not 255")
    _check_size(width, height)
    return width, height, header.end()


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadPicture(f"it is {width}x{height} pixels")
    if max(width, height) > LIMIT_SIDE or width * height > LIMIT_PIXELS:
        raise BadPicture(
            f"it is {width}x{height} pixels, of at most {LIMIT_SIDE} a side and {LIMIT_PIXELS}"
        )


def _bare_png(data: bytes) -> bytes:
    """The PNG with nothing in it but what makes the picture; its header fits the limits."""
    parts, at = [_PNG], len(_PNG)
    for _ in range(_LIMIT_CHUNKS):
        if at + 12 > len(data):
            raise BadPicture("it is cut short")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise BadPicture("it is cut short")
        if (kind == b"IHDR") != (len(parts) == 1):
            raise BadPicture("its header is not where it should be")
        if kind in _NEEDED:
            _check_chunk(memoryview(data)[at + 4 : end], kind)
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts)
        at = end
    raise BadPicture(f"it is made of more than {_LIMIT_CHUNKS} pieces")


def _check_chunk(chunk: memoryview, kind: bytes) -> None:
    """Look at a chunk from its kind to its checksum."""
    if zlib.crc32(chunk[:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise BadPicture(f"it is damaged ({kind.decode()})")
    if kind == b"IHDR":
        if len(chunk) != 4 + 13 + 4:
            raise BadPicture("its header is damaged")
        width, height, depth, colours = struct.unpack_from(">IIBB", chunk, 4)
        _check_size(width, height)
        if depth not in _DEPTHS or colours not in _COLOURS:
            raise BadPicture(f"it has {depth} bits of kind {colours} a colour")


def _decoded(png: bytes) -> Image.Image:
    """A PNG's pixels; the PNG has been through `_bare_png`."""
    _need_pillow()
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        image.load()
        return image.convert("RGB")
    except Exception as error:
        # Whatever a damaged file makes of Pillow: it raises OSError, SyntaxError, ValueError, ...
        raise BadPicture(f"it is damaged ({printable(str(error), 80)})") from error


def _mask(before: Image.Image, after: Image.Image) -> Image.Image:
    """255 where the pictures differ visibly, else 0."""
    from PIL import ImageChops

    red, green, blue = ImageChops.difference(before, after).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return most.point([0] * _FAINT + [255] * (256 - _FAINT))


def _patches(mask: Image.Image, box: Box) -> tuple[Box, ...]:
    """The pieces of what differs, on a raster of tiles; none when it is all over the screen."""
    side = _TILE
    tiles = mask.reduce(_TILE).point(_ANY)
    while max(tiles.size) > _MOST_TILES:
        tiles, side = tiles.reduce(2).point(_ANY), side * 2
    columns = tiles.width
    left = {at for at, value in enumerate(tiles.tobytes()) if value}
    if len(left) > _ALL_OVER * columns * tiles.height:
        return ()
    found = []
    while left:
        piece = _piece(left, columns)
        xs, ys = [at % columns for at in piece], [at // columns for at in piece]
        edges = (min(xs) * side, min(ys) * side, (max(xs) + 1) * side, (max(ys) + 1) * side)
        seen = mask.crop(edges).getbbox()
        if seen is not None:
            found.append(Box(*(edge + edges[i % 2] for i, edge in enumerate(seen))))
    return tuple(sorted(found, key=lambda patch: -patch.area)) or (box,)


def _piece(left: set[int], columns: int) -> list[int]:
    """Take one piece out of the tiles that are left: tiles that touch, or have one between."""
    waiting, piece = [left.pop()], []
    while waiting:
        at = waiting.pop()
        piece.append(at)
        x = at % columns
        for down in range(-2, 3):
            for aside in range(max(-2, -x), min(3, columns - x)):
                near = at + down * columns + aside
                if near in left:
                    left.remove(near)
                    waiting.append(near)
    return piece
