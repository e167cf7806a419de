"""Every error lastcall raises, and the one table of exit codes.

    LastcallError
    ├── UsageError            the words of the caller are off
    │   ├── BadAddress        a target's address cannot be read
    │   └── BadPolicy         grace, consent or signals make no sense
    ├── NotRunning            there is nothing (any more) at that address
    ├── NotPermitted          the kernel will not let this user do it
    ├── Refused               it could be done, but must not be done by accident
    │   └── Ambiguous         the address names several things
    ├── MissingExtra          an optional dependency is needed and absent
    ├── NoSuchStop            the journal knows no stop of that number
    ├── OwnerUnreachable      another lastcall owns the stop and does not answer
    ├── Draining              new work is refused, because the application is ending
    ├── TooLate               a hook for a phase of the shutdown that is over
    ├── Unsupported           this interpreter or system cannot do it
    └── JournalError          the journal cannot be used
        ├── JournalNewer      it was written by a newer version: left untouched
        └── JournalCorrupt    its file is damaged: kept aside

What may well happen to a target (it was forced, it still runs) is a value, not an error:
see `lastcall.model.Ending`.
"""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False  # typing itself costs more than all of this module
if TYPE_CHECKING:
    from typing import ClassVar


class ExitCode(IntEnum):
    """What the command's exit status says. `GRAVITY` orders them."""

    ORDERLY = 0
    FAILED = 1
    USAGE = 2
    ENDED_BEFORE = 3
    NOT_PERMITTED = 4
    REFUSED = 5
    FOUND = 6
    LOSES_WORK = 7
    INCONCLUSIVE = 8
    ABRUPT = 10
    FORCED = 11
    KILLED_OUTSIDE = 12
    CRASHED = 13
    HIBERNATED = 14
    REBOOTED = 15
    PANICKED = 16
    STILL_RUNNING = 20
    UNKNOWN = 21
    CUT_OFF = 22
    INTERRUPTED = 130


MEANING: dict[ExitCode, str] = {
    ExitCode.ORDERLY: "It was asked and ended by itself; a drilled server keeps its word.",
    ExitCode.FAILED: "lastcall itself failed: a fault of its own or of the machine.",
    ExitCode.USAGE: "Bad usage: an address, an option or a policy makes no sense.",
    ExitCode.ENDED_BEFORE: "Nothing to stop: it was not running, or ended before the ask.",
    ExitCode.NOT_PERMITTED: "This user may not signal it.",
    ExitCode.REFUSED: "lastcall refused: too dangerous, or the address names several things.",
    ExitCode.FOUND: "`check` found something that keeps the target from ending in order.",
    ExitCode.LOSES_WORK: "`drill`: the server loses work when it is stopped.",
    ExitCode.INCONCLUSIVE: "`drill`: it proved nothing, neither for the server nor against it.",
    ExitCode.ABRUPT: "It ended of the signal itself: no handler ran, work in hand is lost.",
    ExitCode.FORCED: "It was taken away by force, with consent.",
    ExitCode.KILLED_OUTSIDE: "Something other than lastcall took it away meanwhile.",
    ExitCode.CRASHED: "It ended with an error of its own.",
    ExitCode.HIBERNATED: "The guest saved its memory to disk: its file systems are not clean.",
    ExitCode.REBOOTED: "The guest started again instead of powering off: it runs.",
    ExitCode.PANICKED: "The guest's kernel panicked, and its machine is gone.",
    ExitCode.STILL_RUNNING: "The grace period ran out and it still runs.",
    ExitCode.UNKNOWN: "It is gone, but nobody saw how it ended.",
    ExitCode.CUT_OFF: "An application with a `Lifecycle` left at its deadline: work was cut off.",
    ExitCode.INTERRUPTED: "You broke off (Ctrl+C); come back to a stop with `lastcall resume`.",
}

