"""Helpers for tests of programs with a `Lifecycle`: a clock to turn by hand, signals, every step.

clock = FakeClock()
lifecycle = Lifecycle(clock=clock, exit_with="nothing")
...
inject(lifecycle, signal.SIGTERM)
clock.turn_until(lifecycle.ended)       # 25 s of hanging hooks in some milliseconds

for step in every_step(["shop.py"]):    # SIGKILL at each step of its shutdown, one run a step
    assert recovers(step)
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from lastcall.errors import UsageError
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lastcall.app.events import Happening
    from lastcall.app.lifecycle import Lifecycle

_SETTLE_S = 0.005
_AGAIN_S = 0.0005
_RESTLESS_S = 5.0
_BUSY_S = 30.0
_ROUNDING_S = 1e-6
_READY = "ready"
_MOST_STEPS = 1000


class FakeClock:
    """Seconds that go up when a test says so; give it to `Lifecycle(clock=...)`.

    Args:
        now_s: where it begins, in seconds.
    """

    def __init__(self, now_s: float = 1000.0) -> None:
        self._now_s = now_s
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._alarms: dict[object, float] = {}
        self._waits_until_s = float("inf")
        self._settled = threading.Event()  # the coordinator has seen the last turn

    def __call__(self) -> float:
        """What it shows, in seconds."""
        return self._now_s

    def listen(self, listener: Callable[[], object]) -> None:
        """Have something called whenever it was turned on."""
        self._listeners.append(listener)

    def wait(self, until_s: float) -> float | None:
        """What the coordinator asks before it waits: not at all, or until somebody wakes it."""
        self._waits_until_s = until_s
        self._settled.set()
        return 0.0 if until_s <= self._now_s else None

    def sleep(self, seconds: float, given_up: threading.Event | None = None) -> bool:
        """Sleep by this clock, for hooks in tests.

        Args:
            seconds: how long.
            given_up: set it to be woken early (with the next turn of the clock); None: never.

        Returns:
            Whether it slept to the end.
        """
        until_s, key = self._now_s + seconds, object()
        with self._changed:
            self._alarms[key] = until_s
            while self._now_s < until_s and not (given_up is not None and given_up.is_set()):
                self._changed.wait(_SETTLE_S)
            del self._alarms[key]
        return self._now_s >= until_s

    def turn(self, seconds: float) -> None:
        """Turn it on.

        Args:
            seconds: by how much.
        """
        self._turn_to(self._now_s + seconds)

    def _turn_to(self, now_s: float) -> None:
        with self._changed:
            self._now_s = now_s
            self._settled.clear()
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def turn_until(self, happening: Happening, most_s: float = 3600.0) -> None:
        """Turn it on to the next moment that somebody waits for, until something has happened.

        Args:
            happening: such as `lifecycle.ended`.
            most_s: how far it may be turned in all, in seconds.

        Raises:
            TimeoutError: it has not happened by then, or nobody waits for anything any more.
        """
        end_s = self._now_s + most_s
        turned_s = time.monotonic()
        while not happening.wait(_SETTLE_S):
            # A thread that spins for ever must not stop the clock.
            at_rest = _at_rest() or time.monotonic() > turned_s + _RESTLESS_S
            moments = (*self._alarms.values(), self._waits_until_s)
            next_s = min((at_s for at_s in moments if at_s > self._now_s), default=end_s)
            if at_rest and self._settled.is_set() and next_s < end_s:
                self._turn_to(next_s + _ROUNDING_S)
                turned_s = time.monotonic()
            elif time.monotonic() > turned_s + _BUSY_S:
                raise TimeoutError(f"{happening.name!r} has not happened after {most_s:g} s")


def _at_rest() -> bool:
    """Whether all other threads wait: a hook at work must not lose its time to a busy machine.

    Two looks: in between, whoever waited only for the interpreter's lock goes on.
    """
    if _others_run():
        return False
    time.sleep(_AGAIN_S)
    return not _others_run()


def _others_run() -> bool:
    """Whether another thread runs, could run, or is at a disk; False where nothing tells.

    Source: proc_pid_stat(5), state.
    """
    me, tasks = str(threading.get_native_id()), "/proc/self/task"
    try:
        others = [one for one in os.listdir(tasks) if one != me]
    except OSError:
        return False
    for one in others:
        try:
            with open(f"{tasks}/{one}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state in {b"R", b"D"}:
            return True
    return False


def inject(lifecycle: Lifecycle, signum: int) -> None:
    """Let a lifecycle believe that a signal has come; the process gets none.

    Args:
        lifecycle: which.
        signum: such as `signal.SIGTERM`.

    Raises:
        UsageError: it does not listen to that signal.
    """
    house = lifecycle.house
    if signum not in house.signals.numbers:
        raise UsageError(f"signal {signum} means nothing to this lifecycle", "see signals=")
    house.start()
    house.coordinator.inbox.hear(signum)


@record
class Step:
    """A program that was ended at one step of its shutdown.

    Args:
        number: of the step, from 1.
        what: the step, such as `phase close` or `hook`; empty: the last run, which was left alone.
        status: the exit status, negative: the signal.
        output: what it printed, both streams.
    """

    number: int
    what: str
    status: int
    output: str


def every_step(
    argv: Sequence[str],
    *,
    signum: int = signal.SIGKILL,
    ask: int = signal.SIGTERM,
    ready: str = _READY,
    limit_s: float = 60.0,
) -> Iterator[Step]:
    """Run a Python program again and again, and end it one step further into its shutdown.

    Each run is asked to stop once it has printed a line with `ready` in it. The last run that is
    yielded was not ended: its `what` is empty.

    Args:
        argv: a script and its arguments, or `-m`, a module and its arguments.
        signum: what ends it at the step: SIGKILL, or SIGTERM to see what a second signal does.
        ask: what asks it to stop.
        ready: what the line has that says that it runs.
        limit_s: how long each run may take, in seconds.

    Raises:
        UsageError: it never said that it is ready, or has no steps.
        subprocess.TimeoutExpired: a run took too long; it is killed.
    """
    for number in itertools.count(1):
        step = _one(argv, number, signum, ask, ready, limit_s)
        yield step
        if not step.what:
            return
        if number >= _MOST_STEPS:
            raise UsageError(f"{argv[0]} has more than {_MOST_STEPS} steps")


def _one(
    argv: Sequence[str], number: int, signum: int, ask: int, ready: str, limit_s: float
) -> Step:
    command = [sys.executable, "-m", "lastcall.testing.step", str(number), str(signum), *argv]
    read, write = os.pipe()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(write,),
        env=os.environ | {"LASTCALL_STEP_FD": str(write), "PYTHONUNBUFFERED": "1"},
    )
    os.close(write)
    with os.fdopen(read) as told, child:
        try:
            begun = _until_ready(child, ready, limit_s)
            child.send_signal(ask)
            rest, _ = child.communicate(timeout=limit_s)
            what = told.read().strip()
        finally:
            child.kill()
    return Step(number, what, child.returncode, (begun + rest).decode("utf-8", "replace"))


def _until_ready(child: subprocess.Popen[bytes], ready: str, limit_s: float) -> bytes:
    assert child.stdout is not None  # noqa: S101 (a pipe was asked for)
    fd, text = child.stdout.fileno(), b""
    until_s = time.monotonic() + limit_s
    while ready.encode() not in text:
        left_s = until_s - time.monotonic()
        more = b""
        if left_s > 0 and select.select([fd], [], [], left_s)[0]:
            more = os.read(fd, 65536)
        if not more:
            said = tuple(text.decode("utf-8", "replace").splitlines()[-5:])
            advice = f"it has to print a line with {ready!r} in it once it runs"
            raise UsageError("the program never said that it is ready", advice, said)
        text += more
    return text
