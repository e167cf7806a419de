"""What is known of servers: which one it is, what it says, its limits, and what to change. Pure.

Nothing stands here that was not read in a server's source or documentation, or measured:

- uvicorn 0.54.0: server.py (`shutdown`), protocols/http/h11_impl.py (`shutdown`),
  supervisors/multiprocess.py; pull request 2414 asks for a delay before it closes.
- gunicorn 27.0.1: arbiter.py (`stop`, `murder_workers`, `reap_workers`), workers/gthread.py,
  workers/gasgi.py, config.py; issues 2409, 2529, 3397 (the backlog), 1236 (keep-alive).
- hypercorn 0.18.0: run.py, asyncio/run.py, config.py; `--workers 0` measured.
- granian 2.8.7: server/common.py (`_stop_workers`), cli.py; pull request 813.
- daphne 4.2.3: server.py (`kill_all_applications`), cli.py.
- waitress 3.0.2: server.py (`run`), task.py (`shutdown`), measured; issue 198.
- aiohttp 3.14.5: web.py, web_runner.py (`cleanup`), web_protocol.py (`shutdown`,
  `data_received`); issue 2200.
- Python: library reference of socketserver (`daemon_threads`, `shutdown`, `server_close`).
- Node: nodejs.org/api/http.html (`server.close`, `closeIdleConnections`); nodejs/node#60617.
- Go: net/http, `Server.Shutdown` and `RegisterOnShutdown`; os/signal, `NotifyContext`.
- Java: com.sun.net.httpserver.HttpServer.stop, Runtime.addShutdownHook.
- Spring Boot: docs.spring.io/spring-boot/reference/web/graceful-shutdown.html.
- nginx.org/en/docs/control.html; HAProxy management guide 4, `hard-stop-after`.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from lastcall.drill.known_changes import CHANGES
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.result import Subject


@record
class Server:
    """A server that is known, or not.

    Args:
        name: in our tables, such as `gunicorn/gthread`; empty: not known.
        words: its command line, word by word.
    """

    name: str = ""
    words: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Its name without its kind of worker."""
        return self.name.partition("/")[0]


@record
class Limit:
    """How long a server waits for its work before it cuts it off.

    Args:
        after_s: seconds from the stop.
        said: where that is set, for people.
        option: what sets it.
    """

    after_s: float
    said: str
    option: str


