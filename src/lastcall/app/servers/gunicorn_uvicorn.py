"""uvicorn's worker for gunicorn, drained: `uvicorn_worker.UvicornWorker` and what is made of it.

Source: uvicorn-worker 0.4.0 (UvicornWorker._serve, init_signals).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from lastcall.app.servers import uvicorn
from lastcall.app.servers.extra import needs
from lastcall.app.servers.gunicorn_worker import Drain, Drained

with needs("uvicorn_worker", "uvicorn-worker"):
    import uvicorn_worker  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from uvicorn import Config

    from lastcall.app.lifecycle import Lifecycle

    class _Theirs:
        """uvicorn's worker, which has no types."""
else:
    _Theirs = uvicorn_worker.UvicornWorker


class Server(uvicorn.Server):
    """uvicorn's server in one of gunicorn's workers.

    Args:
        config: uvicorn's.
        worker: gunicorn's.
    """

    def __init__(self, config: Config, worker: UvicornWorker) -> None:
        super().__init__(config, worker.lifecycle, shared=True)
        self.worker = worker

    def _serving(self, lifecycle: Lifecycle) -> Drain:  # noqa: ARG002 (the worker's)
        self.worker.serving = Drain(
            self.worker,
            stop=self._tell,
            stop_accepting=self._stop_accepting,
            ports=self._ports,
            pending=lambda: len(self.server_state.tasks),
        )
        self.worker.heed()
        return self.worker.serving

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ANN401 (as uvicorn's)
        """End: what could be finished is finished, the rest is cut off."""
        await super().shutdown(sockets)
        self.worker.over()


class UvicornWorker(Drained, _Theirs):
    """`uvicorn_worker.UvicornWorker`, drained.

    Args:
        given: as for gunicorn's own.
    """

    def run(self) -> None:
        """Serve until the lifecycle has ended."""
        with self.leaving():
            super().run()

    async def _serve(self) -> None:
        self.begin()
        self.config.app = self.wsgi
        server = Server(self.config, self)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
