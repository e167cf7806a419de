"""How a JVM ends, on every JDK of this machine, and what its thread dump says when it does not.

First against the JVM alone: the facts. Then through `lastcall.targets.process`: what we make of
them. `docs/endings.md` carries the same table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import PATIENCE_S, PROGRAMS, Victim, victim, wait_until
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process import stacks

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_JDK = "no JDK here: install the Debian package openjdk-17-jdk-headless"
LIMIT_S = 20.0


def javas() -> dict[str, str]:
    """Every `java` there is, by the name of its folder; the default one first."""
    found = [shutil.which("java"), *map(str, sorted(Path("/usr/lib/jvm").glob("*/bin/java")))]
    real = dict.fromkeys(Path(java).resolve() for java in found if java and Path(java).exists())
    return {java.parent.parent.name: str(java) for java in real}


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled program; compiled for 17, so that every newer JDK runs it."""
    javac = shutil.which("javac")
    assert javac, NO_JDK
    folder = tmp_path_factory.mktemp("classes")
    source = str(PROGRAMS / "Endings.java")
    done = subprocess.run(
        (javac, "--release", "17", "-d", str(folder), source),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=javas() or ["none"])
def java(request: pytest.FixtureRequest) -> str:
    """One of the machine's JDKs after the other."""
    found = javas().get(request.param)
    assert found, NO_JDK
    return found


class Program:
    """The program in one JDK; each call of `start` is one JVM, cleaned up at the end."""

    def __init__(self, java: str, classes: Path) -> None:
        self.command = (java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", str(classes))

    def words(self, *words: str, options: tuple[str, ...] = (), ignore: str = "") -> list[str]:
        """Its command line. A test run in the background, or by nohup, ignores signals itself."""
        dispositions = ["--default-signal", *([f"--ignore-signal={ignore}"] if ignore else [])]
        return ["env", *dispositions, *self.command[:1], *options, *self.command[1:], *words]

    @contextlib.contextmanager
    def start(
        self, *words: str, options: tuple[str, ...] = (), ignore: str = ""
    ) -> Iterator[Victim]:
        """A JVM in that mode that has said `ready`."""
        command = self.words("Endings", *words, options=options, ignore=ignore)
        with victim(*command) as jvm:
            try:
                yield jvm
            finally:
                jvm.child.kill()
                jvm.child.wait()
                Path(f"/tmp/.java_pid{jvm.pid}").unlink(missing_ok=True)  # noqa: S108 (where a JVM puts it)


@pytest.fixture
def program(java: str, classes: Path) -> Program:
    """The program in this JDK."""
    return Program(java, classes)


def rest(jvm: Victim) -> list[str]:
    """All it says until its end."""
    return [line.rstrip("\n") for line in jvm.out]


def look(jvm: Victim) -> dict[str, Finding]:
    """What its stacks say, by code."""
    found = asyncio.run(stacks.jvm(jvm.pid, LIMIT_S))
    return {finding.code: finding for finding in found}


HOOKS = ["hook one ran", "hook two ran"]


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


DEADLOCKS = {
    "deadlock": ("closing-orders", "closing-payments"),
    "deadlock-locks": ("locking-orders", "locking-payments"),
}


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
