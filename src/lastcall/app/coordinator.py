"""The coordinator: one thread that takes the signals and leads the shutdown to its end.

It never waits for anything but its inbox: hooks run on other threads, log lines are said by another
one, and each thing it does has a deadline.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from time import monotonic

from lastcall.app.hooks import CANCEL_S, HookRun, Outcome
from lastcall.app.inbox import Inbox
from lastcall.app.leave import MARGIN_S, Backstop, code_for
from lastcall.app.phases import CLOSE, DRAIN, FLUSH, State, in_order
from lastcall.app.report import PhaseReport, Report
from lastcall.app.running import told
from lastcall.app.signals import name_of, same_s
from lastcall.app.voice import ERROR, INFO, WARNING, complain, voice
from lastcall.errors import BadPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.app.hooks import Hook
    from lastcall.app.house import House
    from lastcall.app.phases import Phase

# After a second signal, closing and flushing get so long each, and nothing else any time.
HURRY_S = 1.0
# After a fault of our own, before the next try.
_FAULT_S = 0.02
# Of what the later phases would have, extensions leave at least this share.
_LEAVE_SHARE = 0.5
_LONGEST_S = 1e9


class Coordinator:
    """Leads one process to its end.

    Args:
        house: whose end it is.
        clock: seconds that only go up.
    """

    def __init__(self, house: House, clock: Callable[[], float] = monotonic) -> None:
        self.inbox: Inbox = Inbox()
        self.report: Report | None = None
        self.phase: Phase | None = None
        self.runs: list[HookRun] = []
        self._house = house
        self._clock = clock
        self._thread: threading.Thread | None = None
        self.backstop: Backstop = Backstop()
        self._lock = threading.RLock()  # deadlines: hooks extend them from their own threads
        self._plan: list[tuple[Phase, float]] = []
        self._began_s = self._phase_s = 0.0
        self._deadline_s = self._total_s = self._ceiling_s = float("inf")
        self._shift_s = 0.0
        self._heard = False  # a signal, for this stop
        self._seen_s = float("-inf")
        self._overruled = False
        self._cut_s: dict[HookRun, float] = {}
        self._over = False
        if hasattr(clock, "listen"):  # a clock in a test: whoever turns it on wakes us
            clock.listen(self.inbox.poke)

    # -- the thread

    def start(self) -> None:
        """Begin to listen."""
        if self._thread is None:
            thread = threading.Thread(target=self._turn, name="lastcall", daemon=True)
            self._thread = thread
            thread.start()

    @property
    def ident(self) -> int | None:
        """Of its thread."""
        return None if self._thread is None else self._thread.ident

    def close(self) -> None:
        """End the thread."""
        self._over = True
        self.inbox.poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        self.backstop.disarm()
        self.inbox.close()

    def _turn(self) -> None:
        said = ""
        while not self._over:
            numbers, jobs = self.inbox.get(self._timeout_s())
            if self._over:
                return
            todo: list[Callable[[], object]] = [partial(self._signals, numbers), *jobs]
            for job in (*todo, self._advance):
                try:
                    job()
                except BaseException as error:  # noqa: BLE001 (a fault must not lose the stop)
                    if said != (said := told(error)):
                        voice.say(ERROR, f"a fault in lastcall itself: {said}")
                    time.sleep(_FAULT_S)  # it may come again and again, until the backstop

    def _signals(self, numbers: bytes) -> None:
        self._house.signals.forward(numbers)
        for number in numbers:
            ours = self._house.signals.was_passed_on(number)
            if number in self._house.signals.numbers and not ours:
                self._signal(number)

    def _timeout_s(self) -> float | None:
        if self._house.state is not State.STOPPING:
            return None
        with self._lock:
            moments = [
                self._cut_s.get(run, min(self._deadline_s, run.deadline_s))
                for run in self.runs
                if not run.over
            ]
        return self._house.wait_s(min(moments, default=self._deadline_s))

    # -- requests

    def _signal(self, number: int) -> None:
        now_s = self._clock()
        insists, signum = self._house.insists, number
        if insists is None:
            same = now_s - self._seen_s < same_s(number)
        else:
            same = self._house.state is not State.RUNNING and number not in insists
            signum = insists.get(number, number)
        self._seen_s = now_s
        if not same:
            self.ask(name_of(number), signum)

    def ask(self, reason: str, signum: int | None = None) -> None:
        """A request: the first begins the stop, a second signal means now, a third ends at once."""
        if self._house.state is State.RUNNING:
            self._heard = signum is not None
            self._begin(reason, signum)
        elif signum is None or self.report is None:
            return
        elif self.report.ended:
            self._house.signalled_late(self.report, reason)
        elif not self._heard:
            # The program wants to end, and now somebody else does: that is no impatience yet.
            self._heard = True
            voice.say(INFO, f"{reason}: stopping already ({self.report.reason})")
        elif not self.report.hurried:
            self._hurry(reason)
        else:
            self._at_once(reason, signum)

    def ask_once(self, reason: str) -> None:
        """The same for what may come while a stop is on: then it changes nothing."""
        if self._house.state is State.RUNNING:
            self.ask(reason)

    def _begin(self, reason: str, signum: int | None) -> None:
        house, now_s = self._house, self._clock()
        self._overruled = bool(self.report is not None and self.report.objections)
        self.report = Report(reason, signum, time.time())
        with self._lock:
            self._began_s, self._shift_s = now_s, 0.0
            self._plan = house.plan.deadlines()
            self._total_s = now_s + house.plan.grace_s
            self._ceiling_s = max(self._total_s, now_s + (house.ceiling_s or 0.0))
        self._arm()
        house.state = State.STOPPING
        house.announced.set()
        voice.say(INFO, f"{reason}: stopping (within {house.plan.grace_s:g} s)")
        house.tell("stopping")
        self._begin_phase(0)

    def _arm(self) -> None:
        left_s = max(0.0, self._total_s - self._clock()) + MARGIN_S
        self._house.arm(self.backstop, left_s)

    def _hurry(self, reason: str) -> None:
        assert self.report is not None  # noqa: S101 (asked twice)
        self.report.hurried = reason
        cut = [f"{f.name!r} ({f.age_s:.1f} s)" for f in self._house.flights()]
        cut += [f"hook {run.name!r}" for run in self.runs if not run.over and not run.hook.inner]
        cut += ["the main code"] if self._house.main.is_waited_for() else []
        voice.say(WARNING, f"{reason} again: now. Cut off: {', '.join(cut) or 'nothing'}")
        with self._lock:
            self._deadline_s = min(self._deadline_s, self._clock() + self._hurried_limit_s())
        self.report.left = self.report.left or self._house.left()
        self._house.main.cancel()  # so that its `finally` blocks run meanwhile
        self._house.tell("hurried")

    def _hurried_limit_s(self) -> float:
        return HURRY_S if self.phase is not None and self.phase.name in {CLOSE, FLUSH} else 0.0

    def _at_once(self, reason: str, signum: int) -> None:
        voice.say(ERROR, f"{reason} a third time: at once")
        self._house.leave_at_once(code_for(signum))

    # -- what hooks may ask for, from their own threads

    def extend(self, run: HookRun, more_s: float, reason: str) -> float:
        """See `HookRun.extend`."""
        more_s = min(max(0.0, more_s), _LONGEST_S)  # NaN is 0, too
        with self._lock:
            now_s = self._clock()
            if run.over or run.cancelled.is_set() or self.report is None or self.report.hurried:
                return max(0.0, self.left_s(run))
            later_s = self._total_s - self._deadline_s
            room_s = self._ceiling_s - later_s * _LEAVE_SHARE
            wanted_s = min(now_s + more_s, room_s)
            if wanted_s > self._deadline_s:
                moved_s = wanted_s - self._deadline_s
                self._deadline_s = wanted_s
                self._total_s = min(self._ceiling_s, self._total_s + moved_s)
                self._shift_s += moved_s
                self._arm()
            run.deadline_s = max(run.deadline_s, wanted_s)
            granted_s = max(0.0, wanted_s - now_s)
            self.report.extensions.append(
                {"hook": run.name, "asked_s": more_s, "granted_s": granted_s, "reason": reason}
            )
        voice.say(INFO, f"{run.name!r} needs {more_s:g} s more: {reason} (has {granted_s:.1f} s)")
        self.inbox.put(lambda: self._house.tell("extended", more_s=granted_s, reason=reason))
        return granted_s

    def veto(self, run: HookRun, reason: str) -> bool:
        """See `HookRun.veto`."""
        if self.report is None or run.over:
            return False
        early = self.phase is not None and not self._house.draining.is_set()
        heard = self._house.vetoes and early and not self._overruled and not self.report.hurried
        heard = heard and self._house.exit_code is None and not self._house.main.here.is_set()
        self.report.objections.append({"hook": run.name, "reason": reason, "heard": heard})
        if heard:
            self.inbox.put(lambda: self._call_off(run, reason))
        else:
            voice.say(WARNING, f"{run.name!r} objects, which changes nothing: {reason}")
        return heard

    def _call_off(self, run: HookRun, reason: str) -> None:
        house = self._house
        if house.state is not State.STOPPING or house.draining.is_set():
            return
        for each in self.runs:
            if not each.over:
                each.cancel()
        self.runs, self.phase = [], None
        self._cut_s.clear()
        self.backstop.disarm()
        house.state = State.RUNNING
        house.announced.clear()
        voice.say(
            WARNING, f"the stop is called off: {run.name!r} objects: {reason}. A second one counts"
        )
        house.tell("called-off", reason=reason)
        if house.main.here.is_set():
            self.ask("the main code returned")  # there is nothing left to go on with

    def now_s(self) -> float:
        """On our clock."""
        return self._clock()

    def left_s(self, run: HookRun) -> float:
        """See `HookRun.left_s`."""
        if run.cancelled.is_set():
            return 0.0
        with self._lock:
            return max(0.0, min(self._deadline_s, run.deadline_s) - self._clock())

    # -- phases

    def _begin_phase(self, index: int) -> None:
        house, report = self._house, self.report
        assert report is not None  # noqa: S101 (begun)
        if index >= len(self._plan):
            self._finish()
            return
        now_s = self._clock()
        self.phase, at_s = self._plan[index]
        with self._lock:
            self._phase_s = now_s
            self._deadline_s = min(self._began_s + at_s + self._shift_s, self._total_s)
            if report.hurried:
                self._deadline_s = min(self._deadline_s, now_s + self._hurried_limit_s())
        if self.phase.name == DRAIN:
            house.begin_draining()
        self.runs = [HookRun(hook, self) for hook in self._in_turn(self.phase)]
        report.phases.append(PhaseReport(self.phase.name, now_s - self._began_s, self.runs))
        house.tell("phase")

    def _in_turn(self, phase: Phase) -> list[Hook]:
        hooks = self._house.hooks_of(phase.name)
        if phase.reverse:
            hooks.reverse()
        try:
            order = in_order([h.name for h in hooks], {h.name: h.depends_on for h in hooks})
        except BadPolicy as error:
            voice.say(ERROR, f"phase {phase.name!r}: {error.what}; its hooks run side by side")
            return [hook.alone() for hook in hooks]
        by_name = {hook.name: hook for hook in hooks}
        return [by_name[name] for name in order]

    def join_phase(self, hook: Hook) -> None:
        """A hook that was registered while its phase is on."""
        if self.phase is None or self.phase.name != hook.phase:
            voice.say(ERROR, f"hook {hook.name!r} came too late: phase {hook.phase!r} is over")
            return
        unknown = set(hook.depends_on) - {run.name for run in self.runs}
        if unknown:
            said = ", ".join(sorted(unknown))
            voice.say(
                ERROR, f"hook {hook.name!r} depends on {said}: not in its phase; it runs alone"
            )
        self.runs.append(HookRun(hook.alone() if unknown else hook, self))

    def _advance(self) -> None:
        while self._house.state is State.STOPPING and self.phase is not None:
            now_s = self._clock()
            self._start_ready(now_s)
            for run in self.runs:
                if not run.over:
                    self._look_at(run, now_s)
            if not all(run.over for run in self.runs):
                return
            self._end_phase(now_s)

    def _start_ready(self, now_s: float) -> None:
        if now_s >= self._deadline_s:
            return
        over = {run.name for run in self.runs if run.over}
        for position, run in enumerate(self.runs):
            if run.outcome is not Outcome.WAITING:
                continue
            # Our own wait for the others' work: they run beside whatever there is.
            in_turn = run.hook.inner or not (self.phase and self.phase.reverse)
            in_turn = in_turn or all(earlier.over for earlier in self.runs[:position])
            if in_turn and over.issuperset(run.hook.depends_on):
                run.outcome, run.began_s = Outcome.RUNNING, now_s
                if run.hook.limit_s is not None:
                    run.deadline_s = now_s + run.hook.limit_s
                self._house.crew.start_hook(run, self._done, self._house.loop)

    def _look_at(self, run: HookRun, now_s: float) -> None:
        if run.outcome is Outcome.WAITING:
            if now_s >= self._deadline_s:
                self._ended(run, Outcome.CUT, "its turn never came")
        elif not run.cancelled.is_set():
            if now_s >= min(self._deadline_s, run.deadline_s):
                self._cut(run, now_s)
        elif now_s >= self._cut_s.get(run, 0.0):
            self._ended(run, Outcome.CUT, run.detail or "it does not end when cancelled")

    def _cut(self, run: HookRun, now_s: float) -> None:
        """Its time is over: look at where it sits, then cancel it."""
        run.stuck = self._house.explain(run)
        self._cut_s[run] = now_s + CANCEL_S
        run.cancel()

    def _done(self, run: HookRun, outcome: Outcome, detail: str) -> None:
        """Told by the thread of a hook."""
        self.inbox.put(lambda: self._ended(run, outcome, detail))

    def _ended(self, run: HookRun, outcome: Outcome, detail: str) -> None:
        if run.over:
            return  # it was abandoned before
        if run.cancelled.is_set() and outcome in {Outcome.DONE, Outcome.FAILED}:
            outcome, detail = Outcome.CUT, detail or "it ended once it was cancelled"
        run.outcome, run.detail, run.ended_s = outcome, detail, self._clock()
        self._cut_s.pop(run, None)
        if outcome in {Outcome.FAILED, Outcome.LOOP_GONE}:
            voice.say(ERROR, f"hook {run.name!r} ({run.hook.where}) failed: {detail}")
        self._house.tell("hook")

    def _end_phase(self, now_s: float) -> None:
        report, phase = self.report, self.phase
        assert report is not None  # noqa: S101 (begun)
        assert phase is not None  # noqa: S101 (in one)
        report.phases[-1].took_s = now_s - self._phase_s
        try:
            self._house.phase_over(phase.name, report.phases[-1])
        except Exception:  # noqa: BLE001 (what is told must not hold what is done)
            complain(f"what became of phase {phase.name!r} cannot be told")
        names = [each.name for each, _ in self._plan]
        self._begin_phase(names.index(phase.name) + 1)

    def _finish(self) -> None:
        report = self.report
        assert report is not None  # noqa: S101 (begun)
        self.phase = None
        report.took_s = self._clock() - self._began_s
        report.ended = True
        self._house.finish(report)

    def rest_s(self) -> float:
        """How much of the whole time is left, in seconds."""
        return max(0.0, self._total_s - self._clock())

    @property
    def since_s(self) -> float:
        """For how long the stop has been under way, in seconds."""
        return self._clock() - self._began_s

    @property
    def phase_left_s(self) -> float:
        """How much of the phase that is on is left, in seconds."""
        return max(0.0, self._deadline_s - self._clock())