# With several targets the command exits with the gravest code: the last of these that occurred.
GRAVITY: tuple[ExitCode, ...] = (
    ExitCode.ORDERLY,
    ExitCode.ENDED_BEFORE,
    ExitCode.FOUND,
    ExitCode.INCONCLUSIVE,
    ExitCode.LOSES_WORK,
    ExitCode.ABRUPT,
    ExitCode.HIBERNATED,
    ExitCode.PANICKED,
    ExitCode.CRASHED,
    ExitCode.KILLED_OUTSIDE,
    ExitCode.FORCED,
    ExitCode.CUT_OFF,
    ExitCode.UNKNOWN,
    ExitCode.REBOOTED,
    ExitCode.STILL_RUNNING,
    ExitCode.NOT_PERMITTED,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.FAILED,
    ExitCode.INTERRUPTED,
)


def gravest(codes: list[ExitCode]) -> ExitCode:
    """The one exit code for several results; ORDERLY when there were none."""
    return max(codes, key=GRAVITY.index, default=ExitCode.ORDERLY)


class LastcallError(Exception):
    """The root of all errors.

    Args:
        what: what happened, to what: one plain sentence.
        advice: what to do next; empty when there is nothing to do.
        evidence: the facts it rests on, one a line.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, what: str, advice: str = "", evidence: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        if advice:
            self.add_note(advice)  # a traceback shows it
        self.what = what
        self.advice = advice
        self.evidence = evidence

    def as_data(self) -> dict[str, object]:
        """The error as `--json` prints it."""
        return {
            "code": self.code,
            "what": self.what,
            "advice": self.advice,
            "evidence": list(self.evidence),
            "exit_code": int(self.exit_code),
        }


class UsageError(LastcallError):
    """The caller's words are off."""

    code = "usage"
    exit_code = ExitCode.USAGE


class BadAddress(UsageError):
    """A target's address cannot be read."""

    code = "bad-address"


class BadPolicy(UsageError):
    """Grace, consent or signals make no sense."""

    code = "bad-policy"


class NotRunning(LastcallError):
    """There is nothing (any more) at that address."""

    code = "not-running"
    exit_code = ExitCode.ENDED_BEFORE


class NotPermitted(LastcallError):
    """The kernel will not let this user do it."""

    code = "not-permitted"
    exit_code = ExitCode.NOT_PERMITTED


class Refused(LastcallError):
    """It could be done, but must not be done by accident."""

    code = "refused"
    exit_code = ExitCode.REFUSED


class Ambiguous(Refused):
    """The address names several things.

    Args:
        what: as in `LastcallError`.
        advice: as in `LastcallError`.
        candidates: (address, label) of each thing it could mean.
    """

    code = "ambiguous"

    def __init__(
        self, what: str, advice: str = "", candidates: tuple[tuple[str, str], ...] = ()
    ) -> None:
        evidence = tuple(f"{address}  {label}" for address, label in candidates)
        super().__init__(what, advice, evidence)
        self.candidates = candidates


class MissingExtra(LastcallError):
    """An optional dependency is needed and absent."""

    code = "missing-extra"
    exit_code = ExitCode.USAGE


class NoSuchStop(LastcallError):
    """The journal knows no stop of that number."""

    code = "no-such-stop"
    exit_code = ExitCode.USAGE


class OwnerUnreachable(LastcallError):
    """Another lastcall owns the stop and does not answer."""

    code = "owner-unreachable"


class Draining(LastcallError):
    """New work is refused, because the application is ending."""

    code = "draining"


class TooLate(LastcallError):
    """A hook was registered for a phase of the shutdown that is over."""

    code = "too-late"


class Unsupported(LastcallError):
    """This interpreter or system cannot do it."""

    code = "unsupported"


class JournalError(LastcallError):
    """The journal cannot be used."""

    code = "journal"


class JournalNewer(JournalError):
    """The journal was written by a newer version of lastcall; it is left untouched."""

    code = "journal-newer"


class JournalCorrupt(JournalError):
    """The journal's file is damaged; it is kept aside."""

    code = "journal-corrupt"
