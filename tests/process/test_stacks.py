"""Reading stacks: thread dumps of real JVMs (kept in `dumps/`), and live Python processes.

What live JVMs say is tested in `tests/jvm`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import Victim, python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process.during import javaholdups, pydump, stacks
from lastcall.targets.process.during.javadump import JavaDump, parse_jvm

if TYPE_CHECKING:
    from collections.abc import Iterator

DUMPS = Path(__file__).parent / "dumps"
LIMIT_S = 20.0
NOBODY = 65534
JDKS = pytest.mark.parametrize("jdk", ["jdk17", "jdk25"])


def text_of(jdk: str, mode: str) -> str:
    """A dump that `jcmd PID Thread.print` printed."""
    return (DUMPS / f"{jdk}-{mode}.txt").read_text()


def dump(jdk: str, mode: str) -> JavaDump:
    """The same, read."""
    return parse_jvm(text_of(jdk, mode))


@JDKS
def test_threads_are_read(jdk: str) -> None:
    """Name, daemon or not, state, frames and locks of a thread come out of a real dump."""
    seen = dump(jdk, "deadlock")
    main, handler = seen.thread("main"), seen.thread("SIGTERM handler")
    hook = seen.thread("closing-orders")
    assert main is not None
    assert handler is not None
    assert hook is not None
    assert (main.daemon, handler.daemon, hook.daemon) == (False, True, False)
    assert hook.state == "BLOCKED (on object monitor)"
    assert hook.frames[0].startswith("Endings.lambda$deadlock$")
    assert main.frames[0] == "jdk.internal.misc.Unsafe.park (Native Method)"
    assert main.parked_for is not None
    assert str(main.parked_for).startswith("CountDownLatch@")
    assert hook.wants is not None
    assert [lock.type for lock in (hook.wants, *hook.holds)] == ["java.lang.Object"] * 2
    assert hook.wants not in hook.holds
    # It waits in Object.wait() on the joined thread, so it does not hold that monitor.
    assert [str(lock).partition("@")[0] for lock in handler.holds] == ["class Shutdown"]
    assert hook.elapsed_s is not None
    assert handler.elapsed_s is not None
    assert hook.elapsed_s <= handler.elapsed_s
    vm = seen.thread("VM Thread")
    assert vm is not None
    assert vm.number is None


@JDKS
@pytest.mark.parametrize(
    ("mode", "names", "lock"),
    [
        ("deadlock", {"closing-orders", "closing-payments"}, "java.lang.Object"),
        (
            "deadlock-locks",
            {"locking-orders", "locking-payments"},
            "java.util.concurrent.locks.ReentrantLock$NonfairSync",
        ),
    ],
)
def test_deadlocks_are_read(jdk: str, mode: str, names: set[str], lock: str) -> None:
    """A circle is read with its threads, its locks and who holds them, for both kinds of lock."""
    (circle,) = dump(jdk, mode).deadlocks
    assert {link.thread for link in circle} == names
    assert {link.holder for link in circle} == names
    assert all(link.thread != link.holder and link.lock.type == lock for link in circle)


@JDKS
def test_two_deadlocks_are_two(jdk: str) -> None:
    """A dump with two circles gives two findings."""
    head, mark, circle = text_of(jdk, "deadlock").partition("Found one Java-level deadlock")
    found = javaholdups.holdups(parse_jvm(head + mark + circle + "\n" + mark + circle))
    assert [f.code for f in found] == ["jvm-deadlock", "jvm-deadlock", "jvm-hook-running"]


@JDKS
@pytest.mark.parametrize(
    ("mode", "codes", "severity", "names"),
    [
        ("deadlock", ["jvm-deadlock", "jvm-hook-running"], "blocker", ["closing-orders"]),
        ("exit-in-hook", ["jvm-hook-running"], "blocker", ["exiting-hook"]),
        ("exit-with-lock", ["jvm-hook-running"], "blocker", ["wanting-hook"]),
        ("hang", ["jvm-hook-running"], "note", ["hanging-hook"]),
        ("hang-at-end", ["jvm-hook-running"], "note", ["hanging-hook"]),
        ("hang-at-exit", ["jvm-hook-running"], "note", ["hanging-hook", "order-worker"]),
        ("ignoring-handler", ["jvm-user-threads"], "blocker", ["order-worker"]),
    ],
)
def test_dumps_are_explained(
    jdk: str, mode: str, codes: list[str], severity: str, names: list[str]
) -> None:
    """Each way of not ending gives its finding, with the threads by name."""
    found = javaholdups.holdups(dump(jdk, mode))
    assert [finding.code for finding in found] == codes
    assert found[-1].severity == severity
    assert all(f'"{name}"' in found[-1].title for name in names)


@JDKS
def test_a_working_hook_is_no_blocker(jdk: str) -> None:
    """A hook that merely waits is a note: only what leads back to itself is called endless."""
    (finding,) = javaholdups.holdups(dump(jdk, "hang"))
    assert finding.severity is Severity.NOTE
    assert "never end" not in finding.title


@JDKS
def test_a_lock_whose_holder_works_is_no_deadlock(jdk: str) -> None:
    """A hook that wants a lock of a thread that goes on is named with it, and not called stuck."""
    text = text_of(jdk, "deadlock").partition("Found one Java-level")[0]
    blocks = text.split("\n\n")
    # One of the two now runs: it waits for nothing any more, and keeps its lock.
    freed = [
        "\n".join(line for line in block.splitlines() if "waiting to lock" not in line)
        if block.startswith('"closing-orders"')
        else block
        for block in blocks
    ]
    (finding,) = javaholdups.holdups(parse_jvm("\n\n".join(freed)))
    assert finding.severity is Severity.NOTE
    waiting = next(line for line in finding.evidence if line.startswith('"closing-payments"'))
    assert 'held by "closing-orders"' in waiting


@JDKS
def test_a_second_signal_changes_nothing(jdk: str) -> None:
    """The thread of a second SIGTERM waits for the first one's shutdown; it is not a hook."""
    seen = dump(jdk, "exit-in-hook-twice")
    assert [t.name for t in seen.threads].count("SIGTERM handler") == 2
    (finding,) = javaholdups.holdups(seen)
    assert finding.confidence is Confidence.CERTAIN
    assert 'its shutdown hook "exiting-hook", which can never end' in finding.title


