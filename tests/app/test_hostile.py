"""What nobody would do on purpose: odd arguments, hooks that lie, files that are taken away."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from app.stage import played, stage
from lastcall import Lifecycle
from lastcall.app import runplace
from lastcall.app.running import Crew
from lastcall.errors import BadPolicy

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about Linux")

STOPS = """
    with lifecycle:
        stop()
        lifecycle.draining.wait()
    """
NAN = float("nan")


# -- arguments


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"grace_s": "5"}, "grace_s is '5'"),
        ({"grace_s": NAN}, "grace_s is nan"),
        ({"grace_s": -1}, "grace_s is -1"),
        ({"announce_s": "soon"}, "announce_s is 'soon'"),
        ({"limits": {"close": None}}, "limits['close'] is None"),
        ({"ceiling_s": "x"}, "ceiling_s is 'x'"),
        ({"ceiling_s": NAN}, "ceiling_s is nan"),
        ({"signals": ["SIGTERM"]}, "signals has 'SIGTERM'"),
        ({"signals": [signal.SIGKILL]}, "signals has"),
        ({"signals": [0]}, "signals has 0"),
        ({"signals": [999]}, "signals has 999"),
        ({"signals": 999}, "signals has 999"),
        ({"name": 5}, "name is 5"),
        ({"report": 5}, "report is 5"),
        ({"report": "a\0b"}, "report is 'a\\x00b'"),
        ({"clock": None}, "clock is None"),
    ],
)
def test_odd_settings_are_refused_at_once(words: dict[str, Any], said: str) -> None:
    """Not in the middle of a stop, which some of them would have held for ever."""
    with pytest.raises(BadPolicy) as error:
        Lifecycle(**words)
    assert said in str(error.value)
    assert error.value.__notes__ == [error.value.advice]


@pytest.mark.parametrize("value", ["abc", "nan", "-1", " "])
def test_an_odd_environment_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The variable, not the argument that nobody gave."""
    monkeypatch.setenv("LASTCALL_GRACE_S", value)
    with pytest.raises(BadPolicy, match=r"LASTCALL_GRACE_S is"):
        Lifecycle()


def test_odd_hooks_are_refused_when_they_are_registered() -> None:
    """At the stop it would be too late; and a generator function would do nothing, silently."""
    lifecycle: Any = Lifecycle()

    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    for function, words, said in (
        (None, {}, "hook None is no function"),
        (generator, {}, "has a yield in it"),
        (async_generator, {}, "has a yield in it"),
        (print, {"limit_s": "1"}, "limit_s of hook"),
        (print, {"limit_s": NAN}, "limit_s of hook"),
        (print, {"limit_s": -1}, "limit_s of hook"),
    ):
        with pytest.raises(BadPolicy, match=said):
            lifecycle.add_hook("close", function, **words)
    with pytest.raises(BadPolicy, match="a phase's name is ''"):
        lifecycle.phase("", after="close")
    one = lifecycle.add_hook("close", print, name="one", depends_on="other")
    assert one.depends_on == ("other",)


def test_odd_requests_are_refused_and_begin_nothing() -> None:
    """A stop with a signal that does not exist could not end."""
    lifecycle: Any = Lifecycle()
    for signum in ("TERM", 0, -1, 999):
        with pytest.raises(BadPolicy, match="signum is"):
            lifecycle.request_stop("enough", signum=signum)
    for leave in (lifecycle.exit, lifecycle.halt):
        with pytest.raises(BadPolicy, match="the exit code is 'bad'"):
            leave("bad")
    with pytest.raises(BadPolicy, match="the listener is None"):
        lifecycle.listen(None)

    async def main() -> None:
        """Nothing."""

    with pytest.raises(BadPolicy, match="run takes a function") as error:
        lifecycle.run(main())
    assert error.value.advice == "say run(main), not run(main())"
    assert not lifecycle.stopping


def test_a_reason_is_one_short_line() -> None:
    """Whoever asks from outside may not write lines of his own into the log."""
    program = """
    lifecycle = Lifecycle(exit_with="zero")
    with lifecycle:
        lifecycle.request_stop("x\\nlastcall: all is well\\n" * 1000)
        lifecycle.draining.wait()
    """
    status, _, err = played(program)
    assert status == 0
    assert sum("stopping (within" in line for line in err.splitlines()) == 1
    assert "lastcall: all is well" not in err.splitlines()


