"""Screens drawn as guests draw them are read by the real tesseract, and named right."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageDraw

from guests import screen_art as art
from lastcall.targets.guest.screen import ocr, picture
from lastcall.targets.guest.screen.ocr import ScreenText, text_of, words_of
from lastcall.targets.guest.screen.phrases import Kind, signs

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0
UPDATE = "Working on updates\n35% complete\nDon't turn off your computer"
UPDATE_KO = "업데이트 작업 중 35% 완료\n컴퓨터를 끄지 마세요."
APP = (
    "Closing 1 app and shutting down\n\nNotepad\nThis app is preventing you from shutting down.\n\n"
    "Shut down anyway    Cancel"
)
REASON = (
    "What do you want the computer to do?\n\nShut down\n\nShutdown Event Tracker\n"
    "Select the option that best describes why you\nwant to shut down the computer\n\n"
    "Option: Other (Unplanned)\n\nComment:"
)
REASON_KO = "시스템 종료 이벤트 추적기\n\n이유를 선택하십시오\n\n기타(계획되지 않음)\n\n설명:"
LOG = "\n".join(f"[  OK  ] Stopped unit number {n} of the system." for n in range(23))


@pytest.fixture(autouse=True)
def reader() -> str:
    """Tests of reading need the reader: they fail with its package's name."""
    program = shutil.which("tesseract")
    assert program, "tesseract is missing (Debian: tesseract-ocr tesseract-ocr-kor)"
    return program


def read(image: Image.Image, limit_s: float = PATIENCE_S) -> ScreenText:
    """The text of a screen, once."""
    return asyncio.run(text_of(art.read(image), limit_s))


def kinds(image: Image.Image) -> set[Kind]:
    """What a screen is named."""
    text = read(image)
    assert text.detail == ""
    return {sign.kind for sign in signs(text.text)}


def dialog(title: str, text: str, font: str, size: tuple[int, int]) -> Image.Image:
    """A dialog in the middle of a desktop."""
    left, top = size[0] // 2 - 240, size[1] // 2 - 180
    box = (left, top, left + 480, top + 360)
    return art.window(art.desktop(size), title, text, box, font, buttons=("Help", "Cancel", "OK"))


NAMED: list[tuple[str, Callable[[], Image.Image], Kind]] = [
    ("text mode", lambda: art.console(f"\n\n  {UPDATE}"), Kind.UPDATING),
    ("640x400", lambda: art.console(APP, width=8), Kind.APP_BLOCKS),
    ("grey on black", lambda: art.message(UPDATE, ground=art.BLACK, ink=art.GREY), Kind.UPDATING),
    ("black on white", lambda: art.message(APP, ground=art.WHITE, ink=art.BLACK), Kind.APP_BLOCKS),
    ("800x600", lambda: art.message(UPDATE, (800, 600), letters=16), Kind.UPDATING),
    ("1920x1080", lambda: art.message(UPDATE, (1920, 1080), letters=28), Kind.UPDATING),
    ("Korean", lambda: art.message(UPDATE_KO, font=art.KOREAN, letters=22), Kind.UPDATING),
    (
        "Korean, serif",
        lambda: art.message(UPDATE_KO, (1280, 800), font=art.KOREAN_SERIF, letters=26),
        Kind.UPDATING,
    ),
    (
        "dialog",
        lambda: dialog("Shut Down Windows", REASON, art.SANS, (1280, 800)),
        Kind.REASON,
    ),
    ("dialog 800", lambda: dialog("Shut Down Windows", REASON, art.SANS, (800, 600)), Kind.REASON),
    (
        "Korean dialog",
        lambda: dialog("Windows 종료", REASON_KO, art.KOREAN, (1024, 768)),
        Kind.REASON,
    ),
    (
        "stop job",
        lambda: art.console(
            f"{LOG}\n[ ***  ] A stop job is running for Session 1 of User root (35s / 1min 30s)"
        ),
        Kind.STOP_JOB,
    ),
    (
        "logon",
        lambda: art.message("Press Ctrl+Alt+Delete to unlock.\n\n10:42\nThursday, March 5"),
        Kind.LOGON,
    ),
    ("prompt", lambda: art.console("Debian GNU/Linux 12 guest tty1\n\nguest login: "), Kind.LOGON),
    (
        "firmware",
        lambda: art.console(
            "SeaBIOS (version 1.16.2-debian-1.16.2-1)\n\nBooting from Hard Disk...\n"
            "Boot failed: not a bootable disk\n\nNo bootable device."
        ),
        Kind.FIRMWARE,
    ),
    (
        "display",
        lambda: art.console("Guest has not initialized the display (yet).", width=8),
        Kind.NO_DISPLAY,
    ),
]


