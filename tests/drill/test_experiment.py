"""Whole drills: what proves nothing says so, and bad servers harm nobody."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drill.experiments import bad, blamed, faulty, run, sound, told, traffic
from helpers import PATIENCE_S, python, victim
from lastcall.drill.clients.lag import Lag
from lastcall.drill.history import Found, Kind
from lastcall.drill.how import CannotStop, How, To
from lastcall.drill.judge import Fate, Verdict
from lastcall.drill.listening import free_port
from lastcall.drill.place import Place
from lastcall.drill.plan import Plan
from lastcall.drill.scenario import Newcomers, Request, Scenario, State
from lastcall.errors import UsageError
from lastcall.kernel import procfs
from lastcall.proc.program import CannotStart
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.result import Result

IN_HANDLER = (Kind.IN_HANDLER,)
SHORT = traffic(IN_HANDLER, slow_s=0.5)
UP = Ready.parse("line:ready (pid")
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No drill leaves a file descriptor or a process behind."""
    files, others = len(os.listdir("/proc/self/fd")), ours()
    yield
    assert len(os.listdir("/proc/self/fd")) <= files
    assert ours() <= others


def ours() -> set[int]:
    """All processes that come from this one."""
    return set(procfs.family(os.getpid())[1:])


def inline(code: str, *words: str) -> tuple[str, ...]:
    """The command of a server that is a few lines of Python."""
    return (sys.executable, "-u", "-c", code, *words)


def proves_nothing(result: Result, why: str) -> None:
    """It is inconclusive, for this reason first, and exits with 8."""
    assert result.judgement.verdict is Verdict.INCONCLUSIVE, told(result)
    assert why in result.judgement.reasons[0], told(result)
    assert result.exit_code == 8
    assert not result.keeps_its_word


def said(result: Result) -> str:
    """All that is told of why there was nothing to drill."""
    findings = (text for f in result.findings for text in (f.title, *f.evidence))
    return "\n".join((*findings, *result.aftermath.output))


def pid_of(result: Result) -> int:
    """The server's own process, as it said."""
    said = next(line for line in result.aftermath.output if line.startswith("ready (pid: "))
    return int(said.removeprefix("ready (pid: ").removesuffix(")"))


# -- an experiment that failed proves nothing


def test_a_server_that_never_gets_ready() -> None:
    """It runs, and listens nowhere."""
    code = "print('still starting'); import time; time.sleep(60)"
    result = run(Plan(inline(code, "{port}"), scenario=SHORT, ready_within_s=0.5))
    proves_nothing(result, "the server never got ready")
    assert "still starting" in said(result)


def test_a_server_that_dies_at_once() -> None:
    """Its exit code and its last words are told."""
    code = "print('no database'); raise SystemExit(3)"
    result = run(Plan(inline(code, "{port}"), scenario=SHORT))
    proves_nothing(result, "the server never got ready")
    assert "no database" in said(result)
    assert "exit status 3" in said(result)
    assert len(result.judgement.reasons) == 1


def test_a_server_that_ends_before_the_stop() -> None:
    """It was ready, and broke down under the first slow request."""
    result = sound(Plan(faulty("die"), scenario=SHORT, linger_s=0.1))
    proves_nothing(result, "the server was gone before it was stopped")
    assert "it did not end in time" not in result.judgement.reasons
    assert result.aftermath.output[-1] == "cannot go on"


def test_no_states_at_all() -> None:
    """Nothing was in flight, so nothing is proved."""
    scenario = Scenario((), Newcomers(Request("/fast?key={key}"), 0))
    result = sound(Plan(faulty("perfect"), scenario=scenario, linger_s=0.1))
    proves_nothing(result, "nothing was in flight")
    assert len(result.judgement.reasons) == 1


def test_states_that_nobody_reaches() -> None:
    """What is answered at once is in no handler when the stop comes."""
    states = (State(Kind.IN_HANDLER, Request("/fast?key={key}"), 3),)
    scenario = Scenario(states, Newcomers(Request("/fast?key={key}"), 0))
    result = sound(Plan(faulty("perfect"), scenario=scenario, linger_s=0.1))
    proves_nothing(result, "nothing was in flight")
    assert result.judgement.not_reached == (Kind.IN_HANDLER,)


