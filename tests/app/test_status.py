"""Who is stuck, told to whoever asks from outside: the status socket and the service manager."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers import PATIENCE_S, Victim, python, victim, wait_until
from lastcall.app.hooks import Hook, HookRun, Outcome
from lastcall.app.house import House
from lastcall.app.notify import Notifier
from lastcall.app.phases import Plan, State
from lastcall.app.report import PhaseReport, Report
from lastcall.app.snapshot import LINE_BYTES, Look, line_of
from lastcall.app.status import CLIENTS, _Client, address_of
from lastcall.app.stuck import Stuck
from lastcall.kernel import procfs
from lastcall.proc.notify import Notice, Notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
pytestmark = linux
ASK = b'{"ask": "look"}\n'


def address(pid: int) -> str:
    """Where a victim tells."""
    return address_of(pid, str(procfs.stat(pid).start_ticks))


@contextlib.contextmanager
def connection(pid: int) -> Iterator[socket.socket]:
    """A connection to a victim's status socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE_S)
        link.connect(address(pid))
        yield link


def lines(link: socket.socket) -> Iterator[dict[str, Any]]:
    """What it tells, up to the end."""
    with link.makefile("rb") as file:
        for line in file:
            assert len(line) <= LINE_BYTES
            yield json.loads(line)


@contextlib.contextmanager
def program(mode: str, **env: str) -> Iterator[Victim]:
    """The victim in one of its modes."""
    with victim(*python("app_status.py", mode), env={**os.environ, **env}) as one:
        yield one


def test_it_tells_where_it_is_at_once_and_with_each_change() -> None:
    """Running with what is in flight, then the stop, and the end is the last word."""
    with program("plain") as one, connection(one.pid) as link:
        told = lines(link)
        first = next(told)
        assert (first["lastcall"], first["state"], first["grace_s"]) == (1, "running", 25)
        assert first["phase"] is first["reason"] is first["left_s"] is None
        assert first["in_flight"]["count"] == 1
        assert first["in_flight"]["oldest"][0]["work"] == "GET /report"
        os.kill(one.pid, signal.SIGTERM)
        rest = list(told)
        assert one.wait() == 0
    last = rest[-1]
    assert (last["state"], last["reason"], last["signal"]) == ("ended", "SIGTERM", signal.SIGTERM)
    assert last["exit_code"] == 0
    hooks = {(hook["phase"], hook["hook"], hook["outcome"]) for hook in last["hooks"]}
    assert ("drain", "work in flight", "done") in hooks
    assert not last["in_flight"]["count"]


def test_a_deadlock_of_hooks_is_told_while_it_lasts() -> None:
    """Both hooks, where they were registered, what each waits for, and the ring."""
    with program("deadlock") as one, connection(one.pid) as link:
        told = lines(link)
        next(told)
        os.kill(one.pid, signal.SIGTERM)
        stuck = next(each for each in told if each["deadlocks"])
        os.kill(one.pid, signal.SIGKILL)
    assert stuck["phase"]["name"] == "close"
    assert 0 < stuck["phase"]["left_s"] <= stuck["left_s"]
    by_name = {each["what"]: each for each in stuck["stuck"]}
    assert set(by_name) == {"hook 'close_pool'", "hook 'flush_cache'"}
    pool = by_name["hook 'close_pool'"]
    assert pool["waiting_for"].startswith("lock `cache_lock` held by hook 'flush_cache'")
    assert "app_status.py" in pool["where"]
    assert "with cache_lock:" in pool["stack"][-1]
    assert "hook 'close_pool' waits for" in stuck["deadlocks"][0]


def test_a_look_is_taken_when_it_is_asked_for() -> None:
    """Nobody has to wait for the next one."""
    with program("deadlock") as one, connection(one.pid) as link:
        told = lines(link)
        next(told)
        link.sendall(ASK)
        assert next(told)["looks"] == 1
        os.kill(one.pid, signal.SIGTERM)
        next(each for each in told if each["phase"] and each["phase"]["name"] == "close")
        link.sendall(b"no json\n[1]\n" + ASK)
        assert next(each for each in told if each["looks"] > 1)


def test_a_thread_that_holds_the_exit_is_named() -> None:
    """The program's own threads are waited for in phase `work`."""
    with program("thread") as one, connection(one.pid) as link:
        told = lines(link)
        next(told)
        os.kill(one.pid, signal.SIGTERM)
        stuck = next(each for each in told if each["stuck"])["stuck"]
        assert [each["what"] for each in stuck] == ["thread 'pump'"]


def test_extensions_and_objections_are_told_with_their_reasons() -> None:
    """Who needs longer, for what, and how much of it is left; who objected."""
    with program("pleads") as one, connection(one.pid) as link:
        told = lines(link)
        next(told)
        os.kill(one.pid, signal.SIGTERM)
        plea = next(each for each in told if each["extensions"])
        [extension] = plea["extensions"]
        assert (extension["number"], extension["hook"]) == (1, "push")
        assert (extension["asked_s"], extension["reason"]) == (6, "flushing 40 MB")
        assert 0 < extension["left_s"] <= 6
        assert plea["left_s"] > 3
    with program("objects") as one, connection(one.pid) as link:
        told = lines(link)
        next(told)
        os.kill(one.pid, signal.SIGTERM)
        after = next(each for each in told if each["objections"] and each["state"] == "running")
        assert after["objections"] == [
            {"hook": "guard", "reason": "a backup is being written", "heard": True}
        ]


