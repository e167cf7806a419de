"""What can go wrong with a program: in words, and what to do about it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from lastcall.errors import ExitCode, LastcallError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEAR = 3


class CannotStart(LastcallError):
    """A command could not be started.

    Args:
        what: as in `LastcallError`.
        advice: as in `LastcallError`.
        evidence: as in `LastcallError`.
        number: the kernel's errno; 0 where there is none.
    """

    code = "cannot-start"
    exit_code = ExitCode.USAGE

    def __init__(
        self, what: str, advice: str = "", evidence: tuple[str, ...] = (), number: int = 0
    ) -> None:
        super().__init__(what, advice, evidence)
        self.number = number


class KeeperLost(LastcallError):
    """The keeper of a program was killed: what became of the program cannot be known any more."""

    code = "keeper-lost"


class CannotClear(LastcallError):
    """Some of a program's processes cannot be killed.

    Args:
        pids: which.
    """

    code = "cannot-clear"

    def __init__(self, pids: Sequence[int]) -> None:
        listed = ", ".join(str(pid) for pid in pids)
        super().__init__(
            f"these outlived SIGKILL: pid {listed}",
            "they belong to another user, or are stuck in the kernel: see ps -o pid,user,stat,cmd",
        )
        self.pids: tuple[int, ...] = tuple(pids)


def explain_failure(
    stage: str, number: int, name: str, env: Mapping[str, str], folder: str | None
) -> CannotStart:
    """The error for what the keeper told.

    Args:
        stage: what failed: `exec`, `folder`, `fork`, `unshare`, `uid_map`, `mount`, ...
        number: the kernel's errno.
        name: the first word of the command.
        env: the command's environment.
        folder: its working directory; None: ours.
    """
    said = f"{stage}: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
    if stage == "exec":
        return _not_executed(number, name, env, folder)
    if stage == "folder":
        what = f"its working directory {folder!r} cannot be entered: {os.strerror(number)}"
        return CannotStart(what, "name a directory that exists and may be entered", (said,), number)
    if stage in {"unshare", "uid_map", "mount"}:
        return CannotStart(
            "the kernel does not let this user make a pid namespace",
            "run it as root (in a container: with CAP_SYS_ADMIN), let users make namespaces "
            "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), "
            "or go without --pid1",
            (said,),
            number,
        )
    return CannotStart(f"{name!r} could not be started: {os.strerror(number)}", "", (said,), number)


def _not_executed(
    number: int, name: str, env: Mapping[str, str], folder: str | None
) -> CannotStart:
    path = env.get("PATH", os.defpath)
    evidence: tuple[str, ...] = (f"exec: {os.strerror(number)} ({errno.errorcode.get(number)})",)
    if "/" not in name:
        evidence += (f"looked in PATH: {path}",)
    place = os.path.join(folder or "", name)
    if number == errno.ENOENT:
        return _not_found(name, path, place, evidence)
    if number == errno.EACCES:
        what, advice = f"{name!r} may not be executed", f"if it is a program: chmod +x {name}"
        if os.path.isdir(place) and "/" in name:
            what, advice = f"{name!r} is a directory, not a program", "name the program in it"
        return CannotStart(what, advice, evidence, number)
    if number == errno.ENOEXEC:
        what = f"{name!r} is not a program that this machine can execute"
        advice = "a script needs a first line such as #!/bin/sh, or its interpreter before it"
        return CannotStart(what, advice, evidence, number)
    what = f"{name!r} could not be started: {os.strerror(number)}"
    return CannotStart(what, "", evidence, number)


def _not_found(name: str, path: str, place: str, evidence: tuple[str, ...]) -> CannotStart:
    if "/" in name and os.path.exists(place):
        what = f"the interpreter of {name!r} was not found"
        evidence += (f"its first line: {_first_line(place)}",)
        return CannotStart(what, "mend its first line", evidence, errno.ENOENT)
    what = f"the command {name!r} was not found"
    if "/" in name:
        return CannotStart(what, "check its path", evidence, errno.ENOENT)
    if os.path.isfile(place):
        return CannotStart(what, f"did you mean ./{name} ?", evidence, errno.ENOENT)
    near = _near(name, path)
    advice = "check its spelling, name its whole path, or install it"
    if near:
        advice = f"did you mean {' or '.join(near)} ?"
    return CannotStart(what, advice, evidence, errno.ENOENT)


def _near(name: str, path: str) -> list[str]:
    from contextlib import suppress
    from difflib import get_close_matches

    known: set[str] = set()
    for folder in path.split(":"):
        with suppress(OSError):
            known.update(os.listdir(folder or "."))
    return get_close_matches(name, sorted(known), _NEAR, 0.8)


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return repr(file.readline(120).decode(errors="replace").strip())
    except OSError as error:
        return str(error.strerror)
