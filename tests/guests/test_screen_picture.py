"""Pictures of screens are read within limits, told apart and kept."""

from __future__ import annotations

import struct
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from guests import screen_art as art
from lastcall.errors import MissingExtra
from lastcall.targets.guest.machine import Fault
from lastcall.targets.guest.screen import picture
from lastcall.targets.guest.screen.picture import BadPicture, Box, Difference
from lastcall.targets.guest.words import SCREEN_LIMIT_BYTES

SIZES = [(640, 400), (720, 400), (1024, 768), (1920, 1080)]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A piece of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG by hand, as true or false as its parts."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("write", [art.as_ppm, art.as_png])
def test_a_screen_comes_back_as_it_was(size: tuple[int, int], write: type[object]) -> None:
    """Both formats give the very pixels, also once more from the file that is kept."""
    image = art.message("Working on updates", size)
    read = picture.read(write(image))  # type: ignore[arg-type,call-arg]
    assert (read.width, read.height) == size
    again = picture.read(read.png)
    assert picture.image_of(again).tobytes() == image.tobytes()


def test_a_kept_screen_is_small() -> None:
    """A hundred guests' screens can be kept in memory."""
    assert len(art.read(art.console("ready\n" * 20)).png) < 20_000


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(100), "neither"),
        (b"P5\n2 2\n255\n" + bytes(4), "neither"),
        (b"P6\n2 2\n65535\n" + bytes(24), "65535"),
        (b"P6\n0 2\n255\n", "0x2"),
        (b"P6\n2 2\n255\n" + bytes(11), "11 of 12"),
        (b"P6\n9000 1\n255\n" + bytes(27000), "9000x1"),
        (b"P6\n8192 8192\n255\n", "8192x8192"),
        (b"P6\n" + b"9" * 30 + b" 1\n255\n", "neither"),
        (b"P6\n#" + b"x" * 5000, "neither"),
        (png(0, 5, b""), "0x5"),
        (png(8192, 8192, b""), "8192x8192"),
        (png(2**31, 1, b""), "pixels"),
        (png(10, 10, b""), "damaged"),
        (png(1, 1, bytes(7), depth=16), "16 bits"),
        (png(2, 2, bytes(14))[:-5], "cut short"),
        (png(2, 2, bytes(14))[:40], "cut short"),
        (png(2, 2, bytes(14)).replace(b"IEND", b"IENX"), "cut short"),
        (png(2, 2, bytes(14), extra=chunk(b"tEXt", b"") * 30_000), "pieces"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), "header"),
        (png(2, 2, bytes(14), extra=chunk(b"IHDR", bytes(13))), "header"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(3)), "header"),
    ],
)
def test_what_is_no_screen_is_named(data: bytes, why: str) -> None:
    """A wrong file gives one clear error, and says what is wrong with it."""
    with pytest.raises(BadPicture, match=why) as caught:
        picture.read(data)
    assert caught.value.fault is Fault.BROKEN
    assert caught.value.advice


def test_a_wrong_checksum_is_damage() -> None:
    """One flipped bit in a PNG's pixels is found."""
    data = bytearray(png(2, 2, bytes(14)))
    data[45] ^= 1
    with pytest.raises(BadPicture, match="damaged"):
        picture.read(bytes(data))


def test_too_many_bytes_are_not_looked_at() -> None:
    """What is longer than the limit is refused by its length alone."""
    with pytest.raises(BadPicture, match="64 MiB"):
        picture.read(bytes(SCREEN_LIMIT_BYTES + 1))


def test_what_hides_in_a_png_is_dropped() -> None:
    """Compressed texts and profiles, each able to be a bomb, never reach a decoder."""
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(50_000_000)))
    read = picture.read(png(2, 2, bytes(14), extra=bomb + profile))
    assert len(read.png) < 200


def test_more_pixels_than_the_header_says_are_left() -> None:
    """A bomb of pixels fills the picture it promised and nothing more."""
    read = picture.read(png(4, 4, bytes(100_000_000)))
    assert (read.width, read.height) == (4, 4)


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"P6\n3 3\n255\n", b"P6 "])
)
def test_any_bytes_are_a_picture_or_a_bad_one(data: bytes, start: bytes) -> None:
    """Nothing but BadPicture comes out of it."""
    try:
        read = picture.read(start + data)
    except BadPicture:
        return
    assert read.width > 0


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow is missing, the error says how to get it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    for data in (b"P6\n1 1\n255\nabc", png(2, 2, bytes(14))):
        with pytest.raises(MissingExtra, match="Pillow") as caught:
            picture.read(data)
        assert "lastcall[qemu]" in caught.value.advice


def test_one_colour_is_blank() -> None:
    """A screen of one colour is blank; a single dot makes it none."""
    image = Image.new("RGB", (640, 400), (0, 0, 90))
    assert picture.blank(art.read(image))
    image.putpixel((3, 3), (0, 0, 91))
    assert not picture.blank(art.read(image))


