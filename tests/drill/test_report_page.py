"""The page as text: whole, well formed, harmless, bounded. How it looks: test_report_browser.py."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from drill import results
from lastcall.drill.report import html

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.result import Result

VOID = {"meta", "link"}
LARGEST = 900_000


class Reader(HTMLParser):
    """Collects elements, and complains of those that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A shape of SVG."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """It has to be the last one that was opened."""
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing, line {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Text outside scripts and styles."""
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += data


def read(page: str) -> Reader:
    """The page, parsed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.mark.parametrize("made", results.ALL)
def test_every_page_is_whole_and_loads_nothing(made: Callable[[], Result]) -> None:
    """Every element is closed, and nothing names an address to load from."""
    page = html.render(made())
    reader = read(page)
    assert not reader.faults
    assert not reader.open
    assert len(page) < LARGEST
    for tag, attrs in reader.tags:
        assert tag not in {"iframe", "img", "object", "embed", "form", "base"}
        assert "src" not in attrs
        assert str(attrs.get("href", "#")).startswith(("#", "data:"))
        assert not [name for name in attrs if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page


def test_the_reader_of_this_test_can_fail() -> None:
    """What is not closed in order is found."""
    assert read("<div><p></div>").faults
    assert read("<div>").open == ["div"]


@pytest.mark.parametrize("made", results.ALL)
def test_every_page_has_one_script_and_a_strict_policy(made: Callable[[], Result]) -> None:
    """The only script is ours, to the letter, and the policy allows nothing from outside."""
    reader = read(html.render(made()))
    scripts = [tag for tag, _ in reader.tags if tag == "script"]
    assert len(scripts) == 1
    policies = [a for t, a in reader.tags if t == "meta" and "http-equiv" in a]
    assert str(policies[0]["content"]).startswith("default-src 'none'; style-src 'unsafe-inline'")
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_strangers_text_stays_text() -> None:
    """Nothing that a server or a user wrote becomes an element or steers the text."""
    page = html.render(results.hostile())
    assert "<script>alert" not in page
    assert "alert(1)" in read(page).text
    for sign in ("\x00", "\x07", "\x1b", "\u202e"):
        assert sign not in page
    assert "bold" in read(page).text


def test_a_loss_says_what_why_and_what_to_do() -> None:
    """Verdict, sentence, findings, table, what was not tested, the command."""
    said = read(html.render(results.losing())).text
    for words in (
        "Loses work",
        "20 of 20 requests in the handler were lost",
        "died of SIGTERM, 12 ms after the stop",
        "Nothing handles SIGTERM",
        "Install a handler",
        "3 executed but unanswered, 2 half executed, 15 never started",
        "not reached, so not tested",
        "not offered, so not tested",
        "That is no pass",
        "Times may be off by 0.4 ms",
        "lastcall drill http --slow-path /slow",
    ):
        assert words in said


def test_every_connection_is_drawn_and_listed() -> None:
    """A row each in the drawing, and the same attempts in the table below it."""
    result = results.losing()
    page = html.render(result)
    shown = {
        j.attempt.connection
        for j in result.judgement.judged
        if j.attempt.kind.key not in {"newcomer", "load"}
    }
    assert page.count('<g class="r">') == len(shown)
    assert '<th scope="row">33</th>' in page


def test_a_huge_drill_says_that_it_draws_a_part() -> None:
    """Beyond 500 connections a part is drawn, and the page says so."""
    said = read(html.render(results.huge())).text
    assert "of 2,001 connections are drawn" in said
    assert "had ended before the time that is drawn here" in said
    assert "The last 200 of 5,000 lines" in said


def test_what_never_got_ready_has_no_timeline() -> None:
    """Nothing was stopped, so nothing is drawn around a stop."""
    page = html.render(results.inconclusive())
    assert 'id="timeline"' not in page
    assert "No module named" in page
    assert "from the start of the drill" in page


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2, relative luminance)."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_and_dark() -> None:
    """All text colours reach a contrast of 4.5 on their ground."""
    style = files("lastcall.drill.report").joinpath("page.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for name in ("ink", "soft", "good", "calm", "bad", "unsure"):
            assert contrast(colours[name], colours["bg"]) >= 4.5, name
        assert contrast(colours["ink"], colours["panel"]) >= 4.5