def test_it_cannot_be_entered_twice_at_once() -> None:
    """The inner one would end everything under the outer one."""
    program = """
    lifecycle = Lifecycle()
    lifecycle.on("close")(lambda: say("closed"))
    def again():
        try:
            with lifecycle: say("never")
        except Exception as error:
            say(error)
    with lifecycle:
        again()
        thread = threading.Thread(target=again); thread.start(); thread.join()
        say("goes on", lifecycle.state)
    """
    twice = "this Lifecycle is entered already, and the process has one main code"
    status, lines, err = played(program)
    assert (status, lines) == (0, f"{twice} | {twice} | goes on running | closed"), err


# -- what cannot be told


UNTOLD = """
    class Untold(Exception):
        def __str__(self): raise SystemExit(2)
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_error_that_cannot_be_told_costs_no_other_hook(kind: str) -> None:
    """Its `__str__` fails: the hook has failed, and the next phase comes at once."""
    program = f"""
    lifecycle = Lifecycle(grace_s=30)
    @lifecycle.on("close")
    {kind} fails(): raise Untold
    lifecycle.on("flush")(lambda: say("flushed"))
    """
    status, lines, err = played(UNTOLD + program + STOPS)
    assert (status, lines) == (-signal.SIGTERM, "flushed"), err
    assert "failed: Untold (it cannot be told)" in err


def test_the_main_codes_error_that_cannot_be_told_costs_no_hook(tmp_path: Path) -> None:
    """Also where the record of the run is to have it."""
    program = """
    lifecycle = Lifecycle("shop")
    lifecycle.on("flush")(lambda: say("flushed"))
    with lifecycle: raise Untold
    """
    found = played(UNTOLD + program, env={"LASTCALL_STATE_DIR": str(tmp_path)})
    assert found[:2] == (1, "flushed"), found[2]


def test_work_whose_name_cannot_be_told_is_work_all_the_same(tmp_path: Path) -> None:
    """It is cut off at the limit under the name of its type, and everything else goes on."""
    program = (
        UNTOLD
        + """
    lifecycle = Lifecycle("shop", grace_s=20, limits={"announce": 0, "drain": 0.3})
    lifecycle.on("flush")(lambda: say("flushed"))
    with lifecycle:
        with lifecycle.accepted(Untold()): say(lifecycle.in_flight)
        say(lifecycle.in_flight)
        lifecycle.accepted(Untold()).__enter__()
        stop()
        lifecycle.draining.wait()
    """
    )
    status, lines, err = played(program, env={"LASTCALL_STATE_DIR": str(tmp_path)})
    assert (status, lines) == (22, "1 | 0 | flushed"), err
    assert "still active at the limit, and cut off: 'a Untold'" in err
    assert "a fault" not in err


@pytest.mark.parametrize("who", ["lifecycle.listen", "lifecycle.draining.add_callback"])
def test_exit_in_a_listener_does_not_wait_for_itself(who: str) -> None:
    """The thread that leads the stop would wait for the end of it until the deadline."""
    program = f"""
    lifecycle = Lifecycle(grace_s=20)
    {who}(lambda *_: lifecycle.exit(4))
    lifecycle.on("flush")(lambda: say("flushed"))
    """
    status, lines, err = played(program + STOPS)
    assert (status, lines) == (4, "flushed"), err


# -- files


CLOSED = """
    lifecycle = Lifecycle("shop", grace_s=20, exit_with="nothing")
    lifecycle.on("flush")(lambda: say("flushed"))
    with lifecycle:
        say("ready")
        sys.stdin.readline()
        os.closerange(3, 100)
        mine = [os.open(name, os.O_RDWR | os.O_CREAT) for name in sys.argv[1:]]
        say("closed")
        lifecycle.draining.wait()
    say(*(os.fstat(fd).st_size for fd in mine))
    """


@pytest.mark.parametrize("number", [0, 12])
def test_a_program_that_closes_all_files_still_ends(tmp_path: Path, number: int) -> None:
    """As daemons do: the stop takes new files, and neither writes into nor closes the program's."""
    files = [str(tmp_path / str(n)) for n in range(number)]
    with stage(CLOSED, *files, env={"LASTCALL_STATE_DIR": str(tmp_path)}) as one:
        one.until("ready")
        one.tell()
        one.until("closed")
        one.kill()
        status, lines = one.end()
        err = one.err
    assert (status, lines[0]) == (0, "flushed"), err
    sizes = [int(word) for word in lines[1].split()]
    assert len(sizes) == number
    # The interpreter itself writes the signal's byte to wherever that number leads now.
    assert sum(sizes) <= 1