def test_the_same_screen_is_still() -> None:
    """Two looks at the same screen differ in nothing, in whichever format they came."""
    image = art.desktop()
    for write in (art.as_ppm, art.as_png):
        difference = picture.changed(art.read(image), picture.read(write(image)))
        assert difference == Difference(0.0, None, (), 1280 * 800)
        assert not picture.moves(difference)
        assert str(difference) == "the screen is still"


def test_another_size_is_all_another() -> None:
    """A change of resolution is a change of everything."""
    difference = picture.changed(art.read(art.desktop()), art.read(art.desktop((800, 600))))
    assert difference.share == 1.0
    assert difference.box == Box(0, 0, 800, 600)
    assert picture.moves(difference)


def drawn(image: Image.Image, *boxes: tuple[int, int, int, int]) -> Difference:
    """The difference when something is drawn into these boxes."""
    after = image.copy()
    for box in boxes:
        ImageDraw.Draw(after).rectangle(box, fill=(90, 240, 90))
    return picture.changed(art.read(image), art.read(after))


@pytest.mark.parametrize("size", SIZES)
def test_a_cursor_does_not_move_the_screen(size: tuple[int, int]) -> None:
    """A blinking cursor, and a caret at the other end of the screen, are stillness."""
    image = Image.new("RGB", size, (0, 0, 0))
    cursor = (200, 160, 207, 175)
    difference = drawn(image, cursor)
    assert difference.box == Box(200, 160, 208, 176)
    assert difference.share == 128 / (size[0] * size[1])
    assert not picture.moves(difference)
    far = (size[0] - 9, size[1] - 14, size[0] - 8, size[1] - 1)
    assert not picture.moves(drawn(image, cursor, far))


def test_clocks_do_not_move_the_screen() -> None:
    """The clock in the corner, that of a lock screen, and a ring of dots are stillness."""
    before, after = art.desktop(), art.desktop()
    made = art.font_of(art.SANS, 12)
    ImageDraw.Draw(after).rectangle((1205, 764, 1279, 779), fill=(16, 16, 16))
    ImageDraw.Draw(after).text((1210, 766), "10:43 AM", fill=(255, 255, 255), font=made)
    assert not picture.moves(picture.changed(art.read(before), art.read(after)))
    first = art.message("10:59", (1920, 1080), letters=110)
    second = art.message("11:00", (1920, 1080), letters=110)
    difference = picture.changed(art.read(first), art.read(second))
    assert difference.share > 0
    assert not picture.moves(difference)


@pytest.mark.parametrize("width", [8, 9])
def test_a_line_of_text_moves_the_screen(width: int) -> None:
    """A new line on a console is real change, and so is scrolling by one."""
    lines = "\n".join(f"[  OK  ] Stopped unit number {n}." for n in range(20))
    before = art.console(lines, width=width)
    more = art.console(f"{lines}\n[  OK  ] Stopped target Timers.", width=width)
    assert picture.moves(picture.changed(art.read(before), art.read(more)))
    scrolled = art.console("\n".join(f"[  OK  ] Stopped unit number {n}." for n in range(1, 60)))
    whole = picture.changed(art.read(art.console(lines)), art.read(scrolled))
    assert picture.moves(whole)
    assert "of the screen changed" in str(whole)


def test_a_new_screen_moves() -> None:
    """From a desktop to an update's screen all is different."""
    after = art.message("Getting Windows ready", (1280, 800))
    difference = picture.changed(art.read(art.desktop()), art.read(after))
    assert picture.moves(difference)
    assert difference.patches == ()


def test_a_hardly_visible_change_is_none() -> None:
    """What no eye sees is no difference."""
    before = Image.new("RGB", (640, 400), (100, 100, 100))
    after = Image.new("RGB", (640, 400), (104, 100, 98))
    assert picture.changed(art.read(before), art.read(after)).box is None


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 299), st.integers(0, 299))),
)
def test_every_changed_dot_is_in_the_box(
    width: int, height: int, dots: list[tuple[int, int]]
) -> None:
    """The share and the box are those of the dots that changed, whatever the size."""
    before = Image.new("RGB", (width, height))
    after = before.copy()
    inside = {(x, y) for x, y in dots if x < width and y < height}
    for dot in inside:
        after.putpixel(dot, (0, 0, 255))
    difference = picture.changed(art.read(before), art.read(after))
    assert difference.share == len(inside) / (width * height)
    for x, y in inside:
        box = difference.box
        assert box is not None
        assert box.left <= x < box.right
        assert box.top <= y < box.bottom
        boxes = difference.patches
        assert not boxes or any(p.left <= x < p.right and p.top <= y < p.bottom for p in boxes)
