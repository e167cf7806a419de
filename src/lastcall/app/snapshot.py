"""What an application tells of its end, at one moment, as one line of JSON.

    lastcall     1: the version of this form
    name         of the lifecycle
    state        running, stopping, ended
    grace_s      how long a shutdown may take
    ceiling_s    how far hooks may move its end; null: not at all
    reason, signal, since_s, left_s, hurried
                 of the stop: why, by which signal, for how long, how long it still may take, and
                 the signal that said "now"; null, null, 0, null, "" while there is none
    phase        null, or `name`, `left_s` of the phase that is on
    hooks        of all phases so far: `phase`, `hook`, `where` (file:line), `inner` (the library's
                 own), `outcome` (waiting, running, done, failed, cut off, loop gone), `took_s`,
                 `detail`
    stuck        what hooks (and, in phase `work`, threads) sit in: `what`, `where`, `since_s`,
                 `waiting_for`, `holders`, `stack` (innermost last)
    deadlocks    rings among those, in words
    looks        how often they were looked at
    in_flight    `count`, and the `oldest` 20: `work`, `age_s`
    extensions   the latest pleas for more time: `number` (from 1), `hook`, `asked_s`, `reason`,
                 `left_s` (of what was granted)
    objections   `hook`, `reason`, `heard` (the stop was called off)
    previous     how the last run ended, in a sentence; empty when that is not kept
    exit_code    once it has ended; null before, and when nobody decides it
    cut          whether something was left out to keep the line below 64 KiB

Times are seconds. Fields may be added.
"""

from __future__ import annotations

from math import isfinite

from lastcall.app.hooks import Outcome
from lastcall.app.phases import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lastcall.app.hooks import HookRun
    from lastcall.app.house import House
    from lastcall.app.stuck import Stuck
    from lastcall.app.work import Flight

VERSION = 1
LINE_BYTES = 65536
_HOOKS, _STUCK, _OLDEST, _ASKED = 100, 10, 20, 20
_NAME, _WORDS, _LINE = 160, 300, 200
# What is worth telling first, where not all can be.
_ORDER = (Outcome.RUNNING, Outcome.CUT, Outcome.FAILED, Outcome.LOOP_GONE, Outcome.WAITING)


class Look:
    """What hooks and threads sat in when they were last looked at.

    Attributes:
        looks: how often that was.
        stuck: each with the place where it was registered, or empty.
        deadlocks: rings among them, in words.
    """

    __slots__ = ("deadlocks", "looks", "stuck")

    def __init__(
        self,
        looks: int = 0,
        stuck: Sequence[tuple[Stuck, str]] = (),
        deadlocks: Sequence[str] = (),
    ) -> None:
        self.looks: int = looks
        self.stuck: Sequence[tuple[Stuck, str]] = stuck
        self.deadlocks: Sequence[str] = deadlocks


def line_of(house: House, look: Look, granted_s: Sequence[float]) -> bytes:
    """The line, with its newline, of at most `LINE_BYTES`.

    Args:
        house: what is told of.
        look: the last one.
        granted_s: until when each extension holds, on the coordinator's clock.
    """
    import json

    data = as_data(house, look, granted_s)
    for lessen in (_keep_all, _fewer_stacks, _fewer_hooks, _nothing_more):
        lessen(data)
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        line = text.encode("utf-8", "replace") + b"\n"
        if len(line) <= LINE_BYTES:
            return line
    raise ValueError(f"{len(line)} bytes of a bare snapshot")


