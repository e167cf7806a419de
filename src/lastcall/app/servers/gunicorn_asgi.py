"""gunicorn's own ASGI worker, drained.

Its loop looks up once a second, and its end waits for every connection that is open, a WebSocket's
for the whole `graceful_timeout`, so that lifespan shutdown may never run. Here the loop is woken,
and gunicorn ends when nothing is left to lose.

Source: gunicorn 27.0.1, workers/gasgi.py (_serve, _shutdown), asgi/protocol.py (_will_close,
_handle_http2_connection: both look at `worker.alive`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from lastcall.app.http.asgi import Middleware
from lastcall.app.servers.gunicorn_worker import Drain, Drained
from lastcall.app.servers.hosting import in_loop, let_nobody_in, rest

if TYPE_CHECKING:
    from collections.abc import Callable

_NOTIFY_S = 1.0
# What is cut off gets so long to clean up after itself.
_CUT_S = 0.25


class AsgiWorker(Drained, gasgi.ASGIWorker):  # type: ignore[misc]  # (no types)
    """gunicorn's `asgi`, drained.

    Args:
        given: as for gunicorn's own.
    """

    asgi: Any

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 (as gunicorn's)
        super().__init__(*given, **named)
        self._task: asyncio.Task[Any] | None = None
        self._looping = False
        self._end: asyncio.Event | None = None

    @property
    def alive(self) -> bool:
        """Whether gunicorn's loop goes on; its connections ask as well, if there may be more."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value and self._begun:
            self.retire("gunicorn replaces this worker")

    def run(self) -> None:
        """Serve until the lifecycle has ended."""
        with self.leaving():
            super().run()

    async def _serve(self) -> None:
        lifecycle = self.begin()
        if not isinstance(self.asgi, Middleware):
            self.asgi = lifecycle.asgi(self.asgi, guest=False)
        self._task, self._end = asyncio.current_task(), asyncio.Event()
        lifecycle.attach(self.loop)
        lifecycle.house.main.enter()
        self.serving: Drain = Drain(
            self,
            stop=lambda: self._in_loop(self._finish),
            stop_accepting=lambda: let_nobody_in(self.loop, lambda: self.servers),
        )
        lifecycle.draining.add_callback(lambda: self._in_loop(self._begin_draining))
        self.heed()
        error: BaseException | None = None
        try:
            await super()._serve()
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.over()
            await rest(lifecycle)
            lifecycle._after(error)  # noqa: SLF001 (the end of its `with`)

    def notify(self) -> None:
        """Called by its loop, which then sleeps."""
        self._looping = not self.told
        super().notify()

    def _begin_draining(self) -> None:
        """Its connections say so from now on: `Connection: close`, GOAWAY."""
        self._alive = False
        if self._looping and self._task is not None:
            self._looping = False
            self._task.cancel()  # gunicorn takes that for the end of its sleep

    async def _shutdown(self) -> None:
        """What gunicorn does once its loop is over: not yet, connections are still served."""
        assert self._end is not None  # noqa: S101 (made when it began)
        if self._task is not None and self._task.cancelling():
            self._task.uncancel()
        self.retire("gunicorn's loop has ended")
        while not self.told:
            self.notify()
            self._looping = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), _NOTIFY_S)
        self.log.info("Worker shutting down...")
        for server in self.servers:
            server.close()
        await self._cut_off()
        if self.lifespan is not None:
            try:
                await self.lifespan.shutdown()
            except Exception as error:  # noqa: BLE001 (as gunicorn does)
                self.log.error("ASGI lifespan shutdown error: %s", error)  # noqa: TRY400 (as above)

    async def _cut_off(self) -> None:
        """Requests that were not waited for: the rest of the end must not wait for them either."""
        if not self.lifecycle.in_flight:
            return
        of_connections = [task for task in asyncio.all_tasks() if _is_connection(task)]
        for task in of_connections:
            task.cancel("the server ends")
        if of_connections:
            await asyncio.wait(of_connections, timeout=_CUT_S)

    # -- what the drain asks for

    def _finish(self) -> None:
        self.told = True
        self._begin_draining()
        if self._end is not None:
            self._end.set()

    def _in_loop(self, job: Callable[[], object]) -> bool:
        return in_loop(self.loop, job)


def _is_connection(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("ASGIProtocol.")
