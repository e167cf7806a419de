"""What every test of real processes needs: victims that are cleaned up, and one audited wait."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 30.0


class Victim:
    """A child that a test stops. It says `ready` first; read what it says line by line."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.pid = child.pid

    @property
    def out(self) -> IO[str]:
        """What it prints."""
        stream = self.child.stdout
        if stream is None:
            raise ValueError("the victim's output is not piped")
        return stream

    def line(self) -> str:
        """Its next line, without the newline; empty at the end of its output."""
        return self.out.readline().rstrip("\n")

    def wait(self) -> int:
        """Reap it: its exit status as subprocess tells it (negative: a signal)."""
        return self.child.wait(PATIENCE_S)


@contextlib.contextmanager
def victim(
    *command: str,
    ready: str = "ready",
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
    own_session: bool = True,
    user: int | None = None,
) -> Iterator[Victim]:
    """Start a program, wait for a line that begins with `ready`, and always clean it up."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=env,
        cwd=cwd,
        start_new_session=own_session,
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
    )
    try:
        made = Victim(child)
        if ready:
            said = []
            while not (line := made.line()).startswith(ready):
                said.append(line)
                if not line and child.poll() is not None:
                    raise AssertionError(f"{command} never got ready:\n" + "\n".join(said))
        yield made
    finally:
        child.kill()
        child.wait()
        made.out.close()


def python(program: str, *words: str) -> Sequence[str]:
    """The command line of a victim in `tests/programs`, by its file name."""
    return (sys.executable, "-u", str(PROGRAMS / program), *words)


def wait_until(fact: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """The one audited wait: for a fact that nothing can wake us for.

    Raises:
        AssertionError: it did not become true in time.
    """
    end_s = time.monotonic() + patience_s
    while not fact():
        if time.monotonic() > end_s:
            raise AssertionError(f"waited {patience_s:g} s in vain for: {what}")
        time.sleep(0.005)
