"""How a server is stopped: reading it, filling it in, and aiming at its processes."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import victim
from lastcall.drill.how import Aim, How, To, fill, split
from lastcall.errors import NotRunning, UsageError
from lastcall.targets.process import signals
from lastcall.targets.process.identity import Handle

words = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5)


@pytest.mark.parametrize("name", ["TERM", "term", "SIGTERM", "15"])
def test_a_signal_has_several_names(name: str) -> None:
    """However it is written, it is the same signal."""
    assert How.parse(name, To.TREE, 0.3) == How(15, To.TREE, 0.3)


@given(st.text(max_size=30))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    """Any text is a way to stop, or an error of ours with advice."""
    for each in (text, f"rolling:{text}"):
        how = None
        with contextlib.suppress(UsageError):
            how = How.parse(each)
        if how is not None:
            assert how.rolling == bool(how.command)
            assert how.command or 1 <= how.signum <= signals.LAST
            assert str(how)


@given(words)
def test_a_command_is_split_as_a_shell_does(command: list[str]) -> None:
    """What is quoted comes back word by word, in a rolling command, too."""
    text = shlex.join(command)
    assert split(text) == tuple(command)
    assert How.parse(f"rolling:{text}") == How(command=tuple(command), rolling=True)


@pytest.mark.parametrize("text", ["", "   ", "'", 'a "b', "\n"])
def test_a_command_that_is_none(text: str) -> None:
    """No words, or a quotation that is not closed."""
    with pytest.raises(UsageError) as caught:
        split(text)
    assert caught.value.advice


def test_a_rolling_replacement_is_not_asked_twice() -> None:
    """There is no signal to repeat."""
    with pytest.raises(UsageError):
        How.parse("rolling:true", again_s=1.0)


def test_it_says_what_it_does() -> None:
    """People read who gets what, and when again."""
    assert str(How()) == "SIGTERM to the main process"
    assert str(How(2, To.GROUP, 0.3)) == "SIGINT to the whole process group, again after 0.3 s"
    assert str(How(command=("a b", "c"))) == "stopped by `'a b' c`"
    assert str(How(command=("a",), rolling=True)) == "replaced by `a`"


@given(words, st.integers(1, 65535))
def test_only_what_is_known_is_filled_in(command: list[str], port: int) -> None:
    """Braces of others stay; ours become the value in every word, however often."""
    plain = tuple(word.replace("{", "(") for word in command)
    assert fill(plain, {"port": port}) == plain
    assert fill((*plain, "{port}:{port}", "{key}"), {"port": port}) == (
        *(*plain, f"{port}:{port}", "{key}"),
    )


CODE = """
import subprocess
child = subprocess.Popen(["sleep", "60"])
print("ready", child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("to", list(To))
def test_an_aim_hits_who_is_meant(to: To) -> None:
    """The main process alone, or its child, too: its output ends once nobody holds it any more."""
    with victim(sys.executable, "-c", CODE, ready="") as main:
        child = Handle.open(int(main.line().split()[1]))
        try:
            aim = Aim(main.pid, to)
            aim.send(signal.SIGKILL)
            aim.close()
            assert main.wait() == -signal.SIGKILL
            if to is To.MAIN:
                assert not child.exited()
                child.send(signal.SIGKILL)
            assert main.line() == ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send(signal.SIGKILL)
            child.close()


def test_an_aim_at_nobody() -> None:
    """Who has ended cannot be aimed at."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(NotRunning):
        Aim(gone.pid, To.GROUP)
