"""A program that was started here, and all that came of it, until it is cleared away."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError
from lastcall.proc import keeper
from lastcall.proc.ending import Exit, status_in_words
from lastcall.proc.failed import CannotClear, CannotStart, KeeperLost, explain_failure
from lastcall.proc.notify import Notify
from lastcall.proc.order import check, inherited, packed
from lastcall.proc.output import Output, make_pipe

if TYPE_CHECKING:
    import subprocess
    from collections import deque
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = [
    "CannotClear",
    "CannotStart",
    "Exit",
    "KeeperLost",
    "Program",
    "inherited",
    "status_in_words",
]

_CLEAR_LIMIT_S = keeper.CLEAR_LIMIT_S + 3.0
_SWEEPS = 5
_SHOWN_LINES = 5
_TO_GROUP = 1 << 2
# Imported, not run as a file: that takes its compiled form, and saves 4 of 19 ms.
_KEEPER = (
    *("-I", "-S", "-B", "-c"),
    "import sys; sys.path.append(sys.argv[1]); import keeper; keeper.main()",
    os.path.dirname(keeper.__file__),
)


class Program:
    """A running command. Made by `Program.start`; leave it by `async with`, or call `clear`.

    Attributes:
        pid: of its main process, as seen from here.
        pidfd: of its main process; -1 once it is cleared.
        started_at: when it was started, on the clock of `time.monotonic`.
        ended: how its main process ended; None: it runs, or nobody saw it end.
        notify: what it tells by sd_notify; None: that was not asked for.
    """

    def __init__(self, child: subprocess.Popen[bytes], link: socket.socket, out: Output) -> None:
        self.pid: int = 0
        self.pidfd: int = -1
        self.started_at: float = 0.0
        self.ended: Exit | None = None
        self.notify: Notify | None = None
        self._child = child
        self._link = link
        self._output = out
        self._loop = asyncio.get_running_loop()
        self._inbox = b""
        self._start_ticks = ""
        self._failed: tuple[str, int] | None = None
        self._left: list[int] | None = None
        self._stuck: list[int] = []
        self._broken = ""
        self._closed = False
        self._begun, self._over, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        pid1: bool = False,
        notify: bool = False,
        on_line: Callable[[float, str], None] | None = None,
    ) -> Program:
        """Start a command in a session of its own, without input.

        Args:
            command: the program and its arguments; never a shell line.
            env: its environment; None means `inherited`.
            cwd: its working directory; None means ours.
            pid1: as PID 1 of a pid namespace of its own.
            notify: receive what it tells by sd_notify (`Program.notify`).
            on_line: called with each line it prints and its time (`time.monotonic`).

        Raises:
            CannotStart: there is no such program, it may not be executed, ...
        """
        if env is None:
            env = inherited()
        check(command, env, cwd)
        receiver = Notify.open() if notify else None
        if receiver is not None:
            env = {**env, "NOTIFY_SOCKET": receiver.path}
        try:
            made = cls._with_keeper()
        except BaseException:
            if receiver is not None:
                receiver.close()
            raise
        made.notify = receiver
        if on_line is not None:
            made.watch(on_line)
        await made._begin(command, env, cwd, pid1=pid1)  # noqa: SLF001 (our own)
        return made

    @classmethod
    def _with_keeper(cls) -> Program:
        import subprocess

        ours, theirs = socket.socketpair()
        reading, writing = make_pipe()
        try:
            # A session of its own: what kills our process group must not kill the keeper.
            child = subprocess.Popen(
                (sys.executable, *_KEEPER, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException as error:
            ours.close()
            os.close(reading)
            if isinstance(error, OSError):
                raise CannotStart(f"Python could not be started: {error}") from error
            raise
        finally:
            theirs.close()
            os.close(writing)
        ours.setblocking(False)
        return cls(child, ours, Output(reading))

    async def _begin(
        self, command: Sequence[str], env: Mapping[str, str], cwd: str | None, *, pid1: bool
    ) -> None:
        """Let the keeper start it; leave nothing behind when that fails."""
        try:
            self._loop.add_reader(self._link, self._hear)
            self._output.follow()
            litter = ""
            if self.notify is not None:
                litter = self.notify.path
                self.notify.follow(self._is_ours)
            order = packed(command, env, cwd or "", litter, pid1=pid1)
            with suppress(ConnectionError):  # the keeper broke off: `_hear` sees it, too
                await self._loop.sock_sendall(self._link, order)
            await self._begun.wait()
            if self._failed is not None:
                raise explain_failure(*self._failed, command[0], env, cwd)
            if not self.pid:
                raise CannotStart(
                    f"the helper that starts {command[0]!r} broke off",
                    f"check that {sys.executable} can be run",
                    tuple(text for _, text in list(self.lines)[-_SHOWN_LINES:]),
                )
        except BaseException:
            self._close()
            raise

    def _is_ours(self, pid: int) -> bool:
        """Whether a process belongs to this program; one that is gone already may have."""
        return keeper.descends(pid, self._child.pid) is not False

    def owns(self, pid: int) -> bool:
        """Whether a process came of this program; not known of one that is gone: no."""
        return not self._closed and keeper.descends(pid, self._child.pid) is True

    @property
    def lines(self) -> deque[tuple[float, str]]:
        """Its last lines on stdout and stderr, each with its time (`time.monotonic`)."""
        return self._output.lines

    def watch(self, watcher: Callable[[float, str], None]) -> Callable[[], None]:
        """Be told each further line with its time; returns what ends it."""
        return self._output.watch(watcher)

    def send(self, signum: int) -> None:
        """Send a signal to the main process.

        Raises:
            ProcessLookupError: it has ended.
            PermissionError: it belongs to another user by now.
        """
        if self.pidfd < 0:
            raise ProcessLookupError(f"pid {self.pid} has ended")
        signal.pidfd_send_signal(self.pidfd, signum)

    def send_group(self, signum: int) -> None:
        """Send a signal to the main process's group, as Ctrl+C at a terminal does.

        Source: pidfd_send_signal(2), PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9).

        Raises:
            ProcessLookupError: nobody is left in it.
        """
        if self.pidfd < 0:
            raise ProcessLookupError(f"pid {self.pid} has ended")
        try:
            signal.pidfd_send_signal(self.pidfd, signum, None, _TO_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # An older kernel. The group's number is its own while a member of it runs.
            if not any(keeper.group_of(pid) == self.pid for pid in self.left()):
                raise ProcessLookupError(f"nobody is left in group {self.pid}") from None
            os.killpg(self.pid, signum)

    async def wait(self) -> Exit:
        """Wait until the main process has ended.

        Raises:
            KeeperLost: nobody can tell any more.
        """
        await self._over.wait()
        if self.ended is None or self._broken:
            raise self._lost()
        return self.ended

    def left(self) -> list[int]:
        """The pids of all its processes that still run, the main process among them."""
        return [] if self._closed else keeper.living(self._child.pid)

    async def clear(self) -> list[int]:
        """Kill all that is left of it, and wait until that is gone. Harmless to repeat.

        Returns:
            The pids that were still there.

        Raises:
            CannotClear: something outlived SIGKILL.
            KeeperLost: the keeper was killed, so that a process may have escaped. What is
                known to belong to the program was killed.
        """
        if not self._closed:
            try:
                with suppress(OSError):
                    await self._loop.sock_sendall(self._link, b"clear\n")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CLEAR_LIMIT_S):
                        await self._gone.wait()
            finally:
                self._close()
        if self._stuck:
            raise CannotClear(self._stuck)
        if self._left is None:
            raise self._lost()
        return list(self._left)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.clear()
        except LastcallError:
            if error is None:
                raise
            # What went wrong first matters more.

    def _lost(self) -> KeeperLost:
        helper = f"the helper that keeps pid {self.pid} (pid {self._child.pid})"
        if self._broken:
            evidence = (self._broken,)
            return KeeperLost(f"{helper} broke; it killed the program", "report this", evidence)
        return KeeperLost(f"{helper} was killed", "look for processes that the command left behind")

    def _hear(self) -> None:
        """Take what the keeper says."""
        try:
            part = self._link.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            part = b""
        self._inbox += part
        *lines, self._inbox = self._inbox.split(b"\n")
        for line in lines:
            self._note(*line.decode().split())
        if not part:
            self._loop.remove_reader(self._link)
            if self._left is None:
                self._sweep()
            self._settle()

    def _note(self, word: str, *values: str) -> None:
        if word == "started":
            self.pid, self.started_at = int(values[0]), float(values[1])
            # The keeper does not reap it before we said `have`: its number is its own. Unless it
            # clears already, as we were cancelled in the middle of the start: then it may be gone.
            with suppress(ProcessLookupError, IndexError):
                self.pidfd = os.pidfd_open(self.pid)
                self._start_ticks = keeper.stat(self.pid)[19]
            with suppress(OSError):
                self._link.send(b"have\n")
            self._begun.set()
        elif word == "failed":
            self._failed = values[0], int(values[1])
        elif word == "ended":
            self._output.drain()  # its last words come before its end
            self.ended = Exit(int(values[0]), float(values[1]))
            self._over.set()
        elif word == "broken":
            self._broken = " ".join(values)
        elif word == "stuck":
            self._stuck = [int(value) for value in values]
        elif word == "cleared":
            self._left = [int(value) for value in values]
            self._settle()

    def _settle(self) -> None:
        """Nothing more will be heard: let nobody wait."""
        for event in (self._begun, self._over, self._gone):
            event.set()

    def _close(self) -> None:
        """Be done with it, without the event loop: when that is cancelled, this still holds."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._link)
        if not self._gone.is_set():
            self._clear_blocking()
        self._link.close()
        # All that it kept is gone; and it must not keep us, even if somebody stopped it.
        self._child.kill()
        self._child.wait()
        if self._left is None:
            self._sweep()
        self._settle()
        self._output.drain()
        self._output.close()
        if self.notify is not None:
            self.notify.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _clear_blocking(self) -> None:
        """The end of the stream is what the keeper clears at; hear what it says to that."""
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        while not self._gone.is_set() and poller.poll(_CLEAR_LIMIT_S * 1000):
            self._hear()

    def _sweep(self) -> None:
        """The keeper was killed: kill what is known to be the program's, its main session.

        A session's number stays its own while it has a member; only if all of them were gone
        could another process have it, and then the leader's start time differs.
        """
        if not self.pid:
            return
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        for _ in range(_SWEEPS):
            leader = keeper.stat(self.pid)
            if leader and leader[19] != self._start_ticks:
                return
            found = keeper.members(self.pid)
            if not found:
                return
            for pid in found:
                self._kill_member(pid)

    def _kill_member(self, pid: int) -> None:
        with suppress(OSError):
            fd = os.pidfd_open(pid)
            try:
                if os.getsid(pid) == self.pid:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)
