"""What the thread dump of a live JVM says when it does not end, and which JVMs are not asked."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from helpers import wait_until
from jvms import DEADLOCKS, HOOKS, Program, look, rest
from lastcall.model import Confidence, Severity
from lastcall.targets.process.during import stacks


@pytest.mark.parametrize("mode", DEADLOCKS)
def test_deadlocked_hooks_are_found_and_named(program: Program, mode: str) -> None:
    """Two hooks that wait for each other's lock, of either kind, are named with their locks."""
    names = DEADLOCKS[mode]
    with program.start(mode) as jvm:
        jvm.child.terminate()
        assert [jvm.line(), jvm.line()] == ["hook wants the other's lock"] * 2
        wait_until(lambda: "jvm-deadlock" in look(jvm), "the JVM sees the deadlock")
        found = look(jvm)
        deadlock, hooks = found["jvm-deadlock"], found["jvm-hook-running"]
        assert (deadlock.severity, deadlock.confidence) == (Severity.BLOCKER, Confidence.CERTAIN)
        for name, other in (names, names[::-1]):
            assert f'"{name}"' in deadlock.title
            line = next(line for line in deadlock.evidence if line.startswith(f'"{name}" holds '))
            assert f'held by "{other}"' in line
            assert "Endings.lambda$" in line
        assert (hooks.severity, hooks.confidence) == (Severity.BLOCKER, Confidence.CERTAIN)
        assert "which can never end (shutting down since SIGTERM)" in hooks.title
        assert jvm.child.poll() is None


def test_a_hook_that_calls_exit_is_explained(program: Program) -> None:
    """`System.exit` in a hook waits for itself; the finding says so."""
    with program.start("exit-in-hook") as jvm:
        jvm.child.terminate()
        assert jvm.line() == "hook calls exit"
        wait_until(
            lambda: look(jvm)["jvm-hook-running"].severity is Severity.BLOCKER,
            "the hook waits for the shutdown",
        )
        (finding,) = look(jvm).values()
        assert 'hook "exiting-hook", which can never end' in finding.title
        assert 'held by "SIGTERM handler"' in finding.evidence[0]
        assert "never call System.exit in a shutdown hook" in finding.advice


def test_exit_while_holding_a_lock_is_explained(program: Program) -> None:
    """A hook that wants the lock which the caller of exit holds is named with that holder."""
    with program.start("exit-with-lock") as jvm:
        assert jvm.line() == "hook wants the lock"
        wait_until(
            lambda: look(jvm)["jvm-hook-running"].severity is Severity.BLOCKER,
            "the hook waits for the lock",
        )
        (finding,) = look(jvm).values()
        assert 'hook "wanting-hook", which can never end' in finding.title
        assert 'held by "main"' in finding.evidence[0]


@pytest.mark.parametrize(
    ("mode", "since"),
    [
        ("hang", "SIGTERM"),
        ("hang-at-end", "its last user thread ended"),
        ("hang-at-exit", '"main" called exit'),
    ],
)
def test_a_hanging_hook_is_named(program: Program, mode: str, since: str) -> None:
    """A hook that never returns is named, with what began the shutdown and where it stands."""
    with program.start(mode) as jvm:
        if mode == "hang":
            jvm.child.terminate()
        assert jvm.line() == "hook hangs"
        wait_until(
            lambda: "Endings.forever" in look(jvm)["jvm-hook-running"].evidence[0],
            "the hook is where it stays",
        )
        (finding,) = look(jvm).values()
        assert finding.code == "jvm-hook-running"
        assert finding.severity is Severity.NOTE
        assert '"hanging-hook"' in finding.title
        assert f"(shutting down since {since})" in finding.title
        assert finding.evidence[0].startswith('"hanging-hook" WAITING (parking): ')
        sure = Confidence.CERTAIN if mode == "hang" else Confidence.LIKELY
        assert finding.confidence is sure