# Python's servers, by a word of the command line; the first that fits, so gunicorn before the
# worker classes that it takes.
_BY_WORD = (
    "gunicorn",
    "hypercorn",
    "granian",
    "uvicorn",
    "daphne",
    "waitress",
    "nginx",
    "haproxy",
)
_PROGRAMS = {
    "waitress-serve": "waitress",
    "flask": "werkzeug",
    "aiohttp.web": "aiohttp",
    "http.server": "http.server",
    "lastcall.drill.probe.standard": "http.server",
}
# By the Server header, or by what the drill found out otherwise.
_BY_SOFTWARE = (
    ("werkzeug", "werkzeug"),
    ("flask", "werkzeug"),
    ("wsgiserver", "http.server"),
    ("wsgiref", "http.server"),
    ("simplehttp", "http.server"),
    ("basehttp", "http.server"),
    ("http.server", "http.server"),
    ("threadinghttpserver", "http.server"),
    ("aiohttp", "aiohttp"),
    ("gunicorn", "gunicorn"),
    ("hypercorn", "hypercorn"),
    ("granian", "granian"),
    ("uvicorn", "uvicorn"),
    ("daphne", "daphne"),
    ("waitress", "waitress"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("spring", "spring"),
    ("tomcat", "spring"),
)
_SPRING = re.compile(r":: Spring Boot ::|\bo\.s\.b\.|org\.springframework|\bo\.s\.c\.")
_RUNTIMES = {"node": "node", "nodejs": "node", "npm": "node", "npx": "node", "java": "java"}
# What `check` says of them.
_BY_RUNTIME = (
    ("(Go)", "go"),
    ("only Go itself takes it", "go"),
    ("(Node)", "node"),
    ("(the JVM)", "java"),
)


def recognise(subject: Subject, output: Sequence[str] = (), told: Sequence[str] = ()) -> Server:
    """Which server it is.

    Args:
        subject: its command line and what it says it is.
        output: what it printed.
        told: what `check` found: it may name the runtime.
    """
    # A shell's command is one word with many in it.
    words = tuple(part for word in subject.command for part in word.split())
    bases = [word.rpartition("/")[2].strip("'\";") for word in words]
    software = subject.software.lower()
    names = (
        *("spring" for line in output if _SPRING.search(line)),
        *(name for name in _BY_WORD if name in bases),
        *(_PROGRAMS[word] for word in bases if word in _PROGRAMS),
        *(name for sign, name in _BY_SOFTWARE if sign in software),
        *(_RUNTIMES[word] for word in bases if word in _RUNTIMES),
        *(name for sign, name in _BY_RUNTIME if any(sign in line for line in told)),
    )
    return Server(_kind(names[0], words) if names else "", words)


def _kind(name: str, words: Sequence[str]) -> str:
    """The name with the kind of worker, where that makes a difference."""
    if name == "gunicorn":
        worker = option(words, "-k", "--worker-class") or "sync"
        if worker == "sync" and (option(words, "--threads") or "1") != "1":
            worker = "gthread"
        return f"gunicorn/{'uvicorn' if 'uvicorn' in worker.lower() else worker}"
    if name == "uvicorn" and (option(words, "--workers") or "1") != "1":
        return "uvicorn/workers"
    if name == "hypercorn" and option(words, "-w", "--workers") == "0":
        return "hypercorn/alone"
    return name


def option(words: Sequence[str], *names: str) -> str:
    """The value that a command line gives an option; empty: none."""
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word in names:
            return after
        head, equals, value = word.partition("=")
        if equals and head in names:
            return value
    return ""


# (option, seconds when it is not given; None: no limit then)
_LIMITS: dict[str, tuple[str, float | None]] = {
    "uvicorn": ("--timeout-graceful-shutdown", None),
    "gunicorn": ("--graceful-timeout", 30.0),
    "hypercorn": ("--graceful-timeout", 3.0),
    "granian": ("--workers-kill-timeout", None),
    "waitress": ("ThreadedTaskDispatcher.shutdown(timeout=)", 5.0),
    "aiohttp": ("run_app(shutdown_timeout=)", 60.0),
    "spring": ("--spring.lifecycle.timeout-per-shutdown-phase", 30.0),
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def limit(server: Server) -> Limit | None:
    """How long it waits for its work; None: it has no limit, or none is known."""
    if server.family not in _LIMITS:
        return None
    name, otherwise = _LIMITS[server.family]
    given = _AMOUNT.fullmatch(option(server.words, name))
    if given:
        after_s = float(given[1]) * _UNITS[given[2] or "s"]
        return Limit(after_s, f"{name} is set to {after_s:g} s", name)
    if otherwise is None:
        return None
    return Limit(otherwise, f"{name} of {server.family} is {otherwise:g} s by default", name)


# What servers print when they give up on their work.
_KILLED = re.compile(
    r"WORKER TIMEOUT \(pid:\d+\)"
    r"|Worker \(pid:\d+\) was sent SIG(?:KILL|ABRT)"
    r"|Killing worker-\d+ after it refused to gracefully stop"
)
_CUT = re.compile(
    r"Cancel \d+ running task\(s\), timeout graceful shutdown exceeded"
    r"|Forcing close of \d+ connections"
    r"|\d+ thread\(s\) still running|Canceling \d+ pending task\(s\)"
    r"|Graceful shutdown aborted with one or more requests still active"
    r"|Failed to shut down \d+ beans? with phase value .* within timeout"
    r"|Shutdown phase \S+ ends with \d+ beans? still running"
)
_BROKEN = re.compile(r"^Traceback \(most recent call last\)|^panic: |^Exception in thread |^fatal ")


def says_killed(output: Sequence[str]) -> tuple[str, ...]:
    """The lines that tell of a worker taken away."""
    return _those(output, _KILLED)


def says_cut(output: Sequence[str]) -> tuple[str, ...]:
    """The lines that tell of work given up at a limit."""
    return _those(output, _CUT)


def says_broken(output: Sequence[str]) -> tuple[str, ...]:
    """The lines that tell of an error that nothing caught."""
    return _those(output, _BROKEN)


def _those(output: Sequence[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The lines that fit, each once."""
    return tuple(dict.fromkeys(line.strip() for line in output if pattern.search(line)))


def change(server: Server, code: str) -> str:
    """What to change of this server against this cause; empty: nothing is known."""
    for name in dict.fromkeys((server.name, server.family)):
        if name and (text := CHANGES.get(name, {}).get(code)):
            return text
    return ""
