"""Reading the text on a picture of a screen, by the program `tesseract`.

Readers of print expect dark letters on white paper, some 30 pixels high. A screen is white on blue
and black on white at once, in letters of 8 to 20 pixels. So each pixel is compared with what is
around it: what differs from its background becomes ink, whatever the two colours are; and the
picture is enlarged.

The program is not Python's and eats a processor for seconds: two of them at most run at once, each
on one thread, and never beyond the caller's limit.

Source: tesseract(1), and its documentation, "Improving the quality of the output"; 5.3.0.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
import weakref
from typing import TYPE_CHECKING

from lastcall.kernel.run import printable, run_limited
from lastcall.record import record
from lastcall.targets.guest.apart import apart
from lastcall.targets.guest.screen.picture import image_of

if TYPE_CHECKING:
    from PIL import Image

    from lastcall.targets.guest.screen.picture import Picture

LIMIT_TEXT_BYTES = 64 * 1024
_LIMIT_TABLE_BYTES = 4 * 1024 * 1024  # the words with their places
_AT_ONCE = 2
_LIST_LIMIT_S = 3.0
_WANTED = ("eng", "kor")
_SURE = 25.0  # per cent; what is less is rubbish out of pictures and frames
_COLUMNS = 12  # of tesseract's table

_LETTERS_3X_HEIGHT = 500  # text modes: letters of 16 pixels
_TEXT_MODE_HEIGHTS = (350, 400)
_PLAIN_SHARE = 0.6
_INKED = 20  # of 255: less than a letter
_DENSE_LETTERS = 900  # half a console of 80 by 25
_LIMIT_SCALED_PIXELS = 9_000_000
_AROUND = 9  # in steps of four pixels
_FAINT = 24
# One block of text: a console's lines stay whole. Sparse text (11) tears them apart, an automatic
# layout (3) loses pieces of them; what stands side by side is parted here.
_LAYOUT = "6"
_GAP = 3.0  # between words, in heights of a line

_running: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
_running = weakref.WeakKeyDictionary()
_languages: dict[str, tuple[str, ...]] = {}


@record
class ScreenText:
    """What could be read on a screen.

    Args:
        text: the words, a line of the screen a line; empty when there are none.
        languages: in which languages it was looked for (tesseract's names); empty: not at all.
        confidence: how sure the reader is of its words, 0 to 1; None: there are none.
        detail: why it was not read; empty: it was.
    """

    text: str = ""
    languages: tuple[str, ...] = ()
    confidence: float | None = None
    detail: str = ""


async def text_of(picture: Picture, limit_s: float) -> ScreenText:
    """Read the text on a screen. What goes wrong stands in the result's `detail`.

    Args:
        picture: the screen.
        limit_s: for all of it, in seconds, waiting for other readers included.

    Raises:
        BadPicture: the picture's file is damaged.
        MissingExtra: Pillow is not installed.
    """
    program = shutil.which("tesseract")
    if program is None:
        return ScreenText(
            detail="its text was not read: the program tesseract is not installed "
            "(Debian: tesseract-ocr, and tesseract-ocr-kor for Korean)"
        )
    over_s = time.monotonic() + limit_s
    turn = _running.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    try:
        async with asyncio.timeout(limit_s):
            await turn.acquire()
    except TimeoutError:
        return ScreenText(detail=f"its text was not read: no turn within {limit_s:g} s")
    try:
        return await _read(program, picture, over_s, limit_s)
    except OSError as error:
        return ScreenText(detail=f"its text was not read: {printable(str(error))}")
    finally:
        turn.release()


async def _read(program: str, picture: Picture, over_s: float, limit_s: float) -> ScreenText:
    languages = await _installed(program)
    if not languages:
        return ScreenText(
            detail="its text was not read: tesseract has neither English nor Korean "
            "(Debian: tesseract-ocr-eng, tesseract-ocr-kor)"
        )
    # In a thread: a large screen takes a good part of a second.
    image, latin = await apart(prepared, picture)
    if latin:
        languages = languages[:1]  # each language costs as much again
    folder = tempfile.mkdtemp(prefix="lastcall-screen-")  # for nobody else (0700)
    try:
        path = _written(folder, image)
        argv = [program, path, "-", "-l", "+".join(languages), "--psm", _LAYOUT, "tsv"]
        left_s = max(0.0, over_s - time.monotonic())
        ran = await run_limited(argv, left_s, _LIMIT_TABLE_BYTES, _environment())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if ran.timed_out:
        why = f"its text was not read within {limit_s:g} s"
        return ScreenText(languages=languages, detail=why)
    if ran.returncode != 0 and not ran.cut:
        said = ran.stderr.decode(errors="replace").strip() or f"exit status {ran.returncode}"
        why = f"its text was not read: tesseract failed: {printable(said)}"
        return ScreenText(languages=languages, detail=why)
    text, confidence = words_of(ran.stdout.decode(errors="replace"))
    return ScreenText(text, languages, confidence)


def _latin(image: Image.Image, ink: Image.Image) -> bool:
    """Whether it can be told that no Hangul is worth looking for.

    A text mode with letters nine pixels wide has none; it is known by its size. And a console or a
    document full of text takes five seconds to read: no sign of ours stands on such a screen but a
    console's, in English.
    """
    if image.width % 9 == 0 and image.height in _TEXT_MODE_HEIGHTS:
        return True
    counts = image.convert("L").histogram()
    if max(counts) < _PLAIN_SHARE * sum(counts):
        return False  # a photograph behind it, where everything looks like letters
    letters = ink.reduce((8, 16)).histogram()
    return sum(letters[_INKED:]) > _DENSE_LETTERS


def _written(folder: str, image: bytes) -> str:
    path = os.path.join(folder, "screen.pgm")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(image)
    return path


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TESSDATA_PREFIX")}
    return {**kept, "OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"}


async def _installed(program: str) -> tuple[str, ...]:
    """Which of the languages we want it has; asked once."""
    if program not in _languages:
        ran = await run_limited([program, "--list-langs"], _LIST_LIMIT_S, 65536, _environment())
        said = (ran.stdout + b"\n" + ran.stderr).decode(errors="replace").split()
        found = tuple(language for language in _WANTED if language in said)
        if not found:
            return ()
        _languages[program] = found
    return _languages[program]


def prepared(picture: Picture) -> tuple[bytes, bool]:
    """The picture as the reader likes it, and whether to look for Latin letters alone.

    It is a PGM file: large black letters on white.
    """
    from PIL import Image, ImageChops, ImageFilter, ImageOps

    image = image_of(picture)
    small = (max(1, image.width // 4), max(1, image.height // 4))
    ground = image.resize(small, Image.Resampling.NEAREST).filter(ImageFilter.MedianFilter(_AROUND))
    ground = ground.resize(image.size, Image.Resampling.BILINEAR)
    red, green, blue = ImageChops.difference(image, ground).split()
    ink = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    ink = ink.point([0] * _FAINT + list(range(_FAINT, 256)))
    paper = ImageOps.invert(ImageOps.autocontrast(ink, cutoff=(0, 0.2)))
    size = _size(image)
    if size != image.size:
        paper = paper.resize(size, Image.Resampling.BICUBIC)
    return b"P5 %d %d 255\n" % paper.size + paper.tobytes(), _latin(image, ink)


def _size(image: Image.Image) -> tuple[int, int]:
    """How large the reader wants it."""
    times = 3.0 if image.height <= _LETTERS_3X_HEIGHT else 2.0
    pixels = image.width * image.height * times * times
    if pixels > _LIMIT_SCALED_PIXELS:
        times *= (_LIMIT_SCALED_PIXELS / pixels) ** 0.5
    return max(1, round(image.width * times)), max(1, round(image.height * times))


def words_of(table: str) -> tuple[str, float | None]:
    """The text in tesseract's table of words, and how sure it is of them (0 to 1, None: no words).

    What stands side by side in one row, with a wide gap between, becomes lines of its own: the
    words of two windows are no sentence.
    """
    lines: list[_Line] = []
    row: tuple[str, ...] = ()
    sure = []
    for cells in (line.split("\t", _COLUMNS - 1) for line in table.splitlines()[1:]):
        word = _word(cells)
        if word is None or word.confidence < _SURE:
            continue
        sure.append(min(word.confidence, 100.0))
        if tuple(cells[1:5]) != row or not lines[-1].goes_on(word):
            lines.append(_Line())
        row = tuple(cells[1:5])
        lines[-1].add(word)
    text = "\n".join(" ".join(line.words) for line in lines)
    text = text.encode(errors="replace")[:LIMIT_TEXT_BYTES].decode(errors="ignore")
    return text, round(sum(sure) / len(sure) / 100, 3) if sure else None


@record
class _Word:
    text: str
    left: int
    width: int
    height: int
    confidence: float


def _word(cells: list[str]) -> _Word | None:
    """A row of the table; None: it is of no word."""
    if len(cells) != _COLUMNS or cells[0] != "5" or not cells[-1].strip():
        return None
    try:
        left, _, width, height = (int(cell) for cell in cells[6:10])
        return _Word(cells[-1].strip(), left, width, height, float(cells[10]))
    except ValueError:
        return None


class _Line:
    """Words that belong together."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.right = 0
        self.height = 1

    def goes_on(self, word: _Word) -> bool:
        """Whether a word is near enough to the last one."""
        return word.left - self.right <= _GAP * max(self.height, word.height)

    def add(self, word: _Word) -> None:
        """Another word, to the right of the others."""
        self.words.append(word.text)
        self.right = word.left + word.width
        self.height = max(self.height, word.height)
