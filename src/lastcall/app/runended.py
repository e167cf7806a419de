"""How the last run ended, as its record and the kernel tell it."""

from __future__ import annotations

import enum
import os

from lastcall.app import runfile, runmarks

_SHOWN = 3
_NOTICEABLE_S = 0.05


class Ended(enum.StrEnum):
    """How a run ended."""

    NEVER_RAN = "never-ran"
    """No earlier run is known."""
    CLEAN = "clean"
    """Its stop went through, and nothing was left."""
    CUT = "cut"
    """It was stopped, but its deadline or a second signal cut work off."""
    KILLED = "killed"
    """It was gone without a word: SIGKILL, the OOM killer, or a signal that nothing handled."""
    CRASHED = "crashed"
    """An uncaught exception, or a fault in C code."""
    EXITED = "exited"
    """It left without its stop: `os._exit`, `sys.exit`, the end of the main program, exec."""
    HOST_DOWN = "host-down"
    """The machine went down while it ran."""
    UNKNOWN = "unknown"
    """Its record cannot tell; `reason` says why."""


class Previous:
    """How the last run ended.

    Args:
        ended: how.
        reason: what ended it ("SIGTERM", "os._exit(3) at app.py:12"), or why that is unknown.
        detail: what else is known, in a sentence; often empty.
        started_at: when it began, in seconds since the Unix epoch; None when not known.
        ran_s: how long it ran; None when nobody saw its end.
        stop_took_s: how long its stop took; None when there was none, or nobody saw its end.
        exit_code: what it left with; None when not known.
        in_flight: (name, age in seconds) of the work in flight at its end, oldest first. The age
            counts to its end; of a run whose end nobody saw, to its last sign of life: at least.
        in_flight_count: how much that was, also what there was no room to name.
        pid: its process; 0 when not known.
        left: the names of what its stop had to leave behind.
    """

    __slots__ = (
        "detail",
        "ended",
        "exit_code",
        "in_flight",
        "in_flight_count",
        "left",
        "pid",
        "ran_s",
        "reason",
        "started_at",
        "stop_took_s",
    )

    def __init__(  # noqa: PLR0913 (plain data; the package's own record costs an import too many)
        self,
        ended: Ended,
        reason: str = "",
        detail: str = "",
        *,
        started_at: float | None = None,
        ran_s: float | None = None,
        stop_took_s: float | None = None,
        exit_code: int | None = None,
        in_flight: tuple[tuple[str, float], ...] = (),
        in_flight_count: int = 0,
        pid: int = 0,
        left: tuple[str, ...] = (),
    ) -> None:
        self.ended: Ended = ended
        self.reason: str = reason
        self.detail: str = detail
        self.started_at: float | None = started_at
        self.ran_s: float | None = ran_s
        self.stop_took_s: float | None = stop_took_s
        self.exit_code: int | None = exit_code
        self.in_flight: tuple[tuple[str, float], ...] = in_flight
        self.in_flight_count: int = in_flight_count
        self.pid: int = pid
        self.left: tuple[str, ...] = left

    @property
    def recovering(self) -> bool:
        """Whether work may have been lost, so that there may be something to recover."""
        return self.ended not in {Ended.NEVER_RAN, Ended.CLEAN}

    def __repr__(self) -> str:
        return f"<Previous {self.ended.value}: {self}>"

    def __str__(self) -> str:
        who = f"the last run (pid {self.pid})" if self.pid else "the last run"
        words = {
            Ended.NEVER_RAN: "no earlier run is known",
            Ended.CLEAN: f"{who} ended cleanly",
            Ended.CUT: f"{who} was cut off",
            Ended.KILLED: f"{who} was killed",
            Ended.CRASHED: f"{who} crashed",
            Ended.EXITED: f"{who} left without its stop",
            Ended.HOST_DOWN: f"the host went down under {who}",
            Ended.UNKNOWN: f"how {who} ended is unknown",
        }[self.ended]
        if self.in_flight_count:
            words += f" while {self._flights()} in flight"
        if self.reason:
            words += f": {self.reason}"
        if self.ran_s is not None:
            words += f" (it ran {_span(self.ran_s)}"
            took_s = self.stop_took_s
            words += f", its stop took {_span(took_s)})" if took_s is not None else ")"
        if self.left:
            more = f" and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
            words += f"; left behind: {', '.join(self.left[:_SHOWN])}{more}"
        return f"{words}; {self.detail}" if self.detail else words

    def _flights(self) -> str:
        shown = [
            f"{name!r} ({_span(age_s)})" if age_s >= _NOTICEABLE_S else repr(name)
            for name, age_s in self.in_flight[:_SHOWN]
        ]
        more = self.in_flight_count - len(shown)
        if more:
            shown.append(f"{more} more" if shown else f"{more} works")
        listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
        return f"{listed} {'was' if self.in_flight_count == 1 else 'were'}"


