"""Pidfiles: reading one without harm, and whether to believe it.

A pidfile is only a note that somebody wrote once. It outlives its process, and then its number may
belong to anybody; and who may write the file decides what root stops.

Source: open(2) (O_PATH, O_NOFOLLOW), start-stop-daemon(8) from dpkg 1.19.3 on (world-writable
pidfiles and those of other owners are refused), inode(7).
"""

from __future__ import annotations

import os
import stat
import time

from lastcall.errors import BadAddress, NotPermitted, NotRunning, Refused
from lastcall.kernel import procfs
from lastcall.kernel.identity import ProcessIdentity  # noqa: TC001 (at hand anyway)
from lastcall.record import record
from lastcall.targets.process.lookup.lead import read_pid

_LIMIT_BYTES = 4096
# How much later than the file's time a process may seem to have started and still be the one in
# it. Both times are rounded down to a tick of the kernel (10 ms at most) and read one after the
# other: 0.1 s covers that. Some file systems keep whole or even seconds only (vfat, old NFS): a
# time without a fraction gets 2 s. A pid that passes to another within that time was not merely
# reused: the first one did not live as long.
_TOLERANCE_S = 0.1
_COARSE_TOLERANCE_S = 2.1


@record
class Written:
    """What a pidfile says, and how it was found.

    Args:
        pid: its first line.
        path: where.
        owner: the uid of the file.
        age_s: how long ago it was written.
        coarse: its time has no fraction of a second.
        version: differs when it was written again.
    """

    pid: int
    path: str
    owner: int
    age_s: float
    coarse: bool
    version: tuple[int, int, int]


def read(path: str) -> Written:
    """Read a pidfile.

    Raises:
        NotRunning: there is no such file.
        BadAddress: it is no pidfile.
        Refused: anybody could have written it, or it is a symbolic link.
        NotPermitted: this user may not read it.
    """
    try:
        # O_PATH opens nothing yet: a FIFO does not wait, a device does not act. Then the very
        # thing that was looked at is opened, wherever the name leads by now.
        place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotRunning(
            f"there is no pidfile {path}", "it has ended, or writes its pidfile elsewhere"
        ) from None
    except PermissionError:
        raise NotPermitted(f"this user may not look at {path}", "ask as its owner") from None
    except OSError as error:
        raise BadAddress(f"{path} cannot be opened: {error.strerror}") from error
    try:
        _check_kind(path, os.fstat(place))
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise NotPermitted(f"this user may not read {path}", "ask as its owner") from None
    finally:
        os.close(place)
    try:
        seen = os.fstat(fd)
        raw = os.read(fd, _LIMIT_BYTES)
    finally:
        os.close(fd)
    return Written(
        pid=_first_line(path, raw),
        path=path,
        owner=seen.st_uid,
        age_s=time.time() - seen.st_mtime_ns / 1e9,
        coarse=seen.st_mtime_ns % 1_000_000_000 == 0,
        version=(seen.st_dev, seen.st_ino, seen.st_mtime_ns),
    )


def _check_kind(path: str, seen: os.stat_result) -> None:
    if stat.S_ISLNK(seen.st_mode):
        raise Refused(
            f"{path} is a symbolic link", f"name the file itself: pidfile:{os.path.realpath(path)}"
        )
    if not stat.S_ISREG(seen.st_mode):
        raise BadAddress(f"{path} is not a regular file", "a pidfile is a small text file")
    if seen.st_size > _LIMIT_BYTES:
        raise BadAddress(f"{path} has {seen.st_size} bytes: it is no pidfile")
    if seen.st_mode & stat.S_IWOTH:
        raise Refused(
            f"anybody may write to {path}, so anybody decides what it stops",
            f"chmod o-w {path}, after you looked whom it names; or stop that one by pid:",
        )


def _first_line(path: str, raw: bytes) -> int:
    line = raw.partition(b"\n")[0].decode("ascii", errors="replace").strip()
    pid = read_pid(line)
    if pid is not None:
        return pid
    if not raw.strip():
        raise BadAddress(f"{path} is empty", "its program may be just starting: try again")
    shown = line[:20] + ("…" if len(line) > 20 else "")  # noqa: PLR2004 (enough to recognise)
    raise BadAddress(f"{path} begins with {shown!r}, which is not the number of a process")


def believe(written: Written, identity: ProcessIdentity) -> bool:
    """Whether the file still says so and may mean this process.

    Args:
        written: as it was read before the process was held.
        identity: of the process that is held now.

    Returns:
        False when the file was written again meanwhile: then look anew.

    Raises:
        Refused: the process started after the file was written, or the file belongs to somebody
            who has nothing to do with it.
        LastcallError: as `read`.
    """
    if read(written.path).version != written.version:
        return False
    who = f"process {identity.pid} ({procfs.label(identity.pid, 48)})"
    # Ages, not times: the start counts on the clock since boot, the file on the wall clock, and
    # only "how long ago" means the same on both.
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    process_age_s = now_s - identity.start_ticks / procfs.TICKS_PER_S
    tolerance_s = _COARSE_TOLERANCE_S if written.coarse else _TOLERANCE_S
    later_s = written.age_s - process_age_s
    if later_s > tolerance_s:
        raise Refused(
            f"{written.path} is stale: {who} started {later_s:.1f} s after it was written",
            f"whoever wrote it is gone. If it is right all the same (was the clock set?): "
            f"lastcall stop pid:{identity.pid}",
            (f"file: written {written.age_s:.1f} s ago", f"process: runs {process_age_s:.1f} s"),
        )
    _check_owner(written, identity.pid, who)
    return True


def _check_owner(written: Written, pid: int, who: str) -> None:
    """As root, a file of a third user does not decide what is stopped."""
    if os.geteuid() != 0 or written.owner == 0:
        return
    try:
        runs_as = int(procfs.status(pid)["Uid"].split()[1])
    except (ProcessLookupError, PermissionError):
        return
    if written.owner != runs_as:
        raise Refused(
            f"{written.path} belongs to user {written.owner}, but {who} runs as user {runs_as}",
            "somebody else's file could make root stop anything: stop it by pid: if it is right",
        )
