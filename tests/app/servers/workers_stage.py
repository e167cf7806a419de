"""What the tests of servers with worker processes share: a small shop, and whole drills."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from drill import experiments
from helpers import PATIENCE_S, wait_until
from lastcall.app.signals import same_s
from lastcall.drill.how import How
from lastcall.drill.plan import Plan
from lastcall.drill.servers import SERVERS
from lastcall.drill.together import SETTLE_S, together, varied
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lastcall.drill.result import Result

SHOP = """
import asyncio, json, os, time
from lastcall import Lifecycle

shutdown = os.environ.get("LASTCALL_SHUTDOWN") or "graceful"
lifecycle = Lifecycle(grace_s=20, shutdown=shutdown)
if os.environ.get("SHOP_BROKEN") and os.path.exists(os.environ["SHOP_BROKEN"]):
    raise RuntimeError("the shop is broken")


def say(word):
    with open(os.environ["WORDS"], "a") as file:
        file.write(f"{word} {os.getpid()}\\n")


@lifecycle.on("close")
def close():
    say("close")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            say(message["type"].partition(".")[2])
            if message["type"] == "lifespan.startup" and os.environ.get("SHOP_FAILS"):
                await send({"type": "lifespan.startup.failed", "message": "no goods"})
                return
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    say("begun")
    if scope["path"] == "/slow":
        await asyncio.sleep(float(scope["query_string"] or 30))
    if scope["path"] == "/draining":
        await lifecycle.draining.wait_async()
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
    say("answered")


def wsgi(environ, start_response):
    say("begun")
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(environ["QUERY_STRING"] or 30))
    if environ["PATH_INFO"] == "/draining":
        lifecycle.draining.wait(30)
    start_response("200 OK", [])
    say("answered")
    return [str(os.getpid()).encode()]


async def rsgi(scope, protocol):
    if scope.proto == "ws":
        transport = await protocol.accept()
        say("accepted")
        try:
            await transport.receive()
        finally:
            say("closed")
        return
    say("begun")
    if scope.path == "/slow":
        await asyncio.sleep(float(scope.query_string or 30))
    protocol.response_str(200, [("content-type", "text/plain")], str(os.getpid()))
    say("answered")
"""


class Shop:
    """A server that runs.

    Args:
        child: its main process.
        port: where it listens.
        words: the file that its workers write into.
        log: what it prints.
    """

    def __init__(self, child: subprocess.Popen[str], port: int, words: Path, log: Path) -> None:
        self.child = child
        self.log = log
        self.asked: list[HTTPConnection] = []
        self.port = port
        self._words = words

    def words(self) -> list[str]:
        """What its workers have said, without their pids."""
        if not self._words.exists():
            return []
        return [line.split()[0] for line in self._words.read_text().splitlines()]

    def workers(self) -> set[int]:
        """The pids of those that have said something."""
        return {int(line.split()[1]) for line in self._words.read_text().splitlines()}

    def ask(self, path: str = "/") -> HTTPConnection:
        """Send a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        self.asked.append(connection)
        connection.request("GET", path)
        return connection

    def answer(self, path: str = "/") -> str:
        """What it answers."""
        connection = self.ask(path)
        try:
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stopping(self) -> None:
        """Wait until it has the first signal."""
        wait_until(lambda: ": stopping" in self.log.read_text(), "it stops")

    def heard(self, word: str, times: int = 1) -> None:
        """Wait until it was said so often."""
        wait_until(lambda: self.words().count(word) >= times, f"{times} x {word}")

    def tell(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal to the main process."""
        self.child.send_signal(signum)

    def tell_again(self) -> None:
        """Ctrl+C, long enough after the last signal not to be the same wish once more."""
        begun_s = time.monotonic()
        wait_until(lambda: time.monotonic() - begun_s > 2 * same_s(signal.SIGINT), "a while")
        self.tell(signal.SIGINT)

    def wait(self) -> int:
        """Its exit status."""
        return self.child.wait(PATIENCE_S)


@contextlib.contextmanager
def shop(
    folder: Path, *command: str, serves: bool = True, port: int = 0, **env: str
) -> Iterator[Shop]:
    """A server of the shop, gone in the end with all its workers.

    Args:
        folder: for its files.
        command: behind the interpreter, with `{port}`.
        serves: wait until it answers.
        port: where; 0: a free one.
        env: more environment variables.
    """
    (folder / "shop.py").write_text(SHOP)
    words = folder / "words"
    at = port or free_port()
    with (folder / "err").open("w") as err:
        child = subprocess.Popen(
            [sys.executable, *(word.replace("{port}", str(at)) for word in command)],
            cwd=folder,
            env={**os.environ, "WORDS": str(words), "PYTHONPATH": str(folder), **env},
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
            text=True,
            start_new_session=True,
        )
    made = Shop(child, at, words, folder / "err")
    try:
        if serves:
            wait_until(lambda: answers(at) or child.poll() is not None, "it answers")
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for connection in made.asked:
            connection.close()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody answers there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def drilled(name: str, *more: str, how: How | None = None) -> Result:
    """One stop with all states in it, of a server that the drill knows, run by our module.

    Args:
        name: of the server, as `lastcall drill compare` lists it.
        more: put before the application on its command line.
        how: it is stopped; None: SIGTERM to the main process.
    """
    server = next(one for one in SERVERS if one.name == name)
    module = f"lastcall.app.servers.{server.command[3]}"
    words: Sequence[str] = (*server.command[:3], module, *server.command[4:-1], *more)
    places = {"python": sys.executable, "app": server.app, "port": "{port}"}
    return experiments.sound(
        Plan(
            command=tuple(word.format(**places) for word in (*words, "{app}")),
            scenario=varied(together(server), 1),
            how=how or How(),
            ready=Ready.parse(server.ready),
            settle_s=SETTLE_S,
            patience_s=12.0,
        )
    )