@JDKS
@pytest.mark.parametrize("mode", ["deadlock-locks", "hang-at-exit"])
def test_a_cut_dump_never_raises(jdk: str, mode: str) -> None:
    """A dump that ends anywhere is read as far as it goes."""
    text = text_of(jdk, mode)
    for end in range(0, len(text), 37):
        javaholdups.holdups(parse_jvm(text[:end]))


def test_hostile_thread_names_stay_on_their_line() -> None:
    """Quotes and control characters in a name neither confuse the reading nor reach a terminal."""
    text = (
        '"a" #1 prio=5 \x1b[31m" #9 prio=5 os_prio=0 cpu=1ms elapsed=1.00s tid=0x01 nid=0x1 '
        "runnable  [0x01]\n   java.lang.Thread.State: RUNNABLE\n\tat App.run(App.java:1)\n"
    )
    (thread,) = parse_jvm(text).threads
    assert thread.name == '"a" #1 prio=5 \x1b[31m'[1:]
    (finding,) = javaholdups.holdups(parse_jvm(text))
    assert "\x1b" not in finding.title + "".join(finding.evidence)


def test_printable_is_one_short_line() -> None:
    """Control characters are masked and the length is bounded."""
    assert printable("a\nb\x1b[0m") == "a?b?[0m"
    assert printable("x" * 300, 10) == "x" * 9 + "…"


def test_a_jcmd_that_others_may_change_is_not_trusted(tmp_path: Path) -> None:
    """A program that, or whose folder, others may write to is never run for them."""
    folder = (tmp_path / "bin").resolve()
    folder.mkdir()
    path = folder / "jcmd"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    assert stacks._trusted(str(path))
    folder.chmod(0o777)
    assert not stacks._trusted(str(path))
    folder.chmod(0o755)
    path.chmod(0o775)
    assert not stacks._trusted(str(path))


def test_what_is_no_jvm_is_never_asked() -> None:
    """Jcmd would send SIGQUIT to a process without an attach socket: a stranger is left alone."""
    with victim(*python("stacks_threads.py", "join")) as program:
        (finding,) = asyncio.run(stacks.jvm(program.pid, LIMIT_S))
        assert finding.code == "jvm-stacks-unavailable"
        assert program.child.poll() is None


# Python


def look(program: Victim) -> dict[str, Finding]:
    """What its stacks say, by code."""
    return {f.code: f for f in asyncio.run(stacks.cpython(program.pid, LIMIT_S))}


@pytest.fixture(autouse=True, scope="module")
def spy() -> None:
    """All of this needs py-spy."""
    assert stacks._find("py-spy", [os.path.dirname(sys.executable)]), (
        "no py-spy here: install the PyPI package py-spy (pip install 'lastcall[stacks]')"
    )


def test_a_main_thread_that_waits_for_others_names_them() -> None:
    """After its last line the main thread joins the user threads: they are named."""
    with victim(*python("stacks_threads.py", "last")) as program:
        wait_until(lambda: "python-waits-for-threads" in look(program), "main has ended")
        found = look(program)
        waits = found["python-waits-for-threads"]
        assert (waits.severity, waits.confidence) == (Severity.BLOCKER, Confidence.LIKELY)
        assert waits.title.startswith("the main thread has ended and waits for ")
        assert '"order-worker"' in waits.title
        assert '"MainThread" waits for a thread: _shutdown (threading.py:' in waits.evidence[0]
        worker = next(line for line in waits.evidence if line.startswith('"order-worker" '))
        assert "order_worker (stacks_threads.py:" in worker
        assert "python-lock" not in found