@pytest.mark.parametrize(("draw", "kind"), [case[1:] for case in NAMED], ids=[c[0] for c in NAMED])
def test_a_drawn_screen_is_named(draw: Callable[[], Image.Image], kind: Kind) -> None:
    """In other fonts, sizes and colours than the rules know: the right name, and no other."""
    assert kinds(draw()) == {kind}


def editor() -> Image.Image:
    """A desktop with an editor that holds all the words."""
    text = "File   Edit   Format   View   Help\n\nWorking on updates\nDo not turn off your computer"
    text += "\nShutting down\nThis app is preventing you from shutting down.\nOther user"
    return art.window(art.desktop(), "notes.txt - Notepad", text, (200, 120, 900, 560))


def page() -> Image.Image:
    """A page about shutdowns."""
    text = (
        "https://example.com/shutdown\n\nHow to shut down a server\n\nShutdown Event Tracker\n\n"
        "When an administrator shuts a server down, Windows asks for the\nreason in a dialog of its"
        " own. While it installs updates it says: do not\nturn off your computer, and means it."
        " Group policy turns the dialog\noff. An app that is preventing shutdown is named there,"
        " too."
    )
    return art.window(art.desktop(), "How to shut down - Browser", text, (150, 60, 1000, 640))


NOT_NAMED: list[tuple[str, Callable[[], Image.Image]]] = [
    ("desktop", art.desktop),
    ("empty", lambda: Image.new("RGB", (1024, 768), (0, 0, 60))),
    ("editor", editor),
    ("page", page),
    (
        "logs",
        lambda: art.console(
            "Nov 22 10:52:01 host sshd[812]: Failed password for user login from ::1\n" * 10
            + "Nov 22 10:52:02 host app[7]: shutting down worker 3 of 10\nroot@host:~# "
        ),
    ),
    ("boot", lambda: art.console(LOG)),
]


@pytest.mark.parametrize("draw", [case[1] for case in NOT_NAMED], ids=[c[0] for c in NOT_NAMED])
def test_an_ordinary_screen_is_not_named(draw: Callable[[], Image.Image]) -> None:
    """A desktop, a document, a page and a log give no sign."""
    assert kinds(draw()) == set()


def test_the_words_of_a_stop_job_come_through() -> None:
    """The service that systemd waits for is readable on a real VGA font."""
    job = "[ ***  ] A stop job is running for Session 1 of User root (35s / 1min 30s)"
    (sign,) = signs(read(art.console(job)).text)
    assert sign.value == "Session 1 of User root"


def test_it_says_how_sure_it_is() -> None:
    """Clear letters are read with confidence; an empty screen has none."""
    text = read(art.message(UPDATE))
    assert text.confidence is not None
    assert text.confidence > 0.8
    assert "eng" in text.languages
    empty = read(Image.new("RGB", (640, 480)))
    assert (empty.text, empty.confidence, empty.detail) == ("", None, "")


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 8192), (8192, 1), (3000, 2500)])
def test_any_size_is_read(size: tuple[int, int]) -> None:
    """The smallest and the oddest screens give a text or a reason, not an error."""
    image = Image.new("RGB", size, (30, 30, 30))
    ImageDraw.Draw(image).line((0, 0, *size), fill=(250, 250, 250))
    text = read(image)
    assert isinstance(text.text, str)


def test_without_the_reader_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program is a reason in words, with the package's name."""
    monkeypatch.setenv("PATH", "/nonexistent")
    text = read(art.message(UPDATE))
    assert text.text == ""
    assert "tesseract-ocr" in text.detail


