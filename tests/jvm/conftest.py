"""The compiled program, and one JDK after the other."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import PROGRAMS
from jvms import NO_JDK, Program, javas

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled program; compiled for 17, so that every newer JDK runs it."""
    javac = shutil.which("javac")
    assert javac, NO_JDK
    folder = tmp_path_factory.mktemp("classes")
    source = str(PROGRAMS / "Endings.java")
    done = subprocess.run(
        (javac, "--release", "17", "-d", str(folder), source),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=javas() or ["none"])
def java(request: pytest.FixtureRequest) -> str:
    """One of the machine's JDKs after the other."""
    found = javas().get(request.param)
    assert found, NO_JDK
    return found


@pytest.fixture
def program(java: str, classes: Path) -> Program:
    """The program in this JDK."""
    return Program(java, classes)
