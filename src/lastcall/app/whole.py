"""What there is once for the whole process: its forks, and how it dies at last."""

from __future__ import annotations

import os
import sys
import threading
import weakref

from lastcall.app import leave
from lastcall.app.phases import State
from lastcall.app.voice import voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from lastcall.app.lifecycle import Lifecycle
    from lastcall.app.report import Report

_last: list[Report] = []
_registered = 0
_all: weakref.WeakSet[Lifecycle] = weakref.WeakSet()
_masks = threading.local()
_born_any = False
# For the coordinator to take a request, in seconds.
_TAKEN_S = 1.0


def born(lifecycle: Lifecycle) -> None:
    """Whatever the process does once for all its lifecycles."""
    global _born_any  # noqa: PLW0603 (the interpreter has one exit)
    if not _born_any:
        _born_any = True
        import atexit

        atexit.register(_wait_for_stops)  # early: what was registered later has its turn before
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
            )
    _all.add(lifecycle)


def _wait_for_stops() -> None:
    """The interpreter ends in the middle of a stop that nobody has waited for: then we do.

    So it is with a program that only installs its lifecycle, and leaves once it drains; and with
    `async with` on a loop that is stopped under it.
    """
    for each in tuple(_all):
        house = each.house
        if house.started and house.exit_code is not None:
            house.announced.wait(_TAKEN_S)  # `exit` asked a moment ago
        if house.state is not State.STOPPING or house.guest or hasattr(house.clock, "wait"):
            continue  # the last: a clock in a test, which nobody turns on any more
        house.main.back("the interpreter ends")
        house.ended.wait(house.coordinator.rest_s() + leave.MARGIN_S)
        report = each.report
        failed = getattr(sys, "last_value", None) is not None  # told, with Python's exit code 1
        if report is not None and report.exit_code is not None and not failed:
            util = sys.modules.get("multiprocessing.util")
            if util is not None:
                util._exit_function()  # noqa: SLF001 (atexit has not come to it, and will not now)
            leave.flush_all()
            house.leave_now(report)


def die_last(report: Report) -> None:
    """Die of the signal when all else that the program does at exit is done."""
    import atexit

    _last.append(report)
    atexit.register(_die_of_signal)
    global _registered  # noqa: PLW0603 (the interpreter has one exit)
    _registered = atexit._ncallbacks()  # noqa: SLF001 (see below)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _die_in_child, exitpriority=-1_000_000)


def _die_in_child() -> None:
    """A forked child of multiprocessing does not come to atexit before Python 3.13.

    Source: Lib/multiprocessing/popen_fork.py, _launch(); forkserver.py, main().
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 (who runs us is nowhere else to be seen)
    while frame is not None:
        module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
        forked = (module, name) in _FORKED and sys.version_info < (3, 13)
        if forked and _last and (signum := _last.pop().signum) is not None:
            leave.flush_all()
            leave.die_of(signum)
        frame = frame.f_back


_FORKED = (("multiprocessing.popen_fork", "_launch"), ("multiprocessing.forkserver", "_serve_one"))


def _die_of_signal() -> None:
    """Run by atexit before all that were registered earlier: those are run from here.

    Nothing can be registered to run last, unless it is registered first, before every import.
    """
    import atexit

    if not _last or _last[-1].signum is None:
        return
    if atexit._ncallbacks() != _registered:  # noqa: SLF001 (there is no other way to know)
        return  # there are later ones, which have had their turn: the exit code says 128 + n
    signum = _last.pop().signum
    assert signum is not None  # noqa: S101 (looked at above)
    atexit.unregister(_die_of_signal)
    atexit._run_exitfuncs()  # noqa: SLF001 (multiprocessing ends its children's lives with it, too)
    leave.flush_all()
    leave.die_of(signum)


def _before_fork() -> None:
    # A signal that reached the child before it is told apart would be written into our pipe.
    import signal

    made = [each.house for each in _all if each.house.started]
    ours = {n for house in made if house.signals.installed for n in house.signals.numbers}
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    for house in made:
        house.coordinator.backstop.before_fork()


def _after_fork() -> None:
    for each in _all:
        if each.house.started:
            each.house.coordinator.backstop.after_fork()
    _unmask()


def _unmask() -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _in_child() -> None:
    for each in _all:
        each.house.renew()
    _last.clear()
    voice.renew()
    _unmask()
