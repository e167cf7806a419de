"""The Spring Boot applications of `programs/spring`: built by Maven once, started by tests.

python tests/spring_boot.py           builds both and prints `NAME PATH` for each
python tests/spring_boot.py servers   prints programs/spring/servers.toml with the paths filled in
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jvms
from helpers import Victim, victim

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).parent / "programs" / "spring"
BUILT = ROOT / "build" / "spring"
APPS = ("current", "legacy")
# Maven may have to fetch some 150 libraries first; tests that build need that much time.
BUILD_S = 900.0
_TRIES = 3
_LAST_LINES = 30
_NETWORK = re.compile(r"Could not (?:transfer|find|resolve)|could not be resolved")
_MAVEN = ("mvn", "-B", "-q", "-Dstyle.color=never", "-Dmaven.test.skip=true", "package")
# Compiling what runs most takes longer than these short runs last.
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-Xshare:auto")


def jar(name: str) -> Path:
    """The built application, `current` or `legacy`. A second call, also another day's, finds it.

    Raises:
        AssertionError: Maven is missing or could not build it; it says what to do.
    """
    made = BUILT / f"{name}-{_version(name)}.jar"
    if not made.exists():
        with _alone() as words:
            if not made.exists():  # another builder may have been quicker
                _build(name, made, words)
    return made


def newest_java() -> str:
    """The newest `java` of this machine."""
    found = jvms.javas()
    assert found, jvms.NO_JDK
    return max(found.values(), key=_java_version)


@contextlib.contextmanager
def started(
    name: str, *options: str, java: str = "java", ledger: Path | None = None
) -> Iterator[tuple[Victim, int]]:
    """An application that serves, and its port. It is killed at the end.

    Args:
        name: `current` or `legacy`.
        options: such as `--server.shutdown=graceful`.
        java: runs it.
        ledger: the file that it writes its deeds to; None: nowhere.
    """
    # With port 0 two tests at once never meet; the application says which one it got.
    command = [java, *_JAVA_OPTIONS, "-jar", str(jar(name)), "--server.port=0", *options]
    env = os.environ | {"LASTCALL_LEDGER": str(ledger or "")}
    with victim("env", "--default-signal", *command, ready="", env=env) as jvm:
        said, port = [], 0
        while not (line := jvm.line()).startswith("ready"):
            said.append(line)
            if found := re.search(r"Tomcat started on port\D* (\d+)", line):
                port = int(found[1])
            if not line and jvm.child.poll() is not None:
                raise AssertionError(f"{command} never got ready:\n" + "\n".join(said))
        assert port, said
        yield jvm, port


def servers() -> str:
    """`programs/spring/servers.toml` with the paths of the built applications."""
    text = (SOURCES / "servers.toml").read_text()
    text = text.replace("{newest-java}", newest_java())
    for name in APPS:
        text = text.replace(f"{{{name}.jar}}", str(jar(name)))
    return text


def _version(name: str) -> str:
    """What an application is made from, as a hash."""
    made_from = [*sorted((SOURCES / name).glob("*")), *sorted((SOURCES / "src").rglob("*.java"))]
    whole = hashlib.sha256()
    for path in made_from:
        if path.is_file():
            whole.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def _alone() -> Iterator[tuple[str, ...]]:
    """One builder of a user at a time: Maven's local repository is not made for two.

    Gives the words that Maven needs to find the repository.
    """
    BUILT.mkdir(parents=True, exist_ok=True)
    words: tuple[str, ...] = ()
    folder = _own_repository()
    if folder is None:  # a user without a home, as in many containers
        folder = BUILT
        words = (f"-Dmaven.repo.local={BUILT / 'repository'}",)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield words
    finally:
        os.close(lock)


def _own_repository() -> Path | None:
    """The folder of Maven's local repository; None: it cannot be written."""
    try:  # Java takes the home folder from the user database, too, and not from HOME
        folder = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".m2"
        folder.mkdir(parents=True, exist_ok=True)
    except (KeyError, OSError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def _build(name: str, made: Path, words: tuple[str, ...]) -> None:
    """Build it in a copy, so that nothing is left in the sources; the jar appears whole or not."""
    assert shutil.which("mvn"), "mvn is missing: install the Debian package maven"
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        copy = Path(folder) / "spring"
        shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("target"))
        _run_maven(copy / name, words)
        for old in BUILT.glob(f"{name}-*.jar"):
            old.unlink()
        (copy / name / "target" / "app.jar").rename(made)


def _run_maven(project: Path, words: tuple[str, ...]) -> None:
    """Networks fail now and then: three tries; -U, for Maven keeps in mind what it did not get."""
    for number in range(1, _TRIES + 1):
        again = () if number == 1 else ("-U",)
        done = subprocess.run(
            (*_MAVEN, *words, *again),
            cwd=project,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_S,
        )
        if done.returncode == 0:
            return
        if not _NETWORK.search(done.stdout):
            break
        time.sleep(number)
    last = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
    raise AssertionError(f"Maven could not build programs/spring/{project.name}:\n{last}")


def _java_version(java: str) -> tuple[int, ...]:
    """Of a JDK: (17, 0, 15)."""
    release = (Path(java).resolve().parent.parent / "release").read_text()
    found = re.search(r'^JAVA_VERSION="([\d.]+)', release, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


if __name__ == "__main__":
    if sys.argv[1:] == ["servers"]:
        print(servers(), end="")  # noqa: T201 (its result)
    else:
        for app in APPS:
            print(app, jar(app))  # noqa: T201 (its result)
