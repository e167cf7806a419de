"""The package says the type of everything that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def verified(package: str, place: Path) -> subprocess.CompletedProcess[str]:
    """What pyright says about a package's public types."""
    command = [str(BIN / "pyright"), "--pythonpath", sys.executable]
    command += ["--verifytypes", package, "--ignoreexternal"]
    # Here pyright looks for other packages with the first Python of PATH, whatever the option says.
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(place)}
    return subprocess.run(
        command, cwd=place, env=environ, check=False, capture_output=True, text=True
    )


@pytest.mark.timeout(300)
def test_every_public_symbol_has_a_known_type() -> None:
    """The public API has a known type for every symbol, by pyright --verifytypes."""
    done = verified("lastcall", ROOT / "src")
    wrong = [
        line
        for line in done.stdout.splitlines()
        if "error" in line or line.startswith("lastcall.")  # the symbol that it is about
    ]
    assert done.returncode == 0, "\n".join(wrong) or done.stdout + done.stderr
    assert "Type completeness score: 100%" in done.stdout


@pytest.mark.timeout(300)
def test_a_type_that_is_missing_is_found(tmp_path: Path) -> None:
    """The same check refuses a package with a public function that says no types."""
    package = tmp_path / "untyped"
    package.mkdir()
    (package / "py.typed").touch()
    (package / "__init__.py").write_text("def shown(what):\n    return what\n")
    done = verified("untyped", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'Type annotation for parameter "what" is missing' in done.stdout
