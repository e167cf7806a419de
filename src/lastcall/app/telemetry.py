"""Spans and metrics of a shutdown, for applications that have such a library anyway.

Nothing is imported here that the application has not imported itself: OpenTelemetry's API
(`opentelemetry.trace`) when the phase `flush` begins, `prometheus_client` when the lifecycle
starts.

Spans: `shutdown`, below it one for each phase, below those one for each hook. They are made when
the phase `flush` begins, with the times that were taken before; the application's own hooks of
that phase begin after that, so that one which shuts the provider down takes them along. What
`flush` itself did follows when its other hooks have ended, and the provider is asked to flush. So
`shutdown` ends where `flush` begins, if the application has hooks there.

Metrics, read from the lifecycle whenever somebody scrapes: `lastcall_state{state}`,
`lastcall_in_flight`, `lastcall_shutdown_seconds`, `lastcall_shutdown_phase_seconds{phase}`,
`lastcall_hook_seconds{phase,hook,outcome}`, `lastcall_extensions`. Not with
PROMETHEUS_MULTIPROC_DIR, which knows no collectors.

Source: OpenTelemetry specification, "Tracing API"; prometheus_client, "Custom Collectors".
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module

from lastcall.app.hooks import Hook, Outcome
from lastcall.app.leave import within
from lastcall.app.phases import State
from lastcall.app.voice import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from lastcall.app.hooks import HookRun
    from lastcall.app.house import House
    from lastcall.app.report import PhaseReport, Report

TRACE, PROMETHEUS = "opentelemetry.trace", "prometheus_client"
FIRST, LAST = "spans so far", "the last spans"
# Exporters wait for their collector much longer.
_FLUSH_S = 2.0
_NS = 1_000_000_000


class Spans:
    """The spans of one shutdown. Made when the phase `flush` begins.

    Args:
        house: whose.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._trace = sys.modules[TRACE]
        self._tracer: Any = self._trace.get_tracer("lastcall")
        self._changed = threading.Event()
        self._root: Any = None
        self._emitted = 0
        self._heed = lambda _what, _words: self._changed.set()
        house.listeners.append(self._heed)

    def around(self, hooks: Sequence[Hook], phase: str, *, reverse: bool) -> list[Hook]:
        """The hooks of the phase with ours before and after them.

        Args:
            hooks: the application's.
            phase: the name of `flush`.
            reverse: whether they run one by one, the last first.
        """
        own = bool(hooks)
        first = Hook(lambda: _harmless(lambda: self._first(own=own)), FIRST, phase, inner=True)
        # It waits for the others itself: one that hangs must not keep it from its turn.
        last = Hook(
            self._wait_and_end, LAST, phase, inner=True, depends_on=() if reverse else (FIRST,)
        )
        if reverse:
            return [last, *hooks, first]
        return [first, *(_after(hook, FIRST) for hook in hooks), last]

    def _first(self, *, own: bool) -> None:
        report = self._house.coordinator.report
        if report is None:
            return
        done = report.phases[:-1]
        end_s = report.phases[-1].began_s
        root = self._begin(report)
        for phase in done:
            self._phase(phase, phase.took_s)
        self._emitted = len(done)
        if own:
            self._describe(report)
            root.end(end_time=self._ns(report, end_s))

    def _wait_and_end(self, run: HookRun) -> None:
        _harmless(lambda: self._last(run))
        if self._heed in self._house.listeners:
            self._house.listeners.remove(self._heed)

    def _last(self, run: HookRun) -> None:
        # At the phase's limit it is woken with the others, and tells of them while they clean up.
        run.on_cancel.append(self._changed.set)
        self._export(run)
        while not run.cancelled.is_set() and not all(
            other.over for other in tuple(self._house.coordinator.runs) if not other.hook.inner
        ):
            self._changed.wait()
            self._changed.clear()
        report = self._house.coordinator.report
        if report is None or self._root is None:
            return
        for phase in report.phases[self._emitted :]:
            self._phase(phase, self._house.coordinator.since_s - phase.began_s)
        if self._root.is_recording():
            self._describe(report)
            self._root.end(end_time=self._ns(report, self._house.coordinator.since_s))
        self._export(run)

    def _export(self, run: HookRun) -> None:
        flush = getattr(self._trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            limit_s = min(_FLUSH_S, run.left_s or _FLUSH_S)
            within(limit_s, lambda: flush(int(limit_s * 1000)))

    def _begin(self, report: Report) -> Any:  # noqa: ANN401 (a library that may not be there)
        context = sys.modules["opentelemetry.context"].Context()
        said: dict[str, object] = {"lastcall.reason": report.reason}
        if self._house.name:
            said["lastcall.name"] = self._house.name
        if report.signum is not None:
            said["lastcall.signal"] = report.signum
        self._root = self._tracer.start_span(
            "shutdown", context=context, start_time=self._ns(report, 0.0), attributes=said
        )
        return self._root

    def _describe(self, report: Report) -> None:
        root, cut = self._root, report.cut
        if report.hurried:
            root.set_attribute("lastcall.hurried", report.hurried)
        if report.extensions:
            pleas = [f"{e['hook']}: {e['asked_s']} s: {e['reason']}" for e in report.extensions]
            root.set_attribute("lastcall.extensions", pleas)
        if cut:
            root.set_attribute("lastcall.cut_off", cut)
        if cut or report.failed:
            failed = [f"{run.name!r} failed" for run in report.failed]
            self._blame(root, ", ".join([*(f"cut off: {each}" for each in cut), *failed]))

    def _phase(self, phase: PhaseReport, took_s: float) -> None:
        report = self._house.coordinator.report
        assert report is not None  # noqa: S101 (it has phases)
        span = self._tracer.start_span(
            f"shutdown {phase.name}",
            context=self._trace.set_span_in_context(self._root),
            start_time=self._ns(report, phase.began_s),
            attributes={"lastcall.phase": phase.name},
        )
        if phase.cut:
            self._blame(span, "hooks were cut off")
        for run in phase.runs:
            if run.name not in {FIRST, LAST} and run.began_s is not None:
                self._hook(report, phase, run, span)
        span.end(end_time=self._ns(report, phase.began_s + took_s))

    def _hook(
        self,
        report: Report,
        phase: PhaseReport,
        run: HookRun,
        parent: Any,  # noqa: ANN401 (a library that may not be there)
    ) -> None:
        desk = self._house.coordinator
        began_s = (run.began_s or 0.0) - (desk.now_s() - desk.since_s)
        said: dict[str, object] = {
            "lastcall.phase": phase.name,
            "lastcall.hook": run.name,
            "lastcall.outcome": f"{run.outcome}",
        }
        if run.hook.where:
            said["lastcall.where"] = run.hook.where
        if run.stuck is not None and run.stuck.waiting_for:
            said["lastcall.waiting_for"] = run.stuck.waiting_for
        span = self._tracer.start_span(
            f"hook {run.name}",
            context=self._trace.set_span_in_context(parent),
            start_time=self._ns(report, began_s),
            attributes=said,
        )
        if run.outcome is not Outcome.DONE:
            self._blame(span, run.detail or f"{run.outcome}")
        span.end(end_time=self._ns(report, began_s + run.took_s))

    def _blame(self, span: Any, why: str) -> None:  # noqa: ANN401 (a library that may not be there)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))

    def _ns(self, report: Report, at_s: float) -> int:
        """A moment of the stop on the wall clock, in nanoseconds."""
        return int((report.began_at + at_s) * _NS)


def spans_around(house: House, hooks: Sequence[Hook], phase: str, *, reverse: bool) -> list[Hook]:
    """The hooks of `flush`, with ours among them if the application has OpenTelemetry.

    Args:
        house: whose shutdown it is.
        hooks: the application's.
        phase: the name of `flush`.
        reverse: whether they run one by one, the last first.
    """
    trace = sys.modules.get(TRACE)
    if not hasattr(trace, "set_span_in_context"):  # not there, or only half imported
        return list(hooks)
    return Spans(house).around(hooks, phase, reverse=reverse)


def _harmless(job: Callable[[], None]) -> None:
    """Do something that must not make the shutdown look worse than it is."""
    try:
        job()
    except Exception:  # noqa: BLE001 (somebody else's library)
        complain("spans of the shutdown are missing")


def _after(hook: Hook, name: str) -> Hook:
    """The same hook, waiting for one more."""
    more = hook.alone()
    more.depends_on = (*hook.depends_on, name)
    return more


class Metrics:
    """A collector for prometheus_client.

    Args:
        house: what is told of.
    """

    def __init__(self, house: House) -> None:
        self.house = house

    def describe(self) -> list[Any]:
        """Nothing: it is asked when it is scraped."""
        return []

    def collect(self) -> Iterator[Any]:
        """What the registry shows."""
        core = import_module(f"{PROMETHEUS}.core")
        gauge, house = core.GaugeMetricFamily, self.house
        state = gauge("lastcall_state", "How far the application has come.", labels=["state"])
        for each in State:
            state.add_metric([f"{each}"], float(each is house.state))
        yield state
        yield gauge("lastcall_in_flight", "Pieces of work in flight.", value=house.gate.count())
        report = house.coordinator.report
        if report is None:
            return
        took_s = report.took_s if report.ended else house.coordinator.since_s
        yield gauge("lastcall_shutdown_seconds", "How long the shutdown has taken.", value=took_s)
        phases = gauge(
            "lastcall_shutdown_phase_seconds", "How long each phase has taken.", labels=["phase"]
        )
        hooks = gauge(
            "lastcall_hook_seconds",
            "How long each hook has taken.",
            labels=["phase", "hook", "outcome"],
        )
        for at, phase in enumerate(tuple(report.phases), 1):
            on = at == len(report.phases) and not report.ended
            since_s = house.coordinator.since_s - phase.began_s
            phases.add_metric([phase.name], since_s if on else phase.took_s)
            for run in tuple(phase.runs):
                hooks.add_metric([phase.name, run.name, f"{run.outcome}"], run.took_s)
        yield phases
        yield hooks
        count = len(report.extensions)
        yield gauge("lastcall_extensions", "Times that hooks were given longer.", value=count)


_metrics: Metrics | None = None


def expose_metrics(house: House) -> bool:
    """Have the default registry show them, if the application has prometheus_client.

    A later lifecycle of the same process takes the place of the earlier.

    Args:
        house: what is told of.

    Returns:
        Whether it does.
    """
    global _metrics  # noqa: PLW0603 (as the registry is)
    library = sys.modules.get(PROMETHEUS)
    if (
        library is None
        or not hasattr(library, "REGISTRY")
        or os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    ):
        return False
    if _metrics is None:
        _metrics = Metrics(house)
        library.REGISTRY.register(_metrics)
    _metrics.house = house
    return True
