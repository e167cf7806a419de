"""Running the `lastcall` command as a person or a script does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "lastcall")


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one command."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of its output."""
        return self.out.splitlines()[-1]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(state: Path, **more: str) -> dict[str, str]:
    """Ours, with a state folder of the test's own and no colours."""
    return {**os.environ, "LASTCALL_STATE_DIR": str(state), "NO_COLOR": "1", **more}


def lastcall(state: Path, *words: str) -> Said:
    """Run the command to its end."""
    done = subprocess.run(
        [*COMMAND, *words],
        env=environment(state),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)
