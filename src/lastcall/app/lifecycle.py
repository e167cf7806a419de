"""`Lifecycle`: makes a program end well, and explains itself when it cannot.

    from lastcall import Lifecycle

    lifecycle = Lifecycle("shop")

    @lifecycle.on("close")
    def close_pool():
        pool.close()

    with lifecycle:
        for order in lifecycle.until_draining(orders):
            with lifecycle.work(f"order {order}"):
                ...

It works alike in threads and under asyncio (`async with`), in a script, a server and a worker, and
as PID 1.
"""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic

from lastcall.app import leave, settings, whole
from lastcall.app.house import House
from lastcall.app.phases import Phase, Plan, State, positive
from lastcall.app.voice import WARNING, voice
from lastcall.app.work import _inside
from lastcall.errors import BadPolicy, Draining, TooLate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from types import TracebackType
    from typing import Any, ClassVar, Literal, NoReturn, Self, TypeVar
    from wsgiref.types import WSGIApplication

    from lastcall.app.events import Happening
    from lastcall.app.hooks import Hook
    from lastcall.app.house import Listener
    from lastcall.app.http.asgi import App, Middleware
    from lastcall.app.http.wsgi import Middleware as WSGIMiddleware
    from lastcall.app.previous import Previous
    from lastcall.app.report import Report
    from lastcall.app.work import Flight

    F = TypeVar("F", bound=Callable[..., Any])
    T = TypeVar("T")

_REASON_CHARS = 400


