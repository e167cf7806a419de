"""As an ordinary user, with nothing but the standard library: own processes, and others'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lastcall as package
from cli.commands import Said
from helpers import PROGRAMS, Victim, victim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

NOBODY = 65534
INTERPRETERS = ("/usr/bin/python3", "/usr/local/bin/python3")


@dataclass(frozen=True, slots=True)
class Person:
    """An ordinary user with a home, an interpreter of the system and a copy of the sources."""

    home: Path
    python: str
    uid: int

    @property
    def env(self) -> dict[str, str]:
        """A bare environment: neither our virtual environment nor its extras."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHONPATH": str(self.home / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def lastcall(self, *words: str) -> Said:
        """Run the command as this user."""
        root = os.geteuid() == 0
        done = subprocess.run(
            [self.python, "-m", "lastcall", *words],
            env=self.env,
            cwd="/",
            user=self.uid if root else None,
            group=self.uid if root else None,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def worker(self, *deed: str) -> AbstractContextManager[Victim]:
        """A process of this user."""
        program = str(self.home / "worker.py")
        user = self.uid if os.geteuid() == 0 else None
        return victim(self.python, "-u", program, *deed, user=user, env=self.env, cwd="/")


@pytest.fixture
def person() -> Iterator[Person]:
    """Somebody without rights; when the tests run without rights already, that one."""
    [python, *_] = [p for p in INTERPRETERS if Path(p).exists()] or [""]
    assert python, "no python3 of the system: install the package python3"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        shutil.copytree(Path(package.__file__).parent, home / "src/lastcall")
        shutil.copy(PROGRAMS / "worker.py", home / "worker.py")
        (home / ".local").mkdir()
        uid = NOBODY if os.geteuid() == 0 else os.geteuid()
        if os.geteuid() == 0:
            os.chown(home / ".local", NOBODY, NOBODY)
        yield Person(home, python, uid)


@pytest.mark.parametrize(
    ("deed", "options", "code", "status"),
    [
        (["exit", "0"], [], 0, 0),
        (["exit", "5"], [], 13, 5),
        (["careless"], [], 10, -15),
        (["ignore"], ["--grace", "0.2", "--force"], 11, -9),
    ],
)
def test_own_processes(
    person: Person, deed: list[str], options: list[str], code: int, status: int
) -> None:
    """Everything works on one's own, exact endings included, and the journal is private."""
    with person.worker(*deed) as child:
        said = person.lastcall("stop", f"pid:{child.pid}", *options)
        assert said.code == code, said
        assert child.wait() == status
    folder = person.home / ".local/state/lastcall"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("journal.db", "run"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    [row] = [json.loads(line) for line in person.lastcall("log", "--json").out.splitlines()]
    assert row["target"] == f"pid:{child.pid}"


def test_what_cannot_be_seen_is_named(person: Person) -> None:
    """Without the extra for stacks the explanation says what is missing, and the rest stands."""
    with person.worker("ignore") as child:
        said = person.lastcall("stop", f"pid:{child.pid}", "--grace", "0.2", "--json")
    [*_, looked] = [
        json.loads(line)["data"]["findings"]
        for line in said.out.splitlines()
        if json.loads(line)["event"] == "looked"
    ]
    [stacks] = [finding for finding in looked if finding["code"] == "python-stacks-unavailable"]
    assert "lastcall[stacks]" in stacks["advice"]
    assert {finding["code"] for finding in looked} >= {"threads"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's process: run as root")
def test_processes_of_others(person: Person) -> None:
    """Another user's process: code 4, the message says whose it is and what to do."""
    with victim("sh", "-c", "echo ready; exec sleep 60") as child:
        said = person.lastcall("stop", f"pid:{child.pid}")
        assert said.code == 4, said
        assert "it belongs to user id 0" in said.out
        assert "as root" in said.out
        assert child.child.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's process: run as root")
def test_ports_of_others(person: Person) -> None:
    """Another user's listening port: code 4, because its holder cannot be seen."""
    program = (
        "import socket, signal; s = socket.create_server(('127.0.0.1', 0));"
        "print('ready', s.getsockname()[1], flush=True); signal.pause()"
    )
    with victim(person.python, "-c", program, ready="") as child:
        port = child.line().split()[1]
        said = person.lastcall("stop", f"port:{port}")
        assert (said.code, "uid 0" in said.err) == (4, True), said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process of a foreign group: run as root")
def test_a_status_that_may_not_be_read_is_unknown(person: Person) -> None:
    """Same user, other group: the kernel hides how it ended, and its parent does not reap it."""
    command = [person.python, "-u", str(person.home / "worker.py"), "exit", "0"]
    with subprocess.Popen(
        command, user=NOBODY, env=person.env, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().startswith("ready")
            said = person.lastcall("stop", f"pid:{child.pid}")
            assert (said.code, said.last.split(":")[0]) == (21, "unknown"), said
        finally:
            child.kill()
