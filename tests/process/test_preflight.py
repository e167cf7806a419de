"""What `lastcall check` finds before anything is sent, on real processes in every condition."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cgroups import cgroup_of, hierarchy
from helpers import PROGRAMS, python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process import condition
from lastcall.targets.process.before import preflight
from lastcall.targets.process.before.effect import Effect, Sight, effect, sight
from lastcall.targets.process.runtime import Recognised, Runtime
from lastcall.targets.process.signals import SignalState
from runtimes import go_command, java_command, node_command, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers import Victim

TERM, INT, QUIT, WINCH = (
    int(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)
)


def check(pid: int, *asked: int, alone: bool = True) -> tuple[Finding, ...]:
    """The findings for a process as it is now."""
    handle = Handle.open(pid)
    try:
        others = None if alone else ()
        return asyncio.run(preflight.findings(handle.identity, asked or (TERM,), others))
    finally:
        handle.close()


def codes(found: tuple[Finding, ...]) -> list[str]:
    """The codes of findings, in their order."""
    return [finding.code for finding in found]


@contextlib.contextmanager
def mode(name: str) -> Iterator[Victim]:
    """The Python victim in one of its modes."""
    with victim(*python("sig_modes.py", name)) as process:
        yield process


@pytest.mark.parametrize(
    ("name", "code", "severity"),
    [
        ("plain", "no-handler", Severity.WARNING),
        ("handler", "handled", Severity.NOTE),
        ("ignore", "signal-ignored", Severity.BLOCKER),
        ("block", "signal-blocked", Severity.BLOCKER),
        ("pending", "signal-blocked", Severity.BLOCKER),
        ("one-thread-blocks", "no-handler", Severity.WARNING),
        ("sigwait", "handled", Severity.NOTE),
        ("signalfd", "handled", Severity.NOTE),
    ],
)
def test_what_sigterm_would_do(name: str, code: str, severity: Severity) -> None:
    """Each way of taking SIGTERM is told before it is sent, and with certainty."""
    with mode(name) as process:
        if name == "sigwait":
            wait_until(lambda: "sigtimedwait" in condition.wchan(process.pid), "it waits")
        found = check(process.pid)
    assert codes(found) == [code]
    assert (found[0].severity, found[0].confidence) == (severity, Confidence.CERTAIN)
    assert found[0].evidence


@pytest.mark.parametrize(
    ("name", "said", "status"),
    [
        ("plain", "", -TERM),
        ("handler", "took SIGTERM by handler", 0),
        ("one-thread-blocks", "", -TERM),
        ("sigwait", "took SIGTERM by sigwait", 0),
        ("signalfd", "took SIGTERM by signalfd", 0),
    ],
)
def test_what_was_told_is_what_happens(name: str, said: str, status: int) -> None:
    """The same victims get the signal: what the findings rest on is so."""
    with mode(name) as process:
        os.kill(process.pid, TERM)
        assert process.line() == said
        assert process.wait() == status


def test_a_sent_signal_that_waits_is_evidence() -> None:
    """A blocked signal that was sent already is told with the block, not twice."""
    with mode("pending") as process:
        (found,) = check(process.pid)
    assert "SIGTERM was sent already and waits" in found.evidence


def test_a_signal_that_does_nothing_by_default() -> None:
    """A signal that the kernel throws away without a handler cannot end anything."""
    with mode("plain") as process:
        (found,) = check(process.pid, WINCH)
    assert (found.code, found.severity) == ("signal-ignored", Severity.BLOCKER)


def test_an_ignored_signal_is_no_blocker_when_another_follows() -> None:
    """A sequence goes on after a signal that is ignored: then it is only a note."""
    with victim(
        program("sh"), "-c", "trap '' INT; exec \"$@\"", "sh", *python("sig_modes.py", "handler")
    ) as process:
        found = check(process.pid, INT, TERM)
    assert [(f.code, f.severity) for f in found] == [
        ("signal-ignored", Severity.NOTE),
        ("handled", Severity.NOTE),
    ]


def test_a_better_signal_is_advised() -> None:
    """Where another stop signal reaches the program, the advice names it."""
    with mode("plain") as process:
        (found,) = check(process.pid, TERM)
    assert f"lastcall stop --signal INT pid:{process.pid}" in found.advice


def test_python_breaks_off_at_sigint() -> None:
    """SIGINT to a Python program without handlers raises KeyboardInterrupt."""
    with mode("plain") as process:
        found = check(process.pid, INT)
        assert codes(found) == ["python-keyboardinterrupt"]
        os.kill(process.pid, INT)
        assert "KeyboardInterrupt" in process.out.read()


@pytest.mark.parametrize("which", ["go", "node", "node handler", "jvm", "jvm hook"])
def test_a_runtime_that_catches_is_not_believed(which: str) -> None:
    """Node, a JVM and a Go program with signal.Notify: what they do with it is unknown."""
    name, *words = which.split()
    commands: dict[str, Callable[[], list[str]]] = {
        "go": lambda: go_command("sig_go_handler.go"),
        "node": lambda: node_command(*words),
        "jvm": lambda: java_command(*words),
    }
    with victim(*commands[name]()) as process:
        (found,) = check(process.pid)
    assert (found.code, found.confidence) == ("handled-by-runtime", Confidence.POSSIBLE)
    assert found.severity is (Severity.NOTE if which == "go" else Severity.WARNING)
    assert "unknown" in found.title


def test_a_go_program_that_cannot_handle_it_loses_its_work() -> None:
    """A Go program without signal.Notify shows a handler, and still dies of SIGTERM."""
    with victim(*go_command("sig_go_plain.go")) as process:
        (found,) = check(process.pid)
        seen = sight(process.pid, [TERM])
    assert (found.code, found.confidence) == ("no-handler", Confidence.LIKELY)
    assert effect(seen, int(signal.SIGUSR1)) is Effect.NOTHING


def test_a_jvm_that_leaves_signals_alone() -> None:
    """With -Xrs a JVM catches nothing, and SIGTERM kills it."""
    java = java_command()
    with victim(java[0], "-Xrs", *java[1:]) as process:
        assert codes(check(process.pid)) == ["no-handler"]


# -- what keeps it from reacting at all


def test_a_paused_process_is_told() -> None:
    """A stopped process takes a signal only when it is woken."""
    with mode("handler") as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        found = check(process.pid)
        assert codes(found) == ["stopped", "handled"]
        assert f"kill -CONT {process.pid}" in found[0].advice
        os.kill(process.pid, TERM)
        assert codes(check(process.pid)) == ["stopped", "handled", "signal-pending"]


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000


def ptrace(request: int, pid: int) -> None:
    """Send one request without data; see the manual page of ptrace."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def test_a_traced_process_is_told() -> None:
    """Being traced is a note while it runs, and a blocker while the debugger holds it."""
    with mode("handler") as process:
        ptrace(PTRACE_SEIZE, process.pid)
        try:
            running = check(process.pid)
            ptrace(PTRACE_INTERRUPT, process.pid)
            os.waitpid(process.pid, WALL)
            held = check(process.pid)
        finally:
            ptrace(PTRACE_DETACH, process.pid)
    assert (running[0].code, running[0].severity) == ("traced", Severity.NOTE)
    assert (held[0].code, held[0].severity) == ("traced", Severity.BLOCKER)
    assert str(os.getpid()) in held[0].evidence[0]


