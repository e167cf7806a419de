"""The judge of the measured diagnoses, on planted results; and the drawings it is fed with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from guests import matrix, screens_unseen, wordings_unseen, zoo
from guests.matrix import CANDIDATES, CASES, NOTHING, Case, Result

_STILL = "still running"
_CASE = {case.name: case for case in CASES}


def _right(case: Case, number: int) -> Result:
    """A run in which all was right."""
    screen = case.screen(number, 1, 20)
    shown = screen.text if screen else ""
    if case.right == CANDIDATES:
        return Result(
            case.name,
            "pc",
            _STILL,
            ("taken-nothing-moves",),
            shown,
            "font, 800x600, message, specks 0 %",
        )
    if "-" in case.right or case.right in {"halted", "asleep", "updating"}:
        return Result(
            case.name,
            "pc",
            _STILL,
            (case.right, "agent-hung"),
            shown,
            "font, 800x600, message, specks 0 %",
        )
    return Result(case.name, "pc", case.right, ("logon-screen",), shown)


def _all_right() -> dict[str, list[Result]]:
    return {case.name: [_right(case, number) for number in range(20)] for case in CASES}


def _line(lines: list[str], name: str) -> list[str]:
    """The cells of a row."""
    [row] = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def _cell(lines: list[str], name: str, column: str) -> str:
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")]
    return _line(lines, name)[heads.index(column)]


def test_every_guest_of_the_zoo_has_a_row() -> None:
    """No guest is left out, and every one that shows something shows an unseen screen."""
    assert {guest for case in CASES for guest in case.guests} == set(zoo.NAMES)
    for case in CASES:
        assert bool(case.screens) == all(guest in zoo.SHOWING for guest in case.guests), case.name


def test_what_is_right_counts_as_right() -> None:
    """All is right: no wrong name, nothing listed, nothing missing."""
    results = _all_right()
    assert matrix.missing(results, 20) == []
    assert matrix.summary(results)[0].startswith(f"Wrong names: **0 of {20 * len(CASES)}**")
    assert matrix.listed(results) == ["None."]
    assert matrix.left_open(results) == ["None."]
    for case in CASES:
        assert _cell(matrix.matrix(results), case.name, case.right) == "**20**"
        assert _cell(matrix.matrix(results), case.name, "wrong") == "0"


@pytest.mark.parametrize(
    ("name", "code", "column"),
    [
        ("logon", "app-blocks", "app-blocks"),
        ("updates", "update-stands-still", "update-stands-still"),
        ("takes-and-ignores", "press-ignored", "press-ignored"),
        ("another screen, still", "updating", "updating"),
        ("another screen, at work", "shutting-down", "shutting-down"),
        ("needs-two", "logon-screen", "logon-screen"),
    ],
)
def test_a_planted_wrong_name_is_found(name: str, code: str, column: str) -> None:
    """One wrong name among hundreds of right ones is counted, and listed with its screen."""
    results = _all_right()
    planted = replace(results[name][7], findings=(code, "taken-nothing-moves"))
    results[name][7] = planted
    lines = matrix.matrix(results)
    assert _cell(lines, name, column) == "1"
    assert _cell(lines, name, _CASE[name].right) == "**19**"
    assert _cell(lines, name, "wrong") == "1"
    assert matrix.summary(results)[0].startswith("Wrong names: **1 of ")
    [told] = matrix.listed(results)
    assert told.startswith(f"- {name}, `{code}`")
    first = (planted.screen.splitlines() or ["(pc)"])[0].strip()
    assert first.replace("\\", "") in told.replace("\\", "")


def test_a_wrong_ending_is_a_wrong_name() -> None:
    """A guest that was to stay and ended, and one that was to end and stayed, are both wrong."""
    results = _all_right()
    results["logon"][0] = replace(results["logon"][0], ending="orderly")
    results["stops"][0] = replace(results["stops"][0], ending=_STILL, findings=("logon-screen",))
    results["reboots"][0] = replace(results["reboots"][0], ending="orderly")
    lines = matrix.matrix(results)
    assert [_cell(lines, name, "wrong") for name in ("logon", "stops", "reboots")] == ["1"] * 3
    assert _cell(lines, "stops", "logon-screen") == "1"
    assert _cell(lines, "reboots", "orderly") == "1"


@pytest.mark.parametrize("code", ["taken-nothing-moves", "taken-still-working", "signs-disagree"])
def test_candidates_are_no_wrong_name(code: str) -> None:
    """What leaves it open is counted as that: neither right nor wrong."""
    results = _all_right()
    results["reason"][3] = replace(results["reason"][3], findings=(code, "updating"))
    results["reason"][4] = replace(results["reason"][4], findings=())
    lines = matrix.matrix(results)
    assert _cell(lines, "reason", "waits-for-reason") == "**18**"
    assert _cell(lines, "reason", CANDIDATES) == "1"
    assert _cell(lines, "reason", NOTHING) == "1"
    assert _cell(lines, "reason", "wrong") == "0"
    assert matrix.summary(results)[1].startswith("**2 of 80**")
    assert matrix.summary(results)[2].startswith("**0 of 240**")
    assert len(matrix.left_open(results)) == 2


def test_a_run_that_is_missing_is_seen() -> None:
    """A table is not complete with a run less, and an empty one proves nothing."""
    results = _all_right()
    results["halts"].pop()
    assert matrix.missing(results, 20) == ["halts"]
    assert matrix.missing({}, 20) == [case.name for case in CASES]
    assert "no runs" in matrix.summary({})[0]


def test_screens_are_counted_by_language_and_drawing() -> None:
    """Each screen stands under the language of its words, and under its drawing."""
    results = _all_right()
    korean = next(n for n, r in enumerate(results["updates"]) if "업데이트" in r.screen)
    results["updates"][korean] = replace(results["updates"][korean], findings=("logon-screen",))
    lines = matrix.by_screen(results)
    counts = {
        name: [int(_cell(lines, name, column)) for column in lines[0].strip("| ").split(" | ")[1:]]
        for name in ("all four, no specks", "all four, 640x480")
    }
    assert counts["all four, 640x480"] == [0] * 5
    runs, known, *rest = counts["all four, no specks"]
    assert [runs, *rest] == [80, 79, 0, 1]
    assert 0 < known < runs
    assert _line(lines, "updates, English")[3:] == ["12", "0", "0"]
    assert _line(lines, "updates, Korean")[3:] == ["7", "0", "1"]


@pytest.mark.parametrize("wording", [wordings_unseen.UPDATING[0], wordings_unseen.REASON[1]])
def test_drawings_are_what_a_guest_can_show(wording: wordings_unseen.Wording) -> None:
    """The same seed draws the same, another one something else, both in the guest's own format."""
    first, same, other = (screens_unseen.draw(wording, seed) for seed in ("1", "1", "2"))
    assert first == same
    assert first.pixels != other.pixels
    image = Image.frombytes("1", first.size, first.pixels)
    ink = image.convert("L").histogram()
    assert min(ink[0], ink[255]) > 500
    assert len(first.pixels) == first.size[0] * first.size[1] // 8


def test_words_on_a_screen_are_no_markdown() -> None:
    """What stands on a screen is listed as it is, whatever signs are in it."""
    results = _all_right()
    planted = replace(results["logon"][0], screen="<Del> [x] a_b\nC:\\", findings=("updating",))
    results["logon"][0] = planted
    [told] = matrix.listed(results)
    assert "“\\<Del\\> \\[x\\] a\\_b / C:\\\\”" in told
