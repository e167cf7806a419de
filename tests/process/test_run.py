"""Running a helper program with limits: it ends, it is ended, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from helpers import wait_until
from lastcall.kernel import procfs
from lastcall.kernel.run import run_limited

LIMIT_S = 20.0


def open_descriptors() -> set[str]:
    """The descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


def test_a_program_is_run_to_its_end() -> None:
    """Exit status and both outputs come back."""
    ran = asyncio.run(run_limited(["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT_S))
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"out\n", b"err\n")
    assert not ran.timed_out
    assert not ran.cut


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """At the limit the whole group is killed and reaped; what it said till then is kept."""
    pids = tmp_path / "pids"
    script = f'echo here; sleep 99 & echo "$$ $!" > {pids}; wait'
    before = open_descriptors()
    ran = asyncio.run(run_limited(["sh", "-c", script], 1.0))
    assert ran.timed_out
    assert (ran.returncode, ran.stdout) == (-9, b"here\n")
    leader, child = map(int, pids.read_text().split())
    assert not Path(f"/proc/{leader}").exists()
    wait_until(lambda: _gone(child), "the child is gone too")
    assert open_descriptors() == before


def _gone(pid: int) -> bool:
    """Whether it has ended; as an orphan it may stay a zombie until somebody reaps it."""
    try:
        return procfs.stat(pid).state in "ZX"
    except ProcessLookupError:
        return True


def test_a_program_that_floods_is_ended() -> None:
    """Output beyond the limit ends it; what is returned is no longer than the limit."""
    ran = asyncio.run(run_limited(["yes"], LIMIT_S, limit_bytes=100_000))
    assert ran.cut
    assert (ran.returncode, len(ran.stdout)) == (-9, 100_000)


def test_a_pipe_held_by_a_grandchild_is_not_waited_for() -> None:
    """A background child that keeps the output open does not hold us up, and is ended."""
    ran = asyncio.run(run_limited(["sh", "-c", "sleep 99 & echo $!"], LIMIT_S))
    assert ran.returncode == 0
    child = int(ran.stdout)
    wait_until(lambda: _gone(child), "the grandchild is gone")


def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """Who stops waiting leaves neither a process nor a descriptor."""
    note = tmp_path / "pid"
    os.mkfifo(note)
    pids: list[int] = []

    async def start_and_leave() -> None:
        with os.fdopen(os.open(note, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
            told = asyncio.Event()
            asyncio.get_running_loop().add_reader(pipe, told.set)
            script = f"echo $$ > {note}; exec sleep 99"
            task = asyncio.create_task(run_limited(["sh", "-c", script], LIMIT_S))
            await told.wait()
            asyncio.get_running_loop().remove_reader(pipe)
            pids.append(int(pipe.read()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = open_descriptors()
    asyncio.run(start_and_leave())
    assert not Path(f"/proc/{pids[0]}").exists()
    assert open_descriptors() == before


def test_a_missing_program_is_an_error() -> None:
    """What cannot be started raises, and leaves no descriptor open."""
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        asyncio.run(run_limited(["/nonexistent/program"], LIMIT_S))
    assert open_descriptors() == before
