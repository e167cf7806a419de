"""Stops guests with the real command and reads what it says of each."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LIMIT_S = 110


@dataclass(slots=True)
class Said:
    """All that a command said of one target.

    Args:
        events: (kind, data, seconds since the first), in order.
        result: its last line.
    """

    events: list[tuple[str, Mapping[str, Any], float]] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """The data of all events of a kind."""
        return [data for each, data, _ in self.events if each == kind]

    @property
    def ending(self) -> str:
        """How it ended, in one word."""
        return str(self.result["ending"])

    @property
    def findings(self) -> list[str]:
        """The codes of the findings that the ending rests on."""
        finished = self.of("finished")
        return [str(each["code"]) for each in finished[-1]["findings"]] if finished else []

    @property
    def beforehand(self) -> list[str]:
        """The codes of what was known before anything was asked."""
        return [str(each["code"]) for each in self.of("started")[0]["findings"]]

    @property
    def stages(self) -> list[str]:
        """How far it came."""
        return [str(each["stage"]) for each in self.of("reached")]

    @property
    def carried(self) -> list[str]:
        """The rungs that were carried out, by their id, in order."""
        rungs = self.of("started")[0]["ladder"]
        done = [asked for asked in self.of("asked") if asked["outcome"] == "done"]
        return [str(rungs[asked["rung"]]["id"]) for asked in done]


def stop(targets: Sequence[str], options: Sequence[str], state: Path) -> dict[str, Said]:
    """Stop these with one command: what it said of each."""
    command = [sys.executable, "-m", "lastcall", "stop", "--json", *options, *targets]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
        env={"LASTCALL_STATE_DIR": str(state), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert not ran.stderr, ran.stderr
    return read(ran.stdout)


def read(lines: str) -> dict[str, Said]:
    """What a command said of each target, by its address."""
    said: dict[str, Said] = {}
    first_s: float | None = None
    for line in lines.splitlines():
        message = json.loads(line)
        of = said.setdefault(message["target"], Said())
        if message["event"] == "result":
            of.result = message
            continue
        first_s = message["at_s"] if first_s is None else first_s
        of.events.append((message["event"], message["data"], message["at_s"] - first_s))
    return said
