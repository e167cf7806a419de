"""The run record: how did the last run end?"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgroups import cgroup_of, hierarchy
from helpers import PATIENCE_S, python
from lastcall.app import runfile, runplace
from lastcall.app.previous import Ended, Previous, Record
from lastcall.app.runended import judge
from lastcall.app.runmarks import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

# pytest has faulthandler on, so what a record of its own says of faults is not tested in here.


class Run:
    """A victim that keeps a record and does what it is told."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.pid = child.pid

    def say(self, command: str) -> str:
        """Tell it something: its answer, empty when that ended it."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().rstrip("\n")

    def end(self, signum: int = 0) -> int:
        """Signal it, close its input, and reap it."""
        if signum:
            self.child.send_signal(signum)
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        return self.child.wait(PATIENCE_S)


@contextlib.contextmanager
def run(
    path: Path | str, *commands: str, proc: Path | str = "/proc", env: dict[str, str] | None = None
) -> Iterator[Run]:
    """A victim whose record is open; `commands` are told to it."""
    child = subprocess.Popen(
        python("app_record.py", str(path), str(proc)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        made = Run(child)
        for command in commands:
            made.say(command)
        yield made
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()


def previous(path: Path, proc: Path | str = "/proc") -> Previous:
    """How the last run of that record ended; the record is left clean."""
    record = Record.open("victim", str(path), proc=str(proc))
    assert not record.warning
    record.ended(reason="looked", clean=True)
    record.close()
    return record.previous


def told(path: Path, *commands: str, signum: int = 0, proc: Path | str = "/proc") -> Previous:
    """Run a victim through commands to its end: how the next run sees it."""
    with run(path, "open", *commands, proc=proc) as victim:
        victim.end(signum)
        found = previous(path, proc)
        assert found.pid == victim.pid
        return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a record may be."""
    return tmp_path / "private" / "victim"


def names(found: Previous) -> list[str]:
    """What was in flight."""
    return [name for name, _ in found.in_flight]


# -- how each ending is told


def test_a_first_run_has_none_before_it(path: Path) -> None:
    """A new record says so, and needs no recovery."""
    record = Record.open("victim", str(path))
    try:
        assert record.previous.ended is Ended.NEVER_RAN
        assert not record.previous.recovering
        assert str(record.previous) == "no earlier run is known"
    finally:
        record.close()


def test_clean(path: Path) -> None:
    """A stop that went through is clean, with its reason, times and exit code."""
    found = told(path, "enter order 17", "stopping request", "leave", "clean request")
    assert (found.ended, found.reason, found.exit_code) == (Ended.CLEAN, "request", 0)
    assert not found.recovering
    assert found.in_flight_count == 0
    assert found.ran_s is not None
    assert found.stop_took_s is not None
    assert 0 <= found.stop_took_s <= found.ran_s
    assert found.started_at is not None


def test_sigterm(path: Path) -> None:
    """A stop by SIGTERM is clean and names it."""
    found = told(path, "enter order 17", signum=signal.SIGTERM)
    assert (found.ended, found.reason) == (Ended.CLEAN, "SIGTERM")


def test_cut(path: Path) -> None:
    """A stop that its deadline cut off says what it left, and what was in flight."""
    found = told(path, "enter order 17", "stopping SIGTERM", "cut SIGTERM")
    assert (found.ended, found.reason, found.exit_code) == (Ended.CUT, "SIGTERM", 143)
    assert found.left == ("hook 'save'",)
    assert names(found) == ["order 17"]
    assert found.recovering


def test_a_clean_end_with_work_in_flight_is_none(path: Path) -> None:
    """Whoever says clean while work was in flight is not believed."""
    found = told(path, "enter order 17", "clean SIGTERM")
    assert found.ended is Ended.CUT
    assert names(found) == ["order 17"]


def test_sigkill(path: Path) -> None:
    """A killed run names what was in flight."""
    found = told(path, "enter order 17", "enter gone", "leave", "enter b", signum=signal.SIGKILL)
    assert found.ended is Ended.KILLED
    assert names(found) == ["order 17", "b"]
    assert found.in_flight_count == 2
    assert found.ran_s is None
    assert f"(pid {found.pid}) was killed while 'order 17'" in str(found)
    assert "were in flight" in str(found)
    assert found.recovering


