"""Cgroups that a test makes, moves a victim into, and takes away again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import wait_until
from lastcall.targets.process.condition import parse_cgroup_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator


def hierarchy(controller: str) -> Path:
    """Where a cgroup hierarchy is mounted; "" is v2, "name=systemd" and "freezer" are v1.

    Fails when it cannot be written to, or skips where LASTCALL_TESTS_MAY_SKIP=1 allows that.
    """
    mounts = parse_cgroup_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    if controller in mounts and os.access(mounts[controller][0], os.W_OK):
        return Path(mounts[controller][0])
    missing = f"no writable cgroup hierarchy {controller or 'v2'!r}: run as root with it mounted"
    if os.environ.get("LASTCALL_TESTS_MAY_SKIP") == "1":
        pytest.skip(missing)
    raise AssertionError(missing)


def any_hierarchy() -> Path:
    """The hierarchy that systemd would use: v2, or v1 by name."""
    mounts = parse_cgroup_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    return hierarchy("name=systemd" if "name=systemd" in mounts else "")


@contextlib.contextmanager
def cgroup_of(root: Path, name: str, pid: int) -> Iterator[Path]:
    """A new cgroup with one process in it; what the process leaves behind is taken away."""
    made: list[Path] = []
    folder = root
    for part in name.split("/"):
        folder /= part
        if not folder.exists():
            folder.mkdir()
            made.append(folder)
    try:
        (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
        yield folder
    finally:
        for left in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(left, encoding="ascii")
        for path in reversed(made):
            wait_until(lambda path=path: _removed(path), f"{path} is empty")  # type: ignore[misc]


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True