def fake(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the reader's name that does something else."""
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LISTS = 'if [ "$1" = --list-langs ]; then echo eng; exit 0; fi\n'


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's limit holds, and nothing of the reader is left."""
    pid = tmp_path / "pid"
    fake(tmp_path, f"{LISTS}echo $$ > {pid}\nexec sleep 600", monkeypatch)
    text = read(art.message(UPDATE), limit_s=2.0)
    assert "within 2 s" in text.detail
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_reader_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reader complains of is told on one line, without control characters."""
    fake(tmp_path, f"{LISTS}printf 'no\\033[1m data\\n' >&2; exit 1", monkeypatch)
    assert "tesseract failed: no?[1m data" in read(art.message(UPDATE)).detail


def test_a_reader_that_knows_no_language_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without English and Korean there is nothing to read with."""
    fake(tmp_path, "echo osd", monkeypatch)
    assert "tesseract-ocr-eng" in read(art.message(UPDATE)).detail


def test_a_reader_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output without end is cut at a limit, and the text at its own."""
    row = "5\\t1\\t1\\t1\\t1\\t1\\t0\\t0\\t9\\t9\\t90\\tword"
    fake(tmp_path, f"{LISTS}yes \"$(printf '{row}')\"", monkeypatch)
    text = read(art.message(UPDATE))
    assert len(text.text.encode()) <= ocr.LIMIT_TEXT_BYTES
    assert text.text.startswith("word word")


def test_the_picture_is_private_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read, the file is readable by its owner alone; afterwards it is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake(tmp_path, f'{LISTS}stat -c "%a" "$1" "$(dirname "$1")" > {tmp_path}/seen', monkeypatch)
    read(art.message(UPDATE))
    assert (tmp_path / "seen").read_text().split() == ["600", "700"]
    assert not list(tmp_path.glob("lastcall-screen-*"))


def test_a_cancelled_reading_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled in the middle, the reader and its file are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake(tmp_path, f"{LISTS}echo $$ > {tmp_path}/pid\nexec sleep 600", monkeypatch)

    async def scene() -> None:
        reading = asyncio.create_task(text_of(art.read(art.message(UPDATE)), PATIENCE_S))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110 (a fact outside)
            await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(scene())
    assert not list(tmp_path.glob("lastcall-screen-*"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_two_at_once_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many readings two run at a time; who gets no turn in time is told so."""
    folder = tmp_path / "runs"
    folder.mkdir()
    count = f"ls {folder} | wc -l >> {tmp_path}/counts"
    fake(
        tmp_path,
        f"{LISTS}touch {folder}/$$; {count}; sleep 0.2; rm {folder}/$$",
        monkeypatch,
    )

    async def scene() -> list[ScreenText]:
        shown = art.read(art.message("x", (64, 64)))
        many = [text_of(shown, PATIENCE_S) for _ in range(6)]
        late = text_of(shown, 0.0)
        return await asyncio.gather(*many, late)

    *done, late = asyncio.run(scene())
    assert all(text.detail == "" for text in done)
    assert "no turn within 0 s" in late.detail
    assert max(int(n) for n in (tmp_path / "counts").read_text().split()) <= 2


def test_the_loop_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large screen is prepared and read, other guests are served."""
    fake(tmp_path, f"{LISTS}exec sleep 0.5", monkeypatch)
    longest_s = 0.0

    async def scene() -> None:
        nonlocal longest_s
        reading = asyncio.create_task(text_of(shown, PATIENCE_S))
        while not reading.done():
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - before_s)

    shown = art.read(art.desktop((1920, 1080)))
    asyncio.run(scene())
    assert longest_s < 5.0


def test_a_table_of_nonsense_is_no_text() -> None:
    """Rows that are no words are left out, whatever is in them."""
    head = "level\tpage_num\n"
    assert words_of("") == ("", None)
    assert words_of(head + "5\t1\n5\t1\t1\t1\t1\t1\tx\t0\t1\t1\t90\tword\n") == ("", None)
    row = "5\t1\t1\t1\t1\t{0}\t{1}\t0\t20\t10\t{2}\t{3}\n"
    near = row.format(1, 0, 90, "one") + row.format(2, 25, 80, "two")
    assert words_of(head + near) == ("one two", 0.85)
    far = row.format(1, 0, 90, "one") + row.format(2, 100, 80, "two")
    assert words_of(head + far) == ("one\ntwo", 0.85)
    assert words_of(head + row.format(1, 0, 3, "dust")) == ("", None)


def test_the_reader_gets_black_on_white() -> None:
    """Whatever the two colours are, the reader gets much white and a little black."""
    for ground, ink in ((art.BLUE, art.WHITE), (art.WHITE, art.BLACK), (art.BLACK, (170, 0, 0))):
        shown = picture.read(art.as_png(art.message(UPDATE, ground=ground, ink=ink)))
        data, latin = ocr.prepared(shown)
        assert not latin
        pixels = data.split(b"255\n", 1)[1]
        assert pixels.count(b"\xff") > 0.8 * len(pixels)
        assert min(pixels) < 30


def test_korean_is_looked_for_where_it_may_be() -> None:
    """Not in a text mode or on a full console; on a dialog, a message and a desktop it is."""
    lines = "\n".join(
        f"[  OK  ] Stopped unit number {n} of a long list of them." for n in range(25)
    )
    for image in (art.console("ready"), art.console(lines, width=8)):
        assert ocr.prepared(art.read(image))[1]
    shown = dialog("Windows 종료", REASON_KO, art.KOREAN, (1024, 768))
    for image in (shown, art.desktop(), art.message(UPDATE_KO, font=art.KOREAN)):
        assert not ocr.prepared(art.read(image))[1]


def test_modes_of_files(tmp_path: Path) -> None:
    """The picture's file is made for its owner alone, and never over another."""
    path = Path(ocr._written(str(tmp_path), b"P5 1 1 255\n\0"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        ocr._written(str(tmp_path), b"")
