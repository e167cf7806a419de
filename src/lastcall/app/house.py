"""What a shutdown has besides its hooks: work in flight, the main code, threads, the exit."""

from __future__ import annotations

import os
import sys

from lastcall.app import leave, threads
from lastcall.app.events import Happening
from lastcall.app.hooks import Hook, HookRun
from lastcall.app.main import Main
from lastcall.app.phases import ANNOUNCE, DRAIN, FLUSH, WORK, State
from lastcall.app.registry import Registry
from lastcall.app.voice import ERROR, INFO, WARNING, complain, voice
from lastcall.app.work import Gate
from lastcall.errors import ExitCode, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from lastcall.app.coordinator import Coordinator
    from lastcall.app.http.serving import Serving
    from lastcall.app.leave import Backstop
    from lastcall.app.phases import Plan
    from lastcall.app.previous import Previous, Record
    from lastcall.app.report import PhaseReport, Report
    from lastcall.app.running import Crew
    from lastcall.app.signals import Signals
    from lastcall.app.status import Status
    from lastcall.app.stuck import Stuck
    from lastcall.app.work import Flight

    Listener = Callable[[str, Mapping[str, object]], object]

# What the application may have imported, and we never do.
_TRACE, _METRICS = "opentelemetry.trace", "prometheus_client"
_LAST_WORDS_S = 0.2


