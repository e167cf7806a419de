"""Draining the web server of this process: it is told last, when nothing is left to lose.

In this order, while the server itself goes on as if nothing had happened:

1. The door: newcomers are turned away by the kernel, the server accepts whoever is in the queue,
   then it accepts nobody any more (see `listeners`).
2. Answers say `Connection: close`, WebSockets that are idle are closed (see `asgi`).
3. Quiet: requests in flight and half requests come to their end, idle connections get a moment to
   bring a late request, and are ended in order (see `connections`, `verdict`).
4. The server is told to end, by its own means.

Where the door cannot be closed (another process goes on using the socket, and the server cannot be
asked to accept nobody), newcomers are served for `linger_s`, and whoever comes after that is left
to the server's own end.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from time import monotonic

from lastcall.app.http import connections as kernel_view
from lastcall.app.http.listeners import own_listeners, wait_until_empty
from lastcall.app.http.verdict import LOOK_S
from lastcall.app.phases import DRAIN
from lastcall.app.voice import WARNING, complain, voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lastcall.app.hooks import Hook, HookRun
    from lastcall.app.http.listeners import Listener
    from lastcall.app.lifecycle import Lifecycle

LINGER_S = 1.0
PATIENCE_S = 5.0
NAME = "the web server"
# A signal for the whole group reaches a worker sooner than its parent can turn newcomers away.
_PARENT_S = 0.5
_EMPTY_S = 1.5
_FIRST_PASSED_FD = 3


class Serving:
    """The web server of this process, and how it comes to its end.

    Args:
        lifecycle: whose phase `drain` it is part of.
        stop: tells the server to end, by its own means; called in a hook's thread, must not block.
            None: it gets the signal that asked for the end (see `Signals.pass_on`).
        stop_accepting: closes the server's listener, and returns when that is done; called in a
            hook's thread. None: it stays open, and newcomers wait until the server has ended.
        ports: TCP ports that it serves, or what tells them at the stop; None: whatever this process
            listens on.
        pending: how many requests the server has taken and not given to the application yet.
        shared: whether other processes listen on the same sockets. Then newcomers are turned away
            by the process that started them all, and only if all of them end. None: it is so if our
            parent process has them, too.
        kept: whether the sockets outlive this service (somebody holds them for the next start): who
            waits in their queue is left to it. Those of systemd's socket activation are known.
        ends: whether the phase waits until the server says `has_stopped`.
        late: whether the server is told only when all phases are over: nothing can keep it from
            ending the process before `close` and `flush` have run.
        linger_s: how long idle connections may still bring a request, in seconds.
        patience_s: how long a half request may stand still, in seconds.
        limit_s: how long the drain may take at most, in seconds; None: as long as the phase.

    Args (attributes):
        hosted: of the class: whether a module of `lastcall.app.servers` will run the server of this
            process or of its children, so that an application loaded before is nobody's guest.
    """

    hosted = False

    def __init__(  # noqa: PLR0913 (all by name)
        self,
        lifecycle: Lifecycle,
        *,
        stop: Callable[[], object] | None = None,
        stop_accepting: Callable[[], object] | None = None,
        ports: Iterable[int] | Callable[[], Iterable[int] | None] | None = None,
        pending: Callable[[], int] | None = None,
        shared: bool | None = False,
        kept: bool = False,
        ends: bool = True,
        late: bool = False,
        linger_s: float = LINGER_S,
        patience_s: float = PATIENCE_S,
        limit_s: float | None = None,
    ) -> None:
        self.lifecycle = lifecycle
        self.told: threading.Event = (
            threading.Event()
        )  # the server has been told to end, or ends by itself
        self.late = late
        self._stop = stop
        self._stop_accepting = stop_accepting
        self._ports = ports if callable(ports) or ports is None else frozenset(ports)
        self._pending = pending or int
        self._shared = shared
        self._kept = kept
        self._kept_inodes = passed_inodes()
        self._ends = ends
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self._news = threading.Event()
        house = lifecycle.house
        if house.guest and house.serving is not None:
            # The application is wrapped, and was loaded before the server that knows us.
            house.serving.forget()
            house.serving, house.guest = None, False
        house.web = True
        house.gate.listen(self._news.set)
        self.hook: Hook = lifecycle.add_hook(DRAIN, self._drain, name=NAME, where=" ")
        self.hook.inner = True
        self.hook.limit_s = limit_s

    @property
    def stopped(self) -> bool:
        """Whether the server has ended."""
        return self._stopped.is_set()

    def look(self) -> None:
        """Look again now: what was pending may have ended. From any thread."""
        self._news.set()

    def has_stopped(self) -> None:
        """The server has ended: to be called by whoever ran it."""
        self._stopped.set()
        self._news.set()

    def forget(self) -> None:
        """There is no server any more, or there never was: nothing is to be drained."""
        self.has_stopped()
        house = self.lifecycle.house
        house.web = house.web and self.lifecycle.stopping
        house.registry.remove(self.hook)

    def tell(self) -> None:
        """Tell the server to end; once."""
        if self.told.is_set():
            return
        self.told.set()
        report = self.lifecycle.report
        signum = None if report is None else report.signum
        if self._stop is not None:
            self._stop()
        elif signum is not None:
            self.lifecycle.house.signals.pass_on(signum)
        else:
            self.lifecycle.house.signals.pass_on_any()

    # -- the hook

    def _drain(self, run: HookRun) -> None:
        run.on_cancel.append(self._news.set)
        if self._stopped.is_set():
            return
        try:
            if self.lifecycle.house.shutdown == "graceful" and not run.cancelled.is_set():
                door = self._close_door(run)
                self._wait_quiet(run, door)
        finally:
            report = self.lifecycle.report
            if run.cancelled.is_set() and report is not None:
                report.left = (
                    report.left or self.lifecycle.house.left()
                )  # before the server cuts them off
            if not self.late:
                self.tell()
        while self._waits() and not run.cancelled.is_set():
            self._news.wait(1.0)
            self._news.clear()

    def _waits(self) -> bool:
        return self._ends and not self.late and not self._stopped.is_set()

    def _close_door(self, run: HookRun) -> Door:
        """Let nobody new in."""
        ports = self._ports() if callable(self._ports) else self._ports
        listeners = own_listeners(ports)
        door = Door(listeners)
        try:
            if self._turn_away(run, listeners):
                wait_until_empty(listeners, most_s=min(_EMPTY_S, run.left_s))
            door.closed = bool(listeners) and all(one.turned_away() for one in listeners)
            if self._stop_accepting is not None:
                self._stop_accepting()
                door.closed = True
        except Exception:  # noqa: BLE001 (the rest of the drain is still worth doing)
            complain("the server's listener could not be closed in order")
        finally:
            for each in listeners:
                each.close()
        return door

    def _turn_away(self, run: HookRun, listeners: Sequence[Listener]) -> bool:
        """Turn newcomers away where that is possible, unless somebody goes on using the sockets.

        Returns:
            Whether nobody does: then the queue is ours to empty.
        """
        ours = [one for one in listeners if one.inode not in self._kept_inodes]
        if self._kept or len(ours) < len(listeners):
            return False
        if self._shared:
            # Another process may go on serving them: whoever started us all knows.
            return self._wait_for_parent(run, ours)
        if self._shared is None and parent_has(ours):
            return False
        for one in ours:
            one.turn_newcomers_away()
        return True

    def _wait_for_parent(self, run: HookRun, listeners: Sequence[Listener]) -> bool:
        report = self.lifecycle.report
        asked = report is not None and report.signum is not None
        until_s = monotonic() + (_PARENT_S if asked else 0.0)
        while not any(one.turned_away() for one in listeners):
            if monotonic() >= until_s or run.cancelled.wait(0.005):
                return False
        return True

    def _wait_quiet(self, run: HookRun, door: Door) -> None:
        began_s = progress_s = monotonic()
        # With an open door, who comes later than this is left to the server's own end.
        late_s = float("inf") if door.closed else began_s + self._linger_s
        known = None if door.closed else {one.cookie for one in door.connections()}
        ended_s: float | None = None
        busy_before = 0
        while not run.cancelled.is_set() and not self._stopped.is_set():
            self._news.clear()
            pending = self._pending()
            busy = self._in_flight(late_s) + pending
            now_s = monotonic()
            if busy < busy_before:
                progress_s = now_s
            busy_before = busy
            found = [] if busy else door.connections(known)
            said = kernel_view.verdict(
                found,
                busy,
                now_s,
                began_s=began_s,
                progress_s=progress_s,
                ended_s=ended_s,
                linger_s=self._linger_s,
                patience_s=self._patience_s,
            )
            if said.end:
                kernel_view.end_all(
                    [one for one in said.end if isinstance(one, kernel_view.Connection)]
                )
                ended_s = now_s
            if said.over:
                if said.given_up:
                    voice.say(WARNING, f"given up: {said.text}")
                return
            # The end of what is pending is no event.
            self._news.wait(LOOK_S if pending else said.again_s)

    def _in_flight(self, late_s: float) -> int:
        if late_s == float("inf") or monotonic() < late_s:
            return self.lifecycle.house.gate.count()
        return sum(flight.since_s < late_s for flight in self.lifecycle.flights())


class Door:
    """What was listened on.

    Args:
        listeners: those of the server.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        each = tuple(listeners)
        self.ports: frozenset[int] = frozenset(one.port for one in each if one.port is not None)
        self.paths: frozenset[str] = frozenset(one.path for one in each if one.path is not None)
        self.closed = False  # nobody comes in any more

    def connections(self, known: set[int] | None = None) -> list[kernel_view.Connection]:
        """Who has come in; only these, by their cookies, if any are named."""
        found = kernel_view.own_connections(self.ports, self.paths)
        return found if known is None else [one for one in found if one.cookie in known]


