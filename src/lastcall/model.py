"""The words lastcall uses everywhere, as frozen data.

Address and identity say *which* thing; rungs say how it is asked; events say what happened;
endings and findings say how it ended and why not. Everything here is plain data that the journal
stores and `--json` prints; nothing here does anything.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TypeAlias

from lastcall.errors import BadAddress, ExitCode
from lastcall.record import record

KINDS = ("pid", "pidfile", "port", "name", "qmp", "libvirt")
# The kinds that are virtual machines.
GUESTS = frozenset({"qmp", "libvirt"})

_EXAMPLES = {
    "pid": "4242",
    "port": "8080",
    "pidfile": "run/service.pid",
    "name": "nginx",
    "qmp": "run/vm.sock",
    "libvirt": "web1",
}


@record
class Address:
    """Where a target is found, written `kind:name`."""

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `kind:name`.

        Raises:
            BadAddress: there is no kind, no name, or the kind is not known.
        """
        kind, colon, name = text.partition(":")
        if not colon:
            guess = f"pid:{text} or port:{text}" if text.isdecimal() else f"name:{text}"
            if "/" in text:
                guess = f"pidfile:{text} or qmp:{text}"
            raise BadAddress(f"{text!r} is not an address", f"did you mean {guess} ?")
        if kind not in KINDS:
            known = f"known kinds: {', '.join(f'{k}:' for k in KINDS)}"
            if kind.lower() in KINDS:
                known = f"did you mean {kind.lower()}:{name} ?"
            elif name.isdecimal():
                known = (
                    f"did you mean port:{'' if kind in {'', 'localhost'} else f'{kind}:'}{name} ?"
                )
            raise BadAddress(f"{text!r} has an unknown kind {kind!r}", known)
        if not name or "\0" in name:
            example = _EXAMPLES[kind]
            raise BadAddress(f"{text!r} names nothing", f"such as {kind}:{example}")
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@record
class Identity:
    """What makes a target *this* one and not a later one with the same name.

    Args:
        key: equal for the same thing, different for any other, on this machine for all time.
        facts: what the target's own module needs to find the same thing again.
    """

    key: str
    facts: dict[str, str | int | None]


class Stage(StrEnum):
    """How far a stop has come."""

    ASKED = "asked"
    DELIVERED = "delivered"
    TAKEN = "taken"
    DRAINING = "draining"
    POWERED_OFF = "powered off"
    ENDED = "ended"


class Cause(StrEnum):
    """What a target says about its own end, before anyone judges it."""

    BY_ITSELF = "by itself"
    UNHANDLED = "of the ask, unhandled"
    FAILED = "of an error of its own"
    CUT_OFF = "at its own deadline"
    TAKEN_AWAY = "taken away"
    HIBERNATED = "with its memory on disk"
    REBOOTED = "and came back"
    PANICKED = "of its kernel's panic"
    UNKNOWN = "unknown"


class Ending(StrEnum):
    """How a stop ended."""

    ORDERLY = "orderly"
    ABRUPT = "abrupt"
    FORCED = "forced"
    KILLED_OUTSIDE = "killed from outside"
    CRASHED = "crashed"
    CUT_OFF = "cut off"
    HIBERNATED = "hibernated"
    REBOOTED = "rebooted"
    PANICKED = "panicked"
    ENDED_BEFORE = "ended before"
    STILL_RUNNING = "still running"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that says it."""
        return ExitCode[self.name]


class Why(StrEnum):
    """Why a stop finished as it did, where the ending alone does not say it."""

    ENDED = "it ended"
    DEADLINE = "the grace period ran out"
    NO_CONSENT = "the consent to force had expired"
    NOT_PERMITTED = "this user may not signal it"
    ASK_FAILED = "no ask could be delivered"
    UNRECORDED = "a force could not be recorded and was not asked for on this command line"
    FORCE_FAILED = "it outlived the force"
    UNSEEN = "nobody saw the end"
    SUPERSEDED = "a later stop with other asks took its place"


class Consent(StrEnum):
    """What a rung needs before it may be climbed."""

    NONE = "none"
    FORCE = "force"


@record
class Rung:
    """One step of a target's ladder of asks.

    Args:
        id: what the target understands, stable across restarts.
        means: what is done, in words ("SIGTERM").
        wait_s: how long to wait before the next rung; None means until the deadline.
        consent: what it needs.
        repeatable: whether doing it twice is harmless.
        audience: whom it addresses, where a target has several parts ("root", "rest"); once they
            have ended (`Served`), their other rungs are skipped.
        on_call: it is climbed only when the target itself calls for it (`Called`).
    """

    id: str
    means: str
    wait_s: float | None = None
    consent: Consent = Consent.NONE
    repeatable: bool = False
    audience: str = ""
    on_call: bool = False


class Confidence(StrEnum):
    """How sure a finding is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Severity(StrEnum):
    """What a finding means for the stop."""

    NOTE = "note"
    WARNING = "warning"
    BLOCKER = "blocker"


