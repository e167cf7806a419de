"""The servers that `lastcall drill compare` knows: how each is started, and what it speaks.

Every one runs the probe application (`lastcall.drill.probe`) and listens on 127.0.0.1. Settings are
those that a server has when nobody sets any, but for the number of its workers or threads where
the name says it: what is compared is what most people run. `SERVERS_WITH_LASTCALL` are the Python
ones once more, with the same settings, run by the modules of `lastcall.app.servers`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from lastcall.drill.history import Kind
from lastcall.record import record

ASGI = "lastcall.drill.probe.asgi:app"
WSGI = "lastcall.drill.probe.wsgi:app"
WEBSOCKET = (Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO)
HTTP2 = (Kind.HTTP2_STREAM,)


@record
class Tool:
    """A program that a server needs.

    Args:
        name: as it is called.
        version: its command line that tells its version, without the program itself.
        package: the Debian package that has it; empty: not known.
    """

    name: str
    version: tuple[str, ...] = ()
    package: str = ""


@record
class Server:
    """One server with its settings.

    Args:
        name: for people; unique.
        command: what starts it, with `{port}`; `{python}` is the interpreter that runs us,
            `{app}` the probe application of its kind, `{sources}` the folder of the sources in
            other languages, `{built}` what was made of `source`.
        kind: of the application: `asgi`, `wsgi` or `other`.
        packages: the Python packages it needs, the one that it is first.
        tools: the programs that it needs, the one that it is first.
        source: the file in `{sources}` that it is compiled from, or is; empty: none.
        compiler: what makes `{built}` of it, with `{source}` and `{built}`; empty: nothing to make.
        speaks: which of the states that not every server can be in it must be brought to.
        env: more environment variables.
        ready: the path that answers once it serves.
        ready_within_s: how long it may take to start, in seconds.
        beside: the name of the same server without lastcall; empty: this one runs as it comes.
        hands: how many requests its workers or threads can have in hand; 0: more than a drill has.
        queue: how many connections its accept queue takes; 0: more than a drill has.
        misses: the states which it cannot be brought to every time, or never.
        warm_s: how long after its first answer all its workers are there, in seconds.
    """

    name: str
    command: tuple[str, ...]
    kind: str = "other"
    packages: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    source: str = ""
    compiler: tuple[str, ...] = ()
    speaks: tuple[Kind, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    ready: str = "/health"
    ready_within_s: float = 30.0
    beside: str = ""
    hands: int = 0
    queue: int = 0
    misses: tuple[Kind, ...] = ()
    warm_s: float = 0.0

    @property
    def key(self) -> str:
        """Its name for command lines and file names: `uvicorn-2-workers`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def app(self) -> str:
        """The probe application that it loads; empty: it brings its own."""
        return {"asgi": ASGI, "wsgi": WSGI}.get(self.kind, "")


_NODE = Tool("node", ("--version",), "nodejs")
_GO = Tool("go", ("version",), "golang-go")
_JAVA = Tool("java", ("-version",), "default-jdk-headless")
_JAVAC = Tool("javac", (), "default-jdk-headless")


def _python(module: str, *words: str) -> tuple[str, ...]:
    # -P: a file in the current folder must not take a module's place.
    return ("{python}", "-P", "-m", module, *words)


def _uvicorn(name: str, *words: str) -> Server:
    command = _python("uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log")
    return Server(name, (*command, *words, "{app}"), "asgi", ("uvicorn",), speaks=WEBSOCKET)


def _gunicorn(
    name: str,
    worker: str,
    *words: str,
    hands: int = 0,
    misses: tuple[Kind, ...] = (),
    warm_s: float = 0.0,
) -> Server:
    kind = "wsgi" if worker in {"sync", "gthread"} else "asgi"
    packages = ("gunicorn", "uvicorn-worker", "uvicorn") if "Uvicorn" in worker else ("gunicorn",)
    config = ("-c", "python:lastcall.drill.probe.gunicornconf")
    words = (*config, "-b", "127.0.0.1:{port}", "-k", worker, *(words or ("-w", "1")), "{app}")
    return Server(
        name,
        _python("gunicorn", *words),
        kind,
        packages,
        speaks=WEBSOCKET if kind == "asgi" else (),
        hands=hands,
        misses=misses,
        warm_s=warm_s,
    )


def _hypercorn(name: str, *words: str) -> Server:
    command = _python("hypercorn", "-b", "127.0.0.1:{port}", *words, "{app}")
    return Server(name, command, "asgi", ("hypercorn",), speaks=(*WEBSOCKET, *HTTP2))


def _granian(name: str, kind: str, *words: str) -> Server:
    place = ("--host", "127.0.0.1", "--port", "{port}")
    command = _python("granian", "--interface", kind, *place, *words, "{app}")
    speaks = (*WEBSOCKET, *HTTP2) if kind == "asgi" else HTTP2
    return Server(name, command, kind, ("granian",), speaks=speaks)


