"""Flask's development server (Werkzeug's), so that it ends well.

    python -m lastcall.app.servers.flask --app shop run --port 8000

in place of `python -m flask --app shop run --port 8000`; or from code, in place of `app.run()`:

    from lastcall.app.servers.flask import serve

    serve(app, port=8000)

Everything in `lastcall.app.servers.stdlib` holds here, as Werkzeug's server is built on the
standard library's. The reloader and the debugger are Flask's own: with one of them (`--debug` means
both) the run is left to Flask, and ends as Flask ends it.

Source: werkzeug/serving.py (3.1), flask/cli.py (3.1), run_command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lastcall.app.http.wsgi import Middleware
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers import stdlib
from lastcall.app.servers.extra import needs

with needs("werkzeug"):
    from werkzeug import serving as werkzeug

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Handler(werkzeug.WSGIRequestHandler):
    """Werkzeug's; it says `100 Continue` once, not twice."""

    def handle_expect_100(self) -> bool:
        """Left to `run_wsgi`, which says it again (werkzeug/serving.py, 3.1)."""
        return True


class Health(Middleware):
    """Tells readiness, and leaves the counting to the server, which knows when it may end."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass on one request."""
        path = environ.get("PATH_INFO", "")
        if path in self._health:
            return self._tell_health(self._health[path], start_response)
        return self._app(environ, start_response)


def serve(
    app: WSGIApplication,
    *,
    lifecycle: Lifecycle | None = None,
    host: str = "127.0.0.1",
    port: int = 5000,
    threaded: bool = True,
    request_handler: type[werkzeug.WSGIRequestHandler] | None = None,
    ready: str = "",
    live: str = "",
    **settings: Any,  # noqa: ANN401 (Werkzeug's own)
) -> None:
    """Serve a WSGI application until the process is to end.

    Args:
        app: Flask's, or any other.
        lifecycle: of this process; None: the current one. It may be entered already.
        host: an address, or `unix:///path`.
        port: 0: any that is free.
        threaded: whether each connection has a thread.
        request_handler: None: Werkzeug's.
        ready: a path that tells readiness: 200, and 503 once a stop is announced; empty: none.
        live: a path that answers 200 as long as the process runs; empty: none.
        settings: as for `werkzeug.serving.make_server`: `processes`, `passthrough_errors`,
            `ssl_context`, `fd`.

    Raises:
        SystemExit: the process is to end; with 1 when the port is taken.
    """
    lifecycle = lifecycle or Lifecycle.current()
    if ready or live:
        app = Health(app, lifecycle, ready=ready, live=live, guest=False)
    server = werkzeug.make_server(
        host,
        port,
        app,
        threaded=threaded,
        request_handler=request_handler or Handler,
        **settings,
    )
    server.log_startup()
    server.log("info", "Press CTRL+C to quit")
    stdlib.serve(server, lifecycle=lifecycle)


def _run_simple(
    hostname: str,
    port: int,
    application: WSGIApplication,
    use_reloader: bool = False,  # noqa: FBT001, FBT002 (the same)
    use_debugger: bool = False,  # noqa: FBT001, FBT002 (the same)
    **settings: Any,  # noqa: ANN401 (the same)
) -> None:
    if use_reloader or use_debugger:
        if not werkzeug.is_running_from_reloader():  # said once, not by the reloader's child, too
            _say_left_to_flask()
        werkzeug.run_simple(
            hostname,
            port,
            application,
            use_reloader=use_reloader,
            use_debugger=use_debugger,
            **settings,
        )
        return
    # They belong to the reloader.
    for name in ("extra_files", "exclude_patterns", "reloader_interval", "reloader_type"):
        settings.pop(name, None)
    serve(application, host=hostname, port=port, **settings)


def _say_left_to_flask() -> None:
    from lastcall.app.voice import WARNING, voice

    voice.say(WARNING, "with the reloader or the debugger, Flask ends this server, not lastcall")
    voice.finish(1.0)


def main() -> None:
    """Flask's own command line; its `run` serves by `serve`."""
    with needs("flask"):
        from flask import cli
    # `run_command` has no setting for it: it calls the `run_simple` that its module has imported
    # (flask/cli.py, 3.1). All its options, and all other commands, stay Flask's.
    cli.run_simple = _run_simple  # type: ignore[assignment, attr-defined]
    cli.main()


if __name__ == "__main__":
    main()
