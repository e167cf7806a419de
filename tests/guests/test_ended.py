"""How a guest ended, from what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.model import Cause, Ended, Missing
from lastcall.targets.guest.ended import ended
from lastcall.targets.guest.words import Happening, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence


def shutdown(reason: str, *, guest: bool | None = None) -> Happening:
    """A SHUTDOWN with its reason."""
    return Happening(Kind.SHUTDOWN, 2.0, guest, reason)


def happened(kind: Kind, at_s: float = 2.0) -> Happening:
    """Something else."""
    return Happening(kind, at_s)


def gone(status: int | None = None) -> Happening:
    """The machine is gone."""
    return Happening(Kind.GONE, 9.0, status=status)


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([shutdown("guest-shutdown", guest=True), gone(0)], Cause.BY_ITSELF),
        ([shutdown("guest-shutdown", guest=True), happened(Kind.STOP), gone()], Cause.BY_ITSELF),
        # libvirt clears QEMU away with a SIGTERM: the first SHUTDOWN counts.
        (
            [shutdown("guest-shutdown", guest=True), shutdown("host-signal", guest=False), gone()],
            Cause.BY_ITSELF,
        ),
        ([shutdown("host-signal", guest=False), gone(0)], Cause.TAKEN_AWAY),
        ([shutdown("host-qmp-quit", guest=False), gone(0)], Cause.TAKEN_AWAY),
        ([shutdown("guest-panic", guest=True), gone(0)], Cause.PANICKED),
        (
            [happened(Kind.PANICKED), shutdown("guest-shutdown", guest=True), gone(0)],
            Cause.PANICKED,
        ),
        ([shutdown("host-error", guest=False), gone(1)], Cause.FAILED),
        ([shutdown("guest-reset", guest=True), gone(0)], Cause.REBOOTED),  # with -no-reboot
        (
            [happened(Kind.SUSPEND_DISK), shutdown("guest-shutdown", guest=True), gone(0)],
            Cause.HIBERNATED,
        ),
        ([shutdown("", guest=True), gone()], Cause.BY_ITSELF),
        ([shutdown("", guest=False), gone()], Cause.TAKEN_AWAY),
        ([shutdown("", guest=None), gone()], Cause.UNKNOWN),
        ([shutdown("guest-something-new", guest=True), gone()], Cause.BY_ITSELF),
        ([shutdown("host-something-new"), gone()], Cause.TAKEN_AWAY),
        ([gone()], Cause.UNKNOWN),
        ([gone(0)], Cause.UNKNOWN),
        ([gone(9)], Cause.TAKEN_AWAY),
        ([gone(15)], Cause.TAKEN_AWAY),
        ([gone(11)], Cause.FAILED),
        ([gone(6)], Cause.FAILED),
        ([gone(256)], Cause.FAILED),
        # It slept in between, and was off only after it had come back.
        (
            [
                shutdown("guest-shutdown", guest=True),
                happened(Kind.RESET, 1.0),
                shutdown("host-signal", guest=False),
                gone(),
            ],
            Cause.TAKEN_AWAY,
        ),
    ],
)
def test_the_cause(events: Sequence[Happening], cause: Cause) -> None:
    """Each way to end has its cause."""
    end = ended(events, asked_s=1.5)
    assert isinstance(end, Ended)
    assert end.cause is cause
    assert end.detail


def test_it_has_not_ended_before_its_machine_is_gone() -> None:
    """Powered off is not ended: QEMU may still be writing out its caches."""
    assert ended([], 1.0) is None
    assert ended([shutdown("guest-shutdown", guest=True)], 1.0) is None
    assert ended([happened(Kind.SUSPEND), happened(Kind.PANICKED)], 1.0) is None


def test_a_reset_counts_only_after_the_ask_and_from_the_guest() -> None:
    """It rebooted instead: not so when it did before, or when somebody outside reset it."""
    reset = Happening(Kind.RESET, 5.0, guest=True, reason="guest-reset")
    end = ended([reset], asked_s=4.0)
    assert isinstance(end, Ended)
    assert end.cause is Cause.REBOOTED
    assert ended([reset], asked_s=6.0) is None
    assert ended([reset], asked_s=None) is None
    assert ended([Happening(Kind.RESET, 5.0, guest=False)], asked_s=4.0) is None


def test_one_that_moved_away_was_not_stopped() -> None:
    """A guest that runs on another host has no ending here."""
    assert isinstance(ended([happened(Kind.MIGRATED)], 1.0), Missing)


@given(
    st.lists(
        st.builds(
            Happening,
            st.sampled_from(Kind),
            st.floats(0, 10),
            st.none() | st.booleans(),
            st.sampled_from(["", "guest-shutdown", "host-signal", "guest-reset", "x"]),
            st.just(""),
            st.none() | st.integers(0, 0xFFFF),
        ),
        max_size=12,
    )
)
def test_never_orderly_without_the_guests_own_word(events: list[Happening]) -> None:
    """Whatever happened: `by itself` needs a power-off by the guest."""
    end = ended(events, asked_s=0.0)
    if isinstance(end, Ended) and end.cause is Cause.BY_ITSELF:
        offs = [each for each in events if each.kind is Kind.SHUTDOWN]
        assert any(each.reason == "guest-shutdown" or each.guest for each in offs)
