"""Why a stop lost work: each cause on a history made by hand, and its nearest neighbour without."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lastcall.drill import known
from lastcall.drill.history import Attempt, Failure, Found, Kind
from lastcall.drill.judge import BAD, Circumstances, Deed, Verdict, fate, judge
from lastcall.drill.known_changes import CHANGES
from lastcall.drill.result import Aftermath, Look, Subject
from lastcall.drill.why import explain
from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGTERM, SIGKILL, EXIT = 15, 9, 256  # wait statuses: a signal as it is, an exit status times 256
RESET, CLOSED, HUNG = Failure.RESET, Failure.CLOSED, Failure.HUNG
TAKEN, UNREAD, QUEUED = Found.TAKEN, Found.UNREAD, Found.QUEUED
UVICORN = Subject(("uvicorn", "app:app"), "uvicorn 0.54.0")
NO_HANDLER = Finding("no-handler", "SIGTERM would end it", Severity.WARNING, evidence=("SigCgt",))
HANDLED = Finding("handled", "the program handles SIGTERM itself")


def ok(kind: Kind = Kind.IN_HANDLER, at: float = 2.0, count: int = 1, **more: Any) -> list[Attempt]:
    """In hand at the stop, and answered."""
    one = Attempt(0, kind, "", -1.0, -0.99, -0.98, -0.98, at, at, at, 200, close=True, found=TAKEN)
    return [replace(one, **more) for _ in range(count)]


def bad(
    kind: Kind = Kind.IN_HANDLER,
    at: float = 0.01,
    count: int = 1,
    how: Failure | None = RESET,
    **more: Any,
) -> list[Attempt]:
    """In hand at the stop, and not answered."""
    one = Attempt(0, kind, "", -1.0, -0.99, -0.98, -0.98, None, None, at, failure=how, found=TAKEN)
    return [replace(one, **more) for _ in range(count)]


def newcomer(came: float, over: float, how: Failure | None = RESET, **more: Any) -> list[Attempt]:
    """One that connected after the stop and was not answered."""
    times = {"attempted_s": came, "connected_s": came, "sent_s": came, "sent_all_s": came}
    return bad(Kind.NEWCOMER, over, how=how, found=Found.UNKNOWN, **(times | more))


def refused(*when: float) -> list[Attempt]:
    """Newcomers that got no connection."""
    return [a for t in when for a in newcomer(t, t, Failure.REFUSED, connected_s=None, sent_s=None)]


def idle(over: float, how: Failure, sent: float | None, **more: Any) -> list[Attempt]:
    """A request on a kept-alive connection after the stop."""
    return bad(Kind.IDLE_THEN_REQUEST, over, how=how, sent_s=sent, sent_all_s=sent, **more)


def done(*keys: str) -> list[Deed]:
    """What the ledger says of requests executed whole."""
    return [Deed(key, step) for key in keys for step in ("begun", "paid", "ordered")]


@record
class Case:
    """One drill, made by hand, and what must and must not be said of it."""

    name: str
    shows: tuple[str, ...]
    attempts: Sequence[Attempt]
    hides: tuple[str, ...] = ()
    after: Aftermath = Aftermath(0, 2.1, listening_s=0.01)
    subject: Subject = UVICORN
    before: tuple[Finding, ...] = ()
    around: Circumstances = Circumstances()
    deeds: Sequence[Deed] | None = None
    says: str = ""
    sure: Confidence | None = None


def found(case: Case) -> tuple[Finding, ...]:
    """What is said of it."""
    numbered = [replace(a, id=n, key=a.key or f"k{n}") for n, a in enumerate(case.attempts, 1)]
    judgement = judge(numbered, case.deeds, case.around)
    return explain(case.subject, judgement, case.after, case.before)


def of_server(*words: str, how: str = "SIGTERM to the main process") -> Subject:
    """A server that is known by its command line."""
    return Subject(words, how=how)


DEAD = Aftermath(SIGTERM, 0.01, listening_s=0.01)
WAITRESS = of_server("waitress-serve", "app:app")
GUNICORN = of_server("gunicorn", "-k", "gthread", "--threads", "4", "app:app")
NOT_ENDED = Circumstances(ended=False)
RUNS_ON = Aftermath(looks=(Look(9.9, 1, 0),))
KILLED = "[CRITICAL] WORKER TIMEOUT (pid:42)"
ROLLING = Subject(("gunicorn",), how="replaced by `kill -HUP 42`")
LOOKS = (Look(-0.1, 1, 0), Look(0.5, 1, 12), Look(1.5, 1, 30))

CASES = [
    # -- how the server takes the stop
    Case(
        "no handler",
        ("no-handler",),
        [*bad(count=20), *bad(Kind.HALF_LINE, 0.012), *newcomer(0.005, 0.011)],
        ("cut-at-once", "half-sent-dropped", "queue-reset", "exit-hides-loss"),
        DEAD,
        WAITRESS,
        (NO_HANDLER,),
        says="check: SigCgt",
        sure=Confidence.CERTAIN,
    ),
    Case("died, nothing foretold", ("no-handler",), bad(), after=DEAD, sure=Confidence.LIKELY),
    Case(
        "a handler that ends with the signal itself, as uvicorn's does",
        ("half-sent-dropped",),
        bad(Kind.HALF_LINE, 0.1),
        ("no-handler",),
        Aftermath(SIGTERM, 0.21),
        before=(HANDLED,),
    ),
    Case(
        "died of the signal once all was answered",
        ("half-sent-dropped",),
        [*ok(), *bad(Kind.HALF_LINE)],
        ("no-handler", "unexplained-loss"),
        Aftermath(SIGTERM, 2.1),
    ),
    Case(
        "a JVM without a hook",
        ("no-handler",),
        bad(count=5, at=0.05),
        ("cut-at-once", "ended-with-error"),
        Aftermath(143 * EXIT, 0.06),
        of_server("java", "-jar", "app.jar"),
        says="addShutdownHook",
    ),
    Case(
        "Spring Boot with an immediate shutdown",
        ("cut-at-once",),
        bad(count=5, at=0.2),
        ("no-handler", "ended-with-error"),
        Aftermath(143 * EXIT, 0.6, output=("... o.s.b.w.e.tomcat.TomcatWebServer : started",)),
        of_server("java", "-jar", "app.jar"),
        says="server.shutdown=graceful",
    ),
    Case(
        "it gives up its work at once",
        ("cut-at-once", "exit-hides-loss"),
        [*bad(count=20, at=0.05), *bad(Kind.HALF_LINE, 0.05)],
        ("no-handler", "half-sent-dropped"),
        Aftermath(0, 0.2),
        of_server("daphne", "app:app"),
        says="kills every running application",
    ),
    Case(
        "one worker's end ends the other",
        ("cut-at-once",),
        [*bad(at=0.2), *ok(count=3)],
        subject=of_server("hypercorn", "-w", "2", "app:app"),
        says="--workers 0",
    ),
    Case(
        "signalled with its workers",
        ("cut-at-once",),
        bad(count=3),
        subject=of_server("./serve", how="SIGTERM to the whole process group"),
        after=Aftermath(0, 0.1),
        says="KillMode=mixed",
    ),
    Case(
        "a limit that its command line sets",
        ("cut-at-limit",),
        [*ok(at=0.9), *bad(count=8, at=5.04)],
        ("unexplained-loss", "cut-at-once"),
        subject=of_server("gunicorn", "-k", "asgi", "--graceful-timeout=5", "app:app"),
        after=Aftermath(0, 5.1),
        says="--graceful-timeout is set to 5 s",
        sure=Confidence.CERTAIN,
    ),
    Case(
        "a limit by default, one request only",
        ("cut-at-limit",),
        bad(at=5.03),
        subject=WAITRESS,
        after=Aftermath(0, 5.1),
        says="is 5 s by default",
        sure=Confidence.CERTAIN,
    ),
    Case(
        "a limit of a server that is not known",
        ("cut-at-limit",),
        bad(at=7.0, count=2),
        subject=of_server("./serve"),
        says="2 x in the handler (at the stop: accepted, everything read): lost (reset), 7.00 s",
        sure=Confidence.LIKELY,
    ),
    Case(
        "no limit: losses at all times",
        ("unexplained-loss",),
        [a for at in (1.0, 2.0, 3.0, 4.0) for a in bad(at=at)],
        ("cut-at-limit",),
        subject=of_server("./serve"),
    ),
    Case(
        "no limit: another was answered later",
        ("unexplained-loss",),
        [*ok(at=2.0), *bad(at=1.0, count=2)],
        ("cut-at-limit",),
        subject=of_server("./serve"),
    ),
    Case(
        "no limit: the backlog of a sync worker",
        ("queue-reset",),
        [*ok(), *bad(at=2.1, count=19, found=QUEUED)],
        ("cut-at-limit", "cut-at-once", "unexplained-loss"),
        Aftermath(0, 2.12, listening_s=2.1),
        of_server("gunicorn", "app:app"),
        says="-k gthread",
        sure=Confidence.CERTAIN,
    ),
    Case(
        "500 at the limit",
        ("cut-at-limit", "answered-with-error"),
        bad(at=1.05, count=20, how=None, status=500, first_byte_s=1.0, complete_s=1.05),
        subject=of_server("uvicorn", "--timeout-graceful-shutdown", "1", "app:app"),
        says="with 500: set it above",
    ),
    Case(
        "500 by the application, no limit",
        ("answered-with-error",),
        bad(at=1.05, count=2, how=None, status=500, first_byte_s=1.0, complete_s=1.05),
        ("cut-at-limit", "unexplained-loss"),
        says="503 and Retry-After",
    ),
    Case(
        "503 is no error",
        (),
        [*ok(), *ok(status=503, retry_after=True)],
        ("answered-with-error",),
    ),
    Case(
        "a killed worker",
        ("worker-killed",),
        bad(at=30.1, count=3),
        ("cut-at-limit",),
        Aftermath(0, 30.2, output=("starting", KILLED)),
        GUNICORN,
        says=KILLED,
    ),
    Case(
        "a worker killed long ago",
        ("half-sent-dropped",),
        [*ok(), *bad(Kind.HALF_BODY)],
        ("worker-killed",),
        Aftermath(0, 2.1, output=(KILLED,)),
        GUNICORN,
    ),
    Case(
        "asked twice",
        ("asked-twice",),
        [*bad(at=0.31, count=4), *bad(Kind.HALF_BODY, 0.31)],
        ("cut-at-limit", "cut-at-once", "half-sent-dropped", "ended-with-error"),
        Aftermath(EXIT, 0.4, output=("Traceback (most recent call last):",)),
        subject=of_server("python", "aio.py", how="SIGTERM to the main process, again after 0.3 s"),
    ),
    Case(
        "asked twice, lost at the first",
        ("cut-at-once",),
        bad(at=0.05, count=4),
        ("asked-twice",),
        subject=of_server("python", "aio.py", how="SIGTERM to the main process, again after 0.3 s"),
    ),
    Case(
        "a crash",
        ("ended-with-error",),
        bad(at=1.0, count=4),
        ("cut-at-limit",),
        Aftermath(EXIT, 1.02, output=("Traceback (most recent call last):", "ZeroDivisionError")),
        says="Traceback",
        sure=Confidence.CERTAIN,
    ),
    Case("taken away", ("ended-with-error",), bad(at=1.0), after=Aftermath(SIGKILL, 1.02)),
    Case(
        "a command that sends SIGTERM is no error",
        ("cut-at-once",),
        bad(count=2),
        ("ended-with-error", "no-handler"),
        DEAD,
        of_server("./serve", how="stopped by `systemctl stop web`"),
    ),
    # -- shells, children, ends
    Case(
        "a shell that died, and its server that serves on",
        ("shell-between", "children-left"),
        [*ok(), *ok(Kind.NEWCOMER, 1.5, connected_s=1.0, attempted_s=1.0)],
        after=Aftermath(SIGTERM, 0.01, ("pid 42 (uvicorn app:app)",)),
        subject=of_server("sh", "-c", "uvicorn app:app; true"),
        says="and still serve",
    ),
    Case(
        "npm in the way",
        ("shell-between",),
        ok(),
        after=Aftermath(SIGTERM, 0.01, ("pid 42 (node server.js)",)),
        subject=of_server("/usr/bin/npm", "start"),
        says="node server.js in place of npm start",
    ),
    Case(
        "a shell below an init",
        ("shell-between",),
        bad(count=20),
        ("no-handler", "cut-at-once"),
        Aftermath(143 * EXIT, 0.01),
        of_server("tini", "--", "sh", "-c", "uvicorn app:app; true"),
        says="`exec`",
    ),
    Case("a shell that was replaced", (), ok(), ("shell-between",), subject=of_server("sh", "run")),
    Case(
        "an init alone",
        ("half-sent-dropped",),
        [*ok(), *bad(Kind.HALF_LINE)],
        ("shell-between",),
        subject=of_server("tini", "--", "uvicorn", "app:app"),
    ),
    Case(
        "children left behind",
        ("children-left",),
        ok(),
        ("shell-between",),
        Aftermath(0, 2.1, ("pid 42 (gunicorn: worker)",)),
        GUNICORN,
    ),
    Case(
        "port still held",
        ("port-still-held",),
        ok(),
        ("children-left",),
        after=Aftermath(0, 2.1, looks=(Look(0.1, 1, 0), Look(3.0, 1, 0))),
    ),
    Case("port let go", (), ok(), ("port-still-held",), Aftermath(0, 2.1, looks=(Look(3, 0, 0),))),
    Case(
        "it ignores the signal",
        ("not-ended",),
        [*ok(), *ok(Kind.NEWCOMER, 5.0)],
        after=RUNS_ON,
        around=NOT_ENDED,
        before=(Finding("init-without-handler", "dropped by the kernel", Severity.BLOCKER),),
        says="check: dropped by the kernel",
    ),
    Case(
        "a request that never ends",
        ("not-ended",),
        [*ok(), *bad(at=10.0, how=HUNG)],
        ("unexplained-loss", "websocket-holds-exit"),
        RUNS_ON,
        around=NOT_ENDED,
        says="--timeout-graceful-shutdown SECONDS",
    ),
    Case(
        "a WebSocket that keeps it from ending",
        ("websocket-holds-exit", "not-ended"),
        [*ok(), *bad(Kind.WEBSOCKET_IDLE, 10.0, how=HUNG, sent_s=None)],
        after=RUNS_ON,
        around=NOT_ENDED,
        subject=Subject(("python", "aio.py"), "Python/3.11 aiohttp/3.14.5"),
        says="app.on_shutdown",
    ),
    Case(
        "a WebSocket and an upload, both left open until their clients gave up",
        ("websocket-holds-exit", "half-sent-dropped"),
        [
            *ok(),
            *bad(Kind.HALF_BODY, 12.0, how=HUNG),
            *bad(Kind.WEBSOCKET_IDLE, 12.0, how=HUNG, sent_s=None),
            *ok(Kind.WEBSOCKET_ECHO, 0.2),
        ],
        ("unexplained-loss", "websocket-cut"),
        Aftermath(0, 12.06, listening_s=0.01),
        sure=Confidence.POSSIBLE,
    ),
    Case(
        "a WebSocket that kept it for a while",
        ("websocket-holds-exit",),
        [*ok(), *bad(Kind.WEBSOCKET_IDLE, 30.1, how=Failure.CUT, sent_s=None)],
        ("websocket-cut", "worker-killed", "cut-at-limit"),
        Aftermath(0, 30.2, output=("Worker (pid:7) was sent SIGKILL! Perhaps out of memory?",)),
        of_server("gunicorn", "-k", "asgi", "app:app"),
        says="--graceful-timeout",
    ),
    Case(
        "a WebSocket cut off",
        ("websocket-cut",),
        [*ok(), *bad(Kind.WEBSOCKET_ECHO, 0.1, how=Failure.CUT)],
        ("websocket-holds-exit",),
    ),
    Case(
        "a WebSocket closed in order, a message unanswered",
        ("websocket-unanswered",),
        [*ok(), *bad(Kind.WEBSOCKET_ECHO, how=CLOSED, note="1012")],
        ("websocket-cut",),
        says="lost (closed: 1012)",
    ),
    Case(
        "a WebSocket closed in order",
        (),
        [*ok(), *ok(Kind.WEBSOCKET_IDLE, 0.1, sent_s=None, status=101)],
        ("websocket-cut", "websocket-unanswered", "websocket-holds-exit"),
    ),
    # -- connections
    Case(
        "nobody accepts",
        ("listener-unattended",),
        [*ok(), *(a for t in (0.1, 0.5, 1.5) for a in newcomer(t, 2.1))],
        ("queue-reset",),
        Aftermath(0, 2.12, listening_s=2.1, looks=LOOKS),
        of_server("uvicorn", "--workers", "2", "app:app"),
        says="30 queued",
        sure=Confidence.CERTAIN,
    ),
    Case(
        "newcomers thrown out, long before the listener closed",
        ("reset-after-accept",),
        [*ok(at=2.0), *(a for t in (0.1, 0.5, 1.9) for a in newcomer(t, t + 0.001))],
        ("queue-reset", "listener-unattended"),
        Aftermath(0, 2.02, listening_s=2.01),
    ),
    Case(
        "one worker closes its own listening socket after the other",
        ("queue-reset",),
        [*ok(at=2.0), *newcomer(0.5, 0.51), *newcomer(1.9, 1.91)],
        ("reset-after-accept",),
        Aftermath(
            0, 1.95, listening_s=1.92, looks=(Look(-1, 2, 0), Look(0.52, 1, 0), Look(1.92, 0, 0))
        ),
    ),
    Case(
        "one lost among others that were answered at the same time",
        ("unexplained-loss",),
        [*ok(at=1.0), *bad(Kind.IN_HANDLER, 1.0, 1, CLOSED)],
        ("cut-at-limit",),
        Aftermath(0, 1.1),
    ),
    Case(
        "answered with what is no answer",
        ("unexplained-loss",),
        bad(Kind.IN_HANDLER, 1.0, 4, Failure.GARBAGE),
        ("cut-at-limit",),
        Aftermath(0, 1.1),
    ),
    Case(
        "newcomers that met the closing of the listener",
        ("queue-reset",),
        [*ok(), *newcomer(0.04, 0.05)],
        ("listener-unattended",),
        Aftermath(0, 2.1, listening_s=0.05),
        sure=Confidence.LIKELY,
    ),
    Case(
        "newcomers that a sync worker had not accepted at the stop",
        ("queue-reset",),
        [*ok(at=0.9), *bad(Kind.NEWCOMER, 0.91, 9, found=Found.UNKNOWN)],
        ("cut-at-limit", "unread-dropped", "unexplained-loss"),
        Aftermath(0, 1.2, listening_s=0.92),
        of_server("gunicorn", "app:app"),
    ),
    Case(
        "accepted from the queue after the stop, and closed",
        ("unread-dropped",),
        [*ok(), *bad(Kind.BACKLOG, 0.01, 3, CLOSED, found=QUEUED)],
        ("queue-reset", "unexplained-loss"),
    ),
    Case(
        "the backlog",
        ("queue-reset",),
        [*ok(), *bad(Kind.BACKLOG, 0.02, 3, found=QUEUED)],
        ("unread-dropped",),
        Aftermath(0, 2.1, listening_s=0.02),
        sure=Confidence.CERTAIN,
    ),
    Case(
        "half a request",
        ("half-sent-dropped",),
        [*ok(), *bad(Kind.HALF_HEADERS, 0.003), *bad(Kind.SILENT, sent_s=None)],
        ("unread-dropped", "unexplained-loss"),
        says="no setting of uvicorn changes this",
    ),
    Case(
        "half a request that was left hanging",
        ("half-sent-dropped",),
        [*ok(), *bad(Kind.HALF_BODY, 10.0, how=HUNG)],
        ("not-ended", "unexplained-loss"),
    ),
    Case(
        "half a request that was answered", (), [*ok(), *ok(Kind.HALF_BODY)], ("half-sent-dropped",)
    ),
    Case(
        "accepted and not read",
        ("unread-dropped",),
        [*ok(), *bad(Kind.UNREAD, found=UNREAD), *bad(Kind.JUST_SENT, found=Found.UNKNOWN)],
        ("queue-reset", "cut-at-once"),
    ),
    Case("behind another", ("pipelined-dropped",), [*ok(), *bad(Kind.PIPELINED, 2.0)]),
    Case(
        "late on keep-alive",
        ("keep-alive-reset",),
        [*ok(), *idle(0.51, RESET, 0.5)],
        ("keep-alive-closed", "unread-dropped"),
    ),
    Case(
        "keep-alive closed",
        ("keep-alive-closed",),
        [*ok(), *idle(0.01, CLOSED, None)],
        ("keep-alive-reset",),
    ),
    Case(
        "load on a kept-alive connection",
        ("keep-alive-reset",),
        [*ok(), *bad(Kind.LOAD, 0.21, sent_s=0.2, sent_all_s=0.2)],
    ),
    Case(
        "late on HTTP/2",
        ("keep-alive-reset",),
        [*ok(), *bad(Kind.HTTP2_STREAM, 0.5, sent_s=0.49, note="RST_STREAM NO_ERROR")],
        ("cut-at-limit", "unexplained-loss"),
        says="RST_STREAM NO_ERROR",
    ),
    Case(
        "kept-alive connections of a dead server",
        ("no-handler",),
        [*bad(), *idle(0.02, CLOSED, None)],
        ("keep-alive-closed",),
        DEAD,
    ),
    Case("no notice", ("no-close-announced",), ok(count=2, close=False)),
    Case("notice given once", (), [*ok(), *ok(close=False)], ("no-close-announced",)),
    Case("no time to notice", ("readiness-unchanged",), [*ok(), *refused(0.05, 0.1, 1.0)]),
    Case(
        "time to notice",
        (),
        [*ok(at=6.0), *refused(5.05)],
        ("readiness-unchanged",),
        Aftermath(0, 6.1),
    ),
    Case(
        "a gap while it was replaced",
        ("rolling-gap",),
        [*ok(), *refused(0.5), *newcomer(0.51, 0.52)],
        ("readiness-unchanged", "unexplained-loss"),
        subject=ROLLING,
        around=Circumstances(replaced=True),
    ),
    Case(
        "no gap",
        (),
        [*ok(), *ok(Kind.NEWCOMER, 1.0, connected_s=0.5, attempted_s=0.5)],
        ("rolling-gap", "children-left", "port-still-held"),
        Aftermath(0, 2.1, ("pid 43 (gunicorn: worker)",), None, (Look(3.0, 1, 0),)),
        ROLLING,
        around=Circumstances(replaced=True),
    ),
    # -- the work itself
    Case(
        "half executed",
        ("half-executed",),
        [*ok(), *bad(key="pay")],
        ("executed-unanswered",),
        deeds=[Deed("pay", "begun"), Deed("pay", "paid"), *done("k1")],
        says="keys: pay",
    ),
    Case(
        "executed, never answered",
        ("executed-unanswered",),
        [*ok(), *bad(key="pay", at=1.0)],
        ("half-executed",),
        deeds=done("k1", "pay"),
    ),
    Case("executed twice", ("executed-twice",), ok(), deeds=done("k1", "k1")),
    Case(
        "an exit status that hides a loss",
        ("exit-hides-loss",),
        bad(Kind.HALF_LINE),
        after=Aftermath(0, 0.2),
    ),
    Case("an exit status that tells", (), bad(), ("exit-hides-loss",), Aftermath(EXIT, 0.1)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_cause_is_named_and_its_neighbour_is_not(case: Case) -> None:
    """The codes, the evidence, and how sure it is; gravest first."""
    findings = found(case)
    told = {finding.code for finding in findings}
    assert set(case.shows) <= told, told
    assert not told & set(case.hides)
    text = "\n".join("\n".join((f.title, *f.evidence, f.advice)) for f in findings)
    assert case.says in text, text
    if case.sure is not None:
        assert next(f for f in findings if f.code == case.shows[0]).confidence is case.sure, text
    order = [Severity.BLOCKER, Severity.WARNING, Severity.NOTE]
    ranks = [order.index(f.severity) for f in findings]
    assert ranks == sorted(ranks)
    assert len(told) == len(findings), "no code is told twice"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_loss_is_answered_for(case: Case) -> None:
    """Whatever was lost, something is said that is no mere note, with evidence and advice."""
    findings = found(case)
    if any(fate(a) in BAD for a in case.attempts):
        assert any(f.severity is not Severity.NOTE for f in findings)
    for finding in findings:
        assert finding.evidence
        assert finding.advice
        assert all(line and "\n" not in line for line in finding.evidence)


def test_every_code_of_a_drill_has_a_case() -> None:
    """What can be found is shown by at least one history made by hand."""
    import re
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
    drill = page.partition("## After a drill")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w-]+)`", drill, re.MULTILINE))
    shown = {code for case in CASES for code in case.shows}
    assert documented
    documented.discard("not-ready")  # told by the experiment, before there is a history
    assert documented <= shown, documented - shown


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "./serve", "java", ""])
def test_a_perfect_history_gives_no_warning(server: str) -> None:
    """Everything answered, newcomers refused, idle connections let go: notes at most."""
    kinds = [k for k in Kind if k not in {Kind.NEWCOMER, Kind.IDLE_THEN_REQUEST}]
    attempts = [a for kind in kinds for a in ok(kind, 1.0)]
    attempts += [*refused(0.01, 0.06, 0.11), *idle(0.01, CLOSED, None)]
    for status in (0, SIGTERM, 143 * EXIT):
        after = Aftermath(status, 1.1, listening_s=0.005, looks=(Look(-0.1, 1, 0), Look(2, 0, 0)))
        runtime = Finding("handled-by-runtime", "caught by the runtime (Go)", Severity.WARNING)
        restart = Finding("will-restart", "systemd will start it again", Severity.WARNING)
        case = Case("", (), attempts, (), after, of_server(server), (runtime, HANDLED, restart))
        findings = found(case)
        assert {f.severity for f in findings} == {Severity.NOTE}
        assert "handled-by-runtime" not in {f.code for f in findings}


def test_what_was_not_put_to_the_test_is_kept() -> None:
    """Findings of `check` that a drill cannot settle stay, under their own severity."""
    restart = Finding("will-restart", "systemd will start it again", Severity.WARNING)
    findings = found(Case("", (), bad(Kind.HALF_LINE), before=(restart, HANDLED)))
    assert restart in findings
    assert HANDLED not in findings


def test_an_experiment_that_never_began_blames_nothing() -> None:
    """No attempt, no end, nothing foretold."""
    never = Circumstances(ready=False, stopped=False)
    judgement = judge([], None, never)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert explain(Subject(), judgement, Aftermath()) == ()


def test_a_failure_before_the_stop_is_not_blamed_on_it() -> None:
    """A server that fails anyway has another fault."""
    early = bad(Kind.NEWCOMER, -0.5, how=None, status=500, first_byte_s=-0.5, complete_s=-0.5)
    assert not [f for f in found(Case("", (), [*ok(), *early])) if f.severity is not Severity.NOTE]


def test_no_history_breaks_it() -> None:
    """Whatever the times and failures, it answers; and no loss goes without a word."""
    chance = random.Random(7)
    for _ in range(3000):
        attempts = []
        for _ in range(chance.randrange(6)):
            sent = chance.choice([None, -0.5, 0.4])
            attempts += bad(
                chance.choice(list(Kind)),
                chance.uniform(-0.2, 12),
                how=chance.choice([*Failure]),
                connected_s=chance.choice([None, -0.9, 0.3]),
                sent_s=sent,
                found=chance.choice(list(Found)),
                first_byte_s=chance.choice([None, 0.2]),
            )
        case = Case(
            "",
            (),
            [*ok(), *attempts],
            after=Aftermath(
                chance.choice([None, 0, SIGTERM, SIGKILL, EXIT]),
                chance.choice([None, 0.01, 0.2, 3.0]),
                chance.choice([(), ("pid 4 (x)",)]),
                chance.choice([None, 0.01]),
                chance.choice([(), LOOKS]),
            ),
            subject=chance.choice([UVICORN, WAITRESS, GUNICORN, ROLLING, Subject()]),
            around=Circumstances(ended=chance.random() < 0.8),
        )
        findings = found(case)
        made = [a for a in case.attempts if a.failure is not Failure.OURS]
        lost = [a for a in made if fate(a) in BAD and a.over_s > 0]
        assert not lost or any(f.severity is not Severity.NOTE for f in findings)


# -- which server it is


@pytest.mark.parametrize(
    ("command", "software", "expected"),
    [
        ("uvicorn app:app", "", "uvicorn"),
        ("python -m uvicorn --workers=2 app:app", "uvicorn", "uvicorn/workers"),
        ("/opt/venv/bin/gunicorn app:app", "", "gunicorn/sync"),
        ("gunicorn --threads 4 app:app", "gunicorn", "gunicorn/gthread"),
        ("gunicorn -k uvicorn_worker.UvicornWorker app:app", "uvicorn", "gunicorn/uvicorn"),
        ("gunicorn --worker-class=asgi app:app", "", "gunicorn/asgi"),
        ("hypercorn app:app", "hypercorn-h11", "hypercorn"),
        ("hypercorn --workers 0 app:app", "hypercorn-h11", "hypercorn/alone"),
        ("granian --interface asgi app:app", "granian", "granian"),
        ("python serve.py", "waitress", "waitress"),
        ("python serve.py", "Python/3.11 aiohttp/3.14.5", "aiohttp"),
        ("flask run", "Werkzeug/3.1.9 Python/3.11.2", "werkzeug"),
        ("python serve.py", "BaseHTTP/0.6 Python/3.11.2", "http.server"),
        ("python serve.py", "WSGIServer/0.2 CPython/3.11.2", "http.server"),
        ("python -m lastcall.drill.probe.standard wsgiref 8000", "", "http.server"),
        ("python /home/node/serve.py", "python /home/node/serve.py", ""),
        ("npm start", "", "node"),
        ("node server.js", "", "node"),
        ("java -jar app.jar", "", "java"),
        ("nginx -g daemon_off;", "nginx/1.22.1", "nginx"),
        ("./serve", "", ""),
    ],
)
def test_servers_are_recognised(command: str, software: str, expected: str) -> None:
    """By the command line, by the Server header, by neither."""
    assert known.recognise(Subject(tuple(command.split()), software)).name == expected


def test_a_go_program_is_recognised_by_check() -> None:
    """Its runtime is all that tells."""
    told = ["SIGTERM: caught by the runtime (Go); what the program does with it is unknown"]
    assert known.recognise(Subject(("./serve",)), (), told).name == "go"


@pytest.mark.parametrize(
    ("command", "after_s"),
    [
        ("gunicorn app:app", 30),
        ("gunicorn --graceful-timeout 7 app:app", 7),
        ("hypercorn app:app", 3),
        ("uvicorn app:app", None),
        ("uvicorn --timeout-graceful-shutdown=2 app:app", 2),
        ("./serve", None),
    ],
)
def test_limits_are_read_from_the_command_line(command: str, after_s: float | None) -> None:
    """Or are those by default."""
    limit = known.limit(known.recognise(Subject(tuple(command.split()))))
    assert (limit.after_s if limit else None) == after_s


def test_a_limit_of_spring_has_a_unit() -> None:
    """Its option takes a duration."""
    words = ("--spring.lifecycle.timeout-per-shutdown-phase=1500ms",)
    limit = known.limit(known.Server("spring", words))
    assert limit is not None
    assert limit.after_s == 1.5


def test_every_change_is_for_a_code_that_can_be_found() -> None:
    """No advice stands under a code that no cause gives."""
    shown = {code for case in CASES for code in case.shows}
    assert {code for changes in CHANGES.values() for code in changes} <= shown
