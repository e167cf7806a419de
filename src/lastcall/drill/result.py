"""What a drill found out, all of it: what reports, the pytest plugin and `--json` are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.judge import Fate, Verdict
from lastcall.errors import ExitCode
from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.drill.history import Kind
    from lastcall.drill.judge import Judgement
    from lastcall.model import Finding

_EXIT = {
    Verdict.KEEPS: ExitCode.ORDERLY,
    Verdict.LOSES: ExitCode.LOSES_WORK,
    Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
}


@record
class Moment:
    """Something that happened around the stop.

    Args:
        at_s: seconds from the moment of the stop.
        what: a few words for people, such as `SIGTERM sent to the main process (pid 4242)`.
        code: stable name for machines: `started`, `ready`, `stop-sent`, `stop-sent-again`,
            `listener-closed`, `main-ended`, `patience-over`, `cleared`, ...
    """

    at_s: float
    what: str
    code: str


@record
class Look:
    """The server's listening sockets at one time, as the kernel told.

    Args:
        at_s: seconds from the moment of the stop.
        listening: how many listening sockets there were on its port.
        queued: connections that nobody had accepted.
    """

    at_s: float
    listening: int
    queued: int


@record
class Aftermath:
    """What became of the server.

    Args:
        status: its wait status (os.WIFEXITED and so on); None: it did not end, or nobody saw it.
        ended_s: when the main process ended, in seconds from the stop; None: not seen to end.
        left: other processes of it that still ran once the main process had ended, as
            `pid 42 (gunicorn: worker)`.
        listening_s: how long after the stop its port was still listened on, in seconds; None:
            still at the end of the drill.
        looks: what the listening sockets looked like, in order.
        output: the last lines it printed.
    """

    status: int | None = None
    ended_s: float | None = None
    left: tuple[str, ...] = ()
    listening_s: float | None = None
    looks: tuple[Look, ...] = ()
    output: tuple[str, ...] = ()


@record
class Subject:
    """What was drilled, and how it was stopped.

    Args:
        command: how the server was started; empty: it ran already.
        software: what it says it is, such as `uvicorn 0.54.0`; empty: unknown.
        place: its address, as text.
        how: how it was stopped, such as `SIGTERM to the main process`.
        again: the command line that repeats this drill.
    """

    command: tuple[str, ...] = ()
    software: str = ""
    place: str = ""
    how: str = "SIGTERM to the main process"
    again: str = ""


@record
class Result:
    """A whole drill.

    Args:
        subject: what was drilled.
        judgement: verdict, reasons and every attempt with its fate.
        findings: why work was lost, and what to change; gravest first.
        moments: what happened, in order of time.
        aftermath: what became of the server.
        clock_error_s: how far its times may be off, in seconds.
        not_offered: states that this server does not speak (HTTP/2, WebSocket).
    """

    subject: Subject
    judgement: Judgement
    findings: tuple[Finding, ...] = ()
    moments: tuple[Moment, ...] = ()
    aftermath: Aftermath = Aftermath()
    clock_error_s: float = 0.0
    not_offered: tuple[Kind, ...] = ()

    @property
    def keeps_its_word(self) -> bool:
        """Whether nothing was lost, and that was proved."""
        return self.judgement.verdict is Verdict.KEEPS

    @property
    def lost(self) -> int:
        """How many attempts were lost."""
        return self.judgement.count(Fate.LOST)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that says the verdict."""
        return _EXIT[self.judgement.verdict]
