"""What keeps a process from ending, on processes that really do not end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import threading
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from helpers import PROGRAMS, Victim, python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.model import Confidence, Depth, Finding, Severity
from lastcall.targets.process import signals, sockets
from lastcall.targets.process.condition import wchan
from lastcall.targets.process.during import connected, holdup, remains

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lastcall.targets.process.sockets import Socket

TERM = int(signal.SIGTERM)


def look(
    *pids: int,
    listeners: Sequence[Socket] = (),
    asked: Sequence[int] = (TERM,),
    depth: Depth = Depth.QUICK,
) -> dict[str, Finding]:
    """The findings by their code, in the order in which they were told."""
    handles = [Handle.open(pid) for pid in pids]
    try:
        found = asyncio.run(holdup.findings(handles, listeners, asked, depth))
    finally:
        for handle in handles:
            handle.close()
    return {finding.code: finding for finding in found}


@contextmanager
def held_up(*words: str) -> Iterator[tuple[Victim, str]]:
    """A program that does not end, and what it says of itself."""
    with victim(*python("hold_up.py", *words)) as one:
        yield one, one.line()


def test_a_process_without_a_reason_shows_its_threads() -> None:
    """When nothing else is found, where it waits in the kernel is better than nothing."""
    with held_up("threads") as (one, _):
        states = [f"/proc/{one.pid}/task/{tid}/stat" for tid in procfs.tids(one.pid)]
        wait_until(
            lambda: all(procfs.parse_stat(procfs.read_bytes(s)).state == "S" for s in states),
            "its threads to settle",
        )
        found = look(one.pid)
        assert list(found) == ["threads"]
        assert found["threads"].title == "what its 4 threads do"
        name = procfs.stat(one.pid).comm
        assert any(e.startswith(f"3 x {name}: sleeping") for e in found["threads"].evidence)


def test_a_paused_process_is_named_before_its_signal() -> None:
    """The pause explains why the signal waits: it alone is told."""
    with held_up("handles") as (one, _):
        os.kill(one.pid, signal.SIGSTOP)
        wait_until(lambda: procfs.stat(one.pid).state == "T", "it to be paused")
        os.kill(one.pid, signal.SIGTERM)
        found = look(one.pid)
        assert list(found) == ["stopped"]
        assert found["stopped"].advice == f"wake it: kill -CONT {one.pid}"


def test_a_blocked_signal_is_named_with_the_thread_that_blocks_it() -> None:
    """It was delivered to the kernel, and no thread lets it in."""
    with held_up("blocks") as (one, _):
        os.kill(one.pid, signal.SIGTERM)
        found = look(one.pid)
        assert list(found) == ["signal-pending"]
        assert found["signal-pending"].confidence is Confidence.CERTAIN
        name = procfs.stat(one.pid).comm
        assert found["signal-pending"].evidence[1] == f"blocked by thread {one.pid} ({name})"
        assert "signal-pending" not in look(one.pid, asked=[int(signal.SIGINT)])


def test_an_ignored_signal_is_named() -> None:
    """It was thrown away: waiting longer brings nothing."""
    with held_up("ignores") as (one, _):
        os.kill(one.pid, signal.SIGTERM)
        assert list(look(one.pid)) == ["signal-ignored"]
        assert list(look(one.pid, asked=[int(signal.SIGINT)])) == ["threads"]


def test_a_wait_in_the_kernel_is_named_with_its_usual_cause() -> None:
    """A parent between vfork and exec is uninterruptible for as long as its child likes."""
    with held_up("vfork") as (one, _):
        wait_until(lambda: procfs.stat(one.pid).state == "D", "it to be stuck in vfork")
        found = look(one.pid)
        assert next(iter(found)) == "uninterruptible"
        if wchan(one.pid):
            assert "a child of its own" in found["uninterruptible"].evidence[-1]


def test_a_moment_in_the_kernel_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk access is uninterruptible for a moment: only what lasts is told."""
    with held_up("vfork") as (one, _):
        wait_until(lambda: procfs.stat(one.pid).state == "D", "it to be stuck in vfork")
        real = asyncio.sleep

        async def over(_delay_s: float) -> None:
            os.kill(one.pid, signal.SIGSTOP)
            os.kill(procfs.children(one.pid)[0], signal.SIGKILL)
            while procfs.stat(one.pid).state == "D":
                await real(0.001)

        monkeypatch.setattr("lastcall.targets.process.during.holdup.asyncio.sleep", over)
        assert "uninterruptible" not in look(one.pid)