def test_user_threads_are_named_when_no_shutdown_began(program: Program) -> None:
    """A handler that only takes note: no shutdown, and the thread that keeps it alive is named."""
    with program.start("ignoring-handler") as jvm:
        jvm.child.terminate()
        assert jvm.line() == "handler ran"
        wait_until(lambda: '"main"' not in look(jvm)["jvm-user-threads"].title, "main has ended")
        (finding,) = look(jvm).values()
        assert finding.title == (
            'the JVM is not shutting down: its user thread "order-worker" keeps it alive'
        )
        assert jvm.child.poll() is None


def test_a_jvm_that_would_die_of_the_question_is_not_asked(program: Program) -> None:
    """With -Xrs and its socket gone, jcmd's SIGQUIT would kill it: it is left alone."""
    with program.start("wait", options=("-Xrs",)) as jvm:
        assert "jvm-user-threads" in look(jvm)
        Path(f"/tmp/.java_pid{jvm.pid}").unlink()  # noqa: S108 (where a JVM puts it)
        (finding,) = look(jvm).values()
        assert finding.code == "jvm-stacks-unavailable"
        assert "does not handle SIGQUIT" in finding.title
        jvm.child.terminate()
        assert jvm.wait() == -signal.SIGTERM


def test_a_paused_jvm_is_not_asked(program: Program) -> None:
    """While it is paused a SIGQUIT would wait and print its threads later: none is sent."""
    with program.start("wait") as jvm:
        jvm.child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, jvm.pid, os.WSTOPPED | os.WNOWAIT)
        (finding,) = look(jvm).values()
        assert finding.code == "jvm-stacks-unavailable"
        assert finding.advice == f"wake it first: kill -CONT {jvm.pid}"
        jvm.child.send_signal(signal.SIGCONT)
        jvm.child.terminate()
        assert sorted(rest(jvm)) == HOOKS


def test_a_jvm_that_refuses_is_not_asked(program: Program) -> None:
    """-XX:+DisableAttachMechanism is seen beforehand; nothing appears in its output."""
    with program.start("wait", options=("-XX:+DisableAttachMechanism",)) as jvm:
        (finding,) = look(jvm).values()
        assert finding.title.endswith("it was started with -XX:+DisableAttachMechanism")
        jvm.child.terminate()
        assert sorted(rest(jvm)) == HOOKS


def test_a_missing_jcmd_is_named(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any jcmd the finding says which package brings it."""
    monkeypatch.setattr(stacks, "find_jcmd", lambda _pid: None)
    with program.start("wait") as jvm:
        (finding,) = look(jvm).values()
        assert finding.code == "jvm-stacks-unavailable"
        assert "openjdk-17-jdk-headless" in finding.advice


def test_a_hanging_jcmd_is_ended_and_tidied_up(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A jcmd without an answer is killed at its limit, and the file it left is removed."""
    fake = tmp_path / "jcmd"
    fake.write_text(
        '#!/bin/sh\n: > "/proc/$1/cwd/.attach_pid$1"\necho $$ > "$0.pid"\nexec sleep 99\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(stacks, "find_jcmd", lambda _pid: str(fake))
    monkeypatch.chdir(tmp_path)
    with program.start("wait") as jvm:
        (finding,) = asyncio.run(stacks.jvm(jvm.pid, 2.0))
        assert finding.title.endswith("jcmd had no answer after 2 s")
        assert not Path(f"/proc/{jvm.pid}/cwd/.attach_pid{jvm.pid}").exists()
        assert not Path(f"/proc/{int(Path(f'{fake}.pid').read_text())}").exists()
        assert jvm.child.poll() is None


def test_jcmd_beside_its_own_java_comes_first(program: Program) -> None:
    """The jcmd of the very JDK that runs the target is used, not another one in PATH."""
    with program.start("wait") as jvm:
        assert stacks.find_jcmd(jvm.pid) == str(Path(program.command[0]).parent / "jcmd")