class Lifecycle:
    """The life of one process, and its end.

    What the program leaves open the environment may say: LASTCALL_NAME, LASTCALL_GRACE_S,
    LASTCALL_ANNOUNCE_S, LASTCALL_EXIT_WITH, LASTCALL_SHUTDOWN, LASTCALL_REPORT.

    Args:
        name: of the application; given, a record of its runs is kept (see `previous`).
        grace_s: how long the whole shutdown may take, in seconds. Then the process leaves,
            whatever hangs. None: 25.
        announce_s: how long it goes on taking work after the stop was announced (readiness is off
            then), in seconds, for load balancers to notice. None: not at all.
        limits: limits of single phases by name, in seconds; the others share what is left.
        signals: which signals ask it to end; None: SIGTERM and SIGINT.
        exit_with: how the process ends once a signal asked for it and all is done: `signal` (it
            dies of that signal, as whoever waits for it expects), `code` (128 + its number),
            `zero` (0: drained), `nothing` (the program goes on behind the `with`). What was cut off
            at the deadline makes it 22. None: `signal`.
        ceiling_s: how far hooks that ask for more time may move the end, in seconds after the
            beginning of the stop; None: not beyond the grace period.
        vetoes: whether hooks of the announcement may object, which calls the stop off.
        shutdown: of web servers: `graceful` (requests are finished) or `immediate` (cut at once).
            None: `graceful`.
        report: a file that gets the shutdown report as JSON; None or empty: none.
        clock: seconds that only go up; see `lastcall.testing.lifecycle`.

    Raises:
        BadPolicy: the times or words make no sense.
    """

    _current: ClassVar[Lifecycle | None] = None

    def __init__(  # noqa: PLR0913 (all by name, each with a default that fits most)
        self,
        name: str = "",
        *,
        grace_s: float | None = None,
        announce_s: float | None = None,
        limits: Mapping[str, float] | None = None,
        signals: Sequence[int] | None = None,
        exit_with: Literal["signal", "code", "zero", "nothing"] | None = None,
        ceiling_s: float | None = None,
        vetoes: bool = False,
        shutdown: Literal["graceful", "immediate"] | None = None,
        report: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        environ = os.environ
        plan = Plan(
            settings.seconds(grace_s, "LASTCALL_GRACE_S", environ, settings.GRACE_S),
            settings.seconds(announce_s, "LASTCALL_ANNOUNCE_S", environ, 0.0),
            limits,
        )
        settings.called("clock", clock)
        house = House(plan, settings.signals(signals), clock)
        self.house: House = house
        self.name: str = settings.text("name", name) or environ.get("LASTCALL_NAME", "")
        house.name = self.name
        house.exit_with = settings.word(exit_with, "LASTCALL_EXIT_WITH", environ, settings.EXITS)
        if ceiling_s is not None:
            house.ceiling_s = positive("ceiling_s", ceiling_s, zero=True)
        house.vetoes = vetoes
        house.shutdown = settings.word(shutdown, "LASTCALL_SHUTDOWN", environ, settings.SHUTDOWNS)
        house.report_path = settings.file_path(report, "LASTCALL_REPORT", environ)
        self.announced: Happening = house.announced
        self.draining: Happening = house.draining
        self.ended: Happening = house.ended
        now = Lifecycle._current
        if now is None or now.house.state is State.ENDED:
            Lifecycle._current = self
        whole.born(self)

    @classmethod
    def current(cls) -> Lifecycle:
        """The process's lifecycle: the first that was made, or one with the usual settings.

        Raises:
            BadPolicy: the environment makes no sense.
        """
        return cls._current or cls()

    # -- hooks

    def on(
        self,
        phase: str,
        *,
        name: str = "",
        limit_s: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> Callable[[F], F]:
        """Decorate a function, sync or async, to be called in a phase.

        A function with one argument gets its `HookRun`: `extend`, `veto`, `cancelled`, `left_s`.

        Args:
            phase: `announce`, `drain`, `work`, `close`, `flush`, or one of your own.
            name: unique in the phase; empty: the function's.
            limit_s: its own limit in seconds; None: the phase's.
            depends_on: names of hooks of the same phase that must have ended before.

        Raises:
            BadPolicy: there is no such phase, or the name is taken.
            TooLate: the phase is over.
        """
        where = _place()
        if callable(phase):
            raise BadPolicy("`on` was given no phase", "say @lifecycle.on('close')")

        def register(function: F) -> F:
            self.add_hook(
                phase, function, name=name, limit_s=limit_s, depends_on=depends_on, where=where
            )
            return function

        return register

    def add_hook(
        self,
        phase: str,
        function: Callable[..., object],
        *,
        name: str = "",
        limit_s: float | None = None,
        depends_on: Sequence[str] = (),
        where: str = "",
    ) -> Hook:
        """The same as `on`, as a call.

        Args:
            phase: as in `on`.
            function: what is called.
            name: as in `on`.
            limit_s: as in `on`.
            depends_on: as in `on`.
            where: `file:line` to name when it hangs; empty: the caller's.

        Raises:
            BadPolicy: there is no such phase, or the name is taken.
            TooLate: the phase is over.
        """
        house, now = self.house, False
        if house.state is not State.RUNNING:
            house.plan[phase]
            now = house.registry.refuse_late(phase, house.coordinator.phase)
        hook = house.registry.add(
            phase,
            function,
            name=name,
            limit_s=limit_s,
            depends_on=depends_on,
            where=where or _place(),
        )
        if now:
            house.coordinator.inbox.put(lambda: house.coordinator.join_phase(hook))
        return hook

    def phase(
        self,
        name: str,
        *,
        before: str = "",
        after: str = "",
        limit_s: float | None = None,
        reverse: bool = False,
    ) -> None:
        """Add a phase of your own.

        Args:
            name: unique.
            before: the phase it comes before.
            after: or the one it comes after.
            limit_s: its limit in seconds; None: a share of the grace period.
            reverse: whether its hooks run one by one, the last registered first.

        Raises:
            BadPolicy: the name is taken, the place unclear, or no time is left for the others.
        """
        if self.house.state is not State.RUNNING:
            raise TooLate(f"the stop is on: phase {name!r} cannot join it", "add phases earlier")
        phase = Phase(name, limit_s, reverse=reverse)
        self.house.plan.add(phase, before=before, after=after)

    def in_reverse(self, *phases: str) -> None:
        """Let the hooks of some phases run one by one, the last registered first.

        Args:
            phases: their names.

        Raises:
            BadPolicy: there is no such phase.
        """
        for name in phases:
            self.house.plan[name].reverse = True

    # -- work in flight

    def work(self, name: str) -> Flight:
        """A piece of work: `with lifecycle.work("order 17"):`, `async with`, or a decorator.

        The shutdown waits for it. Work inside work is never refused.

        Args:
            name: what it is, for whoever asks who is still busy.

        Raises:
            Draining: when it is begun, if the application is ending and takes no new work.
        """
        return self.house.gate.enter(name)

    def accepted(self, name: object) -> Flight:
        """The same for work that must not be refused: it was accepted before.

        Args:
            name: what it is; `str` is called on it only when somebody asks.
        """
        return self.house.gate.enter(name, accepted=True)

    @property
    def in_flight(self) -> int:
        """How many pieces of work are in flight."""
        return self.house.gate.count()

    def flights(self) -> tuple[Flight, ...]:
        """The work in flight, the oldest first."""
        return self.house.flights()

    def until_draining(self, source: Iterable[T]) -> Iterator[T]:
        """The items of an iterable; none is begun once the application drains.

        Args:
            source: where they come from.
        """
        from lastcall.app.until import each

        return each(source, self.draining)

    def until_draining_async(
        self, source: AsyncIterable[T] | Callable[[], Awaitable[T]]
    ) -> AsyncIterator[T]:
        """The same for `async for`; waiting for the next item ends at once, and it is cancelled.

        Args:
            source: where they come from: an async iterable (closed in the end, if it can be), or
                a function to be awaited again and again, such as `queue.get`.
        """
        from lastcall.app.until import each_async

        return each_async(source, self.draining, self.house.gate)

    def daemon(
        self, target: Callable[..., object], *args: object, name: str = ""
    ) -> threading.Thread:
        """Start a daemon thread that is given a last word: it is joined before `close`.

        Args:
            target: what it runs; it should look at `draining`.
            args: for it.
            name: of the thread; empty: the function's.
        """
        named = name or getattr(target, "__qualname__", None)
        thread = threading.Thread(target=target, args=args, name=named, daemon=True)
        alive = [each for each in self.house.threads if each.is_alive()]
        self.house.threads = [*alive, thread]
        thread.start()
        return thread

    def task(self, coroutine: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Start a task of the running loop that is cancelled, and waited for, in the phase `work`.

        One that waits for `draining` itself is not cancelled before the phase's limit.

        Args:
            coroutine: what it runs; its `finally` blocks have the phase's limit.
            name: of the task; empty: asyncio's.
        """
        import asyncio

        import lastcall.app.tasks  # noqa: F401 (needed at the end: loaded while that is easy)

        task = asyncio.get_running_loop().create_task(coroutine, name=name or None)
        tasks = self.house.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    # -- the stop

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        return self.house.state is not State.RUNNING

    @property
    def state(self) -> State:
        """`running`, `stopping` or `ended`."""
        return self.house.state

    def ready(self) -> bool:
        """Readiness: whether new work is welcome. Off from the announcement on."""
        return self.house.state is State.RUNNING

    @property
    def report(self) -> Report | None:
        """Of the shutdown, as far as it has come; None: none has begun."""
        return self.house.coordinator.report

    @property
    def previous(self) -> Previous:
        """How the last run ended, as far as can be known. `unknown` without a name."""
        return self.house.previous

    def request_stop(self, reason: str = "", *, signum: int | None = None) -> None:
        """Ask the application to end. From any thread, also in a signal handler; does not wait.

        Args:
            reason: why, for logs and the record.
            signum: the signal it is to count as; None: none, the program wants it itself.

        Raises:
            BadPolicy: there is no such signal.
        """
        from lastcall.app.signals import name_of

        signum = settings.signal_number(signum)
        said = reason or (name_of(signum) if signum is not None else "requested by the program")
        said = " ".join(str(said).split())[:_REASON_CHARS]  # one line of a log
        coordinator = self.house.coordinator
        self.house.start()
        coordinator.inbox.put(lambda: coordinator.ask(said, signum))

    def exit(self, code: int = 0, reason: str = "") -> NoReturn:
        """Run the whole shutdown, and end with this code. Not from within a hook.

        Args:
            code: what the process exits with, unless something had to be cut off.
            reason: why, for logs and the record.

        Raises:
            BadPolicy: the code is no number.
        """
        house, ident = self.house, threading.get_ident()
        house.exit_code = code = settings.exit_code(code)
        self.request_stop(reason or f"exit({code})")
        # Whoever waits in a hook, in an event loop or in work in flight would hold the very stop
        # that it waits for.
        ours = {*house.crew.idents, house.coordinator.ident}
        inside = house.gate.within(_inside.get())
        if ident not in ours and not inside and _running_loop() is None:
            here = house.main.thread if house.main.inside else threading.main_thread().ident
            if ident == here:
                house.main.back(f"exit({code})")
                self.ended.wait()
                self._after(None)
            else:
                house.exiting.add(ident)
                self.ended.wait()
        raise SystemExit(code)

    def notify_ready(self, status: str = "") -> bool:
        """Tell the service manager (systemd, `Type=notify`) that the start is over: READY=1.

        To be called once the program serves. What follows is told without being asked: STOPPING=1,
        each phase, what is stuck, and how much more time hooks need.

        Args:
            status: what the manager shows of it; empty: nothing.

        Returns:
            Whether it was sent; without NOTIFY_SOCKET there is nobody to be told.
        """
        self.house.start()
        told = self.house.status and self.house.status.notifier
        return bool(told and told.ready(status))

    def halt(self, code: int = 1) -> NoReturn:
        """End at once: no hook runs, nothing is finished, nothing is flushed.

        Args:
            code: what the process exits with.

        Raises:
            BadPolicy: the code is no number.
        """
        code = settings.exit_code(code)
        self.house.leave_at_once(code, f"halt({code})")
        raise AssertionError  # not reached

    def listen(self, listener: Listener) -> None:
        """Have something called with each change of a shutdown, in the coordinator's thread.

        Args:
            listener: takes what happened (`stopping`, `phase`, `hook`, `extended`, `hurried`,
                `called-off`, `ended`) and more words about it by name. It must not block.
        """
        settings.called("the listener", listener)
        self.house.listeners.append(listener)

    # -- running

    def install(self) -> bool:
        """Take the signals, or take them back from a server that took them. Main thread only.

        Returns:
            Whether it could be done.
        """
        if self.house.state is State.ENDED:
            return self.house.signals.installed
        self.house.start()
        return self.house.signals.install()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop that async hooks run on, and take the signals back from it.

        Args:
            loop: of the application.
        """
        self.house.loop = loop
        self.install()

    def asgi(self, app: App, *, ready: str = "", live: str = "", guest: bool = True) -> Middleware:
        """Wrap an ASGI application: it works under any server.

        Args:
            app: the application.
            ready: a path that tells readiness: 200, and 503 once a stop is announced; empty: none.
            live: a path that answers 200 as long as the process runs; empty: none.
            guest: whether the server knows nothing of lastcall; `lastcall.app.servers` say False.
        """
        from lastcall.app.http.asgi import Middleware

        return Middleware(app, self, ready=ready, live=live, guest=guest)

    def wsgi(
        self, app: WSGIApplication, *, ready: str = "", live: str = "", guest: bool = True
    ) -> WSGIMiddleware:
        """Wrap a WSGI application: it works under any server.

        Args:
            app: the application.
            ready: as in `asgi`.
            live: as in `asgi`.
            guest: as in `asgi`.
        """
        from lastcall.app.http.wsgi import Middleware

        return Middleware(app, self, ready=ready, live=live, guest=guest)

    def run(self, main: Callable[[], T | Coroutine[Any, Any, T]]) -> T:
        """Run the main code with this lifecycle around it.

        Args:
            main: a function or a coroutine function. A coroutine is cancelled in the phase `work`,
                once what it has in flight is done.

        Returns:
            What it returned, unless a signal ended the program.
        """
        if not callable(main):
            if hasattr(main, "close"):  # a coroutine, which shall not complain on its own
                main.close()
            raise BadPolicy(f"run takes a function, not {main!r}", "say run(main), not run(main())")
        from lastcall.app.running_main import run_main

        return run_main(self, main)

    def _enter(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """The main code begins, and the signals are ours."""
        house = self.house
        if house.main.inside:
            raise BadPolicy(
                "this Lifecycle is entered already, and the process has one main code",
                "enter it once, around all of the program",
            )
        house.main.enter()
        if loop is not None:
            house.loop = loop
        if not self.install():
            voice.say(
                WARNING,
                "signals are not taken: that can only be done in the main thread of the main "
                "interpreter. Enter the Lifecycle there, or call request_stop yourself",
            )

    def _too_late(self) -> TooLate:
        """It was stopped before the main code began: leave, or else say so."""
        self._after(None)
        return TooLate("this Lifecycle has had its stop", "make a new one for a new beginning")

    def __enter__(self) -> Self:
        if _running_loop() is not None:
            raise BadPolicy(
                "`with lifecycle` in a coroutine would block its event loop until the end",
                "say `async with lifecycle`, or lifecycle.run(main)",
            )
        if self.draining.is_set() and not self.house.main.inside:
            self.house.main.back("the main code did not begin")
            self.ended.wait()
            raise self._too_late()
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not self.house.main.inside:
            return False  # a child that was forked inside: it is nobody's to end
        refused = self._refused(error)
        self.house.crashed(None if refused else error)
        self.house.main.back(_why(error))
        self.ended.wait()
        self._after(None if refused else error)
        return refused

    async def __aenter__(self) -> Self:
        import asyncio

        if self.draining.is_set() and not self.house.main.inside:
            self.house.main.back("the main code did not begin")
            await self.ended.wait_async()
            raise self._too_late()
        self._enter(asyncio.get_running_loop())
        self.house.main.task = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        main = self.house.main
        if not main.inside:
            return False  # as in `__exit__`
        ours = main.cancelled and kind is not None and kind.__name__ == "CancelledError"
        if ours and main.task is not None:
            main.task.uncancel()
        ours = ours or self._refused(error)
        self.house.crashed(None if ours else error)
        main.back(_why(error))
        await self.ended.wait_async()
        self._after(None if ours else error)
        return ours

    def _refused(self, error: BaseException | None) -> bool:
        """Whether the main code ended because it was given no more work: that is in order."""
        return isinstance(error, Draining) and self.draining.is_set()

    def _after(self, error: BaseException | None) -> None:
        """The shutdown is over and the main code has come back: go on, or leave.

        Raises:
            SystemExit: the process is to end.
        """
        house, report = self.house, self.report
        assert report is not None  # noqa: S101 (it has ended)
        # A thread that still writes when the interpreter ends would be the end of it: SIGABRT.
        voice.finish(leave.FLUSH_S)
        house.main.inside = False
        if house.exit_with == "nothing" or report.exit_code is None:
            house.dismiss()
            return
        # The signals stay ours, and the backstop is set: the way out is part of the shutdown.
        house.leaves = True
        if report.survivors or threading.current_thread() is not threading.main_thread():
            if isinstance(error, Exception):
                sys.excepthook(type(error), error, error.__traceback__)
            leave.flush_all()
            house.leave_now(report)
        if isinstance(error, Exception):
            return  # it is told as it would be without us, and the exit code is Python's 1
        if house.by_signal(report):
            whole.die_last(report)
        raise SystemExit(report.exit_code)


def _why(error: BaseException | None) -> str:
    if error is None:
        return "the main code returned"
    return f"the main code ended with {type(error).__name__}"


def _place() -> str:
    """`file:line` of the code outside this module that called it."""
    frame = sys._getframe(1)  # noqa: SLF001 (what registered a hook is named when it hangs)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _running_loop() -> object:
    if "asyncio" not in sys.modules:
        return None
    from asyncio import _get_running_loop

    return _get_running_loop()
