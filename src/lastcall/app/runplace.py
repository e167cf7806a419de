"""Where run records are, and who holds them.

The lock is a POSIX record lock. flock and open file description locks are shared with children over
fork: one that outlives us would hold our record. This one is the process's alone and ends with it.
What is said against it, that closing any descriptor of the file loses it, is met twice: no file
that this process holds is opened again (`held`), and a record whose process lives is not taken.

Source: fcntl(2), "Advisory record locking" and "Open file description locks".
"""

from __future__ import annotations

import os
import stat
import sys

from lastcall.app.runfile import SIZE, SLOTS_AT, Page, read_pages
from lastcall.app.runmarks import unescaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lastcall.app.runmarks import Traces

INSTANCES = 512  # more of one name run unrecorded

# A store into a mapping must find its block ready: elsewhere (copy on write, network) a full disk
# would be a SIGBUS. Source: mmap(2), "ERRORS", SIGBUS; posix_fallocate(3).
IN_PLACE = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay"})

held: set[tuple[int, int]] = set()
"""(device, inode) of the records that this process holds: see above."""


class Unusable(Exception):
    """No record can be kept there: why, and what to do."""


# -- the place


def default_path(name: str) -> str:
    """Where the record of a name is kept, in a folder of our own.

    `LASTCALL_STATE_DIR`, else what systemd made for the service (`STATE_DIRECTORY`), else
    `/var/lib/lastcall` for root, else `$XDG_STATE_HOME/lastcall`.

    Source: XDG Base Directory Specification 0.8; systemd.exec(5), "StateDirectory=".
    """
    if chosen := os.environ.get("LASTCALL_STATE_DIR"):
        state = os.path.abspath(chosen)
    elif given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        state = os.path.join(given, "lastcall")
    elif os.geteuid() == 0:
        state = "/var/lib/lastcall"
    else:
        home = os.environ.get("XDG_STATE_HOME", "")
        if not os.path.isabs(home):
            home = os.path.expanduser("~/.local/state")
        state = os.path.join(home, "lastcall")
    if not os.path.isabs(state):
        raise Unusable("no home folder is known: set HOME, or LASTCALL_STATE_DIR")
    return os.path.join(state, "runs", file_name(name))


def file_name(name: str) -> str:
    """A name as the name of a file, that no instance of another name can have."""
    safe = [c if c.isascii() and (c.isalnum() or c in "-_.") else f"%{ord(c):x}" for c in name]
    words = "".join(safe)
    head, dot, tail = words.rpartition(".")
    if dot and (
        not head.strip(".") or tail.isdigit()
    ):  # .hidden, .., or like the second instance of another
        words = f"{head}%2e{tail}"
    if len(words) > 160:  # noqa: PLR2004 (file names end at 255 bytes)
        import zlib

        words = f"{words[:150]}%{zlib.crc32(words.encode()):08x}"
    return words


def instance_path(path: str, number: int) -> str:
    """Where the record of the first, second, ... instance is."""
    return path if number == 1 else f"{path}.{number}"


def make_private(folder: str) -> None:
    """Make a folder, and those above it that are missing, for this user only, whatever the umask.

    Raises:
        OSError: it cannot be made.
    """
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    if above and above != folder:
        make_private(above)
    try:
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise


