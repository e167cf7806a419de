"""The page in a real browser: wide and narrow, light and dark, with a keyboard, without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drill import results
from drill.browser import Page, browser
from lastcall.drill.report import html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIANTS = [(width, scheme) for width in (1280, 390, 360) for scheme in ("light", "dark")]
# What is wider than the window, outside of boxes that scroll by themselves.
TOO_WIDE = """(() => {
  const wide = document.documentElement.scrollWidth - %d;
  return wide > 0 ? `the page is ${wide} px too wide` : "";
})()"""
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all these tests."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    files = {make.__name__: folder / f"{make.__name__}.html" for make in results.ALL}
    for make in results.ALL:
        files[make.__name__].write_text(html.render(make()), encoding="utf-8")
    return files


@pytest.fixture(autouse=True)
def fresh(page: Page) -> None:
    """Complaints of an earlier test are none of this one."""
    page.complaints.clear()
    page.requests.clear()


@pytest.mark.parametrize(("width", "scheme"), VARIANTS)
@pytest.mark.parametrize("kind", [make.__name__ for make in results.ALL])
def test_every_page_fits_and_complains_of_nothing(
    page: Page, made: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    """No script error, no blocked part, no sideways scrolling, nothing loaded but itself."""
    page.open(made[kind], width, scheme)
    assert page.run("innerWidth") == width
    assert not page.run(TOO_WIDE % width)
    assert page.requests == [made[kind].as_uri()]
    assert not page.complaints
    dark = sum(int(part) for part in page.run(GROUND)[4:-1].split(",")) < 200
    assert dark is (scheme == "dark")


def test_the_watcher_of_these_tests_can_fail(page: Page, made: dict[str, Path]) -> None:
    """An error, a blocked request and a part that is too wide are all seen."""
    page.open(made["losing"], 390, "light")
    page.run("fetch('http://127.0.0.1:9/').catch(() => 0)")
    page.run(
        "setTimeout(() => { throw new Error('planted') }); new Promise(r => setTimeout(r, 50))"
    )
    page.run("document.body.insertAdjacentHTML('beforeend', '<hr style=\"width:2000px\">')")
    assert any("Content Security Policy" in said for said in page.complaints)
    assert any("planted" in said for said in page.complaints)
    assert page.run(TOO_WIDE % 390)


def test_the_keyboard_goes_from_connection_to_connection(page: Page, made: dict[str, Path]) -> None:
    """The timeline takes the focus; the arrow keys show each connection's details."""
    page.open(made["losing"], 1280, "light")
    page.run("document.getElementById('timeline').focus()")
    page.press("ArrowDown")
    first = page.run("document.querySelector('.tip').textContent")
    page.press("ArrowDown")
    second = page.run("document.querySelector('.tip').textContent")
    assert first.startswith("#21 connected, no byte sent\nlet go (closed)")
    assert second.startswith("#27 connected, no byte sent")
    page.press("Escape")
    assert page.run("document.querySelector('.tip').hidden")
    assert not page.complaints


def test_everything_in_reach_of_the_tab_key(page: Page, made: dict[str, Path]) -> None:
    """Summaries, buttons, the timeline and what scrolls can be reached."""
    page.open(made["losing"], 1280, "light")
    reached = set()
    for _ in range(14):
        page.press("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.textContent"))
    assert {
        "timeline",
        "command",
        "Copy",
        "The same as a table",
        "4\N{MULTIPLICATION SIGN}",
    } <= reached


def test_the_time_axis_can_be_widened(page: Page, made: dict[str, Path]) -> None:
    """It scrolls inside its own box, with the stop in sight; the page stays as it was."""
    page.open(made["losing"], 390, "light")
    page.run("[...document.querySelectorAll('.zoom button')].at(-1).click()")
    box, lanes, stop = page.run(
        """(() => {
        const box = document.getElementById('timeline');
        const stop = document.querySelector('.grid .s').getBoundingClientRect().left;
        return [box.clientWidth, box.scrollWidth, stop];
        })()"""
    )
    assert lanes > 10 * box
    assert 0 < stop < 390
    assert not page.run(TOO_WIDE % 390)
    assert not page.complaints


def test_the_command_is_copied_without_a_network(page: Page, made: dict[str, Path]) -> None:
    """The button says what it did."""
    page.open(made["losing"], 1280, "light")
    page.run("document.querySelector('.again button').focus()")
    page.press("Enter")
    said = page.run(
        """new Promise(done => {
        const look = () => {
            const text = document.querySelector('.again button').textContent;
            text === 'Copy' ? setTimeout(look, 5) : done(text);
        };
        document.querySelector('.again button').click();
        look();
        })"""
    )
    assert said in {"Copied", "Selected"}
    assert not page.complaints


def test_it_tells_everything_without_scripts(page: Page, made: dict[str, Path]) -> None:
    """Details stand in titles then, and nothing is missing but comfort."""
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(made["losing"], 390, "dark")
        assert page.run("document.querySelectorAll('#timeline .r > title').length") == 33
        assert page.run("document.querySelectorAll('button').length") == 0
        assert "Loses work" in page.run("document.body.innerText")
        assert not page.run(TOO_WIDE % 390)
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_every_mark_is_inside_the_drawing(page: Page, made: dict[str, Path]) -> None:
    """The drawing follows its box: nothing lies outside of the window at any width."""
    for width in (1280, 360):
        page.open(made["losing"], width, "light")
        outside = page.run(
            """[...document.querySelectorAll('#timeline use')].filter(mark => {
            const place = mark.getBoundingClientRect();
            return place.left < 0 || place.right > innerWidth || place.width === 0;
            }).length"""
        )
        assert outside == 0
