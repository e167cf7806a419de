"""The drill: what its background load holds and costs, against wrk and hey."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from measure import Effort, Row, Series
from stage import PATIENCE_S, PYTHON, Stage, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.drill.result import Result

    Taken = dict[str, float]

CONNECTIONS = 16
AIM_PER_S = 5_000
MOST_LAG_MS = 1.0
# wrk has no rate: each of its connections waits so long before each request.
WRK_DELAY_MS = 3
WRK_PACED = f"wrk, each connection waiting {WRK_DELAY_MS} ms"
HEY_PACED = f"hey -q {AIM_PER_S // CONNECTIONS}"
# More than any core holds.
FLOOD_PER_S = 10_000_000
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about the drill."""
    return [*_stop_rows(effort.fewer(3)), *_load_rows(stage, effort.fewer(3))]


def _stop_rows(effort: Effort) -> list[Row]:
    """Whole drills of the careful example, with 1,000 requests a second beside."""
    first, error = [], []
    for number in range(effort.warm_up + effort.rounds):
        result = _drilled()
        if number >= effort.warm_up:
            after = (j.attempt.over_s for j in result.judgement.judged if j.attempt.over_s > 0)
            first.append(1e3 * min(after))
            error.append(1e3 * result.clock_error_s)
    told, off = Series("ms", tuple(first)), Series("ms", tuple(error))
    reached = off.median < MOST_LAG_MS
    return [
        Row("a whole drill: from the signal to the first request judged after it", told),
        Row("a whole drill: clock error, worst", off, aim="below 1 ms", reached=reached),
    ]


def _drilled() -> Result:
    import asyncio

    from lastcall.drill import presets
    from lastcall.drill.experiment import drill
    from lastcall.drill.plan import Plan
    from lastcall.drill.scenario import Load, Request

    whole = replace(presets.scenario(presets.probe_paths(1.0), 5), load=Load(Request("/"), 1000))
    command = (PYTHON, "-m", "lastcall.drill.probe.careful", "{port}")
    return asyncio.run(drill(Plan(command, scenario=whole))).result


