"""How a drill stops its server: by signals, by a command, or by one that replaces it."""

from __future__ import annotations

import shlex
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError, NotPermitted, NotRunning, UsageError
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.proc import keeper
from lastcall.record import record
from lastcall.targets.process import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROLLING = "rolling:"


class To(StrEnum):
    """Who gets the signal."""

    MAIN = "main"
    GROUP = "group"
    TREE = "tree"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    To.MAIN: "the main process",
    To.GROUP: "the whole process group",
    To.TREE: "the whole process tree",
}


class CannotStop(LastcallError):
    """The command that was to stop the server could not be started."""

    code = "cannot-stop"


@record
class How:
    """How the server is stopped.

    Args:
        signum: the signal, when it is one.
        to: who gets it.
        again_s: seconds until it is sent a second time; None: once.
        command: what stops it instead of a signal.
        rolling: whether that command replaces the server, so that newcomers must not be refused.
    """

    signum: int = 15
    to: To = To.MAIN
    again_s: float | None = None
    command: tuple[str, ...] = ()
    rolling: bool = False

    @classmethod
    def parse(cls, text: str, to: To = To.MAIN, again_s: float | None = None) -> How:
        """Read `TERM`, `INT`, ... or `rolling:COMMAND`.

        Raises:
            UsageError: it is neither.
            BadPolicy: there is no such signal.
        """
        if not text.startswith(_ROLLING):
            return cls(signals.number(text), to, again_s)
        if again_s is not None:
            raise UsageError("a rolling replacement is not asked twice", "leave out --twice")
        return cls(command=split(text.removeprefix(_ROLLING)), rolling=True)

    def __str__(self) -> str:
        if self.command:
            words = shlex.join(self.command)
            return f"replaced by `{words}`" if self.rolling else f"stopped by `{words}`"
        twice = "" if self.again_s is None else f", again after {self.again_s:g} s"
        return f"{signals.name(self.signum)} to {self.to.words}{twice}"


def split(text: str) -> tuple[str, ...]:
    """The words of a command, as a shell would split them; no shell runs it.

    Raises:
        UsageError: there are none, or a quotation is not closed.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a command: {error}", "check its quotes") from error
    if not words:
        raise UsageError("the command that stops the server is empty", "such as 'kill -HUP {pid}'")
    return words


class Aim:
    """The processes that get the signals, each held by its pidfd: no other can be hit.

    Args:
        pid: the main process.
        to: who is meant.

    Raises:
        NotRunning: the main process is gone.
        NotPermitted: this user may not signal one of them; none was signalled.
    """

    def __init__(self, pid: int, to: To) -> None:
        self._handles: list[Handle] = []
        try:
            self._handles.append(Handle.open(pid))
            for other in _others(pid, to):
                handle = open_related(other, lambda each: _is_meant(each, pid, to))
                if handle is not None:
                    self._handles.append(handle)
            for handle in self._handles:
                refuse_foreign(handle)
        except BaseException:
            self.close()
            raise

    def send(self, signum: int) -> float:
        """Signal all of them, the main process first. Returns when, on the monotonic clock.

        Raises:
            NotPermitted: the main process belongs to another user by now; nobody was signalled.
        """
        at = monotonic()
        for handle in self._handles:
            try:
                handle.send(signum)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                # It was asked beforehand: only who changed his user since then comes here.
                if handle is self._handles[0]:
                    raise _foreign(handle) from error
        return at

    def close(self) -> None:
        """Let go of them."""
        for handle in self._handles:
            handle.close()


def _others(pid: int, to: To) -> list[int]:
    if to is To.TREE:
        return procfs.family(pid)[1:]
    if to is To.GROUP:
        table = procfs.every_stat()
        ours = procfs.ourselves()
        group = table[pid].pgrp if pid in table else None
        return [p for p, s in table.items() if s.pgrp == group and p != pid and p not in ours]
    return []


def _is_meant(pid: int, main: int, to: To) -> bool:
    if to is To.GROUP:
        return procfs.stat(pid).pgrp == procfs.stat(main).pgrp
    return keeper.descends(pid, main) is True


def open_related(pid: int, related: Callable[[int], bool]) -> Handle | None:
    """Open a process that was found in a list; None when it is gone.

    Between the list and the pidfd it may end, and its number go to a stranger. So it is asked once
    more with the pidfd open: as long as it is not reaped, its number is its own.

    Args:
        pid: what the list told.
        related: whether a process is one of those that were looked for.

    Raises:
        LastcallError: it may not be seen, or too many files are open.
    """
    try:
        handle = Handle.open(pid)
    except NotRunning:
        return None
    try:
        if related(pid) and not handle.reaped():
            return handle
    except (ProcessLookupError, PermissionError):
        pass
    except BaseException:
        handle.close()
        raise
    handle.close()
    return None


def refuse_foreign(handle: Handle) -> None:
    """Make sure that this user may signal a process, without signalling it.

    Raises:
        NotPermitted: he may not.
    """
    try:
        handle.send(0)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise _foreign(handle) from error


def _foreign(handle: Handle) -> NotPermitted:
    pid = handle.identity.pid
    return NotPermitted(
        f"this user may not signal pid {pid} ({procfs.label(pid, 48)}): nothing was stopped",
        "run the drill as its owner, or as root",
    )


def fill(words: tuple[str, ...], known: Mapping[str, object]) -> tuple[str, ...]:
    """The words of a command with `{pid}`, `{port}` and the like filled in."""
    filled = []
    for word in words:
        for name, value in known.items():
            word = word.replace(f"{{{name}}}", str(value))  # noqa: PLW2901 (filled step by step)
        filled.append(word)
    return tuple(filled)