def judge(raw: bytes, traces: runmarks.Traces) -> Previous:
    """Read a record that nobody holds.

    Never says that a run was clean unless its record is whole and says so.
    """
    page, whole = runfile.read_pages(raw)
    if page is None:
        what = "is damaged" if any(raw) else "is empty"
        return Previous(Ended.UNKNOWN, f"its record {what}: the disk failed, or the host went down")
    begun_s = page.number_of("at") or 0.0
    ended_at = page.number_of("end_at")
    stop_at = page.number_of("stop_at")
    works, beyond, last_s = runfile.read_slots(raw, page.tag)
    until_s = max(last_s, begun_s, stop_at or 0.0) if ended_at is None else ended_at
    count = len(works) + beyond
    ended, reason, detail = _ending(page, raw, traces, whole=whole, count=count)
    seen = ended_at is not None and ended is not Ended.UNKNOWN
    code = page.number_of("code")
    return Previous(
        ended,
        reason,
        "; ".join(filter(None, (detail, page.fields.get("thread", "")))),
        started_at=page.number_of("wall"),
        ran_s=max(0.0, until_s - begun_s) if seen else None,
        stop_took_s=max(0.0, until_s - stop_at) if seen and stop_at is not None else None,
        exit_code=int(code) if code is not None else None,
        in_flight=tuple((name, max(0.0, until_s - at_s)) for name, at_s in works),
        in_flight_count=count,
        pid=int(page.number_of("pid") or 0),
        left=tuple(filter(None, page.fields.get("left", "").split("\t"))),
    )


def _ending(
    page: runfile.Page, raw: bytes, traces: runmarks.Traces, *, whole: bool, count: int
) -> tuple[Ended, str, str]:
    fields = page.fields
    reason = fields.get("end_reason", "")
    crash = runmarks.read_crash(raw[runfile.CRASH_AT :])
    match fields.get("state"):
        case "crashed":
            return Ended.CRASHED, reason, ""
        case "exited" if not crash:
            return Ended.EXITED, reason, _in_stop(fields)
        case "ended" if not crash:
            if fields.get("clean") != "1" or fields.get("left"):
                return Ended.CUT, reason, ""
            if count:
                return Ended.CUT, reason, "its stop was over, but that work was not"
            if not whole:
                # The other page may have been the newer one, and of a later run.
                return Ended.UNKNOWN, "a part of its record is damaged", f"the rest says: {reason}"
            return Ended.CLEAN, reason, ""
    if crash:
        return Ended.CRASHED, crash, _in_stop(fields)
    return _without_a_word(fields, traces)


def _without_a_word(fields: dict[str, str], traces: runmarks.Traces) -> tuple[Ended, str, str]:
    if not traces.boot_id or not fields.get("boot"):
        return Ended.UNKNOWN, "it was killed or the host went down: no boot id tells", ""
    if fields["boot"] != traces.boot_id:
        return Ended.HOST_DOWN, "", _in_stop(fields)
    pid, ticks = fields.get("pid", ""), fields.get("ticks", "")
    if ticks and pid == str(os.getpid()) and ticks == traces.start_ticks(os.getpid()):
        return Ended.EXITED, "it replaced itself by this program (exec)", _in_stop(fields)
    sure, evidence = _oom(fields, traces)
    detail = "; ".join(filter(None, (evidence, _in_stop(fields))))
    if sure:
        return Ended.KILLED, "probably by the OOM killer", detail
    if fields.get("watched") != "1":
        why = "killed, or crashed in C code: faulthandler was on and wrote elsewhere"
        return Ended.UNKNOWN, why, detail
    if evidence:
        return Ended.KILLED, "possibly by the OOM killer", detail
    return Ended.KILLED, "SIGKILL, or a signal that it did not handle", detail


def _in_stop(fields: dict[str, str]) -> str:
    if "stop_at" not in fields:
        return ""
    why = fields.get("stop_reason") or "no reason given"
    return f"its stop had begun ({why}) and was not over: its own deadline may have ended it"


def _oom(fields: dict[str, str], traces: runmarks.Traces) -> tuple[bool, str]:
    """Whether the OOM killer is the likely one, and the evidence for or near it.

    Both kernels' counters rise for any process of the cgroup, whoever ran out of memory; so when
    ours did not, it was not the OOM killer.

    Source: Linux `mm/oom_kill.c`, `__oom_kill_process`.
    """
    file = fields.get("oom_file", "")
    if file and fields.get("oom", "").isdecimal():
        now, inode = runmarks.cgroup_ooms(file)
        if now is not None and str(inode) == fields.get("oom_inode"):
            more = now - int(fields["oom"])
            return (True, f"{file} counts {more} more since it began") if more > 0 else (False, "")
    machine = traces.machine_ooms()
    if machine is not None and fields.get("machine_ooms", "").isdecimal():
        more = machine - int(fields["machine_ooms"])
        if more > 0:
            return False, f"the OOM killer took {more} on this machine since it began"
    return False, ""


def _span(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:  # noqa: PLR2004 (an hour)
        return f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004