@pytest.mark.parametrize(
    ("controller", "file", "on", "off"),
    [("freezer", "freezer.state", "FROZEN", "THAWED"), ("", "cgroup.freeze", "1", "0")],
)
def test_a_frozen_process_is_told(controller: str, file: str, on: str, off: str) -> None:
    """A frozen cgroup is named, of both versions, also when one above was frozen."""
    root = hierarchy(controller)
    name = f"lastcall-test-{os.getpid()}"
    with mode("handler") as process, cgroup_of(root, f"{name}/inner", process.pid):
        (root / name / file).write_text(on, encoding="ascii")
        try:
            wait_until(lambda: condition.frozen(process.pid) is not None, "it is frozen")
            if controller:
                wait_until(lambda: procfs.stat(process.pid).state == "D", "the freezer has it")
            found = check(process.pid)
        finally:
            (root / name / file).write_text(off, encoding="ascii")
        wait_until(lambda: condition.frozen(process.pid) is None, "it is thawed")
        assert codes(check(process.pid)) == ["handled"]
    assert codes(found) == ["frozen", "handled"]
    assert found[0].evidence == (f"frozen cgroup: {root / name}",)
    assert f"echo {off} > {root / name / file}" in found[0].advice


def test_an_uninterruptible_process_is_told() -> None:
    """A process in state D is told with the kernel function that it waits in."""
    with mode("vfork") as process:
        child = process_child(process.pid)
        try:
            wait_until(lambda: procfs.stat(process.pid).state == "D", "it waits for its child")
            found = check(process.pid)
        finally:
            os.kill(child, signal.SIGKILL)
    assert found[0].code == "uninterruptible"
    assert "waits in the kernel" in found[0].evidence[0]


def process_child(pid: int) -> int:
    """The only child of a process."""
    (child,) = procfs.children(pid)
    return child


def test_a_passing_disk_access_is_not_told() -> None:
    """Only a thread that is still stuck a moment later counts."""
    first = condition.Condition(7, "D", 1, None, None, ((7, "io_schedule"),))
    later = condition.Condition(7, "S", 1, None, None, ((8, "io_schedule"),))
    assert condition.findings(later, first) == ()
    elsewhere = condition.Condition(7, "D", 1, None, None, ((7, "rpc_wait_bit_killable"),))
    assert condition.findings(elsewhere, first) == ()
    unnamed = condition.Condition(7, "D", 1, None, None, ((7, ""),))
    for now, before in ((first, first), (unnamed, first), (first, unnamed)):
        (found,) = condition.findings(now, before)
        assert found.code == "uninterruptible"
        assert found.evidence == ("thread 7 waits in the kernel (io_schedule)",)


