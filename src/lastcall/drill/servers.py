"""The servers that `lastcall drill compare` knows: how each is started, and what it speaks.

Every one runs the probe application (`lastcall.drill.probe`) and listens on 127.0.0.1. Settings are
those that a server has when nobody sets any, but for the number of its workers or threads where
the name says it: what is compared is what most people run.
"""

from __future__ import annotations

import re

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


def _gunicorn(name: str, kind: str, *words: str, packages: tuple[str, ...] = ()) -> Server:
    config = ("-c", "python:lastcall.drill.probe.gunicornconf")
    command = _python("gunicorn", *config, "-b", "127.0.0.1:{port}", *words, "{app}")
    speaks = WEBSOCKET if kind == "asgi" else ()
    return Server(name, command, kind, ("gunicorn", *packages), speaks=speaks)


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


_WAITRESS = _python("waitress", "--listen=127.0.0.1:{port}", "--threads=30", "{app}")
_DAPHNE = _python("daphne", "-b", "127.0.0.1", "-p", "{port}", "--access-log", "/dev/null", "{app}")
_FLASK_APP = "lastcall.drill.probe.flaskapp"
_FLASK = _python("flask", "--app", _FLASK_APP, "run", "--host", "127.0.0.1", "--port", "{port}")
_PROBE = "lastcall.drill.probe"

SERVERS: tuple[Server, ...] = (
    _uvicorn("uvicorn", "--workers", "1"),
    _uvicorn("uvicorn, 2 workers", "--workers", "2"),
    _gunicorn("gunicorn sync", "wsgi", "-k", "sync", "-w", "1"),
    _gunicorn("gunicorn sync, 24 workers", "wsgi", "-k", "sync", "-w", "24"),
    _gunicorn("gunicorn gthread, 4 threads", "wsgi", "-k", "gthread", "-w", "1", "--threads", "4"),
    _gunicorn(
        "gunicorn gthread, 30 threads", "wsgi", "-k", "gthread", "-w", "1", "--threads", "30"
    ),
    _gunicorn(
        "gunicorn, uvicorn's worker",
        "asgi",
        *("-k", "uvicorn_worker.UvicornWorker", "-w", "1"),
        packages=("uvicorn-worker", "uvicorn"),
    ),
    _gunicorn("gunicorn, its ASGI worker", "asgi", "-k", "asgi", "-w", "1"),
    _hypercorn("hypercorn", "--workers", "1"),
    _hypercorn("hypercorn, 2 workers", "--workers", "2"),
    _granian("granian ASGI", "asgi", "--workers", "1"),
    _granian("granian WSGI", "wsgi", "--workers", "1", "--blocking-threads", "30"),
    Server("daphne", _DAPHNE, "asgi", ("daphne",), speaks=WEBSOCKET),
    Server("waitress, 30 threads", _WAITRESS, "wsgi", ("waitress",)),
    Server("aiohttp", _python(f"{_PROBE}.aio", "{port}"), packages=("aiohttp",), speaks=WEBSOCKET),
    Server("Flask's development server", _FLASK, packages=("flask", "werkzeug")),
    Server("wsgiref", _python(f"{_PROBE}.standard", "wsgiref", "{port}"), "wsgi"),
    Server("ThreadingHTTPServer", _python(f"{_PROBE}.standard", "threading", "{port}")),
    Server("lastcall's careful example", _python(f"{_PROBE}.careful", "{port}")),
    _node("Node http"),
    _node("Node http, server.close()", "graceful"),
    _go("Go net/http"),
    _go("Go net/http, Shutdown", "graceful"),
    _java("Java HttpServer"),
    _java("Java HttpServer, stop(10)", "graceful"),
)
