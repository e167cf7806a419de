"""Where the journal lives, and that nobody else can look into it."""

from __future__ import annotations

import contextlib
import errno
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

    A folder of other things is not ours to close: it stays as it is, and is refused when others
    may write to it. The journal's own files are private by their own mode.

    Raises:
        JournalError: it cannot be made, is no folder, belongs to somebody else, or is open to all.
    """
    if not os.path.isabs(folder):
        raise JournalError(
            f"no home folder is known for uid {os.geteuid()} to keep the journal in",
            "set HOME, or LASTCALL_STATE_DIR to a folder of your own",
        )
    try:
        make_private(folder)
        found = os.stat(folder)
        if found.st_uid not in {os.geteuid(), 0}:
            raise JournalError(
                f"the state folder {folder} belongs to uid {found.st_uid}",
                "set LASTCALL_STATE_DIR to a folder of your own",
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            inside = os.listdir(folder)
            if not inside or "journal.db" in inside:
                os.chmod(folder, 0o700)
            elif found.st_mode & 0o022:
                raise JournalError(
                    f"others may write to the state folder {folder}",
                    "set LASTCALL_STATE_DIR to a folder of your own",
                )
    except OSError as error:
        raise JournalError(
            f"the state folder {folder} cannot be used: {error.strerror}",
            "set LASTCALL_STATE_DIR to a folder that you may write",
        ) from error


def make_private(folder: str) -> None:
    """Make a folder, and those above it that are missing, for this user only, whatever the umask.

    Raises:
        OSError: it cannot be made, or something else is in its place.
    """
    above = os.path.dirname(folder)
    if above and not os.path.isdir(above):
        make_private(above)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None
        return
    os.chmod(folder, 0o700)


def create_private(path: str) -> None:
    """Make an empty file for this user only (0600), unless it is there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, 0o600)  # SQLite gives its -wal and -shm the same mode.
    finally:
        os.close(fd)


def check_regular(path: str) -> bool:
    """Whether the journal's file is there.

    Raises:
        JournalError: something else is: opening a FIFO would wait for ever, and SQLite keeps its
            -wal beside the target of a symbolic link.
        OSError: it cannot be looked at.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(found.st_mode):
        if found.st_uid == os.geteuid():
            _close_to_others(path, stat.S_IMODE(found.st_mode))
        return True
    what = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
    raise JournalError(f"{path} is {what}", "move it away, or set LASTCALL_STATE_DIR elsewhere")


def _close_to_others(path: str, mode: int) -> None:
    """It was copied back, say, and lies open: what it tells is nobody else's business.

    Its -wal and -shm get the mode it has now: made while it was read-only, they would stay so.
    """
    private = mode & 0o700
    if mode != private:
        os.chmod(path, private)
    for beside in (f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(beside)
            if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != private:
                os.chmod(beside, private)


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
}