class House:
    """All the parts of one application's end, as the coordinator sees them.

    Args:
        plan: the phases.
        numbers: the signals that ask for the end; None: the usual ones.
        clock: seconds that only go up.

    Attributes:
        crew: the threads of hooks. This and the next two are made when they are first asked for.
        coordinator: leads the shutdown.
        signals: takes them.
    """

    crew: Crew
    coordinator: Coordinator
    signals: Signals

    def __init__(
        self, plan: Plan, numbers: Sequence[int] | None, clock: Callable[[], float]
    ) -> None:
        self.name = ""
        self.plan = plan
        self.ceiling_s: float | None = None
        self.vetoes = False
        self.exit_with = "signal"
        self.exit_code: int | None = None
        self.report_path = ""
        self.announced: Happening = Happening("announced")
        self.draining: Happening = Happening("draining")
        self.ended: Happening = Happening("ended")
        self.gate: Gate = Gate()
        self.registry: Registry = Registry(plan)
        self.state: State = State.RUNNING
        self.loop: asyncio.AbstractEventLoop | None = None
        self.guest: bool = False  # a server that knows nothing of us owns the main thread
        self.main: Main = Main(self)
        self.threads: list[threading.Thread] = []  # daemons with a last word
        self.tasks: set[asyncio.Task[Any]] = set()  # cancelled in `work`
        self.exiting: set[int] = set()  # idents of threads that sit in `exit`
        self.leaves: bool = False  # it is over, and the process is to end
        self.listeners: list[Listener] = []
        self.clock = clock
        self._numbers = numbers
        self.started: bool = False
        self.web: bool = False  # a server drains: then the log speaks of requests
        # Of a worker: which signals mean "now" when they come again, and what each counts as when
        # it comes first. Others that come again are the same wish: parents repeat themselves.
        self.insists: Mapping[int, int] | None = None
        self.shutdown = "graceful"  # or "immediate": servers are told at once
        self.serving: Serving | None = None  # of a server that knows nothing of us
        self.status: Status | None = None  # tells whoever asks from outside
        self._record: Record | None = None

    # -- life

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """The parts that are made at first use: many a process never comes to its end here."""
            if name not in {"crew", "coordinator", "signals"}:
                raise AttributeError(name)
            self._hire()
            return self.__dict__[name]

    def _hire(self) -> None:
        """Make those parts. Another thread, or a signal handler, may be faster at any point."""
        from lastcall.app.coordinator import Coordinator
        from lastcall.app.running import Crew
        from lastcall.app.signals import Signals, default_signals

        parts, made = self.__dict__, Coordinator(self, self.clock)
        if parts.setdefault("coordinator", made) is not made:
            made.inbox.close()
        numbers = default_signals() if self._numbers is None else self._numbers
        parts.setdefault("signals", Signals(numbers, self.coordinator.inbox))
        parts.setdefault("crew", Crew())

    def start(self) -> None:
        """Make the threads; once."""
        if self.started:
            return
        self.started = True
        try:
            self.crew.start()
            self.coordinator.start()
        except (RuntimeError, OSError) as error:
            self.started = False
            raise Unsupported(
                f"a Lifecycle cannot run here: {error}",
                "make it in the main interpreter, before that ends, and where threads can be had",
            ) from error
        self._make_ready()
        if self.name:
            self.record()
        self._open_to_view()

    def _make_ready(self) -> None:
        """Load what the end needs, while there are files to be had and no import is stuck."""
        from lastcall.app import stuck

        stuck.prepare()
        leave.prepare()
        if self.report_path:
            import lastcall.app.files  # noqa: F401 (loaded for later)

    def _open_to_view(self) -> None:
        """Tell whoever asks from outside how far the end is."""
        from lastcall.app.notify import Notifier
        from lastcall.app.status import Status

        self.status = Status(self, Notifier.of(self, os.environ))
        self.status.open()
        if _METRICS in sys.modules:
            from lastcall.app.telemetry import expose_metrics

            expose_metrics(self)

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
        if self.status is not None:
            self.status.forget_in_child()
            self.status = None
        if "crew" in self.__dict__:
            self.signals.forget_in_child()
            self.coordinator.inbox.close()
            self._numbers = self.signals.numbers
        for name in ("coordinator", "signals", "crew"):
            self.__dict__.pop(name, None)
        for happening in (self.announced, self.draining, self.ended):
            happening.renew()
        self.gate.renew()
        self.registry.forget_inner()
        self.main = Main(self)
        self.threads = []
        self.state = State.RUNNING
        self.started = self.guest = self.web = self.leaves = False
        self.exit_code = None
        self.exiting, self.tasks = set(), set()
        self.loop = self.serving = self._record = None

    def revive(self) -> None:
        """It has ended and is to begin again, as applications do under a test client."""
        self.dismiss()
        self.renew()

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
            WORK: [
                ("the main code", self.main.wait),
                ("tasks", self._wait_tasks),
                ("user threads", self._wait_threads),
            ],
        }
        ours = [Hook(f, name, phase, inner=True) for name, f in inner.get(phase, [])]
        hooks = [*ours, *self.registry.of(phase)]
        if phase != FLUSH or _TRACE not in sys.modules:
            return hooks
        from lastcall.app.telemetry import spans_around

        return spans_around(self, hooks, phase, reverse=self.plan[phase].reverse)

    def flights(self) -> tuple[Flight, ...]:
        """The work in flight, the oldest first."""
        return tuple(self.gate.oldest())

    def wait_s(self, until_s: float) -> float | None:
        """How long to wait really for a moment of the clock, in seconds; None: until woken."""
        wait = getattr(self.clock, "wait", None)  # of a clock in a test
        return max(0.0, until_s - self.clock()) if wait is None else wait(until_s)

    def arm(self, backstop: Backstop, after_s: float) -> None:
        """Make sure that the process has left by then, whatever hangs."""
        if self.exit_with != "nothing":
            backstop.arm(after_s, int(ExitCode.CUT_OFF))

    def begin_draining(self) -> None:
        """The point of no return: no new work."""
        self.gate.close()
        try:
            count = self.gate.count()
            if self.web or count:
                voice.say(
                    INFO,
                    "Commencing graceful shutdown. Waiting for active requests to complete"
                    if self.web
                    else f"waiting for {count} in flight to complete",
                )
        finally:
            self.draining.set()

    def phase_over(self, name: str, report: PhaseReport) -> None:
        """A phase has ended."""
        whole = self.coordinator.report
        if name == DRAIN and whole is not None:
            # A server that was told at the limit has noted them, and may have ended them since.
            whole.left = whole.left or self.left()
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

    def left(self) -> tuple[tuple[str, float], ...]:
        """What is in flight: names, and ages in seconds."""
        return tuple((flight.name, flight.age_s) for flight in self.flights())

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
            except BaseException:  # noqa: BLE001 (one's fault, or sys.exit, must not hold the stop)
                complain(f"a listener failed: {listener!r}")

    def finish(self, report: Report) -> None:
        """All phases are over: say what came of it, and leave."""
        report.survivors = tuple(self.survivors())
        report.exit_code = self.code(report)
        self.state = State.ENDED
        if report.survivors:
            from lastcall.app.stuck import render

            for each in report.survivors:
                voice.say(ERROR, f"it would keep the process from ending: {render(each)}")
            voice.say(INFO, "let it end once lifecycle.draining is set, or make it a daemon thread")
        level = INFO if report.clean else WARNING
        voice.say(level, f"{report}", report.as_data())
        for job in (self._note_end, self._write_report):
            try:
                job(report)
            except Exception:  # noqa: BLE001 (a report that fails must not hold the end)
                complain("what became of the shutdown could not be written down")
        self.tell("ended")
        self.ended.set()
        if self.guest:
            self._let_server_end(report)
        elif not self.main.here.is_set() and self.exit_with != "nothing":
            self.main.gone = True
            leave.flush_all()
            self.leave_now(report)

    def _note_end(self, report: Report) -> None:
        if self._record is not None:
            self._record.ended(
                reason=report.reason,
                clean=report.clean,
                left=report.cut,
                exit_code=report.exit_code,
            )

    def _write_report(self, report: Report) -> None:
        if self.report_path:
            from lastcall.app.files import write_private

            wrong = write_private(self.report_path, report.as_data())
            if wrong:
                voice.say(WARNING, wrong)

    def signalled_late(self, report: Report, reason: str) -> None:
        """All is over, only the interpreter's own end takes its time: a signal cuts that off."""
        if self.leaves:
            voice.say(WARNING, f"{reason} again: now, without what the program does at exit")
            leave.flush_all()
            self.leave_now(report)

    def dismiss(self) -> None:
        """It is over and the program goes on: give the signals back, and let our threads go."""
        self.signals.restore()
        self.coordinator.close()
        self.crew.dismiss()

    def _let_server_end(self, report: Report) -> None:
        """A server owns the main thread: its own handler ends the process."""
        serving = self.serving
        unable = report.signum is not None and not self.signals.has_server(report.signum)
        # It would wait for what was cut off.
        busy = serving is not None and not serving.stopped and (report.hurried or report.left)
        if unable or busy:
            leave.flush_all()
            self.leave_now(report)
        elif serving is not None and serving.late:
            serving.tell()

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
        return leave.code_for(report.signum)

    def by_signal(self, report: Report) -> bool:
        """Whether the process is to die of the signal that asked for its end."""
        if self.exit_with != "signal" or report.signum is None or self.exit_code is not None:
            return False
        return report.exit_code == leave.code_for(report.signum)

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
        sleep = getattr(self.clock, "sleep", None)  # of a clock in a test
        if sleep is None:
            run.cancelled.wait(self.plan.announce_s)
        else:
            sleep(self.plan.announce_s, run.cancelled)

    def _wait_flights(self, run: HookRun) -> None:
        run.on_cancel.append(self.gate.poke)
        self.gate.wait_empty(run.cancelled.is_set)

    def broken_off(self, name: str, age_s: float) -> None:
        """Something that would have ended by itself had no time for it.

        Args:
            name: what it is.
            age_s: for how long it was waited for, in seconds.
        """
        report = self.coordinator.report
        if report is not None:
            report.left = (*report.left, (name, age_s))
        voice.say(ERROR, f"cancelled at its limit: {name} ({age_s:.1f} s)")

    def _wait_tasks(self, run: HookRun) -> None:
        if self.tasks:
            from lastcall.app.tasks import end_tasks

            for name in end_tasks(tuple(self.tasks), self.draining, run):
                self.broken_off(f"task {name}", run.took_s)

    def _wait_threads(self, run: HookRun) -> None:
        while not run.cancelled.is_set() and (waited := self._ours()):
            threads.wait_a_little(waited[0])

    def _ours(self) -> list[threading.Thread]:
        """The threads of the application that it is to wait for."""
        not_these = {*self.crew.idents, *self.exiting, self.main.thread, self.coordinator.ident}
        return threads.of_the_program(self.threads, not_these)

    def survivors(self) -> list[Stuck]:
        """The threads that keep it from ending, and what they do."""
        alive = [(each.ident, f"thread {each.name!r}") for each in self._ours()]
        if self.main.inside and not self.main.here.is_set():
            alive.append((self.main.thread, "the main thread"))
        if not alive:
            return []
        from lastcall.app import stuck

        return [stuck.of_thread(ident, name=name) for ident, name in alive if ident is not None]
