"""Draining the web server of this process: it is told last, when nothing is left to lose.

In this order, while the server itself goes on as if nothing had happened:

1. The door: newcomers are turned away by the kernel, the server accepts whoever is in the queue,
   then it accepts nobody any more (see `listeners`).
2. Answers say `Connection: close`, WebSockets that are idle are closed (see `asgi`).
3. Quiet: requests in flight and half requests come to their end, idle connections get a moment to
   bring a late request, and are ended in order (see `connections`, `verdict`).
4. The server is told to end, by its own means.
"""

from __future__ import annotations

import threading
from time import monotonic

from lastcall.app.http import connections as kernel_view
from lastcall.app.http.listeners import own_listeners, wait_until_empty
from lastcall.app.phases import DRAIN
from lastcall.app.voice import WARNING, complain, voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lastcall.app.hooks import Hook, HookRun
    from lastcall.app.http.listeners import Listener
    from lastcall.app.lifecycle import Lifecycle

LINGER_S = 1.0
PATIENCE_S = 5.0
NAME = "the web server"


class Serving:
    """The web server of this process, and how it comes to its end.

    Args:
        lifecycle: whose phase `drain` it is part of.
        stop: tells the server to end, by its own means; called in a hook's thread, must not block.
            None: it gets the signal that asked for the end (see `Signals.pass_on`).
        stop_accepting: closes the server's listener, and returns when that is done; called in a
            hook's thread. None: it stays open, and newcomers wait until the server has ended.
        ports: TCP ports that it serves; None: whatever this process listens on.
        pending: how many requests the server has taken and not given to the application yet.
        shared: whether other processes listen on the same sockets. Then newcomers are turned away
            by the process that started them all, and only if all of them end.
        ends: whether the phase waits until the server says `has_stopped`.
        linger_s: how long idle connections may still bring a request, in seconds.
        patience_s: how long a half request may stand still, in seconds.
    """

    def __init__(  # noqa: PLR0913 (all by name)
        self,
        lifecycle: Lifecycle,
        *,
        stop: Callable[[], object] | None = None,
        stop_accepting: Callable[[], object] | None = None,
        ports: Iterable[int] | None = None,
        pending: Callable[[], int] | None = None,
        shared: bool = False,
        ends: bool = True,
        linger_s: float = LINGER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.lifecycle = lifecycle
        self.told = threading.Event()  # the server has been told to end
        self._stop = stop
        self._stop_accepting = stop_accepting
        self._ports = None if ports is None else frozenset(ports)
        self._pending = pending or int
        self._shared = shared
        self._ends = ends
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self._news = threading.Event()
        house = lifecycle.house
        house.web = True
        house.gate.listen(self._news.set)
        self.hook: Hook = lifecycle.add_hook(DRAIN, self._drain, name=NAME, where=" ")
        self.hook.inner = True

    def has_stopped(self) -> None:
        """The server has ended: to be called by whoever ran it."""
        self._stopped.set()
        self._news.set()

    def forget(self) -> None:
        """There is no server any more: nothing is to be drained."""
        self.has_stopped()
        self.lifecycle.house.registry.remove(self.hook)

    # -- the hook

    def _drain(self, run: HookRun) -> None:
        run.on_cancel.append(self._news.set)
        if self._stopped.is_set():
            return
        try:
            if self.lifecycle.house.shutdown == "graceful" and not run.cancelled.is_set():
                self._wait_quiet(run, *self._close_door(run))
        finally:
            self._tell()
        while self._ends and not self._stopped.is_set() and not run.cancelled.is_set():
            self._news.wait(1.0)
            self._news.clear()

    def _tell(self) -> None:
        self.told.set()
        report = self.lifecycle.report
        signum = None if report is None else report.signum
        if self._stop is not None:
            self._stop()
        elif signum is not None:
            self.lifecycle.house.signals.pass_on(signum)
        else:
            self.lifecycle.house.signals.pass_on_any()

    def _close_door(self, run: HookRun) -> tuple[frozenset[int], frozenset[str]]:
        """Let nobody new in. Returns the ports and paths that were served."""
        listeners = own_listeners(self._ports)
        try:
            if self._all_end(listeners):
                wait_until_empty(listeners, most_s=min(1.5, run.left_s))
            if self._stop_accepting is not None:
                self._stop_accepting()
        except Exception:  # noqa: BLE001 (the rest of the drain is still worth doing)
            complain("the server's listener could not be closed in order")
        finally:
            for each in listeners:
                each.close()
        ports = frozenset(each.port for each in listeners if each.port is not None)
        return ports, frozenset(each.path for each in listeners if each.path is not None)

    def _all_end(self, listeners: list[Listener]) -> bool:
        """Whether the queue is ours to empty; newcomers are turned away then."""
        if self._shared:
            # Another process may go on serving them: whoever started us all knows.
            return any(each.turned_away() for each in listeners)
        for each in listeners:
            each.turn_newcomers_away()
        return True

    def _wait_quiet(self, run: HookRun, ports: frozenset[int], paths: frozenset[str]) -> None:
        gate = self.lifecycle.house.gate
        began_s = progress_s = monotonic()
        ended_s: float | None = None
        busy_before = 0
        while not run.cancelled.is_set() and not self._stopped.is_set():
            self._news.clear()
            busy = len(gate.flights) + self._pending()
            now_s = monotonic()
            if busy < busy_before:
                progress_s = now_s
            busy_before = busy
            found = kernel_view.own_connections(ports, paths) if not busy else []
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
            self._news.wait(said.again_s)


def serving_of(lifecycle: Lifecycle, **words: object) -> Serving:
    """The `Serving` of a server that knows nothing of us (it is asked for more than once)."""
    house = lifecycle.house
    if house.serving is None:
        house.serving = Serving(lifecycle, **words)  # type: ignore[arg-type]
    return house.serving
