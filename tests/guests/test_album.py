"""Pictures of screens that are kept."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from lastcall.targets.guest.album import KEEP_PICTURES, KEEP_S, Page, folder_in, forget

if TYPE_CHECKING:
    from pathlib import Path


def test_a_picture_is_its_owners_alone_and_the_last_one_stays(tmp_path: Path) -> None:
    """One file a stop, 0600, in a folder of 0700."""
    page = Page(folder_in(str(tmp_path)), "/run/vm/../web.sock")
    path = page.keep(b"first")
    assert page.keep(b"second") == path
    assert (tmp_path / "screens").stat().st_mode & 0o777 == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    [only] = (tmp_path / "screens").iterdir()
    assert only.read_bytes() == b"second"
    assert only.name.startswith("run_vm_.._web.sock")


def test_two_guests_of_one_name_do_not_share_a_picture(tmp_path: Path) -> None:
    """Each stop has a file of its own."""
    pages = [Page(str(tmp_path), "web") for _ in range(2)]
    assert len({page.keep(b"x") for page in pages}) == 2


def test_what_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    """A full or odd folder costs the picture, not the stop."""
    (tmp_path / "file").touch()
    assert Page(str(tmp_path / "file"), "web").keep(b"x") == ""
    assert Page(None, "web").keep(b"x") == ""


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Somebody's link in its place is not written through."""
    page = Page(str(tmp_path), "web")
    path = page.keep(b"x")
    os.unlink(path)
    (tmp_path / "target").write_text("untouched")
    os.symlink(tmp_path / "target", path)
    assert page.keep(b"y") == ""
    assert (tmp_path / "target").read_text() == "untouched"


def test_old_pictures_are_forgotten(tmp_path: Path) -> None:
    """As old as a stop is kept, or more than a thousand; nothing but pictures."""
    now_s = 2e9
    for index in range(KEEP_PICTURES + 3):
        file = tmp_path / f"{index}.png"
        file.touch()
        os.utime(file, (now_s - index, now_s - index))
    for name in ("old.png", "old.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now_s - KEEP_S - 1, now_s - KEEP_S - 1))
    forget(str(tmp_path), now_s)
    left = {file.name for file in tmp_path.iterdir()}
    assert len(left) == KEEP_PICTURES + 1
    assert "old.txt" in left
    assert "0.png" in left
    assert "old.png" not in left
    forget(str(tmp_path / "absent"), now_s)
