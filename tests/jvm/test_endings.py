"""How a JVM ends: the facts, on every JDK of this machine, without lastcall.

`docs/endings.md` carries the same table.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess

import pytest

from helpers import PATIENCE_S
from jvms import HOOKS, Program, rest


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_hooks_run_on_a_stop_signal(program: Program, signum: int, status: int) -> None:
    """SIGTERM, SIGINT and SIGHUP run all hooks and end in 128 + n, never in a death by signal."""
    with program.start("wait") as jvm:
        jvm.child.send_signal(signum)
        assert sorted(rest(jvm)) == HOOKS
        assert jvm.wait() == status


def test_hooks_run_on_ctrl_c_in_a_terminal(program: Program) -> None:
    """The character ^C, typed into its terminal, is a SIGINT: hooks run, the status is 130."""
    near, far = pty.openpty()
    # setsid without a fork keeps the pid; the terminal becomes that of the new session.
    command = ["setsid", "--ctty", *program.words("Endings", "wait")]
    child = subprocess.Popen(command, stdin=far, stdout=far, stderr=far)
    os.close(far)
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(near, 4096)
        os.write(near, b"\x03")
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while chunk := os.read(near, 4096):
                said += chunk
        assert child.wait(PATIENCE_S) == 130
        assert b"hook one ran\r\n" in said
        assert b"hook two ran\r\n" in said
    finally:
        child.kill()
        child.wait()
        os.close(near)


@pytest.mark.parametrize("status", [0, 7])
def test_hooks_run_on_exit(program: Program, status: int) -> None:
    """`System.exit(n)` runs the hooks and ends in n."""
    with program.start("exit", str(status)) as jvm:
        assert rest(jvm) == ["hook one ran"]
        assert jvm.wait() == status


def test_the_last_user_thread_ends_it_and_no_daemon_is_awaited(program: Program) -> None:
    """The end of `main` ends nothing; the last user thread does, hooks run, the daemon is cut."""
    with program.start("threads") as jvm:
        assert rest(jvm) == ["main thread ended: true", "user thread done", "hook one ran"]
        assert jvm.wait() == 0


def test_daemon_threads_alone_do_not_keep_it(program: Program) -> None:
    """With daemon threads only, the end of `main` is the end: hooks run, nobody asks the daemon."""
    with program.start("daemon-only") as jvm:
        assert rest(jvm) == ["hook one ran"]
        assert jvm.wait() == 0


def test_hooks_run_when_main_fails(program: Program) -> None:
    """An uncaught exception in the last user thread runs the hooks too and ends in 1."""
    with program.start("throw") as jvm:
        said = rest(jvm)
        assert any("IllegalStateException: on purpose" in line for line in said)
        assert said[-1] == "hook one ran"
        assert jvm.wait() == 1


@pytest.mark.parametrize("status", [0, 7])
def test_no_hook_runs_on_halt(program: Program, status: int) -> None:
    """`Runtime.halt(n)` ends in n at once: the hook is silent."""
    with program.start("halt", str(status)) as jvm:
        assert rest(jvm) == []
        assert jvm.wait() == status


def test_no_hook_runs_on_sigkill(program: Program) -> None:
    """SIGKILL ends it at once: the hooks are silent."""
    with program.start("wait") as jvm:
        jvm.child.kill()
        assert rest(jvm) == []
        assert jvm.wait() == -signal.SIGKILL


def test_all_hooks_are_started_and_all_awaited(program: Program) -> None:
    """Two hooks that need each other's progress both get to their last line."""
    with program.start("two") as jvm:
        jvm.child.terminate()
        said = rest(jvm)
        assert sorted(said[:2]) == ["hook one met the other", "hook two met the other"]
        assert sorted(said[2:]) == ["hook one done", "hook two done"]
        assert jvm.wait() == 143


def test_no_finalizer_and_no_cleaner_runs_at_exit(program: Program) -> None:
    """Finalizers and cleaners work here, yet `exit` runs neither, only the hook."""
    with program.start("finalizers", "0") as jvm:
        said = rest(jvm)
        assert sorted(said[:2]) == ["cleaner of forgotten ran", "finalizer of forgotten ran"]
        assert said[2:] == ["hook one ran"]
        assert jvm.wait() == 0


def test_xrs_switches_the_handlers_off(program: Program) -> None:
    """With -Xrs a SIGTERM is a death by signal without any hook."""
    with program.start("wait", options=("-Xrs",)) as jvm:
        jvm.child.terminate()
        assert rest(jvm) == []
        assert jvm.wait() == -signal.SIGTERM


def test_without_hooks_the_status_is_the_same(program: Program) -> None:
    """A JVM without hooks ends in 143 as well: the status does not prove that work was saved."""
    with program.start("no-hooks") as jvm:
        jvm.child.terminate()
        assert rest(jvm) == []
        assert jvm.wait() == 143


def test_an_ignored_sighup_stays_ignored(program: Program) -> None:
    """Started by nohup, a JVM leaves SIGHUP ignored; the SIGTERM after it ends it."""
    with program.start("wait", ignore="HUP") as jvm:
        jvm.child.send_signal(signal.SIGHUP)
        jvm.child.terminate()
        assert sorted(rest(jvm)) == HOOKS
        assert jvm.wait() == 143


@pytest.mark.parametrize("status", [0, 7])
def test_a_hook_can_cut_the_shutdown_off(program: Program, status: int) -> None:
    """`halt(n)` in a hook ends it in n instead of 143."""
    with program.start("halt-in-hook", str(status)) as jvm:
        jvm.child.terminate()
        assert rest(jvm) == ["hook halts"]
        assert jvm.wait() == status


@pytest.mark.parametrize("status", [0, 7])
def test_a_handler_of_its_own_chooses_the_status(program: Program, status: int) -> None:
    """A handler that calls `exit(n)` runs the hooks and ends in n instead of 143."""
    with program.start("own-handler", str(status)) as jvm:
        jvm.child.terminate()
        assert rest(jvm) == ["handler ran", "hook one ran"]
        assert jvm.wait() == status