def test_a_process_that_nobody_collects_is_named_with_its_parent() -> None:
    """It has ended; its parent does not wait for it."""
    with held_up("never-reaps") as (one, child):
        found = look(int(child))
        assert list(found) == ["zombie"]
        assert any(f"parent: {one.pid} " in line for line in found["zombie"].evidence)


def test_a_main_thread_that_ended_is_not_taken_for_a_zombie() -> None:
    """The process goes on in its other threads."""
    with held_up("main-thread-ended") as (one, _):
        wait_until(lambda: procfs.stat(one.pid).state == "Z", "its main thread to end")
        found = look(one.pid)
        assert list(found) == ["threads"]
        assert any("has ended, its other threads go on" in e for e in found["threads"].evidence)


def test_children_are_listed() -> None:
    """Who is left below it, with what they do; it may wait for them."""
    with held_up("children") as (one, child):
        wait_until(lambda: procfs.stat(int(child)).state == "S", "its child to settle")
        found = look(one.pid)
        assert list(found) == ["children"]
        assert found["children"].severity is Severity.WARNING
        assert found["children"].evidence[0].startswith(f"pid {child} (sleeping)")


def test_a_process_that_waits_for_its_child_is_held_by_it() -> None:
    """That it stands in wait(2) tells that the child is the reason."""
    with held_up("waits") as (one, child):
        wait_until(lambda: wchan(one.pid) in {"do_wait", ""}, "it to wait for its child")
        found = look(one.pid)["children"]
        assert found.evidence[0].startswith(f"pid {child} ")
        if wchan(one.pid):
            assert (found.severity, found.confidence) == (Severity.BLOCKER, Confidence.LIKELY)


def test_members_that_outlive_the_root_are_listed() -> None:
    """Of a tree, what is left keeps the stop from being over."""
    with held_up("handles") as (root, _), held_up("handles") as (rest, _):
        handles = [Handle.open(root.pid), Handle.open(rest.pid)]
        root.child.kill()
        root.child.wait()
        found = asyncio.run(holdup.findings(handles, [], [TERM], Depth.QUICK))
        for handle in handles:
            handle.close()
        assert [f.code for f in found] == ["children"]
        assert found[0].title == "1 process is still there"
        assert found[0].severity is Severity.BLOCKER


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_waits_for_its_child_before_it_runs_its_trap(shell: str) -> None:
    """The signal has arrived, and the script does nothing until its program ends."""
    program = shutil.which(shell)
    assert program, f"install the package {shell}"
    with victim(program, str(PROGRAMS / "hold_wait.sh")) as one:
        wait_until(lambda: len(procfs.children(one.pid)) == 1, "the script to start its program")
        (child,) = procfs.children(one.pid)
        with _ended_at_last(child):
            wait_until(lambda: procfs.stat(child).comm == "sleep", "its program to run")
            os.kill(one.pid, signal.SIGTERM)
            wait_until(lambda: not signals.states(one.pid)[TERM].pending, "it to take the signal")
            found = look(one.pid)
            assert next(iter(found)) == "shell-waits"
            assert f"lastcall stop pid:{child}" in found["shell-waits"].advice
            assert "shell-waits" not in look(one.pid, asked=[int(signal.SIGUSR1)])
            # And so it is: when the child ends, the trap runs.
            os.kill(child, signal.SIGKILL)
            said = [one.line(), one.line()]
            assert "trapped" in said


