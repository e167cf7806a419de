"""How a program with a Lifecycle ends: phases, limits, signals that come again, the record."""

from __future__ import annotations

import json
import signal
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from app.stage import played, stage
from helpers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

STOPS = """
    with lifecycle:
        stop()
        lifecycle.draining.wait()
    """


# -- exit, halt and threads


def test_exit_runs_the_shutdown_and_halt_does_not() -> None:
    """`exit` awaits hooks, `halt` runs none, nor atexit, nor `finally`."""
    program = """
    import atexit
    atexit.register(lambda: say("atexit"))
    lifecycle = Lifecycle()
    lifecycle.on("close")(lambda: say("closed"))
    try:
        with lifecycle:
            getattr(lifecycle, sys.argv[1])(4)
            say("never")
    finally:
        say("finally")
    """
    assert played(program, "exit")[:2] == (4, "closed | finally | atexit")
    assert played(program, "halt")[:2] == (4, "")


def test_exit_works_wherever_it_is_called() -> None:
    """From a coroutine, a hook and a thread: whoever calls it holds nobody."""
    program = """
    import asyncio
    lifecycle = Lifecycle(grace_s=20)
    lifecycle.on("close")(lambda: say("closed"))
    async def task():
        async with lifecycle:
            lifecycle.exit(5)
    def hook(): lifecycle.exit(6)
    if sys.argv[1] == "task":
        asyncio.run(task())
    if sys.argv[1] == "hook":
        lifecycle.on("work")(hook)
        with lifecycle: pass
    if sys.argv[1] == "thread":
        with lifecycle:
            threading.Thread(target=lifecycle.exit, args=(7,)).start()
            lifecycle.draining.wait()
    """
    assert played(program, "task")[:2] == (5, "closed")
    assert played(program, "hook")[:2] == (6, "closed")
    assert played(program, "thread")[:2] == (7, "closed")


def test_user_threads_are_awaited_also_those_of_executors() -> None:
    """What they still do is done before anything is closed; idle ones hold nobody."""
    program = """
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    lifecycle = Lifecycle(grace_s=20, exit_with="zero")
    lifecycle.on("close")(lambda: say("closed"))
    def late(word):
        lifecycle.draining.wait(); time.sleep(0.3); say(word)
        if word == "thread":  # one more, which nobody knew of
            threading.Thread(target=late, args=("its child",)).start()
    if __name__ == "__main__":
        idle, pool = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        processes = ProcessPoolExecutor(1)
        idle.submit(abs, 1).result(), processes.submit(abs, 1).result()
        with lifecycle:
            threading.Thread(target=late, args=("thread",)).start()
            pool.submit(late, "pool")
            stop()
            lifecycle.draining.wait()
    """
    status, lines, err = played(program)
    assert (status, sorted(lines.split(" | ")[:3]), lines.split(" | ")[3:]) == (
        0,
        ["its child", "pool", "thread"],
        ["closed"],
    ), err


# -- signals that come again

AGAIN = """
    lifecycle = Lifecycle(grace_s=50)
    window_s = float(sys.argv[1])  # in which a signal is the same wish as the last

    def heard(what, words):
        if what in {"stopping", "hurried"}:
            say(what)
            later = threading.Timer(window_s, say, ["later"])
            later.daemon = True
            later.start()

    lifecycle.listen(heard)
    lifecycle.on("drain", name="save")(lambda run: run.cancelled.wait())
    lifecycle.on("close", name="close")(lambda: (say("closing"), threading.Event().wait()))
    lifecycle.on("flush", name="flush")(lambda: say("flushed"))
    def work():
        with lifecycle.work("order 17"):
            threading.Event().wait()
    threading.Thread(target=work, daemon=True).start()
    with lifecycle:
        while not lifecycle.in_flight: time.sleep(0.01)
        say("ready")
        lifecycle.draining.wait()
    """


def test_a_second_signal_means_now_and_says_what_is_cut_off() -> None:
    """Work and hooks are named; closing and flushing still get a moment."""
    with stage(AGAIN, "1.3") as one:
        one.until("ready")
        one.kill()
        one.until("later")
        one.kill()
        status, lines = one.end()
        err = one.err
    assert status == -signal.SIGTERM
    assert [line for line in lines if line != "later"] == ["hurried", "closing", "flushed"]
    assert "SIGTERM again: now. Cut off: 'order 17' (" in err
    assert "hook 'save'" in err
    assert "hook 'close'" in err.splitlines()[-1]


def test_a_third_signal_ends_at_once() -> None:
    """Ctrl+C three times: 130, and nothing more is waited for."""
    with stage(AGAIN, "0.5") as one:
        one.until("ready")
        for _ in range(2):
            one.kill(signal.SIGINT)
            one.until("later")
        one.kill(signal.SIGINT)
        status, lines = one.end()
        assert (status, lines) == (130, [])
        assert "SIGINT a third time: at once" in one.err


def test_ten_thousand_signals_are_one() -> None:
    """A supervisor that repeats itself is not impatient, and a full pipe loses nothing."""
    program = """
    lifecycle = Lifecycle(grace_s=50)
    lifecycle.listen(lambda what, words: what in {"stopping", "hurried"} and say(what))
    lifecycle.on("drain")(sys.stdin.readline)
    with lifecycle:
        say("ready")
        lifecycle.draining.wait()
    """
    with stage(program) as one:
        one.until("ready")
        for _ in range(10_000):
            one.kill()
        one.tell()
        assert one.end() == (-signal.SIGTERM, ["stopping"])


