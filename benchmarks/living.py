"""The library inside an application: what it costs while it serves, and how soon it has ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from measure import Effort, Row, Series, differences, in_turns
from stage import PATIENCE_S, PYTHON, Stage, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_IMPORT_MS = 15.0
MOST_OVER_EXIT_MS = 30.0
LEAST_SHARE = 0.98
FLIGHTS = 100_000
HOOKS = 1_000
CONNECTIONS = 16
_WARM_S = 1.0
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_IDLE = (
    "uvicorn",
    "hypercorn",
    "granian-asgi",
    "gunicorn-gthread-30-threads",
    "aiohttp",
    "tornado",
)
_LOADED = ("uvicorn", "granian-asgi", "granian-wsgi")

# A program of the same modules that ends by itself as soon as it is told to.
_OWN_EXIT = """
import signal, sys
import uvicorn, uvicorn.protocols.http.httptools_impl, lastcall.drill.probe.asgi
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("ready", flush=True)
signal.pause()
"""
_FLIGHTS = """
import resource
from lastcall import Lifecycle
lifecycle = Lifecycle()
def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
kept = []
before = used()
for number in range({count}):
    flight = lifecycle.work("order")
    flight.__enter__()
    kept.append(flight)
print((used() - before) / {count})
"""
_HOOKS = """
import time
from lastcall import Lifecycle
lifecycle = Lifecycle(exit_with="nothing", signals=())
async def later(): pass
def now(): pass
for number in range({count}):
    lifecycle.add_hook("close", {function}, name=str(number))
with lifecycle:
    began = time.perf_counter()
print((time.perf_counter() - began) * 1e3)
"""


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about the library."""
    return [
        *_import_rows(stage, effort),
        *_idle_rows(stage, effort.fewer(2)),
        *_last_rows(stage, effort.fewer(3)),
        *_load_rows(stage, effort.fewer(2)),
        *_size_rows(stage, effort.fewer(3)),
    ]


def _import_rows(stage: Stage, effort: Effort) -> list[Row]:
    nothing, ours = "python -c pass", "from lastcall import Lifecycle"
    taken = in_turns(
        effort,
        "ms",
        {
            nothing: lambda: stage.run(PYTHON, "-c", "pass").wall_ms,
            ours: lambda: stage.run(PYTHON, "-c", ours).wall_ms,
        },
    )
    over = differences(taken[ours], taken[nothing])
    aim = f"below {MOST_IMPORT_MS:g} ms"
    return [Row(f"{ours}: over {nothing}", over, aim=aim, reached=over.median < MOST_IMPORT_MS)]


def _idle_rows(stage: Stage, effort: Effort) -> list[Row]:
    made = []
    for key in _IDLE:
        bare, ours = _pair(key)
        taken = in_turns(
            effort,
            "ms",
            {
                "bare": lambda bare=bare: _to_exit(stage, bare),  # type: ignore[misc]
                "ours": lambda ours=ours: _to_exit(stage, ours),  # type: ignore[misc]
            },
        )
        made.append(
            Row(
                f"{key}, idle: from SIGTERM to the exit",
                taken["ours"],
                "the bare server",
                taken["bare"],
                "never slower",
                taken["ours"].median <= taken["bare"].median,
            )
        )
    _, ours = _pair("uvicorn")
    taken = in_turns(
        effort,
        "ms",
        {
            "own": lambda: _to_exit(stage, (PYTHON, "-c", _OWN_EXIT), ready=b"ready"),
            "ours": lambda: _to_exit(stage, ours),
        },
    )
    over = differences(taken["ours"], taken["own"])
    name = "uvicorn, idle: from SIGTERM to the exit, over the interpreter's own exit"
    aim = f"below {MOST_OVER_EXIT_MS:g} ms"
    return [*made, Row(name, over, aim=aim, reached=over.median < MOST_OVER_EXIT_MS)]


def _last_rows(stage: Stage, effort: Effort) -> list[Row]:
    bare, ours = _pair("uvicorn")
    taken = in_turns(
        effort,
        "ms",
        {
            "bare": lambda: _to_exit(stage, bare, path="/slow?s=0.5"),
            "ours": lambda: _to_exit(stage, ours, path="/slow?s=0.5"),
        },
    )
    name = "uvicorn: from the last request's answer to the exit"
    return [Row(name, taken["ours"], "the bare server", taken["bare"])]


def _load_rows(stage: Stage, effort: Effort) -> list[Row]:
    made = []
    for key in _LOADED:
        bare, ours = _pair(key)
        taken = in_turns(
            effort,
            "/s",
            {
                "bare": lambda words=bare: _throughput(stage, words, effort),  # type: ignore[misc]
                "ours": lambda words=ours: _throughput(stage, words, effort),  # type: ignore[misc]
                "again": lambda words=bare: _throughput(stage, words, effort),  # type: ignore[misc]
            },
        )
        name = f"{key}: requests a second with the middleware, by wrk"
        share = _shares(taken["ours"], taken["bare"])
        noise = _shares(taken["again"], taken["bare"])
        made += [
            Row(name, taken["ours"], "the bare server", taken["bare"]),
            Row(
                f"{key}: of the bare server's throughput",
                share,
                "the bare server once more, of itself",
                noise,
                f"at least {LEAST_SHARE}",
                share.median >= LEAST_SHARE,
            ),
        ]
    return made


