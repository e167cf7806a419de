"""What became of a press, and whether to press again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.targets.guest.press import (
    MOST_PRESSES,
    SETTLE_S,
    STILL_S,
    Press,
    became,
    press_again,
)
from lastcall.targets.guest.words import Pm1, System

if TYPE_CHECKING:
    from collections.abc import Sequence

DEAF, NO_BUTTON = Pm1(0x0001, 0, 0), Pm1(0x0001, 0, 1)
LISTENS, PENDING = Pm1(0x0001, 0x0100, 1), Pm1(0x0101, 0x0100, 1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, [], Press.UNREAD),
        (LISTENS, [], Press.UNREAD),
        (DEAF, [DEAF], Press.DROPPED),
        (NO_BUTTON, [NO_BUTTON, NO_BUTTON], Press.DROPPED),
        (LISTENS, [PENDING], Press.PENDING),
        (LISTENS, [PENDING, PENDING], Press.PENDING),
        (LISTENS, [PENDING, LISTENS], Press.TAKEN),
        (LISTENS, [LISTENS], Press.TAKEN),  # it was faster than the first look
        (None, [PENDING, LISTENS], Press.TAKEN),
        (None, [LISTENS], Press.UNSURE),
        (None, [DEAF], Press.UNSURE),  # it may have been taken, and the button switched off
        (DEAF, [LISTENS], Press.UNSURE),  # it began to listen in that very moment
        (DEAF, [DEAF, LISTENS], Press.DROPPED),
        (DEAF, [PENDING], Press.PENDING),
    ],
)
def test_what_became_of_it(before: Pm1 | None, after: Sequence[Pm1], expected: Press) -> None:
    """The registers before and after tell dropped, pending and taken apart."""
    assert became(before, after) is expected


def test_one_that_was_dropped_is_pressed_again_once_it_listens() -> None:
    """Not at once: whoever reacts to the button may start a moment after it."""

    def again(listens_s: float | None) -> str:
        return press_again(
            Press.DROPPED, listens_s=listens_s, still_s=99, system=System.LINUX, presses=1
        )

    assert again(None) == ""
    assert again(SETTLE_S / 2) == ""
    assert "dropped" in again(SETTLE_S)


@pytest.mark.parametrize("system", list(System))
def test_only_windows_is_pressed_again_after_it_took_one(system: System) -> None:
    """A second press makes others cancel; on Windows the first may only have woken the screen."""
    again = press_again(Press.TAKEN, listens_s=99, still_s=STILL_S, system=system, presses=1)
    assert bool(again) is (system is System.WINDOWS)


def test_one_that_moves_is_left_alone() -> None:
    """A Windows that is at work, or of which that is not known, is not pressed again."""
    for still_s in (None, STILL_S - 1):
        assert not press_again(
            Press.TAKEN, listens_s=9, still_s=still_s, system=System.WINDOWS, presses=1
        )


def test_one_that_woke_is_pressed_again_when_it_listens() -> None:
    """The press before it was used up; on some machines the button is dead after waking."""
    for listens_s, expected in ((SETTLE_S, True), (0.0, False), (None, False)):
        again = press_again(
            Press.TAKEN,
            listens_s=listens_s,
            still_s=None,
            system=System.UNKNOWN,
            presses=1,
            woken=True,
        )
        assert bool(again) is expected


@given(
    press=st.sampled_from(Press),
    listens_s=st.none() | st.floats(0, 100),
    still_s=st.none() | st.floats(0, 100),
    system=st.sampled_from(System),
    presses=st.integers(0, 10),
    woken=st.booleans(),
)
def test_never_where_it_could_harm(
    press: Press,
    listens_s: float | None,
    still_s: float | None,
    system: System,
    presses: int,
    *,
    woken: bool,
) -> None:
    """Not while one is pending, not when nothing is known, not without end, and with a reason."""
    why = press_again(
        press,
        listens_s=listens_s,
        still_s=still_s,
        system=system,
        presses=presses,
        woken=woken,
    )
    if presses >= MOST_PRESSES or press is Press.PENDING:
        assert not why
    if press in {Press.UNREAD, Press.UNSURE} and not woken:
        assert not why
    if press is Press.TAKEN and system is not System.WINDOWS and not woken:
        assert not why
