"""What a shutdown has besides its hooks: work in flight, the main code, threads, the exit."""

from __future__ import annotations

import sys
import threading

from lastcall.app import leave
from lastcall.app.coordinator import Coordinator
from lastcall.app.events import Happening
from lastcall.app.hooks import Hook, HookRun
from lastcall.app.phases import ANNOUNCE, DRAIN, WORK, State
from lastcall.app.registry import Registry
from lastcall.app.running import Crew
from lastcall.app.signals import Signals
from lastcall.app.voice import ERROR, INFO, WARNING, complain, voice
from lastcall.app.work import Gate
from lastcall.errors import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from lastcall.app.http.serving import Serving
    from lastcall.app.leave import Backstop
    from lastcall.app.phases import Plan
    from lastcall.app.previous import Previous, Record
    from lastcall.app.report import PhaseReport, Report
    from lastcall.app.stuck import Stuck
    from lastcall.app.work import Flight

    Listener = Callable[[str, Mapping[str, object]], object]

_SHELL_SIGNAL = 128
_LAST_WORDS_S = 0.2


class House:
    """All the parts of one application's end, as the coordinator sees them.

    Args:
        plan: the phases.
        numbers: the signals that ask for the end.
        clock: seconds that only go up.
    """

    def __init__(self, plan: Plan, numbers: Sequence[int], clock: Callable[[], float]) -> None:
        self.name = ""
        self.plan = plan
        self.ceiling_s: float | None = None
        self.vetoes = False
        self.exit_with = "signal"
        self.exit_code: int | None = None
        self.report_path = ""
        self.announced = Happening("announced")
        self.draining = Happening("draining")
        self.ended = Happening("ended")
        self.gate = Gate()
        self.crew = Crew()
        self.registry = Registry(plan)
        self.state = State.RUNNING
        self.loop: asyncio.AbstractEventLoop | None = None
        self.guest = False  # a server that knows nothing of us owns the main thread
        self.main = Main(self)
        self.threads: list[threading.Thread] = []  # daemons with a last word
        self.listeners: list[Listener] = []
        self.clock = clock
        self.coordinator = Coordinator(self, clock)
        self.signals = Signals(numbers, self.coordinator.inbox)
        self.started = False
        self.web = False  # a server drains: then the log speaks of requests
        self.shutdown = "graceful"  # or "immediate": servers are told at once
        self.serving: Serving | None = None  # of a server that knows nothing of us
        self._record: Record | None = None

    # -- life

    def start(self) -> None:
        """Make the threads; once."""
        if self.started:
            return
        self.started = True
        self.crew.start()
        self.coordinator.start()
        if self.name:
            self.record()

    def record(self) -> Record:
        """The record of this run; without a name there is an empty one."""
        if self._record is None:
            from lastcall.app.previous import Record

            self._record = Record.open(self.name)
            if self._record.warning:
                voice.say(WARNING, self._record.warning)
            self.gate.ledger = self._record if self.name else None
        return self._record

    @property
    def previous(self) -> Previous:
        """How the last run ended."""
        return self.record().previous

    def renew(self) -> None:
        """After a fork, in the child: hooks are kept; threads, signals and work are its parent's.

        The child ends as if it had no lifecycle, until it installs or enters it.
        """
        self.signals.forget_in_child()
        self.coordinator.inbox.close()
        for happening in (self.announced, self.draining, self.ended):
            happening.renew()
        self.gate.renew()
        self.registry.forget_inner()
        self.crew = Crew()
        self.main = Main(self)
        self.threads = []
        self.coordinator = Coordinator(self, self.clock)
        self.signals = Signals(self.signals.numbers, self.coordinator.inbox)
        self.state = State.RUNNING
        self.started = self.guest = self.web = False
        self.loop = self.serving = self._record = None

    def crashed(self, error: BaseException | None) -> None:
        """The main code has failed: the record says so, whatever the shutdown comes to."""
        if self._record is not None and isinstance(error, Exception):
            self._record.crashed(error)

    # -- what the coordinator asks for

    def hooks_of(self, phase: str) -> list[Hook]:
        """The hooks of a phase, with our own among them."""
        inner: dict[str, list[tuple[str, Callable[[HookRun], object]]]] = {
            ANNOUNCE: [("the delay", self._delay)] if self.plan.announce_s else [],
            DRAIN: [("work in flight", self._wait_flights)],
            WORK: [("the main code", self.main.wait), ("user threads", self._wait_threads)],
        }
        ours = [Hook(f, name, phase, inner=True) for name, f in inner.get(phase, [])]
        return [*ours, *self.registry.of(phase)]

    def flights(self) -> tuple[Flight, ...]:
        """The work in flight, the oldest first."""
        while True:
            try:
                return tuple(sorted(self.gate.flights, key=lambda flight: flight.since_s))
            except RuntimeError:  # it changed meanwhile
                continue

    def clock_wait(self, seconds: float) -> float | None:
        """How long to wait really for so many seconds of the clock; None: until woken."""
        return max(0.0, seconds)

    def arm(self, backstop: Backstop, after_s: float) -> None:
        """Make sure that the process has left by then, whatever hangs."""
        if self.exit_with != "nothing":
            backstop.arm(after_s, int(ExitCode.CUT_OFF))

    def begin_draining(self) -> None:
        """The point of no return: no new work."""
        self.gate.close()
        if self.web or self.gate.flights:
            voice.say(
                INFO,
                "Commencing graceful shutdown. Waiting for active requests to complete"
                if self.web
                else f"waiting for {len(self.gate.flights)} in flight to complete",
            )
        self.draining.set()

    def phase_over(self, name: str, report: PhaseReport) -> None:
        """A phase has ended."""
        whole = self.coordinator.report
        if name == DRAIN and whole is not None:
            whole.left = tuple((flight.name, flight.age_s) for flight in self.flights())
            if whole.left:
                said = ", ".join(f"{work!r} ({age_s:.1f} s)" for work, age_s in whole.left[:20])
                voice.say(ERROR, f"still active at the limit, and cut off: {said}")
            elif self.web:
                voice.say(INFO, "Graceful shutdown complete")
        cut = [run for run in report.runs if run.stuck is not None and not run.hook.inner]
        if not cut:
            return
        from lastcall.app.stuck import deadlocks, render

        for run in cut:
            assert run.stuck is not None  # noqa: S101 (chosen by that)
            where = f" (registered at {run.hook.where})" if run.hook.where else ""
            voice.say(
                ERROR,
                f"hook {run.name!r}{where} cut off in phase {name!r} after {run.took_s:.1f} s:\n"
                f"{render(run.stuck)}",
            )
        circles = deadlocks([run.stuck for run in cut if run.stuck is not None])
        for circle in circles:
            voice.say(ERROR, f"a deadlock: {circle}")
        if whole is not None:
            whole.deadlocks = (*whole.deadlocks, *circles)

    def explain(self, run: HookRun) -> Stuck | None:
        """Where a hook sits."""
        try:
            from lastcall.app import stuck

            name, names = f"hook {run.name!r}", self._names()
            if run.task is not None:
                return stuck.of_task(run.task, name=name, since_s=run.took_s, names=names)
            if run.thread is not None:
                return stuck.of_thread(run.thread, name=name, since_s=run.took_s, names=names)
        except Exception:  # noqa: BLE001 (an explanation that fails must not hold the stop)
            complain(f"cannot tell where hook {run.name!r} sits")
        return None

    def _names(self) -> dict[tuple[str, int], str]:
        """What the threads of running hooks are to be called."""
        return {
            ("thread", run.thread): f"hook {run.name!r}"
            for run in self.coordinator.runs
            if run.thread is not None and not run.over
        }

    def tell(self, what: str, **words: object) -> None:
        """Tell the listeners of a change."""
        if what == "stopping" and self._record is not None and self.coordinator.report is not None:
            self._record.stopping(self.coordinator.report.reason)
        for listener in tuple(self.listeners):
            try:
                listener(what, words)
            except Exception:  # noqa: BLE001 (one listener's fault must not hold the stop)
                complain(f"a listener failed: {listener!r}")

    def finish(self, report: Report) -> None:
        """All phases are over: say what came of it, and leave."""
        report.survivors = tuple(self._survivors())
        report.exit_code = self.code(report)
        self.state = State.ENDED
        level = INFO if report.clean else WARNING
        voice.say(level, f"{report}", report.as_data())
        if self._record is not None:
            self._record.ended(
                reason=report.reason,
                clean=report.clean,
                left=report.cut,
                exit_code=report.exit_code,
            )
        if self.report_path:
            from lastcall.app.files import write_private

            write_private(self.report_path, report.as_data())
        self.tell("ended")
        self.ended.set()
        if self.guest:
            self._let_server_end(report)
        elif not self.main.here.is_set() and self.exit_with != "nothing":
            self.main.gone = True
            leave.flush_all()
            self.leave_now(report)

    def _let_server_end(self, report: Report) -> None:
        """A server owns the main thread: its own handler ends the process."""
        if report.signum is not None and not self.signals.has_server(report.signum):
            leave.flush_all()
            self.leave_now(report)

    # -- leaving

    def code(self, report: Report) -> int | None:
        """What the process is to exit with; None: nobody decides that here."""
        if self.exit_with == "nothing":
            return None
        if report.cut and not report.hurried:
            return int(ExitCode.CUT_OFF)
        if self.exit_code is not None:
            return self.exit_code
        if report.signum is None:
            return 0 if self.main.gone else None
        if self.exit_with == "zero" and not report.hurried:
            return 0
        return _SHELL_SIGNAL + report.signum

    def by_signal(self, report: Report) -> bool:
        """Whether the process is to die of the signal that asked for its end."""
        if self.exit_with != "signal" or report.signum is None or self.exit_code is not None:
            return False
        return report.exit_code == _SHELL_SIGNAL + report.signum

    def leave_now(self, report: Report) -> None:
        """End this process from whatever thread; everything is flushed already."""
        if self._record is not None:
            self._record.close()
        if self.by_signal(report) and report.signum is not None:
            leave.die_of(report.signum)
        leave.halt(report.exit_code or 0)

    def leave_at_once(self, code: int, why: str = "") -> None:
        """End this process with nothing done."""
        report = self.coordinator.report
        if self._record is not None:
            cut = report.cut if report is not None else []
            reason = why or (report.reason if report is not None else f"halt({code})")
            self._record.ended(reason=reason, clean=False, left=cut, exit_code=code)
        voice.finish(_LAST_WORDS_S)
        leave.halt(code)

    # -- our own hooks

    def _delay(self, run: HookRun) -> None:
        """Go on taking work for a while, so that load balancers notice."""
        run.cancelled.wait(self.plan.announce_s)

    def _wait_flights(self, run: HookRun) -> None:
        run.on_cancel.append(self.gate.poke)
        self.gate.wait_empty(run.cancelled.is_set)

    def _wait_threads(self, run: HookRun) -> None:
        for thread in self._ours():
            while thread.is_alive() and not run.cancelled.is_set():
                thread.join(1.0)

    def _ours(self) -> list[threading.Thread]:
        """The threads of the application that it is to wait for."""
        executor = sys.modules.get("concurrent.futures.thread")
        # Those of an executor wait for work for ever; the interpreter itself ends them.
        pooled: Mapping[Any, Any] = getattr(executor, "_threads_queues", {})
        us = {threading.main_thread(), threading.current_thread()}
        return [
            thread
            for thread in threading.enumerate()
            if (not thread.daemon or thread in self.threads)
            and thread not in us
            and thread not in pooled
            and thread.ident not in self.crew.idents
        ]

    def _survivors(self) -> list[Stuck]:
        from lastcall.app import stuck

        found = [
            stuck.of_thread(thread.ident, name=f"thread {thread.name!r}")
            for thread in self._ours()
            if thread.is_alive() and thread.ident is not None
        ]
        main = threading.main_thread().ident
        if not self.main.here.is_set() and not self.guest and main is not None:
            found.append(stuck.of_thread(main, name="the main thread"))
        return found


class Main:
    """The main code: what runs inside the `with`.

    Args:
        house: whose.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self.inside = False
        self.here = threading.Event()  # it has come back to us
        self._over = threading.Event()  # it has, or nobody waits for it any more
        self.gone = False  # it did not come, and the process leaves without it
        self.task: asyncio.Task[Any] | None = None
        self.cancelled = False  # by us

    def enter(self) -> None:
        """The main code begins."""
        self.inside = True
        self.here.clear()
        self._over.clear()

    def back(self, reason: str) -> None:
        """It has come to its end."""
        self.here.set()
        self._over.set()
        if self._house.state is State.RUNNING:
            self._house.coordinator.inbox.put(lambda: self._house.coordinator.ask_once(reason))

    def wait(self, run: HookRun) -> None:
        """The hook in phase `work`: a coroutine is cancelled, anything else is waited for."""
        if not self.inside or self._house.guest:
            return
        task = self.task
        if task is not None and not self.here.is_set():
            self.cancelled = True
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:
                return  # its loop is closed, and it with it
        run.on_cancel.append(self._over.set)
        self._over.wait()
