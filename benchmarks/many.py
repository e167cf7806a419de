"""Very many processes in one command, against xargs and a loop that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from measure import Effort, Row, Series
from stage import LASTCALL, Ran, Stage, program

if TYPE_CHECKING:
    from collections.abc import Sequence

# How long each target takes to end.
DELAY_MS = 500
XARGS = "xargs -P kill, then kill -0 every 0.1 s"
SCRIPT = """\
printf '%s\\n' "$@" | xargs -P 2 -n 100 kill
for pid; do
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
done
"""
MOST_OVER_S = 1.0
MOST_KB = 60.0


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about many targets."""
    program("xargs")
    effort = effort.fewer(4)
    ours, theirs, one = list[Ran](), list[Ran](), list[Ran]()
    for number in range(effort.warm_up + effort.rounds):
        taken = (
            _stop(stage, effort.processes, _lastcall),
            _stop(stage, effort.processes, _xargs),
            _stop(stage, 1, _lastcall),
        )
        if number >= effort.warm_up:
            for runs, ran in zip((ours, theirs, one), taken, strict=True):
                runs.append(ran)
    return _lines(effort.processes, ours, theirs, one)


def _lines(count: int, ours: list[Ran], theirs: list[Ran], one: list[Ran]) -> list[Row]:
    def pick(runs: list[Ran]) -> tuple[Series, Series, Series]:
        return (
            Series("s", tuple(ran.wall_ms / 1e3 for ran in runs)),
            Series("s", tuple(ran.cpu_s for ran in runs)),
            Series("MB", tuple(ran.peak_kib * 1024 / 1e6 for ran in runs)),
        )

    (wall, cpu, peak), (their_wall, their_cpu, their_peak) = pick(ours), pick(theirs)
    over = Series("s", tuple(ran.wall_ms / 1e3 - DELAY_MS / 1e3 for ran in ours))
    their_over = Series("s", tuple(ran.wall_ms / 1e3 - DELAY_MS / 1e3 for ran in theirs))
    each_kb = Series(
        "kB",
        tuple(
            (many.peak_kib - single.peak_kib) * 1.024 / max(1, count - 1)
            for many, single in zip(ours, one, strict=True)
        ),
    )
    stopping = f"stopping {count:,} processes"
    return [
        Row(f"{stopping}: wall time", wall, XARGS, their_wall),
        Row(
            f"{stopping}: over what the slowest target takes",
            over,
            XARGS,
            their_over,
            f"below {MOST_OVER_S:g} s",
            over.median < MOST_OVER_S,
        ),
        Row(f"{stopping}: CPU time", cpu, XARGS, their_cpu),
        Row(f"{stopping}: peak memory", peak, XARGS, their_peak),
        Row(
            f"{stopping}: memory for each further target",
            each_kb,
            aim=f"below {MOST_KB:g} kB",
            reached=each_kb.median < MOST_KB,
        ),
    ]


def _lastcall(pids: list[int]) -> Sequence[str]:
    return (LASTCALL, "stop", *(f"pid:{pid}" for pid in pids))


def _xargs(pids: list[int]) -> Sequence[str]:
    return ("sh", "-c", SCRIPT, "sh", *(str(pid) for pid in pids))


def _stop(stage: Stage, count: int, command: object) -> Ran:
    with stage.crowd(count, DELAY_MS) as pids:
        words = _lastcall(pids) if command is _lastcall else _xargs(pids)
        running = stage.start(*words)
        for _ in pids:
            stage.record()
        return stage.expected(running.finish(), words)
