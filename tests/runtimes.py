"""Commands that run the victims of other languages; a missing program fails with its package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from helpers import PROGRAMS

BUILD = Path(__file__).parents[1] / "build" / "tests"
PACKAGES = {
    "go": "golang-go",
    "node": "nodejs",
    "npm": "npm",
    "java": "default-jdk-headless",
    "unshare": "util-linux",
}


def program(name: str) -> str:
    """Where a program is.

    Raises:
        AssertionError: it is missing; says which Debian package has it.
    """
    found = shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is missing: apt-get install {PACKAGES.get(name, name)}")
    return found


def go_command(source: str) -> list[str]:
    """Build a Go victim, once for each state of its source, and say how to run it."""
    path = PROGRAMS / source
    built = BUILD / f"{path.stem}-{path.stat().st_mtime_ns}"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = built.with_name(f"{built.name}.{os.getpid()}")
        env = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(BUILD / "go-cache")}
        subprocess.run(
            [program("go"), "build", "-o", str(partial), str(path)],
            env=env,
            check=True,
            timeout=110,
        )
        partial.replace(built)
    return [str(built)]


def node_command(*words: str) -> list[str]:
    """How to run the Node victim."""
    return [program("node"), str(PROGRAMS / "sig_node.js"), *words]


def java_command(*words: str) -> list[str]:
    """How to run the Java victim, from its source."""
    return [program("java"), "-XX:TieredStopAtLevel=1", str(PROGRAMS / "sig_jvm.java"), *words]