def test_a_zombie_is_told_with_its_parent() -> None:
    """What has ended and was not collected: nothing but the parent can help."""
    with mode("plain") as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (found,) = check(process.pid)
    assert found.code == "zombie"
    assert any(str(os.getpid()) in fact for fact in found.evidence)


@pytest.mark.parametrize(
    ("name", "code"), [("plain", "init-without-handler"), ("handler", "handled")]
)
def test_pid_1_of_a_namespace_needs_a_handler(name: str, code: str) -> None:
    """The kernel drops what PID 1 of a container does not handle, and the finding says so."""
    namespaces = ["--pid"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--pid"]
    words = [program("unshare"), *namespaces, "--fork", "--kill-child"]
    with victim(*words, *python("sig_modes.py", name)) as outer:
        inner = process_child(outer.pid)
        found = check(inner)
        assert codes(found) == [code]
        if name == "plain":
            os.kill(inner, TERM)
            os.kill(inner, signal.SIGUSR1)
            assert outer.line() == "still here"


def test_a_shell_in_between_is_told() -> None:
    """A start script without exec: the signal ends the shell, and the program goes on."""
    script = str(PROGRAMS / "sig_shell.sh")
    with victim(program("sh"), script, python("x")[0]) as process:
        child = process_child(process.pid)
        found = check(process.pid)
        together = check(process.pid, alone=False)
        os.kill(process.pid, TERM)
        assert process.wait() == -TERM
        assert procfs.stat(child).state == "S"
        os.kill(child, signal.SIGKILL)
    assert codes(found) == ["shell-between"]
    assert f"lastcall stop pid:{child}" in found[0].advice
    assert codes(together) == ["no-handler"]


def test_a_shell_with_a_trap_waits_for_its_child() -> None:
    """A trap runs only when the child has ended."""
    script = str(PROGRAMS / "sig_shell.sh")
    with victim(program("sh"), script, python("x")[0], "trap") as process:
        child = process_child(process.pid)
        found = check(process.pid)
        os.kill(process.pid, TERM)
        os.kill(child, TERM)
        assert process.line() == "took SIGTERM by handler"
        assert process.line() == "trapped"
    assert codes(found) == ["shell-between"]
    assert "trap" in found[0].title


def test_another_users_process_is_told_as_far_as_can_be_seen() -> None:
    """Without the right to signal or look, both are said, and nothing is made up."""
    if os.geteuid() != 0:
        found = check(1)
        assert {"not-permitted", "not-readable"} <= set(codes(found))
        return
    with mode("plain") as process:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                os.write(write, ",".join(codes(check(process.pid))).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as answer:
            assert set(answer.read().split(",")) == {"not-permitted", "no-handler", "not-readable"}


def test_nothing_is_told_of_a_later_process() -> None:
    """When the process is gone, there is nothing to tell, and no error either."""
    with mode("plain") as process:
        handle = Handle.open(process.pid)
    try:
        assert asyncio.run(preflight.findings(handle.identity, (TERM,))) == ()
    finally:
        handle.close()


def test_checking_changes_nothing_and_leaks_nothing() -> None:
    """After a hundred checks the process is as before, and no descriptor is left open."""
    with mode("handler") as process:
        check(process.pid)
        before = sorted(os.listdir("/proc/self/fd"))
        began_s = time.process_time()
        for _ in range(100):
            check(process.pid)
        assert time.process_time() - began_s < 10
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert process.child.poll() is None


# -- the judgement alone


def seen_with(
    state: SignalState, kind: Runtime = Runtime.OTHER, *, init: bool = False, unseen: bool = False
) -> Sight:
    """A process that would take every signal in the same way."""
    states = dict.fromkeys(range(1, 65), state)
    return Sight(9, states, Recognised(kind), init, {}, unseen)


DEFAULT = SignalState(handled=False, ignored=False, blocked=False, pending=False)


def test_a_thread_that_waits_unseen_makes_it_possible_only() -> None:
    """Who may not see what a thread waits for does not claim to know."""
    (found,) = preflight.of_signals(seen_with(DEFAULT, unseen=True), [TERM])
    assert (found.code, found.confidence) == ("no-handler", Confidence.POSSIBLE)


def test_sigkill_reaches_everybody() -> None:
    """No state of a signal changes what SIGKILL does."""
    ignored = SignalState(handled=False, ignored=True, blocked=True, pending=False)
    assert effect(seen_with(ignored, init=True), int(signal.SIGKILL)) is Effect.KILLS


def test_signals_that_do_the_same_are_told_together() -> None:
    """One finding for all signals of a sequence that would do the same."""
    (found,) = preflight.of_signals(seen_with(DEFAULT), [INT, TERM, QUIT])
    assert "SIGINT and SIGTERM and SIGQUIT" in found.title
