"""What became of a shutdown: each phase and hook, how long, what was left."""

from __future__ import annotations

from lastcall.app.hooks import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lastcall.app.hooks import HookRun
    from lastcall.app.stuck import Stuck


class PhaseReport:
    """One phase.

    Args:
        name: of the phase.
        began_s: when it began, in seconds after the beginning of the stop.
        runs: its hooks.
    """

    __slots__ = ("began_s", "name", "runs", "took_s")

    def __init__(self, name: str, began_s: float, runs: list[HookRun]) -> None:
        self.name: str = name
        self.began_s: float = began_s
        self.took_s: float = 0.0
        self.runs: list[HookRun] = runs

    @property
    def cut(self) -> bool:
        """Whether a hook of it was cut off."""
        return any(run.outcome is Outcome.CUT for run in self.runs)

    def as_data(self) -> dict[str, object]:
        """For machines."""
        return {
            "phase": self.name,
            "began_s": round(self.began_s, 4),
            "took_s": round(self.took_s, 4),
            "hooks": [run.as_data() for run in self.runs],
        }


class Report:
    """A whole shutdown, complete once it has ended.

    Args:
        reason: why it began.
        signum: the signal that asked for it; None: the program itself did.
        began_at: when, in seconds since the epoch.
    """

    def __init__(self, reason: str, signum: int | None, began_at: float) -> None:
        self.reason = reason
        self.signum = signum
        self.began_at = began_at
        self.took_s: float = 0.0
        self.phases: list[PhaseReport] = []
        self.left: tuple[
            tuple[str, float], ...
        ] = ()  # work in flight that was cut off, and its age
        self.survivors: tuple[Stuck, ...] = ()
        self.deadlocks: tuple[str, ...] = ()
        self.extensions: list[dict[str, object]] = []
        self.objections: list[dict[str, object]] = []
        self.hurried = ""  # the signal that said "now"
        self.exit_code: int | None = None
        self.ended = False

    @property
    def cut(self) -> list[str]:
        """What was cut off, in words."""
        hooks = [
            f"hook {run.name!r}"
            for phase in self.phases
            for run in phase.runs
            if run.outcome is Outcome.CUT and not run.hook.inner
        ]
        threads = [each.what for each in self.survivors]
        return [*(f"{name!r} ({age_s:.1f} s)" for name, age_s in self.left), *hooks, *threads]

    @property
    def failed(self) -> list[HookRun]:
        """Hooks that failed."""
        bad = {Outcome.FAILED, Outcome.LOOP_GONE}
        return [run for phase in self.phases for run in phase.runs if run.outcome in bad]

    @property
    def clean(self) -> bool:
        """Whether everything came to its end: nothing was cut off, no hook failed."""
        return self.ended and not self.cut and not self.failed

    def as_data(self) -> dict[str, object]:
        """For machines."""
        return {
            "reason": self.reason,
            "signal": self.signum,
            "began_at": self.began_at,
            "took_s": round(self.took_s, 4),
            "clean": self.clean,
            "hurried": self.hurried,
            "exit_code": self.exit_code,
            "cut_off": self.cut,
            "left": [{"work": name, "age_s": round(age_s, 3)} for name, age_s in self.left],
            "survivors": [each.as_data() for each in self.survivors],
            "deadlocks": list(self.deadlocks),
            "extensions": self.extensions,
            "objections": self.objections,
            "phases": [phase.as_data() for phase in self.phases],
        }

    def __str__(self) -> str:
        if not self.ended:
            return f"{self.reason}: still ending"
        words = [f"{self.reason}: ended after {self.took_s:.2f} s"]
        if self.cut:
            words.append(f"cut off: {', '.join(self.cut)}")
        if self.failed:
            words.append("failed: " + ", ".join(f"{r.name!r} ({r.detail})" for r in self.failed))
        return "; ".join(words)
