"""Results as drills make them, for the tests of reports: made up, judged by the real judge."""

from __future__ import annotations

from dataclasses import replace

from lastcall.drill.history import Attempt, Failure, Found, Kind
from lastcall.drill.judge import Circumstances, Deed, judge
from lastcall.drill.result import Aftermath, Look, Moment, Result, Subject
from lastcall.model import Confidence, Finding, Severity

STEPS = ("begun", "paid", "ordered")
HOSTILE = "<script>alert(1)</script>&\"'\x1b[31m\x00\x07\u202e]]>"


class Traffic:
    """Attempts, numbered as they are added."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.deeds: list[Deed] = []

    def add(self, kind: Kind, begun_s: float, over_s: float, **changes: object) -> Attempt:
        """One attempt; answered with 200 unless a failure is given."""
        number = len(self.attempts) + 1
        answered = changes.get("failure") is None
        attempt = Attempt(
            number,
            kind,
            f"k{number}",
            begun_s,
            begun_s + 0.0004,
            begun_s + 0.001,
            begun_s + 0.0012,
            over_s - 0.0006 if answered else None,
            over_s if answered else None,
            over_s,
            200 if answered else None,
            found=Found.TAKEN,
            connection=40000 + number,
        )
        self.attempts.append(replace(attempt, **changes))  # type: ignore[arg-type]
        return self.attempts[-1]

    def executed(self, attempt: Attempt, *steps: str) -> None:
        """What the server did for it; all of it unless steps are given."""
        self.deeds += [Deed(attempt.key, step) for step in steps or STEPS]

    def newcomers(self, until_s: float, dead_s: float, *, reset_s: float = 0.0) -> None:
        """Twenty a second from before the stop; reset from `dead_s` on, refused after that."""
        for i in range(-8, int(until_s * 20)):
            at = i * 0.05 + 0.013
            if at < dead_s:
                made = self.add(Kind.NEWCOMER, at, at + 0.004)
                self.executed(made)
            elif at < dead_s + reset_s:
                self.add(
                    Kind.NEWCOMER, at, dead_s + reset_s, failure=Failure.RESET, sent_s=at + 0.001
                )
            else:
                self.add(
                    Kind.NEWCOMER,
                    at,
                    at + 0.0003,
                    failure=Failure.REFUSED,
                    connected_s=None,
                    sent_s=None,
                    sent_all_s=None,
                    connection=0,
                )

    def load(self, rate: float, from_s: float, dead_s: float, until_s: float) -> None:
        """Background load that is answered until `dead_s` and refused after it."""
        for i in range(int((until_s - from_s) * rate)):
            at = from_s + i / rate
            if at < dead_s - 0.02:
                self.add(Kind.LOAD, at, at + 0.01 + (i % 7) * 0.001)
            elif at < dead_s:
                self.add(Kind.LOAD, at, dead_s, failure=Failure.RESET)
            else:
                self.add(
                    Kind.LOAD,
                    at,
                    at + 0.0002,
                    failure=Failure.REFUSED,
                    connected_s=None,
                    sent_s=None,
                    sent_all_s=None,
                    connection=0,
                )


def moments(how: str, ended_s: float, status: str) -> tuple[Moment, ...]:
    """What happened around a stop."""
    return (
        Moment(-1.62, "started as pid 4242", "started"),
        Moment(-1.21, "ready at http://127.0.0.1:8000", "ready"),
        Moment(-0.04, "38 connections and streams in their states", "settled"),
        Moment(0.0, how, "stop-sent"),
        Moment(ended_s - 0.006, "nobody listens on its port any more", "listener-closed"),
        Moment(ended_s, f"the server ended: {status}", "main-ended"),
        Moment(ended_s + 0.9, "everything it had started is gone", "cleared"),
    )


def looks(until_s: float, closed_s: float, most: int) -> tuple[Look, ...]:
    """The listening socket every 20 ms: a queue that grows until it is closed."""
    found = []
    for i in range(-20, int(until_s / 0.02)):
        at = i * 0.02
        queued = 0 if at < 0 or at >= closed_s else min(most, int(most * at / closed_s) + 1)
        found.append(Look(at, int(at < closed_s), queued))
    return tuple(found)


def losing() -> Result:
    """A server that dies of the signal: everything in flight is lost."""
    traffic = Traffic()
    for i in range(20):
        begun = -1.0 + i * 0.003
        lost = traffic.add(Kind.IN_HANDLER, begun, 0.0121, failure=Failure.RESET)
        if i < 3:
            traffic.executed(lost)
        elif i < 5:
            traffic.executed(lost, "begun", "paid")
        elif i < 17:
            traffic.executed(lost, "begun")
    for i in range(2):
        begun = -0.8 + i * 0.01
        traffic.add(
            Kind.SILENT, begun, 0.0122, failure=Failure.CLOSED, sent_s=None, sent_all_s=None
        )
        traffic.add(Kind.HALF_HEADERS, begun, 0.0122, failure=Failure.RESET, sent_all_s=None)
        traffic.add(
            Kind.HALF_BODY,
            begun,
            0.0123,
            failure=Failure.RESET,
            sent_all_s=None,
            note="the server had read 16,384 of 32,768 bytes",
        )
        traffic.add(
            Kind.STREAMING_CHUNKED,
            begun,
            0.0124,
            failure=Failure.TRUNCATED,
            first_byte_s=-0.7,
            status=200,
        )
        traffic.add(
            Kind.BACKLOG,
            begun,
            0.0119,
            failure=Failure.RESET,
            found=Found.QUEUED,
            sent_s=None,
            sent_all_s=None,
        )
        traffic.add(Kind.WEBSOCKET_IDLE, begun, 0.0125, failure=Failure.CUT, note="no close frame")
    first = traffic.add(Kind.IDLE_THEN_REQUEST, -0.7, -0.69)
    traffic.executed(first)
    traffic.add(
        Kind.IDLE_THEN_REQUEST,
        0.01,
        0.0126,
        failure=Failure.RESET,
        connection=first.connection,
        connected_s=-0.7,
    )
    traffic.newcomers(1.0, 0.0)
    traffic.add(
        Kind.TLS_HALF,
        -0.5,
        0.01,
        failure=Failure.CLOSED,
        reached=False,
        sent_s=None,
        sent_all_s=None,
    )
    around = Circumstances(wanted=(Kind.EXPECT_CONTINUE,))
    how = "SIGTERM to the main process (pid 4242)"
    findings = (
        Finding(
            "no-handler",
            "Nothing handles SIGTERM: the process dies of it in the middle of its work",
            Severity.WARNING,
            evidence=(
                "SigCgt of pid 4242 does not have SIGTERM",
                "it died of SIGTERM 12 ms after the stop",
            ),
            advice="Install a handler that stops accepting, waits for the requests in hand, and "
            "then exits; waitress: run it behind a server that drains, such as gunicorn.",
        ),
        Finding(
            "backlog-reset",
            "2 connections waited in the accept queue and were reset when the listener was closed",
            Severity.WARNING,
            Confidence.LIKELY,
            evidence=("2 in the accept queue at the stop", "listener closed 6 ms after the stop"),
            advice="Accept what is queued before closing the listener.",
        ),
        Finding("port-free", "Its port was free at once", Severity.NOTE),
    )
    aftermath = Aftermath(
        15,
        0.012,
        (),
        0.006,
        looks(1.0, 0.006, 2),
        ("INFO:waitress:Serving on http://127.0.0.1:8000", "begun k1", "begun k2"),
    )
    again = (
        "lastcall drill http --slow-path /slow --count 20 -- waitress-serve --port 8000 shop:app"
    )
    subject = Subject(
        ("waitress-serve", "--port", "8000", "shop:app"),
        "waitress 3.0.2",
        "http://127.0.0.1:8000",
        how,
        again,
    )
    judgement = judge(traffic.attempts, traffic.deeds, around)
    return Result(
        subject,
        judgement,
        findings,
        moments(how, 0.012, "died of SIGTERM"),
        aftermath,
        0.0004,
        (Kind.HTTP2_STREAM,),
    )


def keeping() -> Result:
    """A server that finishes what it has in hand, and refuses newcomers."""
    traffic = Traffic()
    for i in range(20):
        begun = -1.0 + i * 0.003
        traffic.executed(traffic.add(Kind.IN_HANDLER, begun, begun + 3.0 + (i % 5) * 0.004))
    for kind, over_s in (
        (Kind.HALF_LINE, 0.62),
        (Kind.HALF_HEADERS, 0.61),
        (Kind.HALF_BODY, 0.72),
        (Kind.LONG_POLL, 1.4),
        (Kind.STREAMING_CHUNKED, 1.75),
        (Kind.EVENTS, 1.2),
    ):
        for i in range(2):
            made = traffic.add(kind, -0.8 + i * 0.01, over_s)
            if kind in {Kind.STREAMING_CHUNKED, Kind.EVENTS}:
                traffic.attempts[-1] = replace(made, first_byte_s=-0.6)
            if kind in {Kind.HALF_LINE, Kind.HALF_HEADERS, Kind.HALF_BODY}:
                traffic.attempts[-1] = replace(made, sent_all_s=0.505)
            traffic.executed(made)
    for i in range(2):
        traffic.add(
            Kind.SILENT,
            -0.6 - i * 0.01,
            0.004,
            failure=Failure.CLOSED,
            sent_s=None,
            sent_all_s=None,
        )
        first = traffic.add(Kind.IDLE_THEN_REQUEST, -0.7, -0.69)
        again = traffic.add(
            Kind.IDLE_THEN_REQUEST, 0.2, 0.21, connection=first.connection, connected_s=-0.7
        )
        traffic.executed(first)
        traffic.executed(again)
    for i in range(4):
        stream = traffic.add(
            Kind.HTTP2_STREAM, -0.4 + i * 0.01, 0.9 + i * 0.1, connection=50000, connected_s=-0.5
        )
        traffic.executed(stream)
    traffic.newcomers(2.6, 0.004)
    how = "SIGTERM to the main process (pid 4242)"
    again_ = "lastcall drill http --probe -- granian --interface asgi shop:app"
    subject = Subject(
        ("granian", "--interface", "asgi", "shop:app"),
        "granian 2.8.7",
        "http://127.0.0.1:8000",
        how,
        again_,
    )
    aftermath = Aftermath(0, 2.071, (), 0.004, looks(2.4, 0.004, 1), ("[INFO] Shutting down",))
    judgement = judge(traffic.attempts, traffic.deeds, Circumstances())
    return Result(subject, judgement, (), moments(how, 2.071, "exit code 0"), aftermath, 0.0003)


def inconclusive() -> Result:
    """A server that never got ready."""
    output = ("Traceback (most recent call last):", "ModuleNotFoundError: No module named 'shop'")
    return Result(
        Subject(("uvicorn", "shop:app"), again="lastcall drill http -- uvicorn shop:app"),
        judge((), None, Circumstances(ready=False, wanted=(Kind.IN_HANDLER, Kind.SILENT))),
        (),
        (
            Moment(0.0, "started as pid 77", "started"),
            Moment(0.31, "it ended with 1", "never-ready"),
        ),
        Aftermath(256, None, output=output),
    )


def huge() -> Result:
    """30,000 attempts of load, 2,000 requests in flight, one that hangs for a minute."""
    traffic = Traffic()
    traffic.load(5000, -3.0, 2.5, 3.0)
    for i in range(2000):
        failure = Failure.RESET if i % 100 == 7 else None
        traffic.add(Kind.IN_HANDLER, -1.0 + i * 0.0003, 2.0 + (i % 50) * 0.01, failure=failure)
    traffic.add(Kind.WEBSOCKET_IDLE, -0.5, 60.0, failure=Failure.HUNG)
    for i in range(3000):
        at = -2 + i * 0.02
        if at < 2.5:
            traffic.add(Kind.NEWCOMER, at, at + 0.004)
        else:
            traffic.add(
                Kind.NEWCOMER,
                at,
                at + 0.001,
                failure=Failure.REFUSED,
                connected_s=None,
                sent_s=None,
                sent_all_s=None,
                connection=0,
            )
    how = "SIGTERM to the main process (pid 4242)"
    aftermath = Aftermath(
        None,
        None,
        ("pid 43 (gunicorn: worker)", "pid 44 (gunicorn: worker)"),
        None,
        looks(60, 2.5, 129),
        tuple(f"line {i} of the log" for i in range(5000)),
    )
    judgement = judge(traffic.attempts, None, Circumstances(ended=False))
    return Result(
        Subject(("gunicorn", "shop:app"), "gunicorn 27.0.1", "http://127.0.0.1:8000", how, "again"),
        judgement,
        (),
        (*moments(how, 2.5, "?")[:4],),
        aftermath,
        0.0008,
    )


def hostile() -> Result:
    """Every text that a stranger can write holds what would break a page."""
    traffic = Traffic()
    traffic.add(Kind.IN_HANDLER, -1.0, 0.01, failure=Failure.GARBAGE, note=HOSTILE)
    traffic.add(Kind.NEWCOMER, 0.5, 0.51, failure=Failure.GARBAGE, note=HOSTILE)
    return Result(
        Subject((HOSTILE, HOSTILE), HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        judge(traffic.attempts, None, Circumstances()),
        (Finding(HOSTILE, HOSTILE, Severity.BLOCKER, evidence=(HOSTILE,), advice=HOSTILE),),
        (
            Moment(0.0, HOSTILE, "stop-sent"),
            Moment(0.2, HOSTILE, HOSTILE),
        ),
        Aftermath(9, 0.2, (HOSTILE,), 0.2, (), (HOSTILE, "\x1b[1mbold\x1b[0m")),
    )


ALL = (losing, keeping, inconclusive, huge, hostile)