def _load_rows(stage: Stage, effort: Effort) -> list[Row]:
    with _server(stage) as port:
        taken = _in_turns(
            effort,
            {
                "flood": lambda: _ours(port, FLOOD_PER_S, effort.load_s),
                "forget": lambda: _ours(port, FLOOD_PER_S, effort.load_s, "forget"),
                "wrk": lambda: _wrk(port, effort.load_s),
                "hey": lambda: _hey(port, effort.load_s),
                "paced": lambda: _ours(port, AIM_PER_S, effort.load_s),
                "wrk paced": lambda: _wrk(port, effort.load_s, "-s", _pacing(stage)),
                "hey paced": lambda: _hey(port, effort.load_s, "-q", str(AIM_PER_S // CONNECTIONS)),
            },
        )
    return [*_rate_rows(taken), *_latency_rows(taken), *_history_rows(taken)]


# -- the rows


def _rate_rows(taken: dict[str, list[Taken]]) -> list[Row]:
    name = f"drill: requests a second that one core holds, {CONNECTIONS} connections, all recorded"
    flood, paced = _series(taken["flood"], "per_s", "/s"), _series(taken["paced"], "per_s", "/s")
    aim = f"at least {AIM_PER_S:,}"
    reached = flood.median >= AIM_PER_S
    worst = _series(taken["paced"], "lag_worst_ms", "ms")
    most = _series(taken["paced"], "lag_999_ms", "ms")
    busy = Series("%", tuple(100 * each["cpu_s"] for each in taken["paced"]))
    at = f"drill at {AIM_PER_S:,} requests/s"
    under = f"below {MOST_LAG_MS:g} ms"
    return [
        Row(name, flood, "wrk", _series(taken["wrk"], "per_s", "/s"), aim, reached),
        Row(name, flood, "hey", _series(taken["hey"], "per_s", "/s"), aim, reached),
        Row(f"{at}: begun and answered", paced),
        Row(f"{at}: of one core", busy),
        Row(f"{at}: clock error, worst", worst, aim=under, reached=worst.median < MOST_LAG_MS),
        Row(f"{at}: clock error, 99.9 of 100", most, aim=under, reached=most.median < MOST_LAG_MS),
    ]


def _latency_rows(taken: dict[str, list[Taken]]) -> list[Row]:
    made = []
    for words, key in (("median", "p50_us"), ("99 of 100", "p99_us")):
        ours = _series(taken["paced"], key, "us")
        name = f"drill at {AIM_PER_S:,} requests/s: from sent to answered, {words}"
        made += [
            Row(name, ours, WRK_PACED, _series(taken["wrk paced"], key, "us")),
            Row(name, ours, HEY_PACED, _series(taken["hey paced"], key, "us")),
            Row(
                f"drill at {AIM_PER_S:,} requests/s: from due to answered, {words}",
                _series(taken["paced"], f"due_{key}", "us"),
            ),
        ]
    return made


def _history_rows(taken: dict[str, list[Taken]]) -> list[Row]:
    each = Series(
        "bytes",
        tuple(
            1024 * (kept["grown_kib"] - gone["grown_kib"]) / kept["kept"]
            for kept, gone in zip(taken["flood"], taken["forget"], strict=True)
        ),
    )
    return [
        Row(
            "drill: requests a second of one core, with the history",
            _series(taken["flood"], "per_s", "/s"),
            "without a history",
            _series(taken["forget"], "per_s", "/s"),
        ),
        Row("drill: memory for each request in the history", each),
        Row(
            "drill: lines of the history written, afterwards",
            _series(taken["flood"], "written_per_s", "lines/s"),
        ),
    ]


def _series(taken: list[Taken], key: str, unit: str) -> Series:
    return Series(unit, tuple(each[key] for each in taken))


# -- the contenders, each pinned to one core, the server to another where there is one


def _in_turns(effort: Effort, contenders: dict[str, Callable[[], Taken]]) -> dict[str, list[Taken]]:
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    for number in range(effort.warm_up + effort.rounds):
        for name, sample in contenders.items():
            value = sample()
            if number >= effort.warm_up:
                taken[name].append(value)
    return taken


@contextlib.contextmanager
def _server(stage: Stage) -> Iterator[int]:
    """The port of a server that is faster than any of them."""
    binary = os.path.join(stage.folder, "server")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.c")
    subprocess.run([program("gcc"), "-O2", "-Wall", "-o", binary, source], check=True)
    pinned = [program("taskset"), "-c", str(max(os.sched_getaffinity(0))), binary]
    with subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout  # noqa: S101 (it is a pipe)
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


def _pacing(stage: Stage) -> str:
    """A script that makes wrk wait."""
    path = os.path.join(stage.folder, "pacing.lua")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"function delay() return {WRK_DELAY_MS} end\n")
    return path


def _ours(port: int, rate: float, seconds: float, *words: str) -> Taken:
    client = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drill_client.py")
    said = _pinned(PYTHON, client, *map(str, (port, rate, seconds, CONNECTIONS)), *words)
    taken: Taken = json.loads(said)
    if taken["failed"] or "per_s" not in taken:
        raise RuntimeError(f"the drill's load failed: {said}")
    return taken


def _wrk(port: int, seconds: float, *words: str) -> Taken:
    options = ("-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency", *words)
    said = _pinned(program("wrk"), *options, f"http://127.0.0.1:{port}/")
    found = {part: (float(n), unit) for part, n, unit in _WRK.findall(said)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "errors" in said or not {"50", "99"} <= set(found):
        raise RuntimeError(f"wrk failed: {said[-500:]}")
    return {
        "per_s": float(rate[1]),
        "p50_us": found["50"][0] * _UNITS[found["50"][1]],
        "p99_us": found["99"][0] * _UNITS[found["99"][1]],
    }


_WRK = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_HEY = re.compile(r"^\s+(\d+)%+ in ([\d.]+) secs$", re.MULTILINE)


def _hey(port: int, seconds: float, *words: str) -> Taken:
    options = ("-z", f"{seconds:g}s", "-c", str(CONNECTIONS), "-cpus", "1", *words)
    said = _pinned(program("hey"), *options, f"http://127.0.0.1:{port}/")
    found = {part: float(n) * 1e6 for part, n in _HEY.findall(said)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Error distribution" in said or not {"50", "99"} <= set(found):
        raise RuntimeError(f"hey failed: {said[-500:]}")
    return {"per_s": float(rate[1]), "p50_us": found["50"], "p99_us": found["99"]}


def _pinned(*command: str) -> str:
    """Run on one core; what it printed."""
    pinned = [program("taskset"), "-c", str(min(os.sched_getaffinity(0))), *command]
    done = subprocess.run(pinned, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