def _throughput(stage: Stage, command: tuple[str, ...], effort: Effort) -> float:
    """Of a server started for it: how fast one is, is also a matter of luck with its memory."""
    with _serving(stage, command, core=0) as served:
        if effort.warm_up:
            _wrk(served.port, _WARM_S)
        return _wrk(served.port, effort.load_s)


def _shares(some: Series, of: Series) -> Series:
    pairs = zip(some.samples, of.samples, strict=True)
    return Series("of it", tuple(mine / other for mine, other in pairs))


def _size_rows(stage: Stage, effort: Effort) -> list[Row]:
    def printed(code: str) -> float:
        ran = subprocess.run(
            [PYTHON, "-c", code], env=stage.env, capture_output=True, text=True, check=True
        )
        return float(ran.stdout)

    sync = _HOOKS.format(count=HOOKS, function="now")
    later = _HOOKS.format(count=HOOKS, function="later")
    taken = in_turns(
        effort,
        "",
        {
            "size": lambda: printed(_FLIGHTS.format(count=FLIGHTS)),
            "sync": lambda: printed(sync),
            "async": lambda: printed(later),
        },
    )
    size = Series("bytes", taken["size"].samples)
    return [
        Row(f"memory of each of {FLIGHTS:,} works in flight", size),
        Row(f"{HOOKS:,} sync hooks in one phase", Series("ms", taken["sync"].samples)),
        Row(f"{HOOKS:,} async hooks in one phase", Series("ms", taken["async"].samples)),
    ]


# -- servers


class _Served:
    """A server that runs.

    Args:
        child: it.
        port: where.
    """

    def __init__(self, child: subprocess.Popen[bytes], port: int) -> None:
        self.child = child
        self.port = port


def _pair(key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command lines of a server, bare and with lastcall."""
    from lastcall.drill.how import fill
    from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL

    bare = next(server for server in SERVERS if server.key == key)
    ours = next(server for server in SERVERS_WITH_LASTCALL if server.beside == bare.name)
    one, two = (fill(s.command, {"python": PYTHON, "app": s.app}) for s in (bare, ours))
    return one, two


@contextlib.contextmanager
def _serving(stage: Stage, command: tuple[str, ...], core: int | None = None) -> Iterator[_Served]:
    from lastcall.drill.how import fill

    port = _free_port()
    words = fill(command, {"port": port})
    pinned = (program("taskset"), "-c", str(core)) if core is not None else ()
    child = subprocess.Popen(
        [*pinned, *words],
        env=stage.env,
        cwd=stage.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: _answers(port))
        yield _Served(child, port)
    finally:
        _end(child)


def _to_exit(stage: Stage, command: tuple[str, ...], path: str = "", ready: bytes = b"") -> float:
    """Milliseconds from SIGTERM, or from the answer to a request in flight, to the exit."""
    if ready:
        child = subprocess.Popen(command, env=stage.env, stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None  # noqa: S101 (a pipe was asked for)
            child.stdout.readline()
            return _timed(child, None)
        finally:
            _end(child)
    with _serving(stage, command) as served:
        time.sleep(0.2)  # the connection of the readiness check has ended everywhere
        if not path:
            return _timed(served.child, None)
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
        client.request("GET", path)
        time.sleep(0.2)  # it is in the handler, and half of its time is over
        return _timed(served.child, client)


def _timed(child: subprocess.Popen[bytes], client: http.client.HTTPConnection | None) -> float:
    end = os.pidfd_open(child.pid)
    try:
        began = time.perf_counter()
        child.send_signal(signal.SIGTERM)
        if client is not None:
            answer = client.getresponse()
            answer.read()
            began = time.perf_counter()
            client.close()
        if not select.select([end], [], [], PATIENCE_S)[0]:
            raise RuntimeError("a server of the benchmark did not end")
        return (time.perf_counter() - began) * 1e3
    finally:
        os.close(end)


def _wrk(port: int, load_s: float) -> float:
    command = [program("taskset"), "-c", "1", program("wrk"), "-t1", f"-c{CONNECTIONS}"]
    command += [f"-d{max(1, round(load_s))}s", f"http://127.0.0.1:{port}/"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = _RATE.search(ran.stdout)
    if found is None or "Non-2xx" in ran.stdout:
        raise RuntimeError(f"wrk said: {ran.stdout}")
    return float(found[1])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        client.request("GET", "/health", headers={"Connection": "close"})
        return client.getresponse().read() is not None
    except OSError:
        return False
    finally:
        client.close()


def _until(fact: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not fact():
        if time.monotonic() > until_s:
            raise RuntimeError("a server of the benchmark did not get ready")
        time.sleep(0.05)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()