def passed_inodes() -> frozenset[int]:
    """The sockets that a service manager has passed to this process: the next start gets them, too.

    Source: sd_listen_fds(3).
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return frozenset()
    found = set()
    with suppress(ValueError):
        for number in range(int(os.environ.get("LISTEN_FDS", "0"))):
            with suppress(OSError):
                found.add(os.fstat(_FIRST_PASSED_FD + number).st_ino)
    return frozenset(found)


def parent_has(listeners: Iterable[Listener]) -> bool:
    """Whether our parent process holds one of these sockets: then it is not ours to shut.

    Source: proc_pid_fd(5).
    """
    wanted = {f"socket:[{one.inode}]" for one in listeners}
    folder = f"/proc/{os.getppid()}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:  # no such system, or a process of somebody else's, which shares nothing with us
        return False
    for number in numbers:
        with suppress(OSError):
            if os.readlink(f"{folder}/{number}") in wanted:
                return True
    return False


def serving_of(lifecycle: Lifecycle, **words: object) -> Serving:
    """The `Serving` of a server that knows nothing of us (it is asked for more than once)."""
    house = lifecycle.house
    if house.serving is None:
        words.setdefault("shared", None)
        house.serving = Serving(lifecycle, **words)  # type: ignore[arg-type]
    return house.serving