def test_only_so_many_are_served_and_a_place_gets_free_again() -> None:
    """Whoever comes after them is turned away without a word."""
    with program("plain") as one, contextlib.ExitStack() as stack:
        links = [stack.enter_context(connection(one.pid)) for _ in range(CLIENTS)]
        assert all(next(lines(link))["state"] == "running" for link in links)
        with connection(one.pid) as late:
            assert late.recv(1) == b""
        links[0].close()

        def served() -> bool:
            with connection(one.pid) as again:
                return again.recv(1) != b""

        wait_until(served, "a place to get free")


def first_bytes(pid: int) -> bytes:
    """The first ten of what a victim tells; empty: nothing."""
    with connection(pid) as link:
        return link.recv(10)


def as_user(uid: int, job: Callable[[], bytes]) -> bytes:
    """Do something in a thread that belongs to another user.

    The system call itself changes one thread; only the C library changes them all.
    """
    answer: list[bytes] = []

    def work() -> None:
        setresuid = {"x86_64": 117, "aarch64": 147}[platform.machine()]
        assert ctypes.CDLL(None, use_errno=True).syscall(setresuid, -1, uid, -1) == 0
        answer.append(job())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return answer[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_gets_nothing() -> None:
    """Neither a line nor a place."""
    with program("plain", LASTCALL_TEST_USER="65533") as one:
        with connection(one.pid) as link:
            assert next(lines(link))["state"] == "running"  # root may
        for user, said in ((65533, b'{"lastcall'), (65534, b"")):
            assert as_user(user, lambda: first_bytes(one.pid)) == said


def test_one_who_says_too_much_is_dropped() -> None:
    """A line without an end has a limit."""
    with program("plain") as one, connection(one.pid) as link:
        next(lines(link))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                link.sendall(b"x" * 512)
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(65536) == b""
        with connection(one.pid) as other:
            assert next(lines(other))["state"] == "running"


def test_one_who_does_not_read_is_dropped() -> None:
    """What does not fit at once is not waited for."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = _Client(ours)
        assert client.trusted()
        sent = 0
        while client.send(b"x" * LINE_BYTES):
            sent += 1
            assert sent < 1000
        assert sent > 1


def test_a_forked_child_neither_serves_nor_holds_it() -> None:
    """When the parent is gone nobody answers, although the child lives on."""
    with program("fork") as one:
        number, _, said = one.line().partition(" ")
        child = int(number)
        try:
            assert said == "child None 0 []"
            place = address(one.pid)
            one.child.kill()
            one.wait()
            os.kill(child, 0)
            with socket.socket(socket.AF_UNIX) as link, pytest.raises(ConnectionRefusedError):
                link.connect(place)
        finally:
            os.kill(child, signal.SIGKILL)


class Calendar:
    """A house in the middle of a stop, for snapshots of it."""

    def __init__(self, hooks: int) -> None:
        self.house = House(Plan(25.0), (), time.monotonic)
        desk = self.house.coordinator
        name = "é" * 3000
        runs = []
        for number in range(hooks):
            run = HookRun(Hook(print, f"{number} {name}", "close", where=name), desk)
            run.outcome = Outcome.RUNNING if number == hooks - 1 else Outcome.DONE
            run.detail = name
            runs.append(run)
        desk.report = Report(name, 15, time.time())
        desk.report.phases = [PhaseReport("close", 0.0, runs)]
        desk.report.extensions = [{"hook": name, "asked_s": float("inf"), "reason": name}] * 100
        desk.report.objections = [{"hook": name, "reason": name, "heard": False}] * 100
        self.house.state = State.STOPPING
        for _ in range(1000):
            self.house.gate.enter(name).__enter__()
        stuck = Stuck(("thread", 1), name, 1.0, stack=(name,) * 12, waiting_for=name)
        stuck.holders = (name,) * 100
        self.look = Look(3, [(stuck, name)] * 100, [name] * 100)

    def line(self) -> bytes:
        """As it would be sent."""
        return line_of(self.house, self.look, [0.0] * 100)


@pytest.mark.parametrize("hooks", [1, 1000])
def test_a_snapshot_is_never_longer_than_64_kib(hooks: int) -> None:
    """Whatever the names: what runs is told before what is done, and what is left out is said."""
    calendar = Calendar(hooks)
    try:
        line = calendar.line()
        assert len(line) <= LINE_BYTES
        assert line.endswith(b"\n")
        data = json.loads(line)
        assert data["cut"] is True
        assert data["in_flight"]["count"] == 1000
        assert data["extensions"][0]["asked_s"] is None
        assert data["hooks"][0]["outcome"] == "running"
    finally:
        calendar.house.coordinator.inbox.close()


# -- the service manager


def told(mode: str, until: Callable[[Notice], bool], *, stop: bool = True) -> list[Notice]:
    """What a program tells its service manager, up to some message."""

    async def main() -> list[Notice]:
        with Notify.open() as manager:
            found: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def heard(notice: Notice) -> None:
                if until(notice) and not found.done():
                    found.set_result(None)

            manager.follow()
            manager.watch(heard)
            with program(mode, NOTIFY_SOCKET=manager.path) as one:
                if stop:
                    os.kill(one.pid, signal.SIGTERM)
                async with asyncio.timeout(PATIENCE_S):
                    await found
                notices = list(manager.notices)
                assert {notice.pid for notice in notices} == {one.pid}
                return notices

    return asyncio.run(main())


def test_a_service_manager_is_told_of_the_whole_life() -> None:
    """READY when the program says so, STOPPING once with the time it takes, then each phase."""
    notices = told("notify", lambda notice: "ended after" in (notice.status or ""))
    ready, stopping, *rest = notices
    assert ready.ready
    assert ready.main_pid == ready.pid
    assert ready.status == "serving"
    assert stopping.stopping
    assert stopping.status == "stopping: SIGTERM"
    assert stopping.extend_s is not None
    assert 25 < stopping.extend_s <= 27
    assert not any(notice.stopping or notice.ready for notice in rest)
    assert any((notice.status or "").startswith("drain") for notice in rest)
    assert (rest[-1].status or "").startswith("SIGTERM: ended after")


def test_a_service_manager_is_told_who_is_stuck() -> None:
    """STATUS names the hook, where it was registered, what it waits for, and the deadlock."""
    notices = told("deadlock", lambda notice: "a deadlock" in (notice.status or ""))
    status = notices[-1].status or ""
    assert status.startswith("waits for hook 'close_pool' (")
    assert "waits for lock `cache_lock` held by hook 'flush_cache'" in status
    assert len(status) <= 300


def test_a_plea_for_more_time_is_passed_on() -> None:
    """EXTEND_TIMEOUT_USEC covers what was granted."""
    notices = told("pleads", lambda notice: "needs more time" in (notice.status or ""))
    assert (notices[-1].status or "").endswith("needs more time: flushing 40 MB")
    assert notices[-1].extend_s is not None
    assert notices[-1].extend_s > 6


def test_what_may_be_called_off_is_not_announced_as_a_stop() -> None:
    """STOPPING=1 cannot be taken back, so it waits for the draining."""
    notices = told("objects", lambda notice: "called off" in (notice.status or ""))
    assert not any(notice.stopping for notice in notices)
    assert (notices[-1].status or "").endswith("a backup is being written")


@pytest.mark.parametrize("where", ["/nonexistent/notify", "@lastcall-nobody", "vsock:2:1", "x"])
def test_a_manager_that_is_not_there_changes_nothing(where: str) -> None:
    """The stop is as orderly as ever."""
    with program("notify", NOTIFY_SOCKET=where) as one:
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait() == 0


def test_a_manager_with_an_abstract_name_is_told() -> None:
    """`@name` stands for it, as containers have it."""
    name = f"lastcall-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(f"\0{name}")
        with program("notify", NOTIFY_SOCKET=f"@{name}"):
            assert manager.recv(4096).startswith(b"READY=1\n")


def test_a_manager_that_does_not_read_is_not_waited_for() -> None:
    """Its queue fills up, and the messages after that are lost."""
    house = House(Plan(25.0), (), time.monotonic)
    name = f"lastcall-full-{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{name}")
            notifier = Notifier.of(house, {"NOTIFY_SOCKET": f"@{name}"})
            assert notifier is not None
            sent = [notifier.send("STATUS=a line\nand one that is not") for _ in range(5000)]
            assert sent[0]
            assert not sent[-1]
            assert manager.recv(4096) == b"STATUS=a line and one that is not"
            notifier.close()
            assert not notifier.ready()
    finally:
        house.coordinator.inbox.close()


# -- the record and the report


def test_the_log_record_of_the_end_carries_the_report() -> None:
    """Handlers of `logging` find it as `record.lastcall`."""
    with program("log") as one:
        os.kill(one.pid, signal.SIGTERM)
        assert one.line() == "record INFO SIGTERM True"


def test_the_report_file_is_whole_and_private(tmp_path: Path) -> None:
    """JSON, for this user alone, also in place of an older one."""
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o666)
    with victim(
        sys.executable,
        "-c",
        "import os, sys; from lastcall import Lifecycle\n"
        "with Lifecycle(report=sys.argv[1], exit_with='zero') as life:\n"
        "    life.add_hook('close', print, name='say')\n"
        "    print('ready', flush=True); life.draining.wait()",
        str(path),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as one:
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait() == 0
    assert path.stat().st_mode & 0o777 == 0o600
    report = json.loads(path.read_text())
    assert report["clean"] is True
    assert [phase["phase"] for phase in report["phases"]] == [
        "announce",
        "drain",
        "work",
        "close",
        "flush",
    ]
    assert [hook["hook"] for hook in report["phases"][3]["hooks"]] == ["say"]
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
