"""From an address to the process it means."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from helpers import PROGRAMS, Victim, python, victim
from lastcall.errors import (
    Ambiguous,
    BadAddress,
    NotPermitted,
    NotRunning,
    Refused,
)
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.model import Address
from lastcall.targets.process.lookup import port, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


def find(address: str, *allow: str) -> int:
    """The pid that an address means; the handle is closed."""
    found = resolve.resolve(Address.parse(address), allow=frozenset(allow))
    found.handle.close()
    return found.handle.identity.pid


def fds() -> int:
    """How many descriptors we have open."""
    return len(os.listdir("/proc/self/fd"))


def unique(name: str) -> str:
    """A name that no other run of these tests uses at the same time (15 characters at most)."""
    return f"{name}-{os.getpid()}"


@contextmanager
def listening(*words: str) -> Iterator[tuple[Victim, str, list[int]]]:
    """A server of some shape: itself, its port, and the pids of its children."""
    with victim(*python("net_listen.py", *words)) as one:
        where, *children = one.line().split()
        yield one, where, [int(pid) for pid in children]


@contextmanager
def idling(name: str) -> Iterator[int]:
    """A process with that kernel name and nothing else to find it by."""
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}); print('ready')\n"
    with victim(sys.executable, "-uc", code + "import signal; signal.pause()") as one:
        yield one.pid


@contextmanager
def no_privileges() -> Iterator[None]:
    """As root, be nobody for a moment; anybody else stays who they are."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_pid_is_found_without_looking_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pid:` must stay quick on a machine with very many processes."""
    monkeypatch.delattr(procfs, "pids")
    monkeypatch.delattr(procfs, "every_stat")
    with idling("a-victim") as pid:
        before = fds()
        found = resolve.resolve(Address("pid", str(pid)))
        assert found.handle.identity.pid == pid
        assert "a-victim" in found.label
        found.handle.close()
        assert fds() == before


@pytest.mark.parametrize("name", ["0", "-1", "x", "1.5", "4194305", "٣", "9" * 30, " 5"])
def test_what_is_no_pid_is_a_bad_address(name: str) -> None:
    """Only decimal digits within the kernel's range are a pid."""
    with pytest.raises(BadAddress):
        find(f"pid:{name}")


def test_a_pid_that_nobody_has_is_not_running() -> None:
    """Nothing runs under the number of a process that was reaped."""
    with idling("a-victim") as pid:
        pass
    with pytest.raises(NotRunning, match=str(pid)):
        find(f"pid:{pid}")


