"""A command as PID 1 of a pid namespace of its own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lastcall
from lastcall.proc.failed import explain_failure
from lastcall.proc.program import CannotStart, Program
from proc.running import exists, heard, python, run, text_of

NOBODY = 65534


def test_it_is_pid_1_with_its_own_proc() -> None:
    """It sees itself as 1 and nobody else; from here it has another pid."""

    async def story() -> None:
        script = "import os; print(os.getpid(), sorted(filter(str.isdecimal, os.listdir('/proc'))))"
        async with await Program.start([sys.executable, "-c", script], pid1=True) as program:
            ended = await program.wait()
            assert ended.status == 0
            assert text_of(program) == ["1 ['1']"]
            assert program.pid > 1
        assert os.listdir("/proc/1")  # ours was not covered

    run(story())


def test_an_unhandled_sigterm_is_ignored() -> None:
    """The kernel spares PID 1 what it has no handler for, but never SIGKILL from outside."""

    async def story() -> None:
        script = (
            "import signal; signal.signal(signal.SIGUSR1, lambda *_: print('usr1', flush=True))"
        )
        code = f"{script}; print('ready', flush=True)\nwhile True: signal.pause()"
        async with await Program.start([sys.executable, "-c", code], pid1=True) as program:
            await heard(program, "ready")
            program.send(signal.SIGTERM)
            program.send(signal.SIGUSR1)
            await heard(program, "usr1")
            assert program.ended is None
            program.send(signal.SIGKILL)
            assert os.WTERMSIG((await program.wait()).status) == signal.SIGKILL

    run(story())


def test_the_namespace_is_cleared_as_one() -> None:
    """With PID 1 all its processes go, daemons too."""

    async def story() -> None:
        async with await Program.start(python("proc_tree.py", "leaf"), pid1=True) as program:
            await heard(program, "^ready")
            left = program.left()
            assert program.pid in left
            assert len(left) >= 4
            assert set(left) <= set(await program.clear())
            assert not any(map(exists, left))

    run(story())


def test_an_ordinary_user_can_have_it() -> None:
    """With a user namespace where the kernel allows that; else the error says what to do."""
    python3 = "/usr/bin/python3"
    if not os.access(python3, os.X_OK):
        pytest.fail("this needs /usr/bin/python3: apt-get install python3")
    folder = tempfile.mkdtemp(prefix="lastcall-test-")
    try:
        Path(folder).chmod(0o755)
        shutil.copytree(Path(lastcall.__file__).parent, f"{folder}/lastcall")
        code = (
            "import asyncio, os\n"
            "from lastcall.proc.program import Program, CannotStart\n"
            "async def main():\n"
            "    words = ['sh', '-c', 'echo $$ $(id -u)']\n"
            "    try:\n"
            "        async with await Program.start(words, pid1=True) as program:\n"
            "            await program.wait()\n"
            "            print(program.lines[-1][1])\n"
            "    except CannotStart as error:\n"
            "        print('refused', error.what, error.evidence, error.advice)\n"
            "asyncio.run(main())\n"
        )
        root = os.geteuid() == 0
        done = subprocess.run(
            [python3, "-B", "-c", code],
            env={"PYTHONPATH": folder, "PATH": "/usr/bin:/bin"},
            cwd="/",
            user=NOBODY if root else None,
            group=NOBODY if root else None,
            extra_groups=[] if root else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        shutil.rmtree(folder)
    uid = NOBODY if root else os.geteuid()
    if done.stdout.startswith("refused"):
        assert "does not let this user make a pid namespace" in done.stdout
        assert "EPERM" in done.stdout or "ENOSPC" in done.stdout
    else:
        assert (done.stdout, done.stderr) == (f"1 {uid}\n", "")


def test_a_command_that_is_not_there() -> None:
    """The errors are the same as without a namespace."""
    with pytest.raises(CannotStart) as caught:
        run(Program.start(["no-such-command"], pid1=True))
    assert caught.value.number == errno.ENOENT


def test_a_refusal_is_explained() -> None:
    """What the kernel refuses, and what to do, without a word of the command."""
    error = explain_failure("unshare", errno.EPERM, "sh", {}, None)
    assert error.what == "the kernel does not let this user make a pid namespace"
    assert error.evidence == ("unshare: Operation not permitted (EPERM)",)
    assert "--pid1" in error.advice
