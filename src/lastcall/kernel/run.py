"""Running a helper program with limits on its time and its output.

Not `asyncio.create_subprocess_exec`: up to Python 3.11 its watcher reaps the child in a thread of
its own, so a kill at the limit could hit a later process with the same pid. Here nobody but this
function reaps the child, so its pid (and that of its group) stays its own until the last line.

Source: pidfd_open(2), kill(2), setsid(2).
"""

from __future__ import annotations

import os
import select
import signal
from typing import IO, TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

_CHUNK_BYTES = 65536
_REAP_MS = 500


@record
class Ran:
    """What came of running a program.

    Args:
        returncode: its exit status, negative for a signal; None when it could not be reaped.
        stdout: what it printed, at most `limit_bytes`.
        stderr: what it complained of, at most `limit_bytes`.
        timed_out: it was killed because its time was over.
        cut: it was killed because it printed more than `limit_bytes`.
    """

    returncode: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool
    cut: bool = False


async def run_limited(
    argv: Sequence[str],
    limit_s: float,
    limit_bytes: int = 4 * 1024 * 1024,
    env: dict[str, str] | None = None,
) -> Ran:
    """Run a program to its end, or kill it (with its process group) at the first limit.

    It gets a session of its own, so that a Ctrl+C in our terminal does not reach it, and no input.

    Args:
        argv: the program and its arguments; never a shell line.
        limit_s: how long it may run, in seconds.
        limit_bytes: how much it may print, on each of its two outputs.
        env: its environment; None means ours.

    Raises:
        OSError: it could not be started (FileNotFoundError, PermissionError).
    """
    import subprocess

    child = subprocess.Popen(  # noqa: ASYNC220 (fork and exec only; asyncio does the same)
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=env,
    )
    pidfd = -1
    try:
        pidfd = os.pidfd_open(child.pid)
        return await _follow(child, pidfd, limit_s, limit_bytes)
    finally:
        _end(child, pidfd)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        if pidfd >= 0:
            os.close(pidfd)


async def _follow(
    child: subprocess.Popen[bytes], pidfd: int, limit_s: float, limit_bytes: int
) -> Ran:
    import asyncio

    loop = asyncio.get_running_loop()
    over: asyncio.Future[str] = loop.create_future()
    taken = {stream: bytearray() for stream in (child.stdout, child.stderr) if stream is not None}

    def settle(why: str) -> None:
        if not over.done():
            over.set_result(why)

    def take(stream: IO[bytes]) -> None:
        if not _drain(stream, taken[stream], limit_bytes):
            loop.remove_reader(stream)
        if len(taken[stream]) > limit_bytes:
            settle("cut")

    for stream in taken:
        os.set_blocking(stream.fileno(), False)
        loop.add_reader(stream, take, stream)
    loop.add_reader(pidfd, settle, "ended")
    timer = loop.call_later(limit_s, settle, "timed out")
    try:
        why = await over
    finally:
        timer.cancel()
        for stream in taken:
            loop.remove_reader(stream)
        loop.remove_reader(pidfd)
    if why == "ended":
        # A grandchild may still hold the pipes: what is in them by now is all we wait for.
        for stream, buffer in taken.items():
            _drain(stream, buffer, limit_bytes)
    _end(child, pidfd)
    out, err = (bytes(buffer[:limit_bytes]) for buffer in taken.values())
    cut = why == "cut" or any(len(buffer) > limit_bytes for buffer in taken.values())
    return Ran(child.returncode, out, err, timed_out=why == "timed out", cut=cut)


def _drain(stream: IO[bytes], buffer: bytearray, limit_bytes: int) -> bool:
    """Read what is there, up to one chunk over the limit. False at the end of the stream."""
    while len(buffer) <= limit_bytes:
        try:
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        buffer += chunk
    return True


def _end(child: subprocess.Popen[bytes], pidfd: int) -> None:
    """End what is left of the child and its group, and reap it. Harmless to repeat."""
    if child.returncode is not None:
        return
    # Not reaped yet, so the group's number cannot have passed to anybody else.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    if pidfd >= 0:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(_REAP_MS)
    child.poll()


def printable(text: str, limit: int = 160) -> str:
    """Somebody else's words, fit for a terminal: one line, no control characters, not too long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
