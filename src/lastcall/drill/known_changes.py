"""What to change, for known servers, by the code of the cause. Sources: see `known`."""

from __future__ import annotations

_BEFORE_IT = "take it out of the balancer first (fail its readiness check), and stop it then"
_SERVED_BY = "serve the application with gunicorn -k gthread, or with uvicorn if it is ASGI"

CHANGES: dict[str, dict[str, str]] = {
    "uvicorn": {
        "cut-at-limit": "uvicorn cancels what still runs at --timeout-graceful-shutdown: set it "
        "above the longest request, or leave it out (then there is no limit)",
        "answered-with-error": "uvicorn answers what it cancels at --timeout-graceful-shutdown "
        "with 500: set it above the longest request, or leave it out",
        "half-sent-dropped": "no setting of uvicorn changes this: it closes every connection whose "
        f"request has not come whole; {_BEFORE_IT}",
        "unread-dropped": "no setting of uvicorn changes this: it closes what it has accepted and "
        f"not read; {_BEFORE_IT}",
        "keep-alive-closed": "no setting of uvicorn changes this: it closes idle connections at "
        f"once; {_BEFORE_IT}",
        "keep-alive-reset": "no setting of uvicorn changes this: it closes idle connections at "
        f"once; {_BEFORE_IT}",
        "websocket-unanswered": "no setting of uvicorn changes this: it closes every WebSocket "
        f"(1012) at the stop; {_BEFORE_IT}",
        "not-ended": "uvicorn waits without a limit: --timeout-graceful-shutdown SECONDS",
        "websocket-holds-exit": "uvicorn asks WebSockets to close (1012) and waits for the "
        "application: let its handler return, or set --timeout-graceful-shutdown",
    },
    "uvicorn/workers": {
        "listener-unattended": "the parent of --workers keeps the port open: run one uvicorn "
        "without --workers for each port, or gunicorn -k uvicorn_worker.UvicornWorker",
        "queue-reset": "the parent of --workers keeps the port open: run one uvicorn without "
        "--workers for each port, or gunicorn -k uvicorn_worker.UvicornWorker",
    },
    "gunicorn": {
        "cut-at-limit": "set gunicorn's --graceful-timeout (30 s by default) above the longest "
        "request",
        "worker-killed": "gunicorn kills workers at --graceful-timeout after the stop and, when "
        "they do not report, at --timeout (both 30 s by default): set them above the longest "
        "request",
        "not-ended": "gunicorn kills its workers at --graceful-timeout: lower it",
    },
    "gunicorn/sync": {
        "listener-unattended": f"no setting of gunicorn changes this (gunicorn#2409): {_BEFORE_IT}",
        "queue-reset": "a sync worker takes one request at a time, and what waits is reset "
        "(gunicorn#2529, #3397): -k gthread --threads N takes them at once; "
        f"{_BEFORE_IT}",
        "cut-at-once": "workers that were still starting end at once: stop gunicorn only when it "
        "serves; and signal its main process alone (systemd: KillMode=mixed)",
    },
    "gunicorn/gthread": {
        "listener-unattended": "no setting of gunicorn changes this (gunicorn#2409, #3397): its "
        f"workers keep the port open and accept nothing; {_BEFORE_IT}",
        "queue-reset": f"no setting of gunicorn changes this (gunicorn#3397): {_BEFORE_IT}",
    },
    "gunicorn/uvicorn": {
        "half-sent-dropped": "no setting of uvicorn's worker changes this; gunicorn's own ASGI "
        "worker (-k asgi) takes half-sent requests to their end",
        "unread-dropped": "no setting of uvicorn's worker changes this; gunicorn's own ASGI worker "
        "(-k asgi) reads what it has accepted",
    },
    "gunicorn/asgi": {
        "websocket-holds-exit": "gunicorn's ASGI worker waits for open WebSockets until "
        "--graceful-timeout and is killed then, before the lifespan's shutdown: lower it, or use "
        "-k uvicorn_worker.UvicornWorker, which closes them (1012)",
    },
    "hypercorn": {
        "cut-at-limit": "set hypercorn's --graceful-timeout (3 s by default) above the longest "
        "request",
        "answered-with-error": "hypercorn breaks off what runs at --graceful-timeout (3 s by "
        "default) with 500: set it above the longest request",
        "listener-unattended": "the parent keeps the port open: --workers 0 serves without a "
        "parent, and closes it at the stop",
        "queue-reset": "the parent keeps the port open: --workers 0 serves without a parent, and "
        "closes it at the stop",
        "cut-at-once": "hypercorn's workers have no handler for SIGTERM, and the parent ends them "
        "when the first is done: --workers 0, and one hypercorn for each port; or signal the main "
        "process alone (systemd: KillMode=mixed) and use one worker",
        "asked-twice": "hypercorn's workers have no handler for SIGTERM: ask once, or use "
        "--workers 0",
        "half-sent-dropped": f"no setting of hypercorn changes this: {_BEFORE_IT}",
        "unread-dropped": f"no setting of hypercorn changes this: {_BEFORE_IT}",
    },
    "hypercorn/alone": {
        "cut-at-once": "set hypercorn's --graceful-timeout above the longest request",
    },
    "granian": {
        "cut-at-limit": "granian kills its workers at --workers-kill-timeout: set it above the "
        "longest request, or leave it out (then there is no limit)",
        "worker-killed": "granian kills its workers at --workers-kill-timeout: set it above the "
        "longest request, or leave it out (then there is no limit)",
        "not-ended": "granian waits without a limit: --workers-kill-timeout SECONDS",
        "queue-reset": "when workers are replaced (HUP), the kernel can hand the queue of one to "
        "another: sysctl net.ipv4.tcp_migrate_req=1 (Linux 5.14 and later)",
        "keep-alive-closed": f"no setting of granian changes this: {_BEFORE_IT}",
    },
    "daphne": {
        "cut-at-once": "no setting of daphne changes this: at the signal it kills every running "
        "application; serve it with uvicorn, hypercorn or gunicorn -k asgi",
    },
    "waitress": {
        "no-handler": "waitress handles no signal: raise SystemExit in a SIGTERM handler of your "
        "own, around waitress.serve() or server.run()",
        "cut-at-limit": "waitress waits 5 s for its threads: server = create_server(...), then "
        "server.task_dispatcher.shutdown = functools.partial("
        "server.task_dispatcher.shutdown, timeout=SECONDS) before server.run()",
        "listener-unattended": "no setting of waitress changes this: its loop ends at once, its "
        f"port stays open until it has ended (waitress#198); {_BEFORE_IT}",
        "half-sent-dropped": "no setting of waitress changes this: its loop ends at once and "
        f"reads nothing more (waitress#198); {_BEFORE_IT}",
        "keep-alive-reset": "no setting of waitress changes this: its loop ends at once and "
        f"reads nothing more (waitress#198); {_BEFORE_IT}",
    },
    "aiohttp": {
        "cut-at-limit": "set run_app(shutdown_timeout=...) above the longest request (60 s by "
        "default; it is spent twice, so allow double for the stop)",
        "half-sent-dropped": "no setting of aiohttp changes this: once it shuts down, it discards "
        f"what comes (web_protocol.py, data_received); {_BEFORE_IT}",
        "unread-dropped": "no setting of aiohttp changes this: once it shuts down, it discards "
        f"what comes (web_protocol.py, data_received); {_BEFORE_IT}",
        "websocket-holds-exit": "close the WebSockets in a handler of app.on_shutdown: "
        "await ws.close(code=WSCloseCode.GOING_AWAY) (aiohttp#2200)",
        "asked-twice": "a second signal breaks off aiohttp's clean-up: ask once, or use "
        "run_app(handle_signals=False) with a handler of your own",
        "not-ended": "lower run_app(shutdown_timeout=...), which is 60 s and spent twice, and "
        "close WebSockets in a handler of app.on_shutdown",
    },
    "werkzeug": {
        "no-handler": f"this is a development server without a stop of its own: {_SERVED_BY}",
        "cut-at-once": f"this is a development server without a stop of its own: {_SERVED_BY}",
    },
    "http.server": {
        "no-handler": "in a SIGTERM handler start a thread that calls server.shutdown(); set "
        "daemon_threads = False on a ThreadingHTTPServer, and call server.server_close() after "
        "serve_forever(): it waits for the threads",
        "cut-at-once": "ThreadingHTTPServer has daemon threads, which end with the main one: set "
        "daemon_threads = False, and call server.server_close() after serve_forever(): it waits",
    },
    "node": {
        "no-handler": "process.on('SIGTERM', () => server.close()): it lets requests finish "
        "(before Node 19 also server.closeIdleConnections())",
        "cut-at-once": "call server.close() on SIGTERM and process.exit() only in its callback",
        "keep-alive-closed": "server.close() closes idle connections at once (node#60617): before "
        "it, answer for a while with `Connection: close`",
        "keep-alive-reset": "server.close() closes idle connections at once (node#60617): before "
        "it, answer for a while with `Connection: close`",
        "no-close-announced": "once the stop has come: res.setHeader('Connection', 'close') on "
        "every answer",
        "websocket-holds-exit": "server.close() leaves upgraded connections alone: close each "
        "WebSocket (1001) on SIGTERM",
        "not-ended": "server.close() waits without a limit: call server.closeAllConnections() when "
        "yours has passed",
    },
    "go": {
        "no-handler": "take the signal with signal.NotifyContext(ctx, syscall.SIGTERM), call "
        "server.Shutdown(ctx), and let main wait until it returns",
        "cut-at-once": "let main wait until server.Shutdown(ctx) returns: ListenAndServe returns "
        "as soon as Shutdown begins",
        "cut-at-limit": "give server.Shutdown a context with a longer timeout",
        "websocket-cut": "Shutdown leaves hijacked connections alone: close them in "
        "server.RegisterOnShutdown, and wait for them",
        "not-ended": "give server.Shutdown a context with a timeout",
    },
    "java": {
        "no-handler": "Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(SECONDS)))"
        ": stop waits so long for requests to finish",
        "cut-at-once": "call server.stop(SECONDS) in a shutdown hook; stop(0) waits for nothing",
        "cut-at-limit": "give HttpServer.stop more seconds",
    },
    "spring": {
        "no-handler": "server.shutdown=graceful (Spring Boot 2.3 and later; the default only "
        "since 3.4)",
        "cut-at-once": "server.shutdown=graceful (Spring Boot 2.3 and later; the default only "
        "since 3.4)",
        "cut-at-limit": "set spring.lifecycle.timeout-per-shutdown-phase (30 s by default) above "
        "the longest request",
        "not-ended": "set spring.lifecycle.timeout-per-shutdown-phase (30 s by default)",
    },
    "nginx": {
        "cut-at-once": "SIGTERM is nginx's fast shutdown: stop it with SIGQUIT (nginx -s quit; "
        "systemd: KillSignal=SIGQUIT; Docker: STOPSIGNAL SIGQUIT)",
        "cut-at-limit": "raise nginx's worker_shutdown_timeout",
        "not-ended": "set nginx's worker_shutdown_timeout",
    },
    "haproxy": {
        "cut-at-once": "SIGTERM ends HAProxy at once: stop it with SIGUSR1 (systemd: "
        "KillSignal=SIGUSR1; Docker: STOPSIGNAL SIGUSR1)",
        "cut-at-limit": "raise HAProxy's hard-stop-after",
        "not-ended": "set HAProxy's hard-stop-after",
    },
}
