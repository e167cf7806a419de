"""Faults of hooks and of the place they run in; and how the next run hears of the end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from app.stage import played, stage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about Linux")

STOPS = """
    with lifecycle:
        stop()
        lifecycle.draining.wait()
    """


# -- hooks


def test_hooks_that_fail_in_every_way_hold_nothing() -> None:
    """They raise, call `sys.exit`, ask for the stop again, start threads: the rest goes on."""
    program = """
    lifecycle = Lifecycle(grace_s=20, limits={"close": 5})
    @lifecycle.on("drain")
    def raises(): raise ValueError("no such pool")
    @lifecycle.on("drain")
    async def raises_too(): raise KeyError("gone")
    @lifecycle.on("drain")
    def leaves(): sys.exit(9)
    @lifecycle.on("drain")
    async def leaves_too(): sys.exit(9)
    @lifecycle.on("drain")
    def asks(): lifecycle.request_stop("me too")
    @lifecycle.on("drain")
    def starts():  # daemon: a hook's thread is one, and hands that down
        work = lambda: (time.sleep(0.3), say("thread"))
        threading.Thread(target=work, daemon=False).start()
    @lifecycle.on("drain")
    def interrupts(): raise KeyboardInterrupt
    @lifecycle.draining.add_callback
    def called(): sys.exit(9)
    lifecycle.listen(lambda *_: sys.exit(9))
    lifecycle.on("close")(lambda: say("closed"))
    """
    status, lines, err = played(program + STOPS)
    assert (status, lines) == (-signal.SIGTERM, "thread | closed"), err
    assert "hook 'raises' (" in err
    assert "failed: ValueError: no such pool (" in err
    assert "failed: KeyError: 'gone'" in err
    assert err.count("it called sys.exit(9)") == 4  # twice in each, the last line sums up
    assert "hook 'asks'" not in err


@pytest.mark.parametrize("how", ["returns", "exits", "raises", "_exits", "lives"])
def test_a_hook_may_fork(how: str) -> None:
    """The child ends whichever way it comes back, and can have a shutdown of its own."""
    program = """
    lifecycle = Lifecycle(grace_s=20, exit_with="code")
    lifecycle.on("flush")(lambda: say("flushed"))
    us, how = os.getpid(), sys.argv[1]
    @lifecycle.on("close")
    def forks():
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            say(os.waitstatus_to_exitcode(status))
            return
        if how == "exits": sys.exit(7)
        if how == "raises": raise ValueError
        if how == "_exits": os._exit(7)
        if how == "lives":
            lifecycle.house.registry.of("close")[0].function = lambda: say("closed in the child")
            with lifecycle:
                stop()
                lifecycle.draining.wait()
    """
    said = {"returns": "0", "exits": "7", "raises": "1", "_exits": "7"}.get(
        how, "closed in the child | flushed | 143"
    )
    status, lines, err = played(program + STOPS, how)
    assert (status, lines) == (143, f"{said} | flushed"), err


def test_a_report_that_cannot_be_written_holds_nothing() -> None:
    """It says so."""
    program = """
    lifecycle = Lifecycle(grace_s=20, report="/proc/nowhere/report.json")
    """
    status, _, err = played(program + STOPS)
    assert status == -signal.SIGTERM
    assert "the report could not be written: " in err


# -- when, and where


def test_signals_before_and_during_the_start() -> None:
    """Before there is a lifecycle they end the program; from `install` on the hooks run."""
    program = """
    when = sys.argv[1]
    if when == "import": stop()
    lifecycle = Lifecycle()
    if when == "made": stop()
    lifecycle.on("close")(lambda: say("closed"))
    lifecycle.install()
    if when == "installed":
        stop()
        lifecycle.draining.wait()
    with lifecycle:
        say("the body")
    """
    assert played(program, "import")[:2] == (-signal.SIGTERM, "")
    assert played(program, "made")[:2] == (-signal.SIGTERM, "")
    assert played(program, "installed")[:2] == (-signal.SIGTERM, "closed")
    assert played(program, "never")[:2] == (0, "the body | closed")


def test_signals_in_the_middle_of_each_phase() -> None:
    """One more at every change of the shutdown: the same wish, nothing is cut off."""
    program = """
    lifecycle = Lifecycle(grace_s=20)
    lifecycle.listen(lambda what, words: stop())
    for phase in ("announce", "drain", "work", "close", "flush"):
        lifecycle.add_hook(phase, lambda phase=phase: say(phase), name=phase)
    """
    said = "announce | drain | work | close | flush"
    assert played(program + STOPS)[:2] == (-signal.SIGTERM, said)


def test_in_another_thread_it_says_that_signals_are_not_taken() -> None:
    """All the rest works; the thread that entered it is not waited for."""
    program = """
    def run():
        with Lifecycle(grace_s=20) as lifecycle:
            lifecycle.on("close")(lambda: say("closed"))
            lifecycle.request_stop("enough")
            lifecycle.draining.wait()
        say("goes on", lifecycle.report.clean)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    """
    status, lines, err = played(program)
    assert (status, lines) == (0, "closed | goes on True"), err
    assert "signals are not taken: that can only be done in the main thread" in err


def test_in_a_subinterpreter_it_says_what_is_missing() -> None:
    """Such an interpreter has neither signals nor daemon threads: an error with a name says so."""
    program = """
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _interpreters as interpreters
    code = '''if True:
        import sys
        sys.path[:] = %r
        from lastcall import Lifecycle
        try:
            with Lifecycle(): print("entered", flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        ''' % sys.path
    interpreters.run_string(interpreters.create(), code)
    """
    status, lines, err = played(program)
    assert status == 0, err
    assert lines.startswith("Unsupported a Lifecycle cannot run here: "), (lines, err)


def test_it_can_be_entered_once_and_the_next_one_counts() -> None:
    """With `nothing` the program goes on, as it was: no signal, thread or file is left."""
    program = """
    def files(): return len(os.listdir("/proc/self/fd"))
    def all_of_it():
        with Lifecycle(exit_with="nothing") as lifecycle:
            stop()
            lifecycle.draining.wait()
        return lifecycle
    all_of_it()
    before = files()
    lifecycle = all_of_it()
    for thread in threading.enumerate():
        if thread is not threading.main_thread(): thread.join(10)
    say(files() - before, threading.active_count(), signal.getsignal(signal.SIGTERM).name)
    try:
        with lifecycle: say("never")
    except Exception as error:
        say(error)
    say(Lifecycle.current() is lifecycle, Lifecycle(exit_with="zero") is Lifecycle.current())
    """
    status, lines, err = played(program)
    assert (status, lines) == (
        0,
        "0 1 SIG_DFL | this Lifecycle has had its stop | True True",
    ), err


# -- the record

RECORDED = """
    lifecycle = Lifecycle("shop", grace_s=1.5, limits={"drain": 0.5})
    how = sys.argv[1]
    with lifecycle:
        was = lifecycle.previous
        say(was.ended, "|", sorted({name for name, _ in was.in_flight}), "|", was.reason)
        if how == "look":
            os._exit(0)
        if how == "raises": raise ValueError("broken")
        if how == "exits": sys.exit(3)
        if how == "halts": lifecycle.halt(3)
        if how == "returns": raise SystemExit
        with lifecycle.work("order 17"):
            say("ready")
            if how == "cut":
                threading.Event().wait()
            lifecycle.draining.wait()
    """


@pytest.mark.parametrize(
    ("how", "signum", "ended", "in_flight"),
    [
        ("stops", signal.SIGTERM, "clean", "[]"),
        ("cut", signal.SIGTERM, "cut", None),
        ("killed", signal.SIGKILL, "killed", "['order 17']"),
        ("raises", 0, "crashed", "[]"),
        ("exits", 0, "clean", "[]"),
    ],
)
def test_the_next_run_knows_how_the_last_one_ended(
    tmp_path: Path, how: str, signum: int, ended: str, in_flight: str | None
) -> None:
    """And what was in flight then."""
    env = {"LASTCALL_STATE_DIR": str(tmp_path)}
    with stage(RECORDED, how, env=env) as one:
        if signum:
            one.until("ready")
            one.kill(signal.Signals(signum))
        one.end()
    with stage(RECORDED, "look", env=env) as one:
        said, works, reason = one.line().split(" | ")
        assert said.startswith(ended), (said, works, reason)
        assert in_flight is None or works == in_flight
        one.end()
