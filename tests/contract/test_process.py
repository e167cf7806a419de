"""Processes keep the contract of targets."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from helpers import python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle, ProcessIdentity
from lastcall.model import Address
from lastcall.targets.process.ladder import Scope
from lastcall.targets.process.opening import open_process, reopen_process
from lastcall.testing.contract import Open, TargetContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers import Victim
    from lastcall.targets.base import Target

TERM = ((int(signal.SIGTERM), None),)


def opener(pid: int) -> Open:
    """Opens that process."""

    def opened() -> Target:
        return open_process(Address("pid", str(pid)), TERM)

    return opened


def reopener(identity: ProcessIdentity) -> Open:
    """Opens that process again, as a resume does."""

    def opened() -> Target:
        facts = {**identity.as_model().facts, "scope": Scope.ONE.value}
        address = Address("pid", str(identity.pid))
        return reopen_process(address, "", facts, (), [])

    return opened


def stopped(child: Victim) -> bool:
    """Whether SIGSTOP has taken hold of it."""
    return procfs.stat(child.pid).state == "T"


class TestProcess(TargetContract):
    """A real child in each condition; the test is its parent and leaves it a zombie."""

    @contextlib.contextmanager
    def answering(self) -> Iterator[Open]:
        """A handler that exits."""
        with victim(*python("sig_modes.py", "handler")) as child:
            yield opener(child.pid)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[Open]:
        """SIGTERM is ignored."""
        with victim(*python("sig_modes.py", "ignore")) as child:
            yield opener(child.pid)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[Open]:
        """A stopped process: SIGTERM waits for SIGCONT."""
        with victim(*python("sig_modes.py", "handler")) as child:
            child.child.send_signal(signal.SIGSTOP)
            wait_until(lambda: stopped(child), "the child to be stopped")
            yield opener(child.pid)

    @contextlib.contextmanager
    def dying(self) -> Iterator[tuple[Open, Callable[[], None]]]:
        """It ends on a signal that nobody is asked with."""
        program = (
            "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0));"
            "print('ready', flush=True); signal.pause()"
        )
        with victim(sys.executable, "-c", program) as child:
            handle = Handle.open(child.pid)

            def die() -> None:
                child.child.send_signal(signal.SIGUSR1)
                wait_until(handle.exited, "the child to end")

            try:
                yield opener(child.pid), die
            finally:
                handle.close()

    @contextlib.contextmanager
    def gone(self) -> Iterator[Open]:
        """It was reaped."""
        with victim("sh", "-c", "echo ready; exit 0") as child:
            child.wait()
            yield opener(child.pid)

    @contextlib.contextmanager
    def reused(self) -> Iterator[tuple[Open, Callable[[], bool]]]:
        """The same pid, started at another time: what a reused number looks like."""
        with victim(*python("sig_modes.py", "handler")) as child:
            handle = Handle.open(child.pid)
            now = handle.identity
            handle.close()
            earlier = ProcessIdentity(now.pid, now.start_ticks - 1, now.boot_id, now.inode)
            yield reopener(earlier), lambda: child.child.poll() is None
