"""A `lastcall` that runs while the test does something to the host, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from guests.stopping import read
from helpers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from guests.stopping import Said

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Command:
    """One `lastcall ... --json` under way."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self._lines: list[str] = []

    def wait_event(self, kind: str, times: int = 1) -> Mapping[str, Any]:
        """Wait until it has said this, or said it n times more: the last message of it.

        Raises:
            AssertionError: it ended before that.
        """
        while line := self._line():
            message: Mapping[str, Any] = json.loads(line)
            times -= message["event"] == kind
            if times == 0:
                return message
        raise AssertionError(f"no {kind} in {self._lines}")

    def interrupt(self) -> None:
        """Ctrl+C."""
        self._child.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, dict[str, Said]]:
        """Wait for its end: its exit code, and all that it said of each target."""
        while self._line():
            pass
        return self._child.wait(PATIENCE_S), read("".join(self._lines))

    def _line(self) -> str:
        out = self._child.stdout
        if out is None:
            raise AssertionError("it has no output")
        line = out.readline()
        self._lines.append(line)
        return line


@contextlib.contextmanager
def lastcall(state: Path, *words: str) -> Iterator[Command]:
    """Start it; it is gone at the end, whatever has become of it.

    Args:
        state: its state folder.
        *words: the command, its options and its targets.
    """
    command, *rest = words
    child = subprocess.Popen(
        [sys.executable, "-m", "lastcall", command, "--json", *rest],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={"LASTCALL_STATE_DIR": str(state), "PATH": PATH},
    )
    try:
        yield Command(child)
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def say(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What it says to a person."""
    return subprocess.run(
        [sys.executable, "-m", "lastcall", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"LASTCALL_STATE_DIR": str(state), "PATH": PATH},
    )
