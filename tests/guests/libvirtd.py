"""A libvirtd of the tests' own, like `qemu:///system` in all but its folders.

It may be stopped, killed and started again while the machine's own is left alone. As root it runs
in a mount namespace of its own, where libvirt's folders are the test's; otherwise it is the daemon
of a session with folders of its own. Its guests are children of a keeper (a subreaper, as init is),
which clears all of them away when its input ends, whatever becomes of the test.

Source: libvirt 9.0, docs/manpages/libvirtd.rst; unshare(1); prctl(2), PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guests.linux import Options

# libvirt's folder, and what it is called in the test's own.
_FOLDERS = {
    "/run/libvirt": "run",
    "/var/lib/libvirt": "lib",
    "/var/log/libvirt": "log",
    "/var/cache/libvirt": "cache",
    "/etc/libvirt": "etc",
}
_DAEMON_CONF = """
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
"""
# No virtlogd, no confinement, no cgroups: what they would need is not everywhere.
_QEMU_CONF = """
stdio_handler = "file"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""
_AS_ROOT = """user = "root"
group = "root"
"""


class Libvirtd:
    """A running libvirtd, with its folder and its guests."""

    def __init__(self, keeper: subprocess.Popen[str], folder: Path, *, session: bool) -> None:
        self._keeper = keeper
        self._session = session
        self.folder = folder
        self.pid = 0
        run = folder / "run" / "libvirt" if session else folder / "run"
        mode = "session" if session else "system"
        self.socket = run / "libvirt-sock"
        self.uri = f"qemu+unix:///{mode}?socket={self.socket}"
        # Whoever connects here may only look.
        self.look_uri = f"qemu+unix:///{mode}?socket={run / 'libvirt-sock-ro'}"
        self.pids = run / "qemu" / "run" if session else run / "qemu"
        self.logs = folder / "cache/libvirt/qemu/log" if session else folder / "log" / "qemu"

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            AssertionError: it ended at once.
        """
        from helpers import wait_until

        self.pid = int(self._tell("start"))
        wait_until(lambda: self._answers() or self._dead(), "the libvirtd of the tests")
        if self._dead():
            raise AssertionError(f"libvirtd ended: {(self.folder / 'said').read_text()}")

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End it; its guests stay."""
        os.kill(self.pid, signum)
        self._tell("wait")

    def restart(self) -> None:
        """End it in order and start it again; its guests stay."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While this is open it hangs."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def virsh(self, *words: str) -> str:
        """What virsh says.

        Raises:
            AssertionError: it fails.
        """
        ran = self.try_virsh(*words)
        if ran.returncode:
            raise AssertionError(f"virsh {' '.join(words)}: {ran.stderr.strip()}")
        return ran.stdout

    def try_virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same, and it may fail."""
        command = [_program("virsh", "libvirt-clients"), "-q", "-c", self.uri, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @contextlib.contextmanager
    def guest(
        self,
        behaviour: str,
        *,
        machine: str = "pc",
        keep: bool = False,
        on_poweroff: str = "destroy",
        **numbers: float,
    ) -> Iterator[Guest]:
        """Run a guest of the zoo, and take it away at the end, whatever has become of it.

        Args:
            behaviour: its name in the zoo.
            machine: "pc" or "q35".
            keep: whether libvirt knows it when it does not run.
            on_poweroff: what libvirt does when it powers off.
            **numbers: as of `zoo.image`.
        """
        from guests import zoo

        own = str(uuid.uuid4())
        name = f"{behaviour}-{own[:8]}"
        disk = self.folder / f"{name}.img"
        said = self.folder / f"{name}.said"
        shutil.copyfile(zoo.image(behaviour, **numbers), disk)
        xml = zoo.domain_xml(name, disk, machine, own, said, on_poweroff)
        with self._running(Guest(self, name, own, said), xml, keep=keep) as guest:
            yield guest

    @contextlib.contextmanager
    def linux(self, **options: Unpack[Options]) -> Iterator[Guest]:
        """Run the Linux guest, and take it away at the end.

        Args:
            **options: as of `linux.domain_xml`.
        """
        from guests import linux

        own = str(uuid.uuid4())
        name = f"linux-{own[:8]}"
        folder = self.folder / name
        folder.mkdir()
        xml = linux.domain_xml(name, folder, own, **options)
        with self._running(Guest(self, name, own, folder / "said"), xml, keep=False) as guest:
            yield guest

    @contextlib.contextmanager
    def _running(self, guest: Guest, xml: str, *, keep: bool) -> Iterator[Guest]:
        file = self.folder / f"{guest.name}.xml"
        file.write_text(xml)
        try:
            if keep:
                self.virsh("define", str(file))
                self.virsh("start", guest.name)
            else:
                self.virsh("create", str(file))
            yield guest
        finally:
            self.try_virsh("destroy", guest.name)
            self.try_virsh("undefine", guest.name)

    def _tell(self, word: str) -> str:
        pipe_in, pipe_out = self._keeper.stdin, self._keeper.stdout
        if pipe_in is None or pipe_out is None:
            raise AssertionError("the keeper has no pipes")
        pipe_in.write(f"{word}\n")
        pipe_in.flush()
        return pipe_out.readline()

    def _answers(self) -> bool:
        return self.socket.exists() and self.try_virsh("uri").returncode == 0

    def _dead(self) -> bool:
        return not Path(f"/proc/{self.pid}").exists()


class Guest:
    """A guest of the zoo, or the Linux guest, under libvirt."""

    def __init__(self, daemon: Libvirtd, name: str, own: str, said: Path) -> None:
        self.daemon = daemon
        self.name = name
        self.uuid = own
        self._said = said

    @property
    def pid(self) -> int:
        """Its QEMU's pid."""
        return int((self.daemon.pids / f"{self.name}.pid").read_text())

    def wait_said(self, word: str, times: int = 1) -> None:
        """Wait for a milestone of the guest, or for its n-th time."""
        from helpers import wait_until

        wait_until(
            lambda: self.milestones().count(word) >= times,
            f"{word} from {self.name}, which said {self.milestones()}",
        )

    def milestones(self) -> list[str]:
        """The words it has said so far."""
        # The last line may not be complete yet.
        return self._said.read_text().rpartition("\n")[0].split() if self._said.exists() else []

    def wait_asleep(self) -> None:
        """Wait until libvirt says that it sleeps."""
        from helpers import wait_until

        wait_until(
            lambda: self.daemon.virsh("domstate", self.name).strip() == "pmsuspended",
            f"the sleep of {self.name}",
        )

    def wait_up(self) -> None:
        """Wait until it is in its loop."""
        self.wait_said("up")

    def wait_off(self) -> None:
        """Wait until libvirt says that it does not run."""
        from helpers import wait_until

        wait_until(lambda: not self.runs(), f"the end of {self.name}")

    def runs(self) -> bool:
        """Whether libvirt lists it as running."""
        return self.uuid in self.daemon.virsh("list", "--uuid").split()

    def log(self) -> str:
        """Libvirt's log of it, where it writes what taints it."""
        return (self.daemon.logs / f"{self.name}.log").read_text()


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is missing: apt-get install {package}"
        if os.environ.get("LASTCALL_TESTS_MAY_SKIP") == "1":
            import pytest

            pytest.skip(missing)
        raise AssertionError(missing)
    return found


@contextlib.contextmanager
def libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd of the test's own; everything of it goes at the end.

    Raises:
        AssertionError: a program is missing, or it did not start.
    """
    session = os.geteuid() != 0
    _program("libvirtd", "libvirt-daemon-system")
    _program("qemu-system-x86_64", "qemu-system-x86")
    # A socket's path has room for 107 bytes, and a test's own folder may need them all.
    with tempfile.TemporaryDirectory(prefix="lv-", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in _FOLDERS.values():
            (folder / name).mkdir()
        etc = folder / "etc" / "libvirt" if session else folder / "etc"
        (etc / "qemu").mkdir(parents=True)
        (etc / "libvirtd.conf").write_text(_DAEMON_CONF)
        (etc / "qemu.conf").write_text(_QEMU_CONF + ("" if session else _AS_ROOT))
        command = [sys.executable, __file__, made]
        if not session:
            command = [_program("unshare", "util-linux"), "--mount", *command]
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        try:
            daemon = Libvirtd(keeper, folder, session=session)
            daemon.start()
            yield daemon
        finally:
            for pipe in (keeper.stdin, keeper.stdout):
                if pipe is not None:
                    pipe.close()
            keeper.wait(30)


# What follows is the keeper, a program of its own.

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def _keep(folder: str, words: IO[str]) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    environment = dict(os.environ)
    if os.geteuid() == 0:
        for theirs, ours in _FOLDERS.items():
            Path(theirs).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", f"{folder}/{ours}", theirs], check=True)
    else:
        for name, ours in (("RUNTIME_DIR", "run"), ("CACHE_HOME", "cache"), ("CONFIG_HOME", "etc")):
            environment[f"XDG_{name}"] = f"{folder}/{ours}"
        environment["HOME"] = folder
    # Guests end at any time, and nobody but their reaper tells libvirt so.
    reaped: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda *_: _reap(reaped))
    daemon = 0
    try:
        for line in words:
            if line.strip() == "start":
                daemon = _start(folder, environment)
                answer = daemon
            else:
                while daemon not in reaped:
                    signal.pause()
                answer = 0
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    finally:
        _clear()


def _start(folder: str, environment: dict[str, str]) -> int:
    with Path(folder, "said").open("ab") as said:
        return subprocess.Popen(
            ["libvirtd", "-p", f"{folder}/libvirtd.pid"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
        ).pid


def _reap(reaped: set[int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            reaped.add(pid)


def _clear() -> None:
    """End libvirtd, and then every guest that it leaves to us."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in own:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    _keep(sys.argv[1], sys.stdin)