def test_the_first_signal_is_no_impatience_when_the_program_itself_is_ending() -> None:
    """A supervisor's SIGTERM during a stop that the program wanted cuts nothing off."""
    program = """
    lifecycle = Lifecycle(grace_s=50)
    lifecycle.listen(lambda what, words: what in {"stopping", "hurried"} and say(what))
    lifecycle.on("drain", name="save")(lambda: (sys.stdin.readline(), say("saved")))
    with lifecycle:
        lifecycle.request_stop("all done")
        lifecycle.draining.wait()
    say("goes on")
    """
    with stage(program) as one:
        one.until("stopping")
        one.kill()
        wait_until(lambda: "SIGTERM: stopping already (all done)" in one.err, "it to be heard")
        one.tell()
        assert one.end() == (0, ["saved", "goes on"])


def test_a_signal_cuts_off_an_exit_that_takes_too_long() -> None:
    """When all is over and only atexit hangs, the next signal ends it."""
    program = """
    import atexit
    atexit.register(lambda: (say("atexit"), threading.Event().wait(1.3), say("later"),
                             threading.Event().wait()))
    lifecycle = Lifecycle(grace_s=50)
    """
    with stage(program + STOPS) as one:
        one.until("later")
        one.kill()
        assert one.end() == (-signal.SIGTERM, [])


# -- limits


def outcomes(report: Path) -> dict[str, str]:
    """What came of each hook."""
    data = json.loads(report.read_text())
    hooks = [run for phase in data["phases"] for run in phase["hooks"]]
    return {run["hook"]: run["outcome"] for run in hooks}


def test_each_limit_holds_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A hook at its own limit, one at its phase's; the later phases come all the same."""
    report = tmp_path / "report.json"
    program = f"""
    limits = {{"drain": 1, "work": 0.2, "close": 0.5, "flush": 6}}
    lifecycle = Lifecycle(grace_s=8, limits=limits, report={str(report)!r})
    hang = threading.Event().wait
    lifecycle.on("drain", name="own", limit_s=0.1)(hang)
    lifecycle.on("drain", name="quick", limit_s=0.1)(lambda: None)
    lifecycle.on("close", name="phase's")(hang)
    lifecycle.on("close", name="polite")(lambda run: run.cancelled.wait())
    lifecycle.on("close", name="cross")(lambda run: run.cancelled.wait() and 1 / 0)
    lifecycle.on("close", name="after", depends_on=["phase's"])(hang)
    lifecycle.on("flush", name="last")(lambda: say("flushed"))
    {STOPS}"""
    status, lines, err = played(program)
    assert (status, lines) == (22, "flushed"), err
    found = outcomes(report)
    assert {name: found[name] for name in ("quick", "last")} == {"quick": "done", "last": "done"}
    cut = ("own", "phase's", "polite", "cross", "after")
    assert {found[name] for name in cut} == {"cut off"}
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    data = json.loads(report.read_text())
    assert (data["reason"], data["exit_code"], data["clean"]) == ("SIGTERM", 22, False)
    assert set(data["cut_off"]) == {f"hook {name!r}" for name in cut}


def test_what_a_phase_leaves_over_goes_to_the_next(tmp_path: Path) -> None:
    """A hook of `close` may take what `drain` did not need."""
    report = tmp_path / "report.json"
    program = f"""
    limits = {{"announce": 0, "drain": 20, "work": 0, "close": 0.1, "flush": 0.1}}
    lifecycle = Lifecycle(grace_s=21, limits=limits, report={str(report)!r})
    lifecycle.on("close", name="slow")(lambda: time.sleep(0.6))
    {STOPS}"""
    assert played(program)[0] == -signal.SIGTERM
    assert outcomes(report)["slow"] == "done"


def test_more_time_is_given_up_to_the_ceiling_and_recorded(tmp_path: Path) -> None:
    """The plea counts, the ceiling too."""
    report = tmp_path / "report.json"
    program = f"""
    lifecycle = Lifecycle(grace_s=2, ceiling_s=int(sys.argv[1]),
                          report={str(report)!r})
    @lifecycle.on("close")
    def flush_all(run):
        granted = run.extend(9, "flushing 40 MB")
        say("enough" if granted > 1 else "too little")
        say("cut" if run.cancelled.wait(2.5) else "done")
    {STOPS}"""
    assert played(program, "30")[:2] == (-signal.SIGTERM, "enough | done")
    [plea] = json.loads(report.read_text())["extensions"]
    assert (plea["asked_s"], plea["reason"]) == (9, "flushing 40 MB")
    tight = program.replace("grace_s=2,", "grace_s=0.5, ")
    assert played(tight, "0")[1] == "too little | cut"


def test_an_objection_counts_once_and_only_where_it_is_allowed() -> None:
    """A second request overrules; a program whose main code has returned cannot go on."""
    program = """
    lifecycle = Lifecycle(vetoes=sys.argv[1] == "allowed", exit_with="zero")
    off = threading.Event()
    lifecycle.listen(lambda what, words: what in {"called-off", "ended"} and say(what))
    lifecycle.listen(lambda what, words: what == "called-off" and off.set())
    lifecycle.on("announce")(lambda run: run.veto("a backup runs"))
    with lifecycle:
        lifecycle.request_stop("first")
        if sys.argv[1] == "allowed":
            off.wait()
            say(lifecycle.state, lifecycle.ready())
            if sys.argv[2] == "again":
                lifecycle.request_stop("second")
                lifecycle.draining.wait()
    """
    assert played(program, "allowed", "again")[:2] == (0, "called-off | running True | ended")
    assert played(program, "allowed", "return")[:2] == (0, "called-off | running True | ended")
    assert played(program, "not")[:2] == (0, "ended")
    # The main code has returned: there is nothing that could go on.
    returns = program.replace('lifecycle.request_stop("first")', "").replace(
        "if sys", "if 0 and sys"
    )
    assert played(returns, "allowed", "return")[:2] == (0, "ended")
