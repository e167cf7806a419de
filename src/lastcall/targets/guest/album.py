"""Pictures of guests' screens that findings name, kept beside the journal for as long."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

KEEP_S = 90 * 86400.0
KEEP_PICTURES = 1000
_NAME_CHARS = 64


def folder_in(state: str) -> str:
    """Where they are kept in a state folder."""
    return os.path.join(state, "screens")


@dataclass(slots=True)
class Page:
    """The place of one guest's picture in the course of one stop: the last one replaces the others.

    Args:
        folder: where pictures are kept; None: nowhere.
        name: of the guest.
    """

    folder: str | None
    name: str
    _path: str = ""

    def keep(self, png: bytes) -> str:
        """Write the picture, readable for its owner alone: its path; empty: it is not kept."""
        if self.folder is None:
            return ""
        if not self._path:
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.name)
            when = time.strftime("%Y%m%d-%H%M%S")
            name = f"{safe[-_NAME_CHARS:].lstrip('._')}-{when}-{os.getpid()}-{id(self):x}.png"
            self._path = os.path.join(self.folder, name)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._path, flags, 0o600), "wb") as file:
                file.write(png)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            return ""
        return self._path


def forget(folder: str, now_wall_s: float) -> None:
    """Remove the pictures that are older than a stop is kept, and all but the newest thousand."""
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            files = [each for each in entries if each.is_file(follow_symlinks=False)]
        pictures = [(e.stat().st_mtime, e.path) for e in files if e.name.endswith(".png")]
        pictures.sort(reverse=True)
        for index, (written_s, path) in enumerate(pictures):
            if index >= KEEP_PICTURES or written_s < now_wall_s - KEEP_S:
                os.unlink(path)