def _node(name: str, *words: str) -> Server:
    source = "node_server.js"
    command = ("{node}", f"{{sources}}/{source}", "{port}", *words)
    return Server(name, command, tools=(_NODE,), source=source)


def _go(name: str, *words: str) -> Server:
    compiler = ("{go}", "build", "-o", "{built}", "{source}")
    command = ("{built}", "{port}", *words)
    return Server(name, command, tools=(_GO,), source="go_server/main.go", compiler=compiler)


def _java(name: str, *words: str) -> Server:
    compiler = ("{javac}", "-d", "{built}", "{source}")
    command = ("{java}", "-cp", "{built}", "JavaServer", "{port}", *words)
    tools = (_JAVA, _JAVAC)
    return Server(name, command, tools=tools, source="JavaServer.java", compiler=compiler)


_PROBE = "lastcall.drill.probe"
_WAITRESS = _python("waitress", "--listen=127.0.0.1:{port}", "--threads=30", "{app}")
_DAPHNE = _python("daphne", "-b", "127.0.0.1", "-p", "{port}", "--access-log", "/dev/null", "{app}")
_FLASK_APP = f"{_PROBE}.flaskapp"
_FLASK = _python("flask", "--app", _FLASK_APP, "run", "--host", "127.0.0.1", "--port", "{port}")
# They end each connection with its answer.
_NO_KEEP_ALIVE = (Kind.IDLE_THEN_REQUEST,)
_HTTPSERVER_QUEUE = 5  # socketserver.TCPServer.request_queue_size of http.server.HTTPServer

# Those for which lastcall has a module, as they come.
_PYTHON: tuple[Server, ...] = (
    _uvicorn("uvicorn", "--workers", "1"),
    _uvicorn("uvicorn, 2 workers", "--workers", "2"),
    _gunicorn("gunicorn sync", "sync", hands=1, misses=_NO_KEEP_ALIVE),
    _gunicorn(
        "gunicorn sync, 24 workers",
        "sync",
        *("-w", "24"),
        hands=24,
        misses=_NO_KEEP_ALIVE,
        warm_s=1.0,
    ),
    _gunicorn("gunicorn gthread, 4 threads", "gthread", "-w", "1", "--threads", "4", hands=4),
    _gunicorn("gunicorn gthread, 30 threads", "gthread", "-w", "1", "--threads", "30"),
    _gunicorn("gunicorn, uvicorn's worker", "uvicorn_worker.UvicornWorker"),
    _gunicorn("gunicorn, its ASGI worker", "asgi"),
    _hypercorn("hypercorn", "--workers", "1"),
    _hypercorn("hypercorn, 2 workers", "--workers", "2"),
    _granian("granian ASGI", "asgi", "--workers", "1"),
    _granian("granian WSGI", "wsgi", "--workers", "1", "--blocking-threads", "30"),
    Server("daphne", _DAPHNE, "asgi", ("daphne",), speaks=WEBSOCKET),
    Server("waitress, 30 threads", _WAITRESS, "wsgi", ("waitress",)),
    Server("aiohttp", _python(f"{_PROBE}.aio", "{port}"), packages=("aiohttp",), speaks=WEBSOCKET),
    Server(
        "Tornado",
        _python(f"{_PROBE}.tornadoapp", "{port}"),
        packages=("tornado",),
        speaks=WEBSOCKET,
    ),
    Server(
        "Flask's development server", _FLASK, packages=("flask", "werkzeug"), misses=_NO_KEEP_ALIVE
    ),
    Server(
        "wsgiref",
        _python(f"{_PROBE}.standard", "wsgiref", "{port}"),
        "wsgi",
        hands=1,
        queue=_HTTPSERVER_QUEUE,
        misses=_NO_KEEP_ALIVE,
    ),
    Server(
        "ThreadingHTTPServer",
        _python(f"{_PROBE}.standard", "threading", "{port}"),
        queue=_HTTPSERVER_QUEUE,
    ),
)


def _with_lastcall(bare: Server) -> Server:
    """The same server, run by lastcall's module: of its command line only that word is another."""
    start, module, words = bare.command[:3], bare.command[3], bare.command[4:]
    if module.startswith(_PROBE):
        command = (*bare.command, "lastcall")
    else:
        command = (*start, f"lastcall.app.servers.{module}", *words)
    return replace(bare, name=f"{bare.name}, with lastcall", command=command, beside=bare.name)


SERVERS_WITH_LASTCALL: tuple[Server, ...] = tuple(map(_with_lastcall, _PYTHON))

SERVERS: tuple[Server, ...] = (
    *_PYTHON,
    Server("lastcall's careful example", _python(f"{_PROBE}.careful", "{port}")),
    _node("Node http"),
    _node("Node http, server.close()", "graceful"),
    _go("Go net/http"),
    _go("Go net/http, Shutdown", "graceful"),
    _java("Java HttpServer"),
    _java("Java HttpServer, stop(10)", "graceful"),
)
