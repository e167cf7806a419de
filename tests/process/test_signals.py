"""The names of signals, sequences of them, and what a real process would do with each."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import python, victim
from lastcall.errors import BadPolicy
from lastcall.targets.process import signals

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)


@pytest.mark.parametrize(
    ("text", "signum"),
    [
        ("TERM", 15),
        ("sigterm", 15),
        (" SigInt ", 2),
        ("15", 15),
        ("1", 1),
        ("64", 64),
        ("CLD", 17),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax-1", 63),
    ],
)
def test_a_signal_is_known_by_name_and_number(text: str, signum: int) -> None:
    """Names come with or without SIG, in any case; numbers and real-time signals are known."""
    assert signals.number(text) == signum


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "0",
        "65",
        "-1",
        "1.5",
        "٣",
        "9" * 5000,
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX+1",
        "RTMIN+",
    ],
)
def test_nonsense_is_no_signal(text: str) -> None:
    """What names no signal is refused, whatever it looks like."""
    with pytest.raises(BadPolicy):
        signals.number(text)


def test_a_typing_error_gets_a_suggestion() -> None:
    """A near miss names the signals that were probably meant."""
    with pytest.raises(BadPolicy) as caught:
        signals.number("TREM")
    assert "TERM" in caught.value.advice


@given(st.integers(1, 64))
def test_every_name_reads_back(signum: int) -> None:
    """The name of every signal that has one is read back as the same signal."""
    name = signals.name(signum)
    if not name.startswith("signal "):
        assert signals.number(name) == signum


@given(st.text())
def test_any_text_is_a_sequence_or_a_bad_policy(text: str) -> None:
    """Reading a sequence never fails in any other way than by BadPolicy."""
    try:
        steps = signals.sequence(text)
    except BadPolicy:
        return
    assert steps


def test_a_sequence_has_signals_and_lengths() -> None:
    """Each signal comes with its wait; the last may wait until the deadline."""
    assert signals.sequence("INT:5s,TERM:20s") == ((2, 5.0), (15, 20.0))
    assert signals.sequence("hup:500ms, TERM") == ((1, 0.5), (15, None))


@pytest.mark.parametrize(
    "text", ["KILL", "INT:5s,KILL", "STOP:1s", "INT,TERM", "INT:5x", "TERM:8d", "INT:5s,", ""]
)
def test_a_sequence_must_be_soft_and_complete(text: str) -> None:
    """Force is not a soft ask, and every signal but the last says how long it waits."""
    with pytest.raises(BadPolicy):
        signals.sequence(text)


def test_a_sequence_longer_than_a_week_is_refused() -> None:
    """Lengths add up to 7 days at most."""
    with pytest.raises(BadPolicy):
        signals.sequence("INT:100h,TERM:100h")


def test_every_stop_signal_has_a_meaning() -> None:
    """What people send to stop things is explained."""
    wanted = "HUP INT QUIT TERM USR1 USR2 KILL STOP CONT ABRT PIPE ALRM WINCH RTMIN+3 RTMIN+4"
    assert all(signals.number(word) in signals.MEANING for word in wanted.split())


@pytest.mark.parametrize(
    ("mode", "facts"),
    [
        ("plain", set()),
        ("handler", {"handled"}),
        ("ignore", {"ignored"}),
        ("block", {"blocked"}),
        ("pending", {"blocked", "pending"}),
        ("one-thread-blocks", {"part_blocked"}),
    ],
)
def test_the_state_of_a_signal_is_what_the_process_made_it(mode: str, facts: set[str]) -> None:
    """Handled, ignored, blocked by all or by some threads, pending: each as the victim set it."""
    with victim(*python("sig_modes.py", mode)) as process:
        state = signals.states(process.pid)[TERM]
    names = ("handled", "ignored", "blocked", "pending", "part_blocked")
    assert {name for name in names if getattr(state, name)} == facts


def test_python_handles_sigint_by_default() -> None:
    """A Python program catches SIGINT without asking for it."""
    with victim(*python("sig_modes.py", "plain")) as process:
        assert signals.states(process.pid)[INT].handled


def test_nobody_there() -> None:
    """The states of a process that is gone raise ProcessLookupError."""
    with victim(*python("sig_modes.py", "plain")) as process:
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        signals.states(pid)
