"""Every example in README.md and docs/ is run, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

import pages
from helpers import wait_until

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[pages.Block]:
    """The code blocks of a page."""
    return pages.read((ROOT / page).read_text())[1]


def to_run(page: str) -> list[pages.Block]:
    """Those of them that are marked to be run."""
    return [b for b in blocks(page) if b.is_example and b.mark == "run"]


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_marked(page: str) -> None:
    """A block that a reader would try is marked as run, or says why it is not."""
    unmarked = [f"{page}:{b.line}" for b in blocks(page) if b.is_example and b.mark is None]
    assert not unmarked, f"write <!-- run --> or <!-- not run: why --> above: {unmarked}"


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_the_examples_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    """A page's console blocks, run in one shell, print what stands there; Python ones end well."""
    sessions = [b.text for b in to_run(page) if b.language != "python"]
    faults = pages.run_session([c for s in sessions for c in pages.commands(s)], tmp_path)
    for block in to_run(page):
        if block.language == "python":
            faults += pages.run_python(block.text, tmp_path)
    assert not faults, "\n\n".join([page, *faults])


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    """The checker fails on a line that the command does not print."""
    pairs = pages.commands("$ echo one\ntwo\n$ echo a b c\na ... c")
    assert pages.run_session(pairs, tmp_path) == ["$ echo one\nexpected:\ntwo\n\ngot:\none\n"]


def test_a_failing_command_is_found(tmp_path: Path) -> None:
    """The checker fails on a command that fails, and names it."""
    pairs = pages.commands("$ true\n$ (exit 7)\n$ true")
    assert pages.run_session(pairs, tmp_path) == ["$ (exit 7)\nfailed with status 7"]


def test_what_a_session_leaves_running_is_ended(tmp_path: Path) -> None:
    """A background command of an example does not outlive its test."""
    pages.run_session(pages.commands("$ sleep 600 & echo $! > pid"), tmp_path)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")

    def ended() -> bool:
        try:
            return stat.read_text().rpartition(") ")[2][0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(ended, "the background command to end", patience_s=5)


def test_a_failing_python_example_is_found(tmp_path: Path) -> None:
    """The checker shows the traceback of a Python example that fails."""
    assert pages.run_python("print('fine')", tmp_path) == []
    assert "ZeroDivisionError" in pages.run_python("1 / 0", tmp_path)[0]


def test_an_unmarked_example_is_found() -> None:
    """Only the line right above a block marks it."""
    text = "<!-- run -->\n```console\n```\n\n```python\n```\n<!-- not run: -->\n```sh\n```\n"
    assert [b.mark for b in pages.read(text)[1]] == ["run", None, None]