@pytest.mark.parametrize("mode", ["five-hundred", "random"])
def test_a_server_that_fails_already_before_the_stop(mode: str) -> None:
    """It does not serve soundly, so its stop cannot be blamed."""
    scenario = traffic((Kind.IN_HANDLER, Kind.STREAMING_CHUNKED), 0.5)
    plan = Plan(faulty(mode, "always"), scenario=scenario, ready=UP, linger_s=0.1)
    result = sound(plan)
    proves_nothing(result, "had failed before the stop came")


def test_a_machine_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that may be off by 200 ms prove nothing."""
    monkeypatch.setattr(Lag, "worst_between_s", lambda *_: 0.2)
    result = run(Plan(faulty("perfect"), scenario=SHORT, linger_s=0.1))
    proves_nothing(result, "the machine was too slow: times may be off by 200 ms")


# -- bad input


def test_a_command_that_does_not_exist() -> None:
    """The experiment cannot be made: an error, and no verdict."""
    with pytest.raises(CannotStart, match="no-such-server"):
        run(Plan(("no-such-server", "{port}"), scenario=SHORT))


def test_a_port_that_is_taken() -> None:
    """Who has it is named, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Place("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(UsageError, match="taken already") as raised:
            run(Plan(inline("raise SystemExit('started')"), place=place, scenario=SHORT))
    assert f"pid {os.getpid()} " in raised.value.evidence[0]


@pytest.mark.parametrize("mode", ["six", "any-six", "dual"])
def test_a_server_on_ipv6(mode: str) -> None:
    """It is found where it listens, with a port that we chose; IPv4 is used where there is both."""
    result = sound(Plan(faulty(mode), scenario=SHORT, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert ("[::1]" in result.subject.place) == (mode != "dual")


def test_a_server_on_a_port_of_its_own_choice() -> None:
    """Without `{port}` in its command it is found by what it listens on."""
    words = [word if word != "{port}" else str(free_port()) for word in faulty("six")]
    result = sound(Plan(tuple(words), scenario=SHORT, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert "[::1]" in result.subject.place


def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    """The kernel tells less of it; its ledger shows what was in the handler."""
    path = str(tmp_path / "app.sock")
    command = tuple(word if word != "{port}" else "0" for word in faulty("unix", path))
    result = sound(Plan(command, place=Place(unix=path), scenario=SHORT, linger_s=0.1))
    held = [j for j in result.judgement.judged if j.attempt.kind is Kind.IN_HANDLER]
    assert result.keeps_its_word, told(result)
    assert [j.fate for j in held] == [Fate.ACKNOWLEDGED] * 4
    assert {j.attempt.found for j in held} == {Found.UNKNOWN}


def test_a_server_that_goes_into_the_background() -> None:
    """The daemon is drilled, not the starter that has ended; and it is gone afterwards."""
    result = sound(Plan(faulty("daemon"), scenario=SHORT, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert not Path(f"/proc/{pid_of(result)}").exists()


def test_a_daemon_that_ignores_the_stop_is_gone_all_the_same() -> None:
    """Whatever came of the command is cleared away, in what session it may be."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        print(f'ready (pid: {os.getpid()})')\n"
        "        from http.server import *\n"
        "        SimpleHTTPRequestHandler.log_message = lambda *_: None\n"
        "        ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), "
        "SimpleHTTPRequestHandler).serve_forever()\n"
        "os._exit(0)"
    )
    result = run(Plan(inline(code, "{port}"), scenario=SHORT, patience_s=0.5, linger_s=0.1))
    assert any(m.code == "stop-sent" for m in result.moments), told(result)
    assert not Path(f"/proc/{pid_of(result)}").exists()


def test_garbage_from_the_start() -> None:
    """What never answers in HTTP never gets ready."""
    result = run(Plan(faulty("garbage", "always"), scenario=SHORT, ready_within_s=1.0))
    assert result.judgement.verdict is Verdict.INCONCLUSIVE, told(result)
    assert result.exit_code == 8


@pytest.mark.parametrize("mode", ["endless", "ten-gigabytes"])
def test_answers_without_end(mode: str) -> None:
    """They are counted and given up, never kept: memory stays small."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    before = memory_bytes("VmRSS")
    result = run(Plan(faulty(mode, "always"), scenario=SHORT, patience_s=3, linger_s=0.1))
    assert not result.keeps_its_word, told(result)
    assert memory_bytes("VmHWM") - before < 64 * MIB


def memory_bytes(name: str) -> int:
    """A number of proc_pid_status(5)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def test_a_server_that_ignores_the_stop() -> None:
    """It did not end in time: it says so, and is gone afterwards."""
    result = sound(Plan(faulty("ignore"), scenario=SHORT, patience_s=1.5, linger_s=0.1))
    assert result.judgement.verdict is Verdict.LOSES, told(result)
    assert result.judgement.reasons == ("it did not end in time",)
    assert result.aftermath.status is None
    assert not Path(f"/proc/{pid_of(result)}").exists()


# -- a drill that is broken off


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["started", "settled", "stop-sent"])
def test_a_drill_that_is_broken_off_leaves_no_server(moment: str, signum: int) -> None:
    """Whenever and however the drill ends, the server it started is gone."""
    driver = python("drill_driver.py", "30", *faulty("perfect"))
    with victim(*driver, ready="started") as driving:
        server = procfs.family(driving.pid)[1:]
        line = "started"
        while not line.startswith(moment):
            line = driving.line()
            assert line or driving.child.poll() is None
        server = sorted({*server, *procfs.family(driving.pid)[1:]})
        assert server
        handles = [os.pidfd_open(pid) for pid in server if Path(f"/proc/{pid}").exists()]
        try:
            os.kill(driving.pid, signum)
            driving.wait()
            for handle in handles:
                assert select.select([handle], [], [], PATIENCE_S)[0], "the server lives on"
        finally:
            for handle in handles:
                os.close(handle)


def test_a_cancelled_drill_leaves_no_server() -> None:
    """Cancelled between two awaits of its own program, it clears away first."""
    from lastcall.drill.experiment import drill

    async def cancelled() -> set[int]:
        settled = asyncio.Event()
        plan = Plan(faulty("perfect"), scenario=traffic(IN_HANDLER, slow_s=30))
        drilling = asyncio.ensure_future(
            drill(plan, lambda moment: settled.set() if moment.code == "stop-sent" else None)
        )
        async with asyncio.timeout(PATIENCE_S):
            await settled.wait()
        drilling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drilling
        return ours()

    before = ours()
    assert asyncio.run(cancelled()) <= before


# -- how it is stopped


def test_as_pid_1() -> None:
    """A pid namespace of its own: there the kernel drops signals without a handler."""
    result = sound(Plan(faulty("perfect"), scenario=SHORT, pid1=True, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert "ready (pid: 1)" in result.aftermath.output


def test_as_pid_1_without_a_handler() -> None:
    """SIGTERM does nothing there, and that is what is blamed."""
    result = sound(
        Plan(faulty("no-handler"), scenario=SHORT, pid1=True, patience_s=1.5, linger_s=0.1)
    )
    assert blamed(result) == ["not-ended"], told(result)
    assert bad(result) == {}


@pytest.mark.parametrize("to", [To.GROUP, To.TREE])
def test_a_signal_to_all_of_it(to: To) -> None:
    """A child that the main process would leave behind gets it, too."""
    result = sound(Plan(faulty("leave-child"), scenario=SHORT, how=How(to=to), linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert result.aftermath.left == ()
    assert to.words in result.subject.how


@pytest.mark.parametrize("mode", ["perfect", "second"])
def test_a_second_signal(mode: str) -> None:
    """It changes nothing, or breaks off what the first had let go on: then that is blamed."""
    result = sound(Plan(faulty(mode), scenario=SHORT, how=How(again_s=0.15), linger_s=0.1))
    assert any(m.code == "stop-sent-again" for m in result.moments)
    if mode == "perfect":
        assert result.keeps_its_word, told(result)
    else:
        assert bad(result) == {"in-handler": 4}, told(result)
        assert blamed(result) == ["half-executed", "asked-twice"], told(result)


def test_a_stop_by_a_command() -> None:
    """The command gets the pid; how it ended is told."""
    code = "import os, sys; os.kill(int(sys.argv[1]), 15)"
    how = How(command=inline(code, "{pid}"))
    result = sound(Plan(faulty("perfect"), scenario=SHORT, how=how, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    assert "the stop command ended" in [m.what for m in result.moments]


def test_a_stop_command_that_does_not_exist() -> None:
    """The experiment cannot be made: an error that says so."""
    how = How(command=("no-such-stop", "{pid}"))
    with pytest.raises(CannotStop, match="no-such-stop"):
        run(Plan(faulty("perfect"), scenario=SHORT, how=how, linger_s=0.1, patience_s=2))


HUP = inline("import os, sys; os.kill(int(sys.argv[1]), 1)", "{pid}")


def test_a_rolling_replacement_that_nobody_notices() -> None:
    """Gunicorn on SIGHUP: its new worker takes over, and what the old one has is finished."""
    gunicorn = ("-m", "gunicorn", "-c", "python:lastcall.drill.probe.gunicornconf")
    words = ("-k", "gthread", "-w", "1", "--threads", "20", "-b", "127.0.0.1:{port}")
    command = (sys.executable, *gunicorn, *words, "lastcall.drill.probe.wsgi:app")
    how = How(command=HUP, rolling=True)
    result = sound(Plan(command, scenario=SHORT, how=how, linger_s=0.1))
    assert result.keeps_its_word, told(result)
    after = [j for j in result.judgement.judged if j.attempt.attempted_s > 0]
    assert len(after) > 20
    assert {j.fate for j in after} == {Fate.ACKNOWLEDGED}


def test_a_rolling_replacement_with_a_gap() -> None:
    """Stopped and started again: newcomers are sent away meanwhile, and that counts here."""
    how = How(command=HUP, rolling=True)
    result = sound(Plan(faulty("restarting"), scenario=SHORT, how=how, linger_s=0.1))
    assert result.judgement.verdict is Verdict.LOSES, told(result)
    assert result.judgement.count(Fate.REFUSED_CLEANLY, Kind.NEWCOMER) > 3
    assert blamed(result) == ["rolling-gap"], told(result)


# -- a server that runs already, and when one is ready


def test_a_server_that_runs_already() -> None:
    """Its pid is enough: where it listens is found."""
    port = free_port()
    command = tuple(word.replace("{port}", str(port)) for word in faulty("perfect"))
    with victim(*command) as server:
        result = run(Plan(pid=server.pid, scenario=SHORT, linger_s=0.1))
        assert server.wait() == 0
    assert result.judgement.verdict is not Verdict.LOSES, told(result)
    assert result.subject.place == f"http://127.0.0.1:{port}"
    assert result.aftermath.ended_s is not None


@pytest.mark.parametrize(
    ("mode", "ready"),
    [
        ("perfect", "line:ready (pid"),
        ("notify", "notify"),
        ("perfect", "/health"),
        ("perfect", "/slow?s=0.1"),
    ],
)
def test_what_shows_that_it_is_ready(mode: str, ready: str) -> None:
    """A line, a notice, an answer."""
    plan = Plan(faulty(mode), scenario=SHORT, ready=Ready.parse(ready), linger_s=0.1)
    result = sound(plan)
    assert result.keeps_its_word, told(result)


def test_a_line_that_never_comes() -> None:
    """It serves, and never says what was waited for."""
    plan = Plan(
        faulty("perfect"), scenario=SHORT, ready=Ready.parse("line:never"), ready_within_s=1.0
    )
    proves_nothing(run(plan), "the server never got ready")
