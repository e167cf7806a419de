"""Writes the locked dependencies, or says whether they are current.

    .venv/bin/python scripts/lock.py              keep the pins that still fit
    .venv/bin/python scripts/lock.py --upgrade    take the newest of everything
    .venv/bin/python scripts/lock.py --check      no network: was the lock made from these wishes?

Why not uv.lock: see docs/decisions/0006-lock-without-hosts.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEV = os.path.join(ROOT, "requirements", "dev.txt")
LIBVIRT = os.path.join(ROOT, "requirements", "libvirt.txt")
UV = os.path.join(ROOT, "requirements", "uv.txt")
MARK = "# made by `make lock` from the wishes in pyproject.toml: "
OLDEST_PYTHON = "3.11"


def wishes() -> str:
    """A digest of everything in pyproject.toml that the lock depends on."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        table = tomllib.load(file)
    project = table["project"]
    asked = [
        project["requires-python"],
        project["dependencies"],
        project["optional-dependencies"],
        table["dependency-groups"],
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def extras() -> list[str]:
    """The extras that need no library of the system to be installed."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        known = tomllib.load(file)["project"]["optional-dependencies"]
    return [name for name in known if name != "libvirt"]


def is_current() -> bool:
    """Whether the lock says that it was made from today's wishes."""
    try:
        with open(DEV, encoding="utf-8") as file:
            return file.readline().rstrip("\n") == MARK + wishes()
    except FileNotFoundError:
        return False


def write(path: str, sources: list[str], *, upgrade: bool, given: str = "") -> None:
    """Resolve for every Python and system we support, and write the pins with their hashes."""
    uv = shutil.which("uv") or os.path.join(ROOT, ".tools", "bin", "uv")
    command = [uv, "pip", "compile", "-q", *sources, "--output-file", path]
    command += ["--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"]
    if upgrade:
        command.append("--upgrade")
    subprocess.run(command, cwd=ROOT, check=True, input=given, text=True)
    with open(path, encoding="utf-8") as file:
        pins = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{MARK}{wishes()}\n{pins}")


def main() -> int:
    """Write or check; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(description="Write or check the locked dependencies.")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    words = parser.parse_args()
    if words.check:
        if not is_current():
            print("requirements/dev.txt does not fit pyproject.toml: run `make lock`, commit it")
        return 0 if is_current() else 1
    project = ["pyproject.toml", "--group", "dev"]
    for extra in extras():
        project += ["--extra", extra]
    write(DEV, project, upgrade=words.upgrade)
    # As old as the oldest libvirt that we test with: newer bindings do not build against it.
    write(LIBVIRT, ["-"], upgrade=words.upgrade, given="libvirt-python==9.0.0\n")
    write(UV, ["-"], upgrade=words.upgrade, given="uv>=0.5\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