def test_sigkill_during_the_stop(path: Path) -> None:
    """Of a run killed in its stop one learns that the stop had begun, and why."""
    found = told(path, "stopping SIGTERM", signum=signal.SIGKILL)
    assert found.ended is Ended.KILLED
    assert "its stop had begun (SIGTERM)" in found.detail


def test_uncaught_exception(path: Path) -> None:
    """A crash tells the exception, its message and its line."""
    found = told(path, "enter order 17", "raise")
    assert found.ended is Ended.CRASHED
    assert found.reason.startswith("ValueError: no such order (app_record.py:")
    assert names(found) == ["order 17"]


@pytest.mark.parametrize(
    ("command", "reason"), [("fault", "Segmentation fault"), ("abort", "Aborted")]
)
def test_crash_in_c(path: Path, command: str, reason: str) -> None:
    """A fault in C code is a crash, with the Python line that called it."""
    found = told(path, "enter order 17", command)
    assert found.ended is Ended.CRASHED
    assert found.reason.startswith(f"{reason} (")
    assert ".py:" in found.reason
    assert names(found) == ["order 17"]


def test_os_exit(path: Path) -> None:
    """`os._exit` is told with its code and who called it."""
    found = told(path, "enter order 17", "os_exit 3")
    assert (found.ended, found.exit_code) == (Ended.EXITED, 3)
    assert found.reason.startswith("os._exit(3) at app_record.py:")
    assert names(found) == ["order 17"]
    assert found.recovering


@pytest.mark.parametrize("command", ["sys_exit 3", "end"])
def test_end_without_a_stop(path: Path, command: str) -> None:
    """`sys.exit` and the end of the main program leave without the stop."""
    found = told(path, "enter order 17", command)
    assert found.ended is Ended.EXITED
    assert "sys.exit" in found.reason
    assert names(found) == ["order 17"]


def test_a_thread_that_died_is_remembered(path: Path) -> None:
    """An exception in a thread is no crash, but worth a word."""
    found = told(path, "thread", signum=signal.SIGKILL)
    assert found.ended is Ended.KILLED
    assert "its thread 'worker' had died of ValueError: no such order" in found.detail


def test_closed_without_an_end(path: Path) -> None:
    """A record that was closed before the stop was over says so."""
    found = told(path, "close")
    assert (found.ended, found.reason) == (Ended.EXITED, "its record was closed")


def test_exec(path: Path) -> None:
    """A program that replaced itself is not taken for a killed one, though nothing was written."""
    with run(path, "open", "enter order 17") as victim:
        assert victim.say("exec").startswith("ready")
        assert victim.say("open").startswith("exited ")


def test_a_crash_that_faulthandler_tells_elsewhere(path: Path) -> None:
    """Where faulthandler writes elsewhere, killed and crashed cannot be told apart."""
    with run(path, "open", "enter order 17", env={"PYTHONFAULTHANDLER": "1"}) as victim:
        victim.end(signal.SIGKILL)
    found = previous(path)
    assert found.ended is Ended.UNKNOWN
    assert found.reason.startswith("killed, or crashed in C code")
    assert names(found) == ["order 17"]


def test_kills_at_any_moment(path: Path) -> None:
    """Wherever a kill falls among the writes, it reads as a kill, and no name is half a name."""
    chance = random.Random(17)
    whole = {"first", "second " + "x" * 60}
    for _ in range(15):
        with run(path, "open", "work") as victim:
            select.select([], [], [], chance.random() / 50)
            victim.end(signal.SIGKILL)
        found = previous(path)
        assert found.ended is Ended.KILLED
        assert set(names(found)) <= whole


# -- the machine's part


