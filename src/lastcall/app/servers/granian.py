"""granian, drained: `serve`, and `python -m lastcall.app.servers.granian` for `granian`.

    from lastcall.app.servers.granian import serve

    serve("shop:app", interface="asgi", port=8000, workers=2)

granian's main process stays what it is; each of its workers has a lifecycle, and lets the compiled
core hear of the stop only when nothing is left to lose. With ASGI, WSGI and RSGI; on builds of
Python without the GIL its workers are threads, which is refused.

- A second signal to the main process is passed on to the workers ("now"), a third kills them.
- Each worker listens on a socket of its own (SO_REUSEPORT), which it shuts by itself. On a reload
  a client that the kernel gives to the old worker in these some 10 ms is let in 1 s later.
- HTTP/2: the core alone can send GOAWAY, and does so when it is told.
- A request that was pipelined behind one in hand is not seen here: the answer before it says
  `Connection: close`, so that the client knows that it was not executed (RFC 9112, 9.6).

Source: granian 2.8.7: server/common.py, server/mp.py, server/embed.py, _signals.py, cli.py; of its
core (2.8.1) src/serve.rs, src/workers.rs, src/net.rs.
"""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.parents import Wishes, code_of, leave_at_once, leave_with
from lastcall.errors import Unsupported

with needs("granian"):
    from granian._granian import BUILD_GIL
from granian._internal import load_target
from granian.constants import Interfaces
from granian.server.embed import Server as Embedded
from granian.server.mp import MPServer

from lastcall.app.servers.granian_worker import Listening, load, work, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SPAWNERS = {
    Interfaces.ASGI: "_spawn_asgi_lifespan_worker",
    Interfaces.ASGINL: "_spawn_asgi_worker",
    Interfaces.RSGI: "_spawn_rsgi_worker",
    Interfaces.WSGI: "_spawn_wsgi_worker",
}


class Server(MPServer):
    """granian's `Granian`, whose workers drain. Its arguments are the same.

    `serve` does not return once a signal has come: the process ends as its workers have ended.

    Raises:
        Unsupported: a Python without the GIL.
    """

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 (granian's own)
        if not BUILD_GIL:
            raise Unsupported(
                "granian's workers are threads in a Python without the GIL: they cannot be drained",
                "use a Python with the GIL, or granian without lastcall",
            )
        super().__init__(*given, **named)
        self._codes: list[int | None] = []
        self._wishes = Wishes(self._first, self._second, self._third)

    def serve(
        self,
        spawn_target: Callable[..., None] | None = None,
        target_loader: Callable[..., Callable[..., Any]] | None = None,
        wrap_loader: bool = True,  # noqa: FBT001, FBT002 (granian's signature)
    ) -> None:
        """As granian's own; see the class.

        Args:
            spawn_target: what a worker runs; None: the interface's own.
            target_loader: loads the application, in a worker; None: granian's.
            wrap_loader: whether the loader wants the target's name.
        """
        if target_loader is None:
            loader: Callable[[], Any] = partial(
                load_target, self.target, wd=self.working_dir, factory=self.factory
            )
        else:
            loader = partial(target_loader, self.target) if wrap_loader else target_loader
        if spawn_target is None:
            spawn_target = partial(work, self._listening(), _SPAWNERS[self.interface])
            loader = partial(load, f"{self.interface}", loader)
        super().serve(spawn_target, loader, wrap_loader=False)
        signum = self._wishes.signum
        if signum is not None:
            leave_with(code_of(self._codes, signum))

    def _listening(self) -> Listening:
        if self.bind_uds is not None:
            return Listening(path=str(self.bind_uds))
        return Listening(port=self.bind_port or None)

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 (granian's signature)
        """A signal has come; without one, somebody asks for the end."""
        self._wishes.handle(args[0] if args else signal.SIGTERM)

    def _first(self, _signum: int) -> None:
        super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _second(self, signum: int) -> None:
        self._send(signum)

    def _third(self, signum: int) -> NoReturn:
        self._send(signal.SIGKILL)
        leave_at_once(signum)

    def _send(self, signum: int) -> None:
        for worker in tuple(self.wrks):
            if worker.is_alive():  # type: ignore[no-untyped-call]
                os.kill(worker.inner.pid, signum)

    def _stop_workers(self) -> None:
        workers = list(self.wrks)
        super()._stop_workers()  # type: ignore[no-untyped-call]
        self._codes = [worker.inner.exitcode for worker in workers]

    def shutdown(self, exit_code: int = 0) -> None:
        """As granian's own; the exit code is the workers', once a signal has come.

        Args:
            exit_code: as granian's.
        """
        try:
            super().shutdown(exit_code)  # type: ignore[no-untyped-call]
        except SystemExit:
            # A signal to all of us may end a worker before this process has told it to.
            if self._wishes.signum is None:
                raise


def serve(target: str, **settings: Any) -> None:  # noqa: ANN401 (granian's own)
    """Serve until a signal ends it, and end with the workers' exit code. Main thread only.

    Args:
        target: where the application is: `module:name`. A `Lifecycle` made there is used.
        settings: as for `granian.Granian`: `interface`, `address`, `port`, `workers`, ...

    Raises:
        SystemExit: with the exit code of the workers; or it dies of the signal, as they did.
        Unsupported: a Python without the GIL.
    """
    settings["interface"] = Interfaces(settings.get("interface", Interfaces.RSGI))
    Server(target, **settings).serve()


async def serve_embedded(
    app: Any,  # noqa: ANN401 (an ASGI or RSGI application)
    *,
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (granian's own)
) -> None:
    """Serve inside this event loop (granian's embedded server) until the lifecycle ends it.

    Args:
        app: the application itself.
        lifecycle: None: the process's one. It is entered, unless it is already.
        settings: as for `granian.server.embed.Server`: `interface`, `address`, `port`, ...
    """
    ours = Lifecycle.current() if lifecycle is None else lifecycle
    if not ours.house.main.inside:
        async with ours:
            await serve_embedded(app, lifecycle=ours, **settings)
            return
    loop = asyncio.get_running_loop()
    interface = settings["interface"] = Interfaces(settings.get("interface", Interfaces.RSGI))
    server = Embedded(wrapped(f"{interface}", app, ours), **settings)
    uds, port = server.bind_uds, server.bind_port
    listening = Listening(path=str(uds)) if uds else Listening(port=port or None)
    serving = Serving(
        ours,
        stop=lambda: listening.end(
            ours, lambda: loop.call_soon_threadsafe(server.stop), lambda: serving.stopped
        ),
        stop_accepting=listening.close,
        ports=listening.ports,
    )
    try:
        await server.serve()
    finally:
        serving.forget()


def main() -> None:
    """The command `granian`, drained."""
    from granian import cli as command

    # Its command line is parsed and run by one function, which has no other place for ours.
    command.Server = Server  # type: ignore[attr-defined]
    command.entrypoint()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    # Workers find what they are to run by its name, not by `__main__`.
    from lastcall.app.servers.granian import main as _main

    _main()
