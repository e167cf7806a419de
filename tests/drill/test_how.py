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
from lastcall.drill import how as how_module
from lastcall.drill.how import Aim, How, To, fill, open_related, split
from lastcall.errors import NotPermitted, NotRunning, UsageError
from lastcall.kernel.identity import Handle
from lastcall.targets.process import signals

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


@pytest.mark.parametrize("to", [To.GROUP, To.TREE])
def test_an_aim_at_a_number_that_was_given_away(to: To, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a child had ended after the list was made: the stranger of that number is spared."""
    with victim("/bin/sleep", "60", ready="") as main, victim("/bin/cat", ready="") as stranger:
        monkeypatch.setattr(how_module, "_others", lambda *_: [stranger.pid])
        with contextlib.closing(Aim(main.pid, to)) as aim:
            aim.send(signal.SIGKILL)
        assert main.wait() == -signal.SIGKILL
        assert stranger.wait() == 0  # its input is empty: it ended by itself


def test_who_ends_while_he_is_asked_is_not_opened() -> None:
    """The answer may already have been about the next process of that number."""
    with victim("/bin/sleep", "60", ready="") as child:

        def related(_pid: int) -> bool:
            child.child.kill()
            child.wait()
            return True

        assert open_related(child.pid, related) is None


@pytest.mark.parametrize("late", [False, True])
def test_an_aim_at_another_users_process(*, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused in words before anybody is signalled, even if that user came late."""

    def refuse(_handle: Handle, _signum: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with victim("/bin/sleep", "60", ready="") as main:
        with contextlib.ExitStack() as held:
            if late:
                aim = held.enter_context(contextlib.closing(Aim(main.pid, To.MAIN)))
            monkeypatch.setattr(Handle, "send", refuse)
            with pytest.raises(NotPermitted, match="nothing was stopped") as caught:
                _ = aim.send(signal.SIGKILL) if late else Aim(main.pid, To.MAIN)
        assert caught.value.advice
        assert main.child.poll() is None
