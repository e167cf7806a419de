"""Many targets in one command, where few files may be open."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands import COMMAND, environment
from helpers import PATIENCE_S, victim

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MANY = 80


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that end at once when they are asked; always cleaned up."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        made.extend(subprocess.Popen(["sleep", "600"]) for _ in range(count))
        yield made
    finally:
        for child in made:
            child.kill()
            child.wait()


def stop(
    state: Path, children: Sequence[subprocess.Popen[Any]], soft: int, hard: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """Stop them with a command that may open so many files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return subprocess.run(
        [*COMMAND, "stop", *(f"pid:{child.pid}" for child in children), *options],
        env=environment(state),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )


@pytest.mark.parametrize("hard", [4096, 160], ids=["plenty", "just enough"])
def test_the_soft_limit_is_raised(tmp_path: Path, hard: int) -> None:
    """A soft limit below what many targets need is raised, up to the hard one."""
    with sleepers(MANY) as children:
        done = stop(tmp_path, children, soft=32, hard=hard)
        assert done.stderr == ""
        assert done.stdout.count("abrupt") == MANY
        assert [child.wait(PATIENCE_S) for child in children] == [-15] * MANY


def test_a_hard_limit_is_told_and_nobody_is_asked(tmp_path: Path) -> None:
    """Where the hard limit is too low, it is said how many are needed, and nothing is touched."""
    with sleepers(MANY) as children:
        done = stop(tmp_path, children, soft=64, hard=64)
        assert done.returncode == 1
        assert "watching 80 targets takes 144 open files, and this user may have 64" in done.stderr
        assert "Traceback" not in done.stderr
        assert [child.poll() for child in children] == [None] * MANY


@pytest.mark.parametrize(("hard", "code"), [(4096, 10), (64, 1)], ids=["plenty", "too few"])
def test_a_tree_gets_room_for_all_of_it(tmp_path: Path, hard: int, code: int) -> None:
    """How many belong to a tree is not on the command line; where they are too many, it is told."""
    script = f"for i in $(seq {MANY}); do sleep 600 & done; echo ready; wait"
    with victim("sh", "-c", script) as child:
        done = stop(tmp_path, [child.child], 64, hard, "--tree")
        try:
            assert (done.returncode, "Traceback" in done.stderr) == (code, False), done
            assert (child.child.poll() is None) == (code == 1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def test_one_that_has_ended_among_several_has_its_own_result(tmp_path: Path) -> None:
    """A target that ends while the others are looked up is told of, not dropped."""
    with sleepers(1) as (alive,):
        ended = subprocess.Popen(["true"])
        try:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
            words = [*COMMAND, "stop", f"pid:{alive.pid}", f"pid:{ended.pid}"]
            done = subprocess.run(
                words, env=environment(tmp_path), capture_output=True, text=True, check=False
            )
            assert f"abrupt: pid:{alive.pid}" in done.stdout
            assert f"ended before: pid:{ended.pid}" in done.stdout
        finally:
            ended.wait()