def close_folder(folder: str) -> None:
    """See that others cannot look into the folder of records.

    Raises:
        Unusable: it belongs to somebody else.
        OSError: it cannot be looked at.
    """
    found = os.stat(folder)
    if found.st_uid != os.geteuid():
        whose = f"{folder} belongs to uid {found.st_uid}"
        raise Unusable(f"{whose}: set LASTCALL_STATE_DIR to a folder of your own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(folder, 0o700)


# -- opening and locking


def open_checked(path: str, flags: int) -> int:
    """Open a record that is a plain file of ours, never as descriptor 0, 1 or 2.

    Whoever started us with those closed would have `print` write into the record.

    Raises:
        Unusable: it is something else, or somebody else's.
        OSError: it cannot be opened.
    """
    import errno

    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unusable(f"{path} is a symbolic link: move it away") from None
        raise
    low = []
    while fd <= 2:  # noqa: PLR2004 (the standard streams)
        low.append(fd)
        fd = os.dup(fd)
    for other in low:
        os.close(other)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise Unusable(f"{path} is no plain file of one name: move it away")
        if found.st_uid != os.geteuid():
            raise Unusable(f"{path} belongs to uid {found.st_uid}: move it away")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def fill_standard() -> list[int]:
    """Take the descriptors 0, 1 and 2 where they are free; the caller closes these again."""
    taken: list[int] = []
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:  # noqa: PLR2004 (the standard streams)
            os.close(fd)
            return taken
        taken.append(fd)


def is_held(path: str) -> bool:
    """Whether this process itself holds the record there."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in held


def hold(fd: int, path: str) -> bool:
    """Lock an opened record for the life of the process; False when another holds it."""
    import fcntl

    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    mine = os.fstat(fd)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
        return False  # taken away between open and lock
    held.add((mine.st_dev, mine.st_ino))
    return True


def is_ours(fd: int) -> bool:
    """Whether a descriptor is a record that we hold: programs close all files, and open others."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in held


def let_go(fd: int) -> None:
    """Close a record, and with it its lock; not what has got its number since."""
    if is_ours(fd):
        found = os.fstat(fd)
        held.discard((found.st_dev, found.st_ino))
        os.close(fd)


def read_all(fd: int) -> bytes:
    """What stands in a record, and nothing far behind its end."""
    raw = b""
    while len(raw) < 2 * SIZE and (more := os.pread(fd, 2 * SIZE - len(raw), len(raw))):
        raw += more
    return raw


def reserve(fd: int, folder: str, *, new: bool) -> None:
    """Give a record all its blocks, so that no later write can want for room.

    Raises:
        OSError: the disk is full, or will not be written.
    """
    os.ftruncate(fd, min(os.fstat(fd).st_size, SIZE))
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, SIZE)
    write_all(fd, bytes(SIZE - SLOTS_AT), SLOTS_AT)
    if new:
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def write_all(fd: int, data: bytes, at: int) -> None:
    """Write all of it at that offset.

    Raises:
        OSError: it cannot be.
    """
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def may_map(path: str, mounts: str = "/proc/self/mountinfo") -> bool:
    """Whether a store into a mapping of the file is sure to find its block.

    Source: proc_pid_mountinfo(5).
    """
    if sys.platform != "linux":
        return True  # No list to look at: macOS keeps its blocks in place until a clone is made.
    best, kind = "", ""
    real = os.path.realpath(path)
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return False
    for line in lines:
        head, _, tail = line.partition(" - ")
        words, kinds = head.split(), tail.split()
        if len(words) > 4 and kinds:  # noqa: PLR2004 (the fifth is the mount point)
            point = unescaped(words[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, kinds[0]
    return kind in IN_PLACE


# -- choosing one


def choose(path: str, traces: Traces) -> tuple[int, str, bool]:
    """Open and lock a record: its descriptor, its path, and whether it is new.

    Raises:
        Unusable: something else is there, or there are too many.
        OSError: it cannot be opened or locked.
    """
    known = []
    number = 1
    while number <= INSTANCES:
        where = instance_path(path, number)
        if not os.path.lexists(where):
            break
        if not is_held(where):
            known.append((_rank(where), where))
        number += 1
    for _, where in sorted(known):
        try:
            fd = open_checked(where, os.O_RDWR)
        except FileNotFoundError:
            continue
        if _take(fd, where, traces):
            return fd, where, False
    while number <= INSTANCES:
        where = instance_path(path, number)
        number += 1
        try:
            fd = open_checked(where, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue  # another instance was faster
        if _take(fd, where, traces):
            return fd, where, True
    raise Unusable(f"{INSTANCES} instances have a record beside {path}: give this one another name")


def _take(fd: int, where: str, traces: Traces) -> bool:
    """Lock it; it is closed if that cannot be, or if its process lives all the same."""
    try:
        taken = hold(fd, where)
    except BaseException:
        os.close(fd)
        raise
    if not taken:
        os.close(fd)
        return False
    page, _ = read_pages(os.pread(fd, SLOTS_AT, 0))
    if page is None or _is_over(page, traces):
        return True
    let_go(fd)  # It lost its lock: something in it closed all descriptors.
    return False


def _is_over(page: Page, traces: Traces) -> bool:
    if page.fields.get("boot") != traces.boot_id or "end_at" in page.fields:
        return True
    pid, ticks = int(page.number_of("pid") or 0), page.fields.get("ticks")
    return not ticks or pid == os.getpid() or traces.start_ticks(pid) != ticks


def _rank(where: str) -> tuple[int, float]:
    """Which record to take over first: one that was not clean, then the latest, then odd ones."""
    try:
        fd = open_checked(where, os.O_RDONLY)
    except (OSError, Unusable):
        return 2, 0.0
    try:
        page, whole = read_pages(os.pread(fd, SLOTS_AT, 0))
    except OSError:
        return 2, 0.0
    finally:
        os.close(fd)
    if page is None:
        return 2, 0.0
    clean = whole and page.fields.get("state") == "ended" and page.fields.get("clean") == "1"
    return int(clean), -(page.number_of("wall") or 0.0)