def as_data(house: House, look: Look, granted_s: Sequence[float]) -> dict[str, Any]:
    """See the module."""
    desk = house.coordinator
    report = None if house.state is State.RUNNING else desk.report
    asked = desk.report  # of a stop that was called off, too
    since_s = desk.since_s if house.state is State.STOPPING else report.took_s if report else 0.0
    now_s = desk.now_s()
    pleas = list(asked.extensions) if asked else []
    extensions = [(n, *pair) for n, pair in enumerate(zip(pleas, granted_s, strict=False), 1)]
    phase = desk.phase
    return {
        "lastcall": VERSION,
        "name": _cut(house.name, _NAME),
        "state": f"{house.state}",
        "grace_s": _s(house.plan.grace_s),
        "ceiling_s": None if house.ceiling_s is None else _s(house.ceiling_s),
        "reason": _cut(report.reason, _WORDS) if report else None,
        "signal": report.signum if report else None,
        "since_s": _s(since_s),
        "left_s": _s(desk.rest_s()) if house.state is State.STOPPING else None,
        "hurried": report.hurried if report else "",
        "phase": phase and {"name": _cut(phase.name, _NAME), "left_s": _s(desk.phase_left_s)},
        "hooks": _hooks(report.phases if report else ()),
        "stuck": [_stuck(one, where) for one, where in look.stuck[:_STUCK]],
        "deadlocks": [_cut(ring, 2 * _WORDS) for ring in look.deadlocks[:_STUCK]],
        "looks": look.looks,
        "in_flight": {"count": house.gate.count(), "oldest": _oldest(house)},
        "extensions": [
            {
                "number": number,
                "hook": _cut(str(each["hook"]), _NAME),
                "asked_s": _s(each["asked_s"]),
                "reason": _cut(str(each["reason"]), _WORDS),
                "left_s": _s(max(0.0, until_s - now_s)),
            }
            for number, each, until_s in extensions[-_ASKED:]
        ],
        "objections": [
            {
                "hook": _cut(str(each["hook"]), _NAME),
                "reason": _cut(str(each["reason"]), _WORDS),
                "heard": bool(each["heard"]),
            }
            for each in (asked.objections[-_ASKED:] if asked else ())
        ],
        "previous": _cut(str(house.previous), 2 * _WORDS) if house.name else "",
        "exit_code": report.exit_code if report else None,
        "cut": False,
    }


def _hooks(phases: Sequence[Any]) -> list[dict[str, object]]:
    """The hooks of all phases; of too many those that tell most."""
    runs = [(phase.name, run) for phase in phases for run in list(phase.runs)]
    if len(runs) > _HOOKS:
        rank = {outcome: at for at, outcome in enumerate(_ORDER)}
        runs.sort(key=lambda pair: rank.get(pair[1].outcome, len(_ORDER)))
        runs = runs[:_HOOKS]
    return [_hook(name, run) for name, run in runs]


def _hook(phase: str, run: HookRun) -> dict[str, object]:
    return {
        "phase": _cut(phase, _NAME),
        "hook": _cut(run.name, _NAME),
        "where": _cut(run.hook.where, _LINE),
        "inner": run.hook.inner,
        "outcome": f"{run.outcome}",
        "took_s": _s(run.took_s),
        "detail": _cut(run.detail, _LINE),
    }


def _stuck(one: Stuck, where: str) -> dict[str, object]:
    return {
        "what": _cut(one.what, _NAME),
        "where": _cut(where, _LINE),
        "since_s": None if one.since_s is None else _s(one.since_s),
        "waiting_for": _cut(one.waiting_for, _WORDS),
        "holders": [_cut(holder, _NAME) for holder in one.holders[:_STUCK]],
        "stack": [_cut(line, _LINE) for line in one.stack],
    }


def _oldest(house: House) -> list[dict[str, object]]:
    oldest = house.gate.oldest(_OLDEST)
    return [{"work": _work(flight), "age_s": _s(flight.age_s)} for flight in oldest]


def _work(flight: Flight) -> str:
    try:
        return _cut(flight.name, _NAME)
    except Exception:  # noqa: BLE001 (the application's own `__str__`)
        return "?"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _s(seconds: object) -> float | None:
    """Seconds as JSON can carry them."""
    if not isinstance(seconds, int | float) or not isfinite(seconds):
        return None
    return round(seconds, 3)


# -- making it smaller


def _keep_all(_data: dict[str, Any]) -> None:
    return


def _fewer_stacks(data: dict[str, Any]) -> None:
    data["cut"] = True
    for each in data["stuck"]:
        each["stack"], each["holders"] = each["stack"][-3:], each["holders"][:3]


def _fewer_hooks(data: dict[str, Any]) -> None:
    data["hooks"] = [each for each in data["hooks"] if each["outcome"] == "running"][:20]
    for name in ("stuck", "deadlocks"):
        data[name] = data[name][:3]
    for name in ("extensions", "objections"):
        data[name] = data[name][-5:]


def _nothing_more(data: dict[str, Any]) -> None:
    for name in ("hooks", "stuck", "deadlocks", "extensions", "objections"):
        data[name] = []
    data["in_flight"]["oldest"] = []
