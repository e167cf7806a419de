"""Where the journal lives, and that nobody else can look into it."""

from __future__ import annotations

import os
import stat

from lastcall.errors import JournalError


def state_dir() -> str:
    """The folder of the journal: `LASTCALL_STATE_DIR`, else `/var/lib/lastcall` for root, else
    `$XDG_STATE_HOME/lastcall`.

    Source: XDG Base Directory Specification 0.8.
    """  # noqa: D205 (the three places belong together)
    if chosen := os.environ.get("LASTCALL_STATE_DIR"):
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/lastcall"
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, "lastcall")


def prepare(folder: str) -> None:
    """Make the folder, private (0700).

    Raises:
        JournalError: it cannot be made, is no folder, or belongs to somebody else.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
        if found.st_uid not in {os.geteuid(), 0}:
            raise JournalError(
                f"the state folder {folder} belongs to uid {found.st_uid}",
                "set LASTCALL_STATE_DIR to a folder of your own",
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise JournalError(
            f"the state folder {folder} cannot be used: {error.strerror}",
            "set LASTCALL_STATE_DIR to a folder that you may write",
        ) from error


def create_private(path: str) -> None:
    """Make an empty file for this user only (0600), unless it is there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