def procfs(folder: Path, *, boot: str = "boot-1", machine: int = 0, mounts: str = "") -> Path:
    """A procfs as the record reads it."""
    (folder / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (folder / "self").mkdir(exist_ok=True)
    (folder / "sys/kernel/random/boot_id").write_text(boot + "\n")
    (folder / "vmstat").write_text(f"nr_free_pages 1\noom_kill {machine}\n")
    (folder / "self/mountinfo").write_text(mounts)
    (folder / "self/cgroup").write_text("4:memory:/app\n0::/app\n")
    return folder


def test_another_boot(path: Path, tmp_path: Path) -> None:
    """After another boot the host went down, with what was in flight."""
    with run(path, "open", "enter order 17", proc=procfs(tmp_path / "proc")) as victim:
        victim.end(signal.SIGKILL)
    found = previous(path, procfs(tmp_path / "proc", boot="boot-2"))
    assert found.ended is Ended.HOST_DOWN
    assert names(found) == ["order 17"]
    assert "the host went down under the last run" in str(found)


def test_no_boot_id(path: Path, tmp_path: Path) -> None:
    """Where no boot id is to be had, killed and host down cannot be told apart."""
    found = told(path, signum=signal.SIGKILL, proc=tmp_path)
    assert found.ended is Ended.UNKNOWN
    assert "no boot id" in found.reason


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
@pytest.mark.parametrize(
    ("own", "machine", "reason"),
    [(1, 1, "probably by the OOM killer"), (0, 1, "SIGKILL"), (0, 0, "SIGKILL")],
)
def test_the_own_cgroup_counts_an_oom_kill(
    path: Path, tmp_path: Path, kind: str, own: int, machine: int, reason: str
) -> None:
    """A kill counted by the own cgroup is probably the OOM killer's; one elsewhere is not ours."""
    group = tmp_path / "mount" / "app"
    group.mkdir(parents=True)
    counter = group / ("memory.events" if kind == "cgroup2" else "memory.oom_control")
    counter.write_text("low 0\noom 0\noom_kill 4\n")
    mounts = f"30 25 0:26 / {tmp_path}/mount rw - {kind} {kind} rw,memory\n"
    proc = procfs(tmp_path / "proc", machine=7, mounts=mounts)
    with run(path, "open", "enter order 17", proc=proc) as victim:
        victim.end(signal.SIGKILL)
    counter.write_text(f"low 0\noom 0\noom_kill {4 + own}\n")
    found = previous(path, procfs(tmp_path / "proc", machine=7 + machine, mounts=mounts))
    assert found.ended is Ended.KILLED
    assert found.reason.startswith(reason)
    assert names(found) == ["order 17"]
    assert (str(counter) in found.detail) == bool(own)


def test_only_the_machine_counts_an_oom_kill(path: Path, tmp_path: Path) -> None:
    """A kill counted by the machine alone is possibly the OOM killer's."""
    with run(path, "open", proc=procfs(tmp_path / "proc", machine=7)) as victim:
        victim.end(signal.SIGKILL)
    found = previous(path, procfs(tmp_path / "proc", machine=8))
    assert (found.ended, found.reason) == (Ended.KILLED, "possibly by the OOM killer")
    assert "took 1 on this machine" in found.detail


def limit_memory(group: Path) -> None:
    """64 MiB, and no swap, for a memory cgroup of either version."""
    limit = "67108864"
    if (group / "memory.max").exists():
        (group / "memory.max").write_text(limit)
        swap, none = group / "memory.swap.max", "0"
    else:
        (group / "memory.limit_in_bytes").write_text(limit)
        swap, none = group / "memory.memsw.limit_in_bytes", limit
    if swap.exists():
        swap.write_text(none)


def memory_hierarchy() -> Path:
    """Where memory cgroups can be made: v2 if its root hands memory on, else v1."""
    controllers = Path("/sys/fs/cgroup/cgroup.subtree_control")
    handed_on = controllers.read_text().split() if controllers.exists() else []
    return hierarchy("" if "memory" in handed_on else "memory")


def test_the_oom_killer_itself(path: Path) -> None:
    """A run that the kernel's OOM killer took in its own cgroup is found out."""
    name = f"lastcall-record-{os.getpid()}"
    with run(path) as victim, cgroup_of(memory_hierarchy(), name, victim.pid) as group:
        limit_memory(group)
        assert victim.say("open").startswith("never-ran")
        victim.say("enter order 17")
        assert victim.say("eat") == ""
        assert victim.end() == -signal.SIGKILL
        found = previous(path)
    assert (found.ended, found.reason) == (Ended.KILLED, "probably by the OOM killer")
    assert f"{name}/memory." in found.detail
    assert "counts 1 more since it began" in found.detail
    assert names(found) == ["order 17"]


# -- several instances, and children


def test_two_instances(path: Path) -> None:
    """A second instance has its own record, and what it leaves is told to who comes next."""
    with run(path, "open", "enter first's") as first, run(path) as second:
        assert second.say("open").split() == ["never-ran", f"{path}.2"]
        second.say("enter second's")
        second.end(signal.SIGKILL)
        with run(path) as third:
            assert third.say("open").split() == ["killed", f"{path}.2"]
            third.say("clean SIGTERM")
            third.end()
        first.end(signal.SIGKILL)
    found = previous(path)
    assert names(found) == ["first's"]


def test_lost_work_is_told_before_a_clean_end(path: Path) -> None:
    """The record of a killed instance is taken over first, also when another is free and newer."""
    with run(path, "open") as first, run(path, "open", "enter lost") as second:
        second.end(signal.SIGKILL)
        first.say("clean SIGTERM")
        first.end()
    with run(path) as next_one:
        assert next_one.say("open").split() == ["killed", f"{path}.2"]


def test_two_records_in_one_process(path: Path) -> None:
    """A record that this process holds is not opened again: closing it would lose the lock."""
    with contextlib.ExitStack() as stack:
        for expected in (str(path), f"{path}.2"):
            record = Record.open("victim", str(path))
            stack.callback(record.close)
            assert record.path == expected
            assert record.previous.ended is Ended.NEVER_RAN
        with run(path) as victim:
            assert victim.say("open").split() == ["never-ran", f"{path}.3"]


def test_a_lost_lock_does_not_give_the_record_away(path: Path) -> None:
    """A POSIX lock goes with any descriptor of the file; that the process lives is seen."""
    record = Record.open("victim", str(path))
    try:
        path.read_bytes()
        with run(path) as second:
            assert second.say("open").split() == ["never-ran", f"{path}.2"]
    finally:
        record.close()


def test_a_child_that_lives_on_holds_nothing(path: Path) -> None:
    """A forked child neither keeps its parent's record locked nor writes to it."""
    with run(path, "open", "enter order 17") as victim:
        child = int(victim.say("child").split()[1])
        try:
            held = [os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()]
            assert str(path) not in held
            assert str(path) not in Path(f"/proc/{child}/maps").read_text()
            victim.end(signal.SIGKILL)
            found = previous(path)
        finally:
            os.kill(child, signal.SIGKILL)
    assert found.ended is Ended.KILLED
    assert names(found) == ["order 17"]
    assert "stop had begun" not in found.detail


def test_a_child_that_c_code_forked_holds_nothing(path: Path) -> None:
    """Where no hook of Python's runs, the lock still ends with the parent alone."""
    with run(path, "open", "enter order 17") as victim:
        child = int(victim.say("c_child").split()[1])
        try:
            victim.end(signal.SIGKILL)
            found = previous(path)
        finally:
            os.kill(child, signal.SIGKILL)
    assert found.ended is Ended.KILLED
    assert names(found) == ["order 17"]


def test_the_exit_of_a_child_is_not_ours(path: Path) -> None:
    """`os._exit` in a forked child leaves no mark in its parent's record."""
    found = told(path, "exit_child", signum=signal.SIGKILL)
    assert found.ended is Ended.KILLED


# -- the slots


def test_more_work_than_slots(path: Path) -> None:
    """What no slot is left for is counted."""
    found = told(path, "many 300", "leave", signum=signal.SIGKILL)
    assert found.in_flight_count == 299
    assert len(found.in_flight) == runfile.SLOTS - 1
    assert "and 296 more were in flight" in str(found)


def test_names_of_any_kind(path: Path) -> None:
    """Long, foreign and broken names are cut to what fits and printed on one line."""
    record = Record.open("victim", str(path))
    try:
        for name in ("주문 " * 60, "two\nlines", "lone \ud800 half", ""):
            record.enter(name)
        found = judge(path.read_bytes(), Traces())
    finally:
        record.close()
    assert len(found.in_flight) == 4
    assert names(found)[0].startswith("주문 주문")
    assert names(found)[1:] == ["two?lines", "lone ? half", ""]


@pytest.mark.parametrize("mapped", [True, False])
def test_threads(path: Path, monkeypatch: pytest.MonkeyPatch, *, mapped: bool) -> None:
    """Many threads enter and leave side by side, mapped or not, and nothing is left over."""
    if not mapped:
        monkeypatch.setattr(runplace, "IN_PLACE", frozenset())
    record = Record.open("victim", str(path))
    stays = record.enter("stays")

    def work() -> None:
        for _ in range(30):
            slots = [record.enter(f"work {n}") for n in range(100)]
            for slot in slots:
                record.leave(slot)

    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = judge(path.read_bytes(), Traces())
        assert names(found) == ["stays"]
        assert found.in_flight_count == 1
        record.leave(stays)
        assert judge(path.read_bytes(), Traces()).in_flight_count == 0
    finally:
        record.close()


def test_after_close_nothing_is_noted_and_nothing_raises(path: Path) -> None:
    """Work may come and go after the record was closed."""
    record = Record.open("victim", str(path))
    slot = record.enter("before")
    record.ended(reason="SIGTERM", clean=True)
    record.close()
    before = path.read_bytes()
    record.leave(slot)
    record.leave(record.enter("after"))
    record.stopping("late")
    record.beat()
    record.close()
    assert path.read_bytes() == before


def test_a_sign_of_life_makes_ages(path: Path) -> None:
    """The age of what was in flight counts to the last sign of life."""
    record = Record.open("victim", str(path))
    try:
        slot = record.enter("order 17")
        first = judge(path.read_bytes(), Traces()).in_flight[0][1]
        record.beat()
        second = judge(path.read_bytes(), Traces()).in_flight[0][1]
        assert first == 0 < second
        record.leave(slot)
    finally:
        record.close()


# -- files


def test_it_is_private_and_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folder 0700 and file 0600 whatever the umask; every hook and descriptor is given back."""
    monkeypatch.setenv("LASTCALL_STATE_DIR", str(tmp_path / "state"))
    before = (sys.excepthook, threading.excepthook, os._exit, faulthandler.is_enabled())
    fds = len(os.listdir("/dev/fd"))
    mask = os.umask(0)
    try:
        record = Record.open("my/app")
        during = os._exit
        record.close()
    finally:
        os.umask(mask)
    assert record.path == str(tmp_path / "state/runs/my%2fapp")
    assert stat.S_IMODE(os.stat(record.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "state/runs").st_mode) == 0o700
    assert os.stat(record.path).st_size == runfile.SIZE
    assert (sys.excepthook, threading.excepthook, os._exit, faulthandler.is_enabled()) == before
    assert during is not before[2]
    assert len(os.listdir("/dev/fd")) == fds


def refused(path: Path, word: str) -> None:
    """The run goes on unrecorded, with a warning that has this word in it."""
    record = Record.open("victim", str(path))
    try:
        assert record.previous.ended is Ended.UNKNOWN
        assert record.previous.recovering
        assert word in record.previous.reason
        assert word in record.warning
        assert "not recorded" in record.warning
        record.leave(record.enter("works all the same"))
        record.stopping("SIGTERM")
        record.ended(reason="SIGTERM", clean=True)
    finally:
        record.close()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Somebody else's choice of a file is not written to."""
    (tmp_path / "target").touch()
    (tmp_path / "victim").symlink_to("target")
    refused(tmp_path / "victim", "symbolic link")
    assert (tmp_path / "target").read_bytes() == b""


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    """A FIFO, a folder and a file of two names are no records."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "one").touch()
    os.link(tmp_path / "one", tmp_path / "two")
    refused(tmp_path / "fifo", "no plain file")
    refused(tmp_path / "folder", "directory")
    refused(tmp_path / "two", "no plain file")
    refused(tmp_path / "one" / "below", "one")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A record that another user put there is not believed."""
    (tmp_path / "victim").touch()
    os.chown(tmp_path / "victim", 65534, 65534)
    refused(tmp_path / "victim", "belongs to uid 65534")


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """A path given by mistake costs nobody his file."""
    (tmp_path / "data").write_text("precious")
    refused(tmp_path / "data", "no run record")
    assert (tmp_path / "data").read_text() == "precious"


def test_a_newer_version_is_left_alone(path: Path) -> None:
    """A record of a later lastcall is neither read nor written."""
    previous(path)
    raw = bytearray(path.read_bytes())
    raw[8] = runfile.VERSION + 1
    path.write_bytes(raw)
    refused(path, "newer lastcall")
    assert path.read_bytes() == raw


def test_a_damaged_record_of_ours_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In our own folder damage is told once, and the record works again."""
    monkeypatch.setenv("LASTCALL_STATE_DIR", str(tmp_path))
    for damage in (b"", bytes(100), b"rubbish" * 9999):
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / "victim").write_bytes(damage)
        for expected in (Ended.UNKNOWN, Ended.CLEAN):
            record = Record.open("victim")
            assert not record.warning
            assert record.previous.ended is expected
            record.ended(reason="SIGTERM", clean=True)
            record.close()


def test_a_disk_without_room(tmp_path: Path) -> None:
    """Where the file cannot have its blocks, nothing is mapped that could fail later."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from lastcall.app.previous import Record\n"
        f"r = Record.open('victim', {str(tmp_path / 'victim')!r})\n"
        "r.enter('x'); print(r.previous.ended, '|', r.warning)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("unknown | this run is not recorded")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"LASTCALL_STATE_DIR": "/a", "STATE_DIRECTORY": "/b"}, "/a/runs/x"),
        ({"STATE_DIRECTORY": "/b:/c", "XDG_STATE_HOME": "/d"}, "/b/lastcall/runs/x"),
        ({"XDG_STATE_HOME": "/d"}, "/d/lastcall/runs/x"),
        ({"XDG_STATE_HOME": "d", "HOME": "/h"}, "/h/.local/state/lastcall/runs/x"),
    ],
)
def test_the_place(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: str) -> None:
    """Chosen, made by systemd, or the user's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for key in ("LASTCALL_STATE_DIR", "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert runplace.default_path("x") == expected


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 12), st.integers(1, 12))
def test_no_two_names_share_a_file(one: str, two: str, first: int, second: int) -> None:
    """Whatever the names, every instance of each has a file of its own, in the folder itself."""
    paths = [
        runplace.instance_path(runplace.file_name(name), number)
        for name, number in ((one, first), (two, second))
    ]
    assert (paths[0] == paths[1]) == ((one, first) == (two, second))
    for path in paths:
        assert "/" not in path
        assert not path.startswith(".")
        assert len(path.encode()) < 200


def test_the_standard_streams_stay_free(path: Path) -> None:
    """Started without stderr, `print` there does not end up in the record."""
    command = " ".join(python("app_record.py", str(path)))
    child = subprocess.Popen(
        ["sh", "-c", f"exec {command} 2>&-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        victim = Run(child)
        assert child.stdout is not None
        child.stdout.readline()
        assert victim.say("open").startswith("never-ran")
        for fd in (0, 1, 2):
            with contextlib.suppress(FileNotFoundError):
                assert os.readlink(f"/proc/{child.pid}/fd/{fd}") != str(path)
    finally:
        child.kill()
        child.communicate()


# -- damage


def contents(path: Path, *, clean: bool) -> bytes:
    """The bytes of a record of a run that ended clean, or that is still on."""
    record = Record.open("victim", str(path))
    record.enter("order 17") if not clean else None
    record.stopping("SIGTERM")
    if clean:
        record.ended(reason="SIGTERM", clean=True)
    raw = path.read_bytes()
    record.close()
    return raw


def test_a_torn_beginning_never_reads_as_the_last_end(path: Path) -> None:
    """Once a new run has written a byte, its predecessor's clean end is not read as its own."""
    old = contents(path, clean=True)
    assert judge(old, Traces()).ended is Ended.CLEAN
    page, _ = runfile.read_pages(old)
    assert page is not None
    now = bytearray(old)
    for step in (1, 2):
        number = page.number + step
        fields = {"state": "running", "boot": Traces().boot_id, "watched": "1"}
        new = runfile.page_bytes(number, 99, fields)
        at = number % 2 * runfile.PAGE
        for end, byte in enumerate(new):
            now[at + end] = byte
            if now != old:
                assert judge(bytes(now), Traces()).ended is not Ended.CLEAN, (step, end)
    assert judge(bytes(now), Traces()).ended is Ended.KILLED


