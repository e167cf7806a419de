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
from lastcall.errors import MissingExtra

try:
    from werkzeug import serving as werkzeug
except ModuleNotFoundError as _error:
    raise MissingExtra("this needs werkzeug", "pip install flask, then try again") from _error

if TYPE_CHECKING:
    import ssl
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


def serve(  # noqa: PLR0913 (the server's own settings, all by name)
    app: WSGIApplication,
    *,
    lifecycle: Lifecycle | None = None,
    host: str = "127.0.0.1",
    port: int = 5000,
    threaded: bool = True,
    processes: int = 1,
    request_handler: type[werkzeug.WSGIRequestHandler] | None = None,
    passthrough_errors: bool = False,
    ssl_context: ssl.SSLContext | tuple[str, str | None] | str | None = None,
    ready: str = "",
    live: str = "",
) -> None:
    """Serve a WSGI application until the process is to end.

    Args:
        app: Flask's, or any other.
        lifecycle: of this process; None: the current one. It may be entered already.
        host: an address, or `unix:///path`.
        port: 0: any that is free.
        threaded: whether each connection has a thread.
        processes: more than 1: each connection has a process, so many at a time.
        request_handler: None: Werkzeug's.
        passthrough_errors: whether an error in the application ends the server.
        ssl_context: a context, the files of a certificate and its key, or `adhoc`; None: no TLS.
        ready: a path that tells readiness: 200, and 503 once a stop is announced; empty: none.
        live: a path that answers 200 as long as the process runs; empty: none.

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
        processes=processes,
        request_handler=request_handler or Handler,
        passthrough_errors=passthrough_errors,
        ssl_context=ssl_context,  # type: ignore[arg-type]
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
    try:
        from flask import cli
    except ModuleNotFoundError as error:
        raise MissingExtra("this needs flask", "pip install flask, then try again") from error
    # `run_command` has no setting for it: it calls the `run_simple` that its module has imported
    # (flask/cli.py, 3.1). All its options, and all other commands, stay Flask's.
    cli.run_simple = _run_simple  # type: ignore[assignment, attr-defined]
    cli.main()


if __name__ == "__main__":
    main()
