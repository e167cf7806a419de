"""A program with a Lifecycle as a real process: its lines, its end, and what it wrote to stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Every program begins with this. It speaks by `say`.
PRELUDE = """\
import os, signal, sys, threading, time
from lastcall import Lifecycle
def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n"); sys.stdout.flush()
def stop():
    os.kill(os.getpid(), signal.SIGTERM)
"""


class Stage:
    """A running program."""

    def __init__(self, child: subprocess.Popen[str], errors: Path) -> None:
        self.child = child
        self.pid = child.pid
        self._errors = errors

    @property
    def out(self) -> IO[str]:
        """What it prints."""
        assert self.child.stdout is not None
        return self.child.stdout

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._errors.read_text()

    def line(self) -> str:
        """Its next line; empty at the end."""
        return self.out.readline().rstrip("\n")

    def until(self, begins: str) -> list[str]:
        """Its lines up to one that begins so, with that one."""
        found = []
        while line := self.line():
            found.append(line)
            if line.startswith(begins):
                return found
        raise AssertionError(f"it never said {begins!r}, but {found}; stderr:\n{self.err}")

    def kill(self, signum: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        if hasattr(signal, "pidfd_send_signal"):
            fd = os.pidfd_open(self.pid)
            try:
                signal.pidfd_send_signal(fd, signum)
            finally:
                os.close(fd)
        else:
            os.kill(self.pid, signum)

    def tell(self, word: str = "") -> None:
        """Write a line to its stdin."""
        assert self.child.stdin is not None
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()

    def end(self) -> tuple[int, list[str]]:
        """Wait for its end: its status (negative: a signal), and the rest of its lines."""
        rest = self.out.read().splitlines()
        return self.child.wait(PATIENCE_S), rest


@contextlib.contextmanager
def stage(
    program: str,
    *words: str,
    env: dict[str, str] | None = None,
    before: Sequence[str] = (),
    shim: str = "",
) -> Iterator[Stage]:
    """Run a program, and leave nothing of it.

    Args:
        program: its source, after `PRELUDE`.
        words: its arguments.
        env: more environment variables.
        before: the command that runs it, such as `unshare`.
        shim: Python that runs first and execs it, in `sys.argv[1:]`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, errors = Path(folder, "program.py"), Path(folder, "stderr")
        path.write_text(PRELUDE + textwrap.dedent(program))
        command = [sys.executable, "-u", str(path), *words]
        if shim:
            exec_it = f"import os, signal, sys\n{shim}\nos.execv(sys.argv[1], sys.argv[1:])"
            command = [sys.executable, "-c", exec_it, *command]
        with errors.open("w") as err:
            child = subprocess.Popen(
                [*before, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        limit = threading.Timer(2 * PATIENCE_S, child.kill)
        limit.start()
        try:
            yield Stage(child, errors)
        finally:
            limit.cancel()
            # Its group, too: what it forked.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def played(program: str, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a program that ends by itself: its status, its lines in one, its stderr."""
    with stage(program, *words, env=env) as one:
        status, lines = one.end()
        return status, " | ".join(lines), one.err
