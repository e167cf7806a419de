"""Room for many targets: each is held by an open file as long as it is watched."""

from __future__ import annotations

import resource

from lastcall.errors import LastcallError

# A pidfd for each target, and one more while it is a zombie whose parent takes its time.
_EACH = 2
# The journal, sockets, terminals, what looks at a process open meanwhile, and a family's members.
_SPARE = 64
# A guest's monitor beside its pidfd; and those that are opened, looked at and pictured at the same
# moment (`stop.turns.Crowd`) hold some more.
_GUEST = 1
_SPARE_GUESTS = 448

# What a whole tree or group may hold: how many that are is known only when they are looked for.
_FAMILY = 16_384


def make_room(targets: int, *, families: bool = False, guests: int = 0) -> None:
    """Let this process open as many files as it needs for so many targets.

    The usual soft limit of 1,024 is meant for programs that use select(2); we may raise it up to
    the hard one, which is what it is there for. See getrlimit(2).

    Args:
        targets: how many are named.
        families: whether each may bring others with it (`--tree`, `--group`).
        guests: how many of them are guests.

    Raises:
        LastcallError: the hard limit does not even allow one for each.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = _SPARE + min(guests * _EACH, _SPARE_GUESTS)
    wanted = targets * _EACH + guests * _GUEST + spare
    least = targets + guests * _GUEST + spare
    if families:
        wanted = max(wanted, _FAMILY)
    if _within(wanted, soft):
        return
    if not _within(least, hard):
        raise LastcallError(
            f"watching {targets:,} targets takes {least:,} open files, and this user"
            f" may have {hard:,}: nothing was asked to end",
            "name fewer at once, or raise the hard limit (ulimit -Hn, as root; LimitNOFILE= in a"
            " unit)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if _within(wanted, hard) else hard, hard))


def _within(files: int, limit: int) -> bool:
    return limit == resource.RLIM_INFINITY or files <= limit