def test_a_report_never_takes_the_place_of_a_device(tmp_path: Path) -> None:
    """Nor of a pipe, nor of whatever standard output is: they are written to as they are."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = """
    lifecycle = Lifecycle(exit_with="zero", report=sys.argv[1])
    with lifecycle: say("one")
    """
    device = os.stat("/dev/full")
    status, lines, err = played(program, "/dev/full")
    assert (status, lines) == (0, "one")
    assert "the report could not be written: /dev/full: No space left on device" in err
    now = os.stat("/dev/full")
    assert (now.st_rdev, stat.S_IFMT(now.st_mode)) == (device.st_rdev, stat.S_IFCHR)
    status, lines, err = played(program, str(fifo))
    assert status == 0
    assert f"the report could not be written: {fifo}" in err
    assert fifo.is_fifo()
    status, lines, _ = played(program, "/dev/stdout")
    assert lines.startswith('one | { |  "reason"')
    assert os.readlink("/dev/stdout").startswith("/proc/")


def test_a_report_leaves_nothing_half_done(tmp_path: Path) -> None:
    """On an error the part beside it goes away again, and an old part is no hindrance."""
    program = """
    if len(sys.argv) > 2: open(f"{sys.argv[1]}.{os.getpid()}.part", "w").close()
    lifecycle = Lifecycle(exit_with="zero", report=sys.argv[1])
    with lifecycle: pass
    """
    (tmp_path / "folder").mkdir()
    _, _, err = played(program, str(tmp_path / "folder"))
    assert "the report could not be written: " in err
    assert os.listdir(tmp_path) == ["folder"]
    played(program, str(tmp_path / "new"), "old part")
    assert sorted(os.listdir(tmp_path)) == ["folder", "new"]
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_without_any_file_left_it_says_who_is_stuck() -> None:
    """What that needs was loaded before."""
    program = """
    import resource
    lifecycle = Lifecycle(grace_s=1.5)
    lock = threading.Lock(); lock.acquire()
    lifecycle.on("close")(lambda: lock.acquire())
    with lifecycle:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        stop()
        lifecycle.draining.wait()
    """
    status, _, err = played(program)
    assert status == 22
    assert "in <lambda>" in err
    assert "cannot tell where" not in err


@pytest.mark.parametrize("name", [".", "..", "...", "a/../b", "\0", "x.7", "x" * 9999, "\udc80"])
def test_a_record_is_a_file_in_its_folder_whatever_the_name(name: str) -> None:
    """And no two names share one."""
    found = runplace.file_name(name)
    assert found not in {"", ".", ".."}
    assert "/" not in found
    assert len(found) < 200
    assert found != runplace.file_name("x")


# -- the end of the interpreter


def test_a_stop_that_nobody_waits_for_is_finished_at_exit() -> None:
    """A program that only installs it, and returns once it drains; and a loop that was stopped."""
    hook = """
    lifecycle = Lifecycle(grace_s=20)
    @lifecycle.on("close")
    def save():
        time.sleep(0.5); say("saved")
    """
    installed = """
    lifecycle.install()
    stop()
    lifecycle.draining.wait()
    """
    stopped = """
    import asyncio
    async def main():
        async with lifecycle:
            stop()
            await lifecycle.draining
            asyncio.get_running_loop().stop()
    try: asyncio.run(main())
    except RuntimeError: pass
    """
    for program in (installed, stopped):
        status, lines, err = played(hook + program)
        assert (status, lines) == (-signal.SIGTERM, "saved"), err


def test_hook_threads_are_let_go_before_their_first_step() -> None:
    """One that is just being made is let go as well; it would wait for work for ever."""
    may_begin = threading.Event()

    class Slow(Crew):
        def _work(self) -> None:
            may_begin.wait()
            super()._work()

    before = set(threading.enumerate())
    crew = Slow()
    crew.start()
    made = set(threading.enumerate()) - before
    crew.dismiss()
    crew.dismiss()
    may_begin.set()
    for thread in made:
        thread.join(20)
    assert made
    assert not any(thread.is_alive() for thread in made)


def test_a_signal_right_after_all_files_were_closed_is_heard() -> None:
    """The interpreter cannot write it into our pipe any more, and no new one is there yet."""
    program = """
    lifecycle = Lifecycle(grace_s=20)
    lifecycle.on("flush")(lambda: say("flushed"))
    with lifecycle:
        os.closerange(3, 100)
        stop()
        lifecycle.draining.wait()
    """
    for _ in range(5):
        status, lines, err = played(program)
        assert (status, lines) == (-signal.SIGTERM, "flushed"), err
