"""The one owner of the signals that end an application.

A signal reaches the coordinator's pipe in two ways, whichever is first: by the wakeup fd, at once,
even while the main thread sits in C code; or by our Python-level handler, if an event loop has
taken the wakeup fd. Servers that install handlers of their own after us are put in their place when
a loop or a server is attached; what they installed is called when the server is to end.

Source: Modules/signalmodule.c; asyncio/unix_events.py, add_signal_handler (it takes the wakeup fd,
and resets to the default handler when it is removed).
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

from lastcall.app.inbox import file_of
from lastcall.app.voice import WARNING, voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

    from lastcall.app.inbox import Inbox

# A second signal means "now". What comes sooner after the last is the same wish once more: a
# terminal and a parent that both pass Ctrl+C on, a supervisor that repeats itself.
_SAME_S: dict[int, float] = {signal.SIGINT: 0.3}
_SAME_OTHERS_S = 1.0


def same_s(signum: int) -> float:
    """How soon after the last signal this one is the same wish once more, in seconds."""
    return _SAME_S.get(signum, _SAME_OTHERS_S)


def default_signals() -> tuple[int, ...]:
    """Those that ask an application to end."""
    found = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGBREAK"):
        found.append(signal.SIGBREAK)
    return tuple(found)


def name_of(signum: int) -> str:
    """Such as `SIGTERM`."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