@contextmanager
def _ended_at_last(pid: int) -> Iterator[None]:
    handle = Handle.open(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            handle.send(signal.SIGKILL)
        handle.close()


def test_files_that_are_open_for_writing_are_listed(tmp_path: Path) -> None:
    """Only on a close look, only regular files, only those it writes to."""
    place = tmp_path / "data.db"
    with held_up("writes", str(place)) as (one, _):
        assert "open-files" not in look(one.pid)
        found = look(one.pid, depth=Depth.DEEP)["open-files"]
        assert found.evidence == (f"{place}: 1234 bytes, written at 1234 (pid {one.pid})",)
        assert found.severity is Severity.NOTE


def test_a_close_look_at_python_reads_its_stacks() -> None:
    """The runtime's own view comes with the kernel's."""
    with held_up("handles") as (one, _):
        codes = [*look(one.pid, depth=Depth.DEEP)]
        assert codes[-1] == "threads"
        assert any(code.startswith("python") for code in codes)


def _freezer(version: str) -> tuple[str, str, str, str]:
    """The freezer of a cgroup version: its folder, file, and what to write."""
    mounts = {}
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, place, kind, options, *_ = line.split()
            if kind == "cgroup2":
                mounts["v2"] = (place, "cgroup.freeze", "1", "0")
            elif kind == "cgroup" and "freezer" in options.split(","):
                mounts["v1"] = (place, "freezer.state", "FROZEN", "THAWED")
    if version not in mounts:
        pytest.skip(f"this machine has no cgroup {version} freezer")
    return mounts[version]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can freeze a cgroup")
def test_a_frozen_process_is_named_with_its_cgroup(version: str) -> None:
    """Also when a cgroup further up was frozen: that is the one to thaw."""
    mount, name, freeze, thaw = _freezer(version)
    above = f"{mount}/lastcall-test-{os.getpid()}"
    below = f"{above}/below"
    with held_up("handles") as (one, _):
        try:
            os.makedirs(below)
            _write(f"{below}/cgroup.procs", str(one.pid))
            _write(f"{above}/{name}", freeze)
            wait_until(lambda: "frozen" in look(one.pid, asked=()), "it to be frozen")
            os.kill(one.pid, signal.SIGTERM)
            found = look(one.pid)
            assert list(found) == ["frozen"]
            assert above in found["frozen"].advice
            assert below not in found["frozen"].advice
        finally:
            _write(f"{above}/{name}", thaw)
            one.child.kill()
            one.child.wait()
            for folder in (below, above):
                wait_until(lambda f=folder: _removed(f), "the cgroup to be empty")  # type: ignore[misc]


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError:
        return not os.path.exists(folder)
    return True


@contextmanager
def _uvicorn() -> Iterator[tuple[Victim, tuple[Socket, ...]]]:
    with victim(*python("net_uvicorn.py")) as one:
        yield one, sockets.listening_of([one.pid])


def _ask(stack: ExitStack, port: int, path: str) -> socket.socket:
    client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def _ports(found: Finding, activity: str) -> set[int]:
    """The clients' ports in the lines of the evidence that tell that activity."""
    lines = [line for line in found.evidence if f": {activity}" in line]
    return {int(line.partition(" -> ")[0].rpartition(":")[2]) for line in lines}


@pytest.mark.parametrize("depth", list(Depth))
def test_three_slow_requests_of_a_real_uvicorn_are_what_it_waits_for(depth: Depth) -> None:
    """They are told apart from an idle connection, also when the server has closed its door."""
    with ExitStack() as stack:
        one, listeners = stack.enter_context(_uvicorn())
        (door,) = listeners
        slow = {
            _ask(stack, door.local.port, "/slow").getsockname()[1]: one.line() for _ in range(3)
        }
        assert set(slow.values()) == {"slow"}
        idle = _ask(stack, door.local.port, "/")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        found = look(one.pid, listeners=listeners, asked=(), depth=depth)["connections"]
        assert found.title.startswith("3 requests in flight on port")
        assert found.title.endswith("1 other connection open")
        assert _ports(found, "request in flight") == set(slow)
        assert _ports(found, "idle") | _ports(found, "probably idle") == {idle.getsockname()[1]}

        os.kill(one.pid, signal.SIGTERM)
        wait_until(lambda: door not in sockets.listening(), "it to close its listening socket")
        wait_until(lambda: idle.recv(100) == b"", "it to close the idle connection")
        found = look(one.pid, listeners=listeners, depth=depth)["connections"]
        assert found.title == f"3 requests in flight on port {door.local.port}"
        assert _ports(found, "request in flight") == set(slow)
        assert len(found.evidence) == 3
        assert all(f"from pid {os.getpid()} " in line for line in found.evidence)


def test_a_stream_is_in_flight() -> None:
    """A close look, which looks twice, sees that the answer goes on."""
    with ExitStack() as stack:
        one, listeners = stack.enter_context(_uvicorn())
        client = _ask(stack, listeners[0].local.port, "/stream")
        assert one.line() == "streaming"
        done = threading.Event()

        def take() -> None:
            while not done.is_set() and client.recv(4096):
                pass

        reader = threading.Thread(target=take)
        reader.start()
        try:
            found = look(one.pid, listeners=listeners, depth=Depth.DEEP)["connections"]
        finally:
            done.set()
            reader.join()
        assert "streamed" in found.evidence[0]
        assert found.title.startswith("1 request in flight")


def test_connections_that_workers_hold_count() -> None:
    """The master listens, a worker below it holds the connection (or nobody accepted it)."""
    with victim(*python("net_listen.py", "workers")) as one:
        where = int(one.line().split()[0])
        with closing(socket.create_connection(("127.0.0.1", where))):
            found = look(one.pid)["connections"]
            assert "not accepted yet" in found.evidence[0]
            assert found.title.startswith("no request in flight")


def test_many_connections_are_counted_rather_than_listed() -> None:
    """Twenty lines are enough to see what it is about."""
    with ExitStack() as stack:
        one, listeners = stack.enter_context(_uvicorn())
        for _ in range(25):
            _ask(stack, listeners[0].local.port, "/slow")
            assert one.line() == "slow"
        found = look(one.pid, listeners=listeners)["connections"]
        assert found.title.startswith("25 requests in flight")
        assert len(found.evidence) == 21
        assert found.evidence[-1] == "and 5 more"


def test_no_connection_is_no_finding() -> None:
    """A server that nobody is connected to is not held up by connections."""
    with _uvicorn() as (one, listeners):
        assert "connections" not in look(one.pid, listeners=listeners)


def test_a_process_that_vanishes_has_nothing_to_tell() -> None:
    """At any depth, and whatever it was asked."""
    with held_up("handles") as (one, _):
        handle = Handle.open(one.pid)
    try:
        for depth in Depth:
            assert asyncio.run(holdup.findings([handle], [], [TERM], depth)) == ()
    finally:
        handle.close()
    assert asyncio.run(holdup.findings([], [], [TERM], Depth.DEEP)) == ()


def test_a_part_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in /proc can hang with its process: the rest of the look is told all the same."""
    release = threading.Event()

    def hang(_pids: Sequence[int]) -> tuple[Finding, ...]:
        release.wait()
        return ()

    monkeypatch.setattr(holdup, "open_files", hang)
    monkeypatch.setattr(holdup, "LIMIT_S", 0.6)
    try:
        with held_up("ignores") as (one, _):
            found = look(one.pid, depth=Depth.DEEP)
        assert found["look-cut-short"].title.startswith("looking at its open files took too long")
        assert "signal-ignored" in found
    finally:
        release.set()


def test_a_look_takes_and_leaves_nothing() -> None:
    """No descriptor, no child and no thread is left behind."""
    with held_up("children") as (one, _):
        look(one.pid, depth=Depth.DEEP)
        before = (len(os.listdir("/proc/self/fd")), procfs.children(os.getpid()))
        look(one.pid, depth=Depth.DEEP)
        assert (len(os.listdir("/proc/self/fd")), procfs.children(os.getpid())) == before
        wait_until(
            lambda: all(t.name != "lastcall-look" for t in threading.enumerate()),
            "the threads of the look to end",
        )


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("rpc_wait_bit_killable", "NFS"),
        ("request_wait_answer", "FUSE"),
        ("folio_wait_bit_common", "disk"),
        ("something_else", ""),
    ],
)
def test_the_usual_causes(function: str, part: str) -> None:
    """Known places in the kernel are put into words; unknown ones are not guessed at."""
    cause = remains.usual_cause(function)
    assert part in cause
    assert bool(cause) == bool(part)


@pytest.mark.parametrize(
    ("ms", "expected"), [(0, "0.0 s"), (2100, "2.1 s"), (15_400, "15 s"), (600_000, "10 min")]
)
def test_ages_are_told_as_people_say_them(ms: int, expected: str) -> None:
    """Tenths of a second only where they mean something."""
    assert connected._ago(ms) == expected
