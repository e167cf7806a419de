"""The machine's JDKs, and `programs/Endings.java` run by one of them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import Victim, victim
from lastcall.targets.process.during import stacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.model import Finding

NO_JDK = "no JDK here: install the Debian package openjdk-17-jdk-headless"
LIMIT_S = 20.0
HOOKS = ["hook one ran", "hook two ran"]
DEADLOCKS = {
    "deadlock": ("closing-orders", "closing-payments"),
    "deadlock-locks": ("locking-orders", "locking-payments"),
}


def javas() -> dict[str, str]:
    """Every `java` there is, by the name of its folder; the default one first."""
    found = [shutil.which("java"), *map(str, sorted(Path("/usr/lib/jvm").glob("*/bin/java")))]
    real = dict.fromkeys(Path(java).resolve() for java in found if java and Path(java).exists())
    return {java.parent.parent.name: str(java) for java in real}


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


def rest(jvm: Victim) -> list[str]:
    """All it says until its end."""
    return [line.rstrip("\n") for line in jvm.out]


def look(jvm: Victim) -> dict[str, Finding]:
    """What its stacks say, by code."""
    found = asyncio.run(stacks.jvm(jvm.pid, LIMIT_S))
    return {finding.code: finding for finding in found}
