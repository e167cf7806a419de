"""Servers that run the probe application, for the tests of the probe and of the registry."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

from helpers import wait_until
from lastcall.drill.how import fill
from lastcall.drill.installed import Found, Missing, find, prepare
from lastcall.drill.ledger import read_ledger
from lastcall.drill.listening import free_port
from lastcall.targets.process import sockets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lastcall.drill.servers import Server

ANSWER_S = 20.0


class Running:
    """A server that serves, its port, its ledger and what it says."""

    def __init__(self, child: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.child = child
        self.port = port
        self.ledger = folder / "ledger"
        self.said = folder / "said"

    def get(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer to a GET, or to a POST of a body."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=ANSWER_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def connect(self, first: bytes = b"") -> socket.socket:
        """A connection on which these bytes were sent."""
        made = socket.create_connection(("127.0.0.1", self.port), ANSWER_S)
        made.sendall(first)
        return made

    def steps(self, key: str) -> list[str]:
        """What the ledger says of a key."""
        return [deed.step for deed in read_ledger(str(self.ledger)) if deed.key == key]

    def wait_step(self, key: str, step: str) -> None:
        """Wait until the ledger has it."""
        wait_until(lambda: self.ledger.exists() and step in self.steps(key), f"{key} {step}")

    def listens(self) -> bool:
        """Whether anybody listens on its port."""
        return any(row.local.port == self.port for row in sockets.listening())

    def stop(self) -> int:
        """SIGTERM to the main process; what it exits with."""
        self.child.terminate()
        return self.child.wait(ANSWER_S)


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, env: dict[str, str] | None = None, ready: str = "/health"
) -> Iterator[Running]:
    """Start a server on a free port, wait until it answers; nothing of it is left afterwards."""
    port = free_port()
    known = {"port": port, "python": sys.executable}
    words = fill(tuple(command), known)
    ours = os.environ | {"LASTCALL_LEDGER": str(folder / "ledger")} | (env or {})
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(
            words, cwd=folder, env=ours, stdout=said, stderr=said, start_new_session=True
        )
    made = Running(child, port, folder)

    def answers() -> bool:
        assert child.poll() is None, f"{words} ended:\n{made.said.read_text()}"
        with contextlib.suppress(OSError):
            return made.get(ready)[0] == 200
        return False

    try:
        wait_until(answers, f"an answer of {words}")
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # the workers, too
        child.wait()


def installed(server: Server) -> Found:
    """The server, ready to run; a missing one fails with what to install."""
    found = asyncio.run(find(server))
    assert not isinstance(found, Missing), f"{found.what}: {found.advice}"
    asyncio.run(prepare(found))
    return found