def test_a_join_names_the_thread() -> None:
    """A main thread in `join` is told from one that has ended."""
    with victim(*python("stacks_threads.py", "join")) as program:
        wait_until(lambda: "python-waits-for-threads" in look(program), "main joins")
        waits = look(program)["python-waits-for-threads"]
        assert waits.title == 'the main thread waits for the thread "order-worker"'


def test_threads_in_each_others_lock_are_named() -> None:
    """Two threads that want each other's lock are named with the line that takes it."""
    with victim(*python("stacks_threads.py", "locks")) as program:
        wait_until(
            lambda: (
                "python-lock" in (found := look(program))
                and "2 threads" in found["python-lock"].title
            ),
            "both wait for a lock",
        )
        lock = look(program)["python-lock"]
        assert (lock.severity, lock.confidence) == (Severity.BLOCKER, Confidence.LIKELY)
        assert '"orders"' in lock.title
        assert '"payments"' in lock.title
        assert all("waits for a lock: take (stacks_threads.py:" in line for line in lock.evidence)


def test_every_thread_gets_a_line() -> None:
    """The stacks themselves are a note with one line a thread; a busy thread is said to run."""
    with victim(*python("stacks_threads.py", "spin")) as program:
        wait_until(lambda: " runs: " in look(program)["python-stacks"].evidence[0], "it runs")
        found = look(program)
        assert set(found) == {"python-stacks"}
        assert found["python-stacks"].severity is Severity.NOTE
        (line,) = found["python-stacks"].evidence
        assert "stacks_threads.py:" in line


def test_a_process_that_is_gone_holds_nothing_up() -> None:
    """Looking at a pid that has ended finds nothing and raises nothing."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert asyncio.run(stacks.cpython(child.pid, LIMIT_S)) == ()
    assert asyncio.run(stacks.jvm(child.pid, LIMIT_S)) == ()


def test_a_missing_py_spy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without py-spy the finding says what to install."""
    monkeypatch.setattr(stacks, "_find", lambda _name, _first: None)
    (finding,) = asyncio.run(stacks.cpython(os.getpid(), LIMIT_S))
    assert finding.code == "python-stacks-unavailable"
    assert finding.advice == "install it: pip install 'lastcall[stacks]'"


def test_a_program_that_is_no_python_is_told() -> None:
    """py-spy's own complaint is passed on when the target runs no Python."""
    with victim("sh", "-c", "echo ready; read line; exec sleep 600", ready="ready") as program:
        (finding,) = asyncio.run(stacks.cpython(program.pid, LIMIT_S))
        assert finding.code == "python-stacks-unavailable"
        assert "py-spy failed: Error: " in finding.title


@pytest.fixture
def plain_user() -> Iterator[None]:
    """This process without its privileges, if it has any."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.usefixtures("plain_user")
def test_another_users_process_is_told() -> None:
    """Pid 1 belongs to root: an ordinary user is told so, and what to do."""
    (finding,) = asyncio.run(stacks.cpython(1, LIMIT_S))
    assert finding.title.endswith("it belongs to another user (uid 0)")
    assert finding.advice == "run lastcall as root"


@pytest.mark.usefixtures("plain_user")
def test_the_ptrace_scope_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Yama in the way the finding names the setting and its value."""
    monkeypatch.setattr(stacks, "_yama_scope", lambda: 1)
    monkeypatch.setattr(stacks, "_effective_uid", lambda _pid: os.geteuid())
    why, advice = stacks._no_ptrace(os.getpid())
    assert "kernel.yama.ptrace_scope is 1" in why
    assert "sysctl kernel.yama.ptrace_scope=0" in advice


def test_a_container_without_ptrace_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root without CAP_SYS_PTRACE is told how to get it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    bare = procfs.status(os.getpid()) | {"CapEff": "00000000a80425fb"}  # docker's default
    monkeypatch.setattr(procfs, "status", lambda _pid: bare)
    why, advice = stacks._no_ptrace(os.getpid())
    assert "no CAP_SYS_PTRACE" in why
    assert "--cap-add SYS_PTRACE" in advice


@pytest.mark.parametrize("text", ["", "{", "7", '"x"', "[1]", '[{"frames": 3}]', "null"])
def test_what_py_spy_never_prints_is_refused(text: str) -> None:
    """Anything that is no list of threads is a ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 (json's own error is one, with words of its own)
        pydump.parse_cpython(text)


def test_old_and_new_frame_names_are_alike() -> None:
    """`join` of Python 3.10 and `Thread.join` of 3.11 are read as the same function."""

    def frame(name: str) -> dict[str, object]:
        return {"name": name, "filename": "/usr/lib/python3/threading.py", "line": 5}

    def row(name: str) -> dict[str, object]:
        return {
            "thread_name": None,
            "os_thread_id": 1,
            "active": False,
            "owns_gil": False,
            "frames": [frame(name)],
        }

    old, new = pydump.parse_cpython(json.dumps([row("join"), row("Thread.join")]))
    assert old.frames[0].function == new.frames[0].function == "join"