def test_work_of_an_older_run_is_not_counted(path: Path) -> None:
    """A run killed before it had cleared the slots does not inherit what stands in them."""
    raw = bytearray(contents(path, clean=False))
    assert judge(bytes(raw), Traces()).in_flight_count == 1
    for number in (100, 101):
        new = runfile.page_bytes(number, 99, {"state": "running", "watched": "1"})
        at = number % 2 * runfile.PAGE
        raw[at : at + len(new)] = new
    assert judge(bytes(raw), Traces()).in_flight_count == 0


@pytest.mark.parametrize("lost", [0, runfile.PAGE])
def test_one_damaged_page_leaves_the_other(path: Path, lost: int) -> None:
    """Both pages are of the present run, so either tells of it and not of the one before."""
    previous(path)
    record = Record.open("victim", str(path))
    try:
        record.enter("order 17")
        raw = bytearray(path.read_bytes())
    finally:
        record.close()
    raw[lost : lost + runfile.PAGE] = bytes(runfile.PAGE)
    assert names(judge(bytes(raw), Traces())) == ["order 17"]


def test_a_torn_end_is_clean_only_when_it_is_whole(path: Path) -> None:
    """The end of a run counts from its last byte on."""
    now = bytearray(contents(path, clean=False))
    page, _ = runfile.read_pages(bytes(now))
    assert page is not None
    fields = page.fields | {"state": "ended", "clean": "1", "end_at": page.fields["at"]}
    new = runfile.page_bytes(page.number + 1, page.tag, fields)
    at = (page.number + 1) % 2 * runfile.PAGE
    slots = runfile.SLOTS_AT
    now[slots : slots + runfile.SLOT * runfile.SLOTS] = bytes(runfile.SLOT * runfile.SLOTS)
    for end, byte in enumerate(new):
        now[at + end] = byte
        whole = now[at : at + len(new)] == new
        assert (judge(bytes(now), Traces()).ended is Ended.CLEAN) == whole, end
    assert judge(bytes(now), Traces()).ended is Ended.CLEAN