class Signals:
    """Handlers for some signals, and the wakeup fd.

    Args:
        numbers: which signals.
        inbox: where they go.
    """

    def __init__(self, numbers: Iterable[int], inbox: Inbox) -> None:
        self.numbers: tuple[int, ...] = tuple(numbers)
        self.ignored: tuple[int, ...] = ()
        self.installed: bool = False
        self._inbox = inbox
        self._renewals = 0
        self._before: dict[int, Any] = {}  # the handler that we replaced first
        self._servers: dict[int, Any] = {}  # the one of a server that came after us
        self._foreign_fd = -1
        self._foreign_is: tuple[int, int] | None = None  # which file it was: numbers are reused
        self._fd_before = -1
        self._blocked: set[int] = set()
        self._passing: int | None = None
        self._passed: int | None = None  # the same, as long as its byte is not read

    def install(self) -> bool:
        """Take the signals, or take them back from whoever took them since.

        Returns:
            Whether it could be done: only the main thread of the main interpreter may.
        """
        if not can_handle_signals():
            return False
        try:
            self._take()
        except ValueError:  # a subinterpreter: its main thread is not the one
            return False
        return True

    def _take(self) -> None:
        for number in self.numbers:
            found = signal.getsignal(number)
            if found == self._handle:
                continue
            if not self.installed:
                # nohup, or a shell's background job: whoever started us wants it ignored.
                if found is signal.SIG_IGN:
                    self.ignored = (*self.ignored, number)
                    continue
                self._before[number] = found
            elif number in self.ignored:
                continue
            self._servers[number] = found
            signal.signal(number, self._handle)
        previous = signal.set_wakeup_fd(self._inbox.wakeup_fd, warn_on_full_buffer=False)
        if previous != self._inbox.wakeup_fd:
            self._take_from(previous)
            if not self.installed:
                self._fd_before = previous
        if not self.installed:
            self._unblock()
        self.installed = True

    def _unblock(self) -> None:
        """A mask outlives exec: whoever started us may have left us deaf. Source: execve(2)."""
        if not hasattr(signal, "pthread_sigmask"):
            return
        wanted = set(self.numbers) - set(self.ignored)
        self._blocked = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        self._blocked &= wanted
        if self._blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._blocked)
            names = ", ".join(map(name_of, sorted(self._blocked)))
            voice.say(WARNING, f"{names}: was blocked by whoever started this program; taken now")

    def _take_from(self, fd: int) -> None:
        """Somebody else's wakeup fd: what is not ours goes on to them."""
        self._foreign_fd = fd
        self._foreign_is = file_of(fd)

    def restore(self) -> None:
        """Give back what was replaced, unless somebody has taken it since."""
        if not self.installed or not can_handle_signals():
            return
        self.installed = False
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                # None: it was installed from C, and Python cannot put it back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._blocked)
            self._blocked = set()
        current = signal.set_wakeup_fd(-1)
        if current == self._inbox.wakeup_fd:
            current = self._foreign_fd if self._foreign_is is not None else self._fd_before
            current = -1 if file_of(current) != self._foreign_is else current
        if current >= 0:
            with suppress(OSError, ValueError):  # its owner has closed it meanwhile
                signal.set_wakeup_fd(current)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread, between two bytecodes: it takes no lock and raises nothing."""
        passing = self._passing == number
        if passing:
            self._passing = None
        # The C part may have written into the old pipe, which had the same number.
        renewed, self._renewals = self._inbox.renewals != self._renewals, self._inbox.renewals
        try:
            previous = signal.set_wakeup_fd(self._inbox.wakeup_fd, warn_on_full_buffer=False)
        except (OSError, ValueError):  # the program has closed all files: the inbox takes new ones
            previous = None
        if passing:
            if previous != self._inbox.wakeup_fd:
                self._passed = None  # its byte went there
                if previous is not None:
                    with suppress(OSError, ValueError):
                        signal.set_wakeup_fd(previous)
            self._pass(number, frame)
        # Whoever owns the wakeup fd has been told by the C part already.
        elif renewed or previous != self._inbox.wakeup_fd:
            if previous is not None and previous != self._inbox.wakeup_fd:
                self._take_from(previous)
            self._inbox.hear(number)

    def forward(self, numbers: bytes) -> None:
        """Tell the loop that had the wakeup fd before us of signals that are not ours."""
        others = bytes(number for number in numbers if number not in self.numbers)
        if others:
            self._tell_loop(others)

    def _tell_loop(self, numbers: bytes) -> None:
        # Closed meanwhile, and its number is another file's? That must not get our bytes.
        if self._foreign_fd >= 0 and file_of(self._foreign_fd) == self._foreign_is:
            with suppress(OSError):
                os.write(self._foreign_fd, numbers)

    def has_server(self, number: int) -> bool:
        """Whether somebody else's handler waits for this signal."""
        handler = self._servers.get(number)
        return handler not in {None, signal.SIG_DFL, signal.SIG_IGN}

    def pass_on(self, number: int) -> bool:
        """Let the server's own handler have the signal now, in the main thread.

        Returns:
            Whether there is such a handler.
        """
        if not self.has_server(number):
            return False
        self._passing = self._passed = number
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, number)
        else:
            signal.raise_signal(number)
        return True

    def was_passed_on(self, number: int) -> bool:
        """Whether a signal that has reached the wakeup fd is the one that we sent ourselves."""
        if self._passed != number:
            return False
        self._passed = None
        return True

    def pass_on_any(self) -> bool:
        """The same, where no signal asked for the end: the first that a server waits for."""
        return any(self.pass_on(number) for number in self.numbers[:1])

    def _pass(self, number: int, frame: FrameType | None) -> None:
        handler: Callable[[int, FrameType | None], object] = self._servers[number]
        self._tell_loop(bytes([number]))  # a loop's handler is behind its wakeup fd
        handler(number, frame)

    def forget_in_child(self) -> None:
        """After a fork: the child has its parent's handlers and pipe, and is to have neither."""
        if not self.installed:
            return
        self.installed = False
        for number in self._before:
            if signal.getsignal(number) == self._handle:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        # Also a loop's: it is its parent's, and asyncio does not want it in the child either.
        signal.set_wakeup_fd(-1)


def can_handle_signals() -> bool:
    """Whether this is the main thread: only there signals can be taken."""
    return threading.current_thread() is threading.main_thread()