def test_a_process_that_may_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/proc` mounted with hidepid=1 refuses even its stat: that is a matter of permission."""

    def refuse(pid: int) -> procfs.Stat:
        raise PermissionError(1, "Operation not permitted", f"/proc/{pid}/stat")

    monkeypatch.setattr(procfs, "stat", refuse)
    with pytest.raises(NotPermitted, match="may not look at process 4242"):
        resolve.resolve(Address("pid", "4242"))


def test_the_number_of_a_thread_is_not_a_process() -> None:
    """A thread's id is told apart from a process that is gone."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(NotRunning, match="is a thread"):
            find(f"pid:{thread.native_id}")
    finally:
        done.set()
        thread.join()


def test_ourselves_are_refused_whatever_is_allowed() -> None:
    """Lastcall never stops itself."""
    with pytest.raises(Refused, match="lastcall itself"):
        find(f"pid:{os.getpid()}", "ancestor", "init")


def test_an_ancestor_needs_the_switch_that_the_message_names() -> None:
    """Stopping what we run under would end us in the middle of it."""
    parent = os.getppid()
    with pytest.raises(Refused, match="ancestor of this command") as caught:
        find(f"pid:{parent}")
    assert "--allow ancestor" in caught.value.advice
    assert find(f"pid:{parent}", "ancestor") == parent


def test_pid_1_needs_a_switch_of_its_own() -> None:
    """Everything ends with init: being allowed to stop ancestors does not cover it."""
    with pytest.raises(Refused) as caught:
        find("pid:1", "ancestor")
    assert "--allow init" in caught.value.advice
    assert find("pid:1", "init") == 1


@pytest.mark.skipif(not os.path.exists("/proc/2/stat"), reason="no kernel thread in sight here")
def test_a_kernel_thread_is_refused() -> None:
    """No signal ends a thread of the kernel, whatever is allowed."""
    if not resolve.is_kernel_thread(2):
        pytest.skip("pid 2 is no kernel thread here (a pid namespace)")
    with pytest.raises(Refused, match="belongs to the kernel"):
        find("pid:2", "ancestor", "init")
    with pytest.raises(Refused, match="belongs to the kernel"):
        find("name:kthreadd")
    assert not resolve.is_kernel_thread(os.getpid())


def test_a_name_is_matched_exactly() -> None:
    """The kernel's name counts; a part of it only brings a hint."""
    name = unique("lc-name")
    with idling(name) as pid:
        assert find(f"name:{name}") == pid
        with pytest.raises(NotRunning) as caught:
            find(f"name:{name}x")
        assert f"name:{name}" in caught.value.advice


def test_the_program_and_the_first_word_count_as_names(tmp_path: Path) -> None:
    """A program is found by its file's name and by what it calls itself."""
    program = tmp_path / unique("lc-a-very-long-program-name")
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with victim(str(program), "1000", ready="") as one:
        assert find(f"name:{program.name}") == one.pid
    name = unique("lc-srv")
    title = f"{name}: master process /usr/sbin/{name}"
    child = subprocess.Popen([title, "1000"], executable="/bin/sleep")
    try:
        assert find(f"name:{name}") == child.pid
    finally:
        child.kill()
        child.wait()


def test_a_name_that_several_carry_is_ambiguous() -> None:
    """Nobody is picked; each is listed with the address that means it."""
    name = unique("lc-twin")
    with idling(name) as first, idling(name) as second:
        before = fds()
        with pytest.raises(Ambiguous) as caught:
            find(f"name:{name}")
        assert [a for a, _ in caught.value.candidates] == sorted((f"pid:{first}", f"pid:{second}"))
        assert fds() == before


def test_the_ancestor_of_all_that_carry_a_name_is_marked() -> None:
    """Of a master and its workers, the advice names the master."""
    with listening("workers") as (one, _, children):
        name = procfs.stat(one.pid).comm
        shown = resolve.ambiguous(f"several are called {name}", [*children, one.pid])
        assert f"pid:{one.pid}" in shown.advice


def test_a_zombie_carries_no_name() -> None:
    """What has ended already is not found by its name."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not resolve._carries(child.pid, procfs.stat(child.pid).comm)
    finally:
        child.wait()


def test_our_ancestors_carry_no_name_unless_allowed() -> None:
    """When only an ancestor is called so, it is refused like by its pid."""
    name = unique("lc-abov")
    code = (
        f"NAME = {name!r}\n"
        "import ctypes, os; ctypes.CDLL(None).prctl(15, NAME.encode())\n"
        "pid = os.fork()\n"
        "if pid: os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "from lastcall.errors import LastcallError\n"
        "from lastcall.model import Address\n"
        "from lastcall.targets.process.lookup.resolve import resolve\n"
        "ctypes.CDLL(None).prctl(15, b'below')\n"
        "for allow in (frozenset(), frozenset({'ancestor'})):\n"
        "    try: print(resolve(Address('name', NAME), allow=allow).handle.identity.pid)\n"
        "    except LastcallError as error: print(error.code)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        said, _ = child.communicate(timeout=30)
        assert said.split() == ["refused", str(child.pid)]
    finally:
        child.kill()
        child.wait()


def _pidfile(place: Path, pid: int | str, later_s: float = 0.0) -> str:
    """A pidfile that was written so long after the process started (to the tick), or now."""
    place.write_text(f"{pid}\n")
    place.chmod(0o644)
    if later_s and isinstance(pid, int):
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - procfs.stat(pid).start_ticks / 100
        when_ns = time.time_ns() - int((age_s - later_s) * 1e9)
        os.utime(place, ns=(when_ns, when_ns))
    return f"pidfile:{place}"


@pytest.mark.parametrize("later_s", [0.0, 5.0, -0.05])
def test_a_pidfile_is_believed(tmp_path: Path, later_s: float) -> None:
    """It was written after the process started, as far as the clocks can tell."""
    with idling("a-victim") as pid:
        assert find(_pidfile(tmp_path / "x.pid", pid, later_s)) == pid


@pytest.mark.parametrize("later_s", [-0.5, -3600.0])
def test_a_stale_pidfile_is_refused(tmp_path: Path, later_s: float) -> None:
    """Whoever wrote it is gone, and its number has passed to another."""
    with idling("a-victim") as pid:
        before = fds()
        with pytest.raises(Refused, match="is stale") as caught:
            find(_pidfile(tmp_path / "x.pid", pid, later_s))
        assert f"pid:{pid}" in caught.value.advice
        assert fds() == before


def test_a_time_in_whole_seconds_gets_more_patience(tmp_path: Path) -> None:
    """A file system that keeps no fractions may date a file up to two seconds too early."""
    with idling("a-victim") as pid:
        place = tmp_path / "x.pid"
        address = _pidfile(place, pid)
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - procfs.stat(pid).start_ticks / 100
        started_s = int(time.time() - age_s)
        os.utime(place, (started_s - 1, started_s - 1))
        assert find(address) == pid
        os.utime(place, (started_s - 4, started_s - 4))
        with pytest.raises(Refused, match="is stale"):
            find(address)


def test_a_pidfile_left_behind_says_so(tmp_path: Path) -> None:
    """No file, and a file without its process: nothing is running."""
    with idling("a-victim") as pid:
        address = _pidfile(tmp_path / "x.pid", pid)
    with pytest.raises(NotRunning, match=r"x\.pid"):
        find(address)
    with pytest.raises(NotRunning, match="no pidfile"):
        find(f"pidfile:{tmp_path}/none.pid")


@pytest.mark.parametrize("content", ["", "\n", "pid\n", "-5", "12x", "0", "99999999999"])
def test_a_file_without_a_pid_is_no_pidfile(tmp_path: Path, content: str) -> None:
    """Its first line has to be the number of a process."""
    place = tmp_path / "x.pid"
    place.write_text(content)
    place.chmod(0o644)
    with pytest.raises(BadAddress, match=r"x\.pid"):
        find(f"pidfile:{place}")


def test_a_fifo_does_not_hang_and_a_device_is_not_opened(tmp_path: Path) -> None:
    """What is not a regular file is refused before it is opened."""
    os.mkfifo(tmp_path / "fifo", 0o644)
    for odd in (tmp_path / "fifo", "/dev/null", tmp_path):
        with pytest.raises(BadAddress, match="not a regular file"):
            find(f"pidfile:{odd}")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """A pidfile is small; a log by mistake is not searched for numbers."""
    place = tmp_path / "x.pid"
    place.write_text(f"{os.getppid()}\n" + "x" * 5000)
    place.chmod(0o644)
    with pytest.raises(BadAddress, match="no pidfile"):
        find(f"pidfile:{place}")


def test_a_symbolic_link_is_refused_with_its_goal(tmp_path: Path) -> None:
    """Who may place a link must not decide which pidfile root believes."""
    with idling("a-victim") as pid:
        _pidfile(tmp_path / "x.pid", pid)
        (tmp_path / "link").symlink_to("x.pid")
        with pytest.raises(Refused, match="symbolic link") as caught:
            find(f"pidfile:{tmp_path}/link")
        assert f"pidfile:{tmp_path}/x.pid" in caught.value.advice


def test_a_pidfile_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    """Otherwise anybody decides what is stopped."""
    with idling("a-victim") as pid:
        address = _pidfile(tmp_path / "x.pid", pid)
        (tmp_path / "x.pid").chmod(0o666)
        with pytest.raises(Refused, match="anybody may write"):
            find(address)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_does_not_believe_a_strangers_pidfile(tmp_path: Path) -> None:
    """A file of a user who has nothing to do with the process does not make root stop it."""
    with idling("a-victim") as pid:
        address = _pidfile(tmp_path / "x.pid", pid)
        os.chown(tmp_path / "x.pid", NOBODY, NOBODY)
        with pytest.raises(Refused, match=f"belongs to user {NOBODY}"):
            find(address)
    with victim("/bin/sleep", "1000", ready="", user=NOBODY) as theirs:
        address = _pidfile(tmp_path / "x.pid", theirs.pid)
        os.chown(tmp_path / "x.pid", NOBODY, NOBODY)
        assert find(address) == theirs.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes the file that is not ours to read")
def test_a_pidfile_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """A missing permission is named, not taken for a missing file."""
    place = tmp_path / "x.pid"
    place.write_text("5\n")
    place.chmod(0o600)
    tmp_path.chmod(0o755)
    with no_privileges(), pytest.raises(NotPermitted):
        find(f"pidfile:{place}")


def test_a_pidfile_that_changes_while_we_look_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading it and holding its process, a restart wrote another pid."""
    with idling("a-victim") as first, idling("a-victim") as second:
        address = _pidfile(tmp_path / "x.pid", first)
        real = Handle.open

        def restarted(pid: int) -> Handle:
            if pid == first:
                _pidfile(tmp_path / "new.pid", second)
                (tmp_path / "new.pid").rename(tmp_path / "x.pid")
            return real(pid)

        monkeypatch.setattr(Handle, "open", restarted)
        before = fds()
        assert find(address) == second
        assert fds() == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("8080", (None, 8080)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:65535", ("::1", 65535)),
        ("[0:0::1]:1", ("::1", 1)),
    ],
)
def test_a_port_is_read(name: str, expected: tuple[str | None, int]) -> None:
    """With and without an address, which is brought into its usual form."""
    assert port.parse(name) == expected


@pytest.mark.parametrize(
    "name",
    ["0", "65536", "http", "::1:80", "[127.0.0.1]:80", "host:80", ":80", "80:", "9" * 40, "٣"],
)
def test_what_is_no_port_is_a_bad_address(name: str) -> None:
    """The message says how to write it."""
    with pytest.raises(BadAddress):
        port.parse(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_who_listens_is_found(host: str) -> None:
    """By port alone, and by the address too; the listening socket is remembered."""
    with listening("alone", host) as (one, where, _):
        found = resolve.resolve(Address("port", where))
        found.handle.close()
        assert found.handle.identity.pid == one.pid
        assert [str(s.local.port) for s in found.listeners] == [where]
        asked = {"::": "127.0.0.1", "::1": "[::1]"}.get(host, host)
        assert find(f"port:{asked}:{where}") == one.pid


def test_nobody_listens() -> None:
    """Neither on the port, nor on that address of it: then it says where somebody does."""
    with listening("alone") as (_, where, _):
        with pytest.raises(NotRunning) as caught:
            find(f"port:127.0.0.9:{where}")
        assert f"127.0.0.1:{where}" in caught.value.advice
    with pytest.raises(NotRunning):
        find(f"port:{where}")


def test_workers_and_their_master_are_one_server() -> None:
    """The holder above all other holders is the server."""
    with listening("workers") as (one, where, _):
        before = fds()
        assert find(f"port:{where}") == one.pid
        assert fds() == before


def test_a_master_that_closed_its_copy_is_found() -> None:
    """The nearest process above all holders, when all its children are holders."""
    with listening("let-go") as (one, where, children):
        assert len(children) == 2
        assert find(f"port:{where}") == one.pid


def test_a_parent_with_other_business_is_not_taken_for_the_server() -> None:
    """A supervisor that merely started the holders is not stopped in their place."""
    with listening("let-go-busy") as (_, where, children):
        with pytest.raises(Ambiguous) as caught:
            find(f"port:{where}")
        assert [a for a, _ in caught.value.candidates] == [f"pid:{pid}" for pid in children[:2]]


def test_our_own_children_that_share_a_socket_do_not_make_us_the_server() -> None:
    """The process above all holders is ourselves: that is never the answer."""
    with socket.create_server(("127.0.0.1", 0)) as door, ExitStack() as stack:
        where = door.getsockname()[1]
        pids = []
        for _ in range(2):
            child = subprocess.Popen(["/bin/sleep", "1000"], pass_fds=[door.fileno()])
            stack.callback(child.wait)
            stack.callback(child.kill)
            pids.append(child.pid)
        with pytest.raises(Refused, match="lastcall itself"):
            find(f"port:{where}")
        door.close()
        with pytest.raises(Ambiguous) as caught:
            find(f"port:{where}")
        assert [a for a, _ in caught.value.candidates] == [f"pid:{pid}" for pid in sorted(pids)]


def test_sockets_of_their_own_make_several_servers() -> None:
    """With SO_REUSEPORT each worker is a server; the advice names who stands above them."""
    with listening("reuse-port") as (one, where, children):
        with pytest.raises(Ambiguous) as caught:
            find(f"port:{where}")
        assert {a for a, _ in caught.value.candidates} == {f"pid:{pid}" for pid in children}
        assert f"pid:{one.pid}" in caught.value.advice


def test_two_addresses_on_one_port_are_told_apart() -> None:
    """By port alone it is ambiguous; each address means one."""
    with listening("two-addresses") as (_, where, children):
        with pytest.raises(Ambiguous) as caught:
            find(f"port:{where}")
        assert "port:ADDRESS:PORT" in caught.value.advice
        second, first = children
        assert find(f"port:127.0.0.1:{where}") == first
        assert find(f"port:127.0.0.2:{where}") == second


def test_socket_activation_is_noted() -> None:
    """Systemd holds the socket too: the service is the target, and it will be started again."""
    with listening("activated") as (one, where, children):
        found = resolve.resolve(Address("port", where))
        found.handle.close()
        assert found.handle.identity.pid == children[0]
        (note,) = found.notes
        assert note.code == "socket-activated"
        assert str(one.pid) in note.title


def test_a_socket_unit_alone_is_no_server() -> None:
    """Systemd waits for the first connection: there is no service to stop."""
    with listening("activator") as (_, where, _), pytest.raises(NotRunning) as caught:
        find(f"port:{where}")
    assert "socket unit" in caught.value.advice


def test_a_holder_that_may_not_be_seen_is_a_matter_of_permission() -> None:
    """The kernel names the socket's user; who holds it is for root to see."""
    with (
        listening("shut") as (_, where, _),
        no_privileges(),
        pytest.raises(NotPermitted) as caught,
    ):
        find(f"port:{where}")
    assert f"uid {os.getuid()}" in caught.value.what
    assert "root" in caught.value.advice


def test_a_server_that_ends_while_we_look_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid of the holder may belong to anybody by the time it is held."""
    with listening("alone") as (one, where, _), idling("a-victim") as other:
        real = Handle.open

        def replaced(_pid: int) -> Handle:
            one.child.kill()
            one.child.wait()
            return real(other)

        monkeypatch.setattr(Handle, "open", replaced)
        before = fds()
        with pytest.raises(NotRunning):
            find(f"port:{where}")
        assert fds() == before


def test_a_name_that_passes_to_another_while_we_look_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is held must still carry the name; otherwise the look-up starts anew."""
    name = unique("lc-ren")
    with idling(name) as right, idling("a-victim") as wrong:
        real, opened = Handle.open, []

        def reused(pid: int) -> Handle:
            opened.append(pid)
            return real(wrong if len(opened) == 1 else pid)

        monkeypatch.setattr(Handle, "open", reused)
        assert find(f"name:{name}") == right
        assert opened == [right, right]


def test_pid_1_of_a_container_is_its_init() -> None:
    """In a pid namespace the server is often pid 1: it takes the switch for init."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]
    program = [sys.executable, "-u", str(PROGRAMS / "net_container.py")]
    child = subprocess.Popen([*command, *program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        said = []
        while (line := child.stdout.readline().strip()) not in {"", "ready"}:
            said.append(line)
        assert said == [
            "1: refused: if that is what you want: --allow init",
            "1: found pid 1",
        ]
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def test_a_kind_that_means_no_process_is_a_bad_address() -> None:
    """The look-up says so rather than guess."""
    with pytest.raises(BadAddress):
        resolve.resolve(Address("unit", "x.service"))