@pytest.mark.parametrize("clean", [True, False])
def test_truncated_anywhere(path: Path, *, clean: bool) -> None:
    """A shorter file is read without a fault, and no run becomes clean by it."""
    raw = contents(path, clean=clean)
    for length in [*range(0, 2 * runfile.PAGE, 61), *range(2 * runfile.PAGE, len(raw), 997)]:
        found = judge(raw[:length], Traces())
        str(found)
        assert clean or found.ended is not Ended.CLEAN


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_never_raises_and_never_reads_clean(path: Path, data: st.DataObject) -> None:
    """Random bytes, zeros and flipped bits anywhere: no exception, and never a clean end."""
    raw = bytearray(_running(path))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(
            st.one_of(
                st.integers(0, 500),
                st.integers(runfile.PAGE, runfile.PAGE + 500),
                st.integers(0, len(raw) - 1),
            )
        )
        rubbish = data.draw(
            st.one_of(st.binary(min_size=1, max_size=300), st.just(bytes(runfile.PAGE)))
        )
        raw[at : at + len(rubbish)] = rubbish
    found = judge(bytes(raw), Traces())
    str(found)
    assert found.ended is not Ended.CLEAN
    assert found.recovering


@given(st.binary(max_size=3 * runfile.PAGE))
def test_any_bytes_at_all(raw: bytes) -> None:
    """Whatever a file holds, it is read without a fault."""
    found = judge(raw, Traces())
    assert found.ended is Ended.UNKNOWN


_made: list[bytes] = []


def _running(path: Path) -> bytes:
    if not _made:
        _made.append(contents(path, clean=False))
    return _made[0]


# -- what it costs


def test_importing_it_loads_nothing_dear() -> None:
    """What a record needs is loaded when one is opened."""
    dear = {"mmap", "struct", "zlib", "fcntl", "typing", "dataclasses", "json", "contextlib"}
    code = (
        "import sys, os, threading, enum, signal; before = set(sys.modules)\n"
        "import lastcall.app.previous; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not dear & set(done.stdout.split())