@record
class Finding:
    """A named cause with its evidence, how sure it is, and what to do.

    Args:
        code: stable name for machines, such as `no-handler`.
        title: what is so, one sentence.
        severity: a note informs, a warning costs work, a blocker keeps it from ending.
        confidence: how sure it is.
        evidence: the facts it rests on, one a line.
        advice: what to do; empty when nothing is to be done.
    """

    code: str
    title: str
    severity: Severity = Severity.NOTE
    confidence: Confidence = Confidence.CERTAIN
    evidence: tuple[str, ...] = ()
    advice: str = ""


class Depth(StrEnum):
    """How closely to look at what holds a target up."""

    QUICK = "quick"
    DEEP = "deep"


class Outcome(StrEnum):
    """What came of carrying out a rung."""

    DONE = "done"
    GONE = "gone"
    NOT_PERMITTED = "not permitted"
    FAILED = "failed"


@record
class ForceConsent:
    """Somebody agreed that force may be used after the deadline.

    Args:
        reason: why, in their words.
        by: who.
        until_s: when the consent expires (boot-time clock); None means a minute past the deadline.
        unrecorded: it was given on this very command line, so it holds even without a journal.
    """

    reason: str
    by: str
    until_s: float | None = None
    unrecorded: bool = False


# Events: what happened to one stop. The journal is a list of these, and the state of a stop is
# nothing but their fold (`lastcall.stop.state.evolve`).


@record
class Started:
    """A stop began: the target's identity and ladder are fixed."""

    ladder: tuple[Rung, ...]
    deadline_s: float
    ceiling_s: float
    consent: ForceConsent | None = None
    findings: tuple[Finding, ...] = ()
    reason: str = ""


@record
class Intended:
    """A rung is about to be carried out. Written before the effect."""

    rung: int
    attempt: int
    facts: dict[str, str | int | None] = field(default_factory=dict)


@record
class Asked:
    """A rung was carried out; `detail` says to whom or why not."""

    rung: int
    attempt: int
    outcome: Outcome
    detail: str = ""


@record
class Served:
    """One audience of the ladder has ended; the target as a whole has not."""

    audience: str


@record
class Reached:
    """The stop came to a stage."""

    stage: Stage
    detail: str = ""


@record
class Progressed:
    """The target says that it needs more time, in seconds from now, and why."""

    more_s: float
    reason: str


@record
class Called:
    """The target asks for one of its rungs now, and why: it woke up and can be asked, say."""

    rung: str
    why: str


@record
class LookStarted:
    """A look at what holds the target up has begun.

    Args:
        depth: how closely.
        at_deadline_s: the deadline that brought it; None for a look on the way.
    """

    depth: Depth
    at_deadline_s: float | None = None


@record
class Looked:
    """What holds the target up, as far as could be seen."""

    depth: Depth
    findings: tuple[Finding, ...]


@record
class Consented:
    """Force was allowed while the stop was under way; None takes an earlier consent back."""

    consent: ForceConsent | None


@record
class DeadlineMoved:
    """Somebody moved the deadline (boot-time clock).

    Args:
        deadline_s: the new one.
        by: who moved it.
        ceiling_s: how far a target that reports progress may push it; None: as before.
    """

    deadline_s: float
    by: str
    ceiling_s: float | None = None


@record
class Ended:
    """The target ended, and somebody was watching (or could read how).

    Args:
        cause: of the end.
        detail: in words.
        runs: whether it runs again under the same identity: it rebooted.
    """

    cause: Cause
    detail: str
    runs: bool = False


@record
class Missing:
    """The target is gone, and how it ended cannot be known."""

    detail: str


@record
class Released:
    """The owner stopped watching and left the target alone."""

    by: str


@record
class Resumed:
    """Another owner took over; a probe found the same identity alive.

    Args:
        by: who.
        ask_again: whether the last ask is repeated although that may not be harmless.
        other_clock: whether the times so far are of another boot, or the machine's clock was set:
            they say nothing of now.
    """

    by: str
    ask_again: bool = False
    other_clock: bool = False


@record
class Warned:
    """Something about the stop itself is not as it should be (the journal, say)."""

    finding: Finding


@record
class Finished:
    """The stop is over."""

    ending: Ending
    why: Why
    detail: str
    findings: tuple[Finding, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """What the command exits with for this target."""
        if self.why is Why.NOT_PERMITTED:
            return ExitCode.NOT_PERMITTED
        return self.ending.exit_code


Event: TypeAlias = (
    Started
    | Intended
    | Asked
    | Served
    | Reached
    | Progressed
    | Called
    | LookStarted
    | Looked
    | Consented
    | DeadlineMoved
    | Ended
    | Missing
    | Released
    | Resumed
    | Warned
    | Finished
)
