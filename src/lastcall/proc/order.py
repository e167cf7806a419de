"""What is handed to the keeper: the command, and the environment that it gets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lastcall.proc.failed import CannotStart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a service manager told us was not meant for what we start.
# Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
_OURS_ALONE = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)


def inherited() -> dict[str, str]:
    """Our environment, without what our service manager told us and nobody else."""
    return {name: text for name, text in os.environ.items() if name not in _OURS_ALONE}


def check(command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
    """Make sure that a command can be handed over at all.

    Raises:
        CannotStart: it is empty, or contains what no command can.
    """
    if not command or not command[0]:
        raise CannotStart("there is no command to start", "name a program and its arguments")
    if any("\0" in text for text in (*command, *env, *env.values(), cwd or "")):
        raise CannotStart("the command, its environment or its directory contains a NUL character")
    for name in env:
        if not name or "=" in name:
            raise CannotStart(f"{name!r} cannot be the name of an environment variable")


def packed(
    command: Sequence[str], env: Mapping[str, str], folder: str, litter: str, *, pid1: bool
) -> bytes:
    """The order as the keeper reads it, see there.

    Args:
        command: the program and its arguments.
        env: its environment.
        folder: its working directory; empty: ours.
        litter: a socket to be removed at the end; empty: none.
        pid1: as PID 1 of a pid namespace of its own.
    """
    fields = ["pid1" if pid1 else "", folder, litter, str(len(command)), *command]
    fields += [f"{name}={value}" for name, value in env.items()]
    raw = b"".join(os.fsencode(field) + b"\0" for field in fields)
    return b"%d\n%b" % (len(raw), raw)
