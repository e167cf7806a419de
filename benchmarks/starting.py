"""Cold start: what a command costs before and beside its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from measure import Effort, Row, differences, in_turns
from stage import LASTCALL, PYTHON, Stage

if TYPE_CHECKING:
    from measure import Series

MOST_OVER_MS = 60


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about starting."""

    def stop() -> float:
        with stage.orphan(0) as pid:
            ran = stage.run(LASTCALL, "stop", f"pid:{pid}")
            stage.record()
        return ran.wall_ms

    nothing, asyncio = "python -c pass", "python -c 'import asyncio'"
    taken = in_turns(
        effort,
        "ms",
        {
            nothing: lambda: stage.run(PYTHON, "-c", "pass").wall_ms,
            "version": lambda: stage.run(LASTCALL, "--version").wall_ms,
            asyncio: lambda: stage.run(PYTHON, "-c", "import asyncio").wall_ms,
            "stop": stop,
        },
    )
    return [
        *_pair("lastcall --version", taken["version"], nothing, taken[nothing]),
        *_pair(
            "a whole lastcall stop of a program that ends at once",
            taken["stop"],
            asyncio,
            taken[asyncio],
        ),
    ]


def _pair(name: str, ours: Series, against: str, theirs: Series) -> list[Row]:
    over = differences(ours, theirs)
    aim = f"at most {MOST_OVER_MS} ms over"
    return [
        Row(name, ours, against, theirs),
        Row(f"{name}: over {against}", over, aim=aim, reached=over.median <= MOST_OVER_MS),
    ]
