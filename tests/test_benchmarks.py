"""The benchmarks run, measure everything they promise, and write it where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import page

ROOT = Path(__file__).parent.parent
ALTERNATIVES = (
    "timeout",
    "start-stop-daemon --stop --retry",
    "pkill --signal TERM, then pidwait",
    "kill, then kill -0 every 0.1 s",
    "supervisorctl stop",
    "python -c pass",
    "python -c 'import asyncio'",
    "xargs -P kill, then kill -0 every 0.1 s",
    "not recorded",
    "wrk",
    "hey",
)
MEASURES = (
    "from the target's end to the command's return",
    "from the target's end to the event in the library",
    "lastcall --version: over python -c pass",
    "a whole lastcall stop of a program that ends at once: over python -c 'import asyncio'",
    "wall time",
    "over what the slowest target takes",
    "CPU time",
    "peak memory",
    "memory for each further target",
    "journal: events of 100 stops side by side",
    "what the journal adds to one stop",
    "drill: requests a second that one core holds",
    "clock error, worst",
    "from due to answered",
    "drill: memory for each request in the history",
    "drill: lines of the history written",
)


def cells(text: str) -> list[list[str]]:
    """The lines of a page's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.timeout(400)  # everything there is, each a few times
def test_everything_is_measured_and_written(tmp_path: Path) -> None:
    """A short run against every alternative fills every row, and leaves the rest of a page."""
    written = tmp_path / "benchmarks.md"
    written.write_text(f"# Before\n\n{page.BEGIN}\nold\n{page.END}\n\nAfter.\n")
    command = [sys.executable, "benchmarks/run.py", "--quick", "--page", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = written.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter.\n")
    assert "\nold\n" not in text
    heads, _, *rows = cells(text)
    assert heads == list(page.HEADS)
    assert all(len(row) == len(page.HEADS) for row in rows)
    assert not [name for name in ALTERNATIVES if name not in {row[2] for row in rows}]
    assert not [m for m in MEASURES if not any(m in row[0] for row in rows)]
    assert all(row[6] in {"yes", "**no**"} for row in rows if row[5])


def test_a_page_with_half_its_marks_is_left_alone(tmp_path: Path) -> None:
    """Without both marks nobody knows what may be replaced: nothing is."""
    half = tmp_path / "half.md"
    half.write_text(f"# Mine\n{page.BEGIN}\nmine\n")
    with pytest.raises(ValueError, match="lacks the mark"):
        page.write(str(half), "new")
    assert half.read_text() == f"# Mine\n{page.BEGIN}\nmine\n"


def test_the_committed_page_has_every_row() -> None:
    """The page in the repository was written by a full run of these benchmarks."""
    _, _, *rows = cells((ROOT / "docs" / "benchmarks.md").read_text())
    assert not [name for name in ALTERNATIVES if name not in {row[2] for row in rows}]
    assert any("stopping 1,000 processes" in row[0] for row in rows)
