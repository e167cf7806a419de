"""gunicorn, drained: its command line, and its workers `sync`, `gthread`, `asgi` and uvicorn's.

    python -m lastcall.app.servers.gunicorn -k gthread --threads 8 shop:app   # gunicorn's options

    gunicorn -k lastcall.app.servers.gunicorn.ThreadWorker --threads 8 shop:app   # the same

    from lastcall.app.servers.gunicorn import serve
    serve(app, bind="127.0.0.1:8000", workers=2)

The lifecycle is each worker's: hooks run there, and the arbiter ends as the workers did. Its
`grace_s` is the one budget: the arbiter waits at least as long, and kills who hangs. An application
that makes no lifecycle gets gunicorn's `graceful_timeout` where it is set.

SIGTERM, SIGINT (Ctrl+C) and SIGQUIT all drain; the second one means now, the third at once. HUP,
USR2, TTIN, TTOU, `max_requests`, `timeout`, `preload_app` and the server hooks work as ever, and a
worker that is replaced drains as well. Not drained: gevent, eventlet and tornado workers; HTTP/2
of `gthread` gets no GOAWAY.

The service manager (systemd, `Type=notify`) hears READY=1 of gunicorn's own arbiter, as soon as it
listens; the workers load the application after that.

With `--threads`, gunicorn itself takes another class for one whose name ends in `SyncWorker`: name
`ThreadWorker` then, or run the module.

Source: gunicorn 27.0.1, app/base.py, app/wsgiapp.py, config.py (Config.worker_class).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lastcall.app.servers.extra import needs

with needs("gunicorn"):
    from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]

from lastcall.app.servers.gunicorn_arbiter import Arbiter

if TYPE_CHECKING:
    from lastcall.app.lifecycle import Lifecycle

__all__ = ["Arbiter", "main", "serve"]

_WORKERS = {
    "SyncWorker": "gunicorn_wsgi",
    "ThreadWorker": "gunicorn_wsgi",
    "AsgiWorker": "gunicorn_asgi",
    "UvicornWorker": "gunicorn_uvicorn",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (a class of workers, loaded when it is named)
    if name in _WORKERS:
        import importlib

        module = importlib.import_module(f"lastcall.app.servers.{_WORKERS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Runs(BaseApplication):  # type: ignore[misc]  # (no types)
    """An application of gunicorn's, run by our arbiter."""

    inside = False  # whoever called us goes on when the service has ended
    arbiter: Arbiter | None = None
    again: list[str] | None = None

    def run(self) -> None:
        """Run until the service has ended.

        Raises:
            SystemExit: always.
        """
        try:
            self.arbiter = Arbiter(self)
            if self.again is not None:
                self.arbiter.START_CTX["args"] = self.again
            self.arbiter.run()
        except RuntimeError as error:
            sys.stderr.write(f"\nError: {error}\n\n")
            sys.exit(1)


class Command(WSGIApplication, Runs):  # type: ignore[misc]  # (no types)
    """gunicorn's command line: what is above asks for `Runs.run` in the end."""


class Served(Runs):
    """One application object, and settings by name.

    Args:
        app: the application, or where it is: `module:name`.
        lifecycle: of the workers; None: the process's one.
        settings: gunicorn's.
    """

    def __init__(self, app: object, lifecycle: Lifecycle | None, settings: dict[str, Any]) -> None:
        self._app = app
        self.lifecycle = lifecycle
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """The settings are those that were given."""
        for name, value in self._settings.items():
            self.cfg.set(name.lower(), value)

    def load(self) -> object:
        """The application."""
        return util.import_app(self._app) if isinstance(self._app, str) else self._app


def serve(
    app: object,
    *,
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (gunicorn's)
) -> None:
    """Serve until somebody ends the service. Main thread only.

    Args:
        app: the application, or where it is: `module:name`.
        lifecycle: of the workers: each has a copy, with all hooks; None: the process's one. If it
            is entered already, this call comes back when the workers have ended, and the lifecycle
            ends this process, too: its hooks run here as well.
        settings: gunicorn's, by the names in its configuration files: `bind`, `workers`,
            `worker_class`, `threads`, ...

    Raises:
        SystemExit: the process is to end, or could not begin.
    """
    from lastcall.app.lifecycle import Lifecycle

    ours = lifecycle or Lifecycle._current  # noqa: SLF001 (`current` would make one)
    served = Served(app, lifecycle, settings)
    if ours is None or not ours.house.main.inside:
        served.run()
        return
    served.inside = True
    # The arbiter has the signals as long as there are workers.
    ours.house.signals.restore()
    try:
        served.run()
    except SystemExit as leaving:
        asked = served.arbiter.asked if served.arbiter is not None else None
        if leaving.code or asked is None:
            raise
        ours.request_stop("gunicorn has ended", signum=asked)
    finally:
        with suppress(ValueError):
            ours.install()


def main() -> None:
    """Be gunicorn's own command line, drained.

    Raises:
        SystemExit: always.
    """
    command = Command("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn")
    command.again = [sys.executable, *sys.orig_argv[1:]]  # what USR2 starts: us, not gunicorn
    command.run()


if __name__ == "__main__":
    # Not this module's copy of the name `__main__`: workers find the classes where they are.
    from lastcall.app.servers import gunicorn as ourselves  # noqa: PLW0406 (the reason above)

    ourselves.main()
