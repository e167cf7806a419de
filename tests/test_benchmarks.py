"""The benchmarks run, measure everything they promise, and write it where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import page
from measure import Row, Series

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
    "virsh shutdown, then virsh domstate every 1 s",
    "virsh shutdown, and virsh event --loop until it says Stopped",
    "a bare program on qemu.qmp that does nothing but press and wait",
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
    "guests: from the end of QEMU to the command's return, libvirt",
    "guests: from the end of QEMU to the command's return, qmp",
    *(
        f"{kind}: {measure}"
        for kind in ("zoo guests", "played monitors")
        for measure in (
            "from the last power-off to the command's return",
            "the whole command, over what the slowest takes",
            "from the start to the last press",
            "of one core while waiting",
            "CPU time for each",
            "memory for each further one",
        )
    ),
)


def cells(text: str) -> list[list[str]]:
    """The lines of a page's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.timeout(900)  # everything there is, each once or twice
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


def test_one_part_leaves_the_other_lines_of_a_page_alone(tmp_path: Path) -> None:
    """What is measured anew stands where it stood, and what is new stands at the end."""
    written = tmp_path / "page.md"
    taken = Series("s", (1.0, 2.0, 3.0))
    rows = [Row(name, taken) for name in ("disks: old", "guests: gone", "guests: kept", "nets")]
    text = page.measured(rows, "a machine", (1.0, 2.0), "3 rounds")
    written.write_text(f"Before.\n{page.BEGIN}\n{page.END}\nAfter.\n")
    page.write(str(written), text)
    anew = [Row(name, Series("s", (9.0,))) for name in ("guests: kept", "more: new")]
    for _ in range(2):
        page.write(str(written), page.renewed(str(written), anew, (3.0, 4.0), "guests"))
    text = written.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert text.count("a machine") == 1
    assert text.count("The lines of guests were measured") == 1
    _, _, *lines = cells(text)
    assert [line[0] for line in lines] == ["disks: old", "guests: kept", "more: new", "nets"]
    assert sum(not line for line in text.splitlines()) == 5
    assert [line[1].startswith("9 s") for line in lines] == [False, True, True, False]


def test_the_committed_page_has_every_row() -> None:
    """The page in the repository was written by a full run of these benchmarks."""
    _, _, *rows = cells((ROOT / "docs" / "benchmarks.md").read_text())
    assert not [name for name in ALTERNATIVES if name not in {row[2] for row in rows}]
    assert any("stopping 1,000 processes" in row[0] for row in rows)
    for kind in ("100 zoo guests", "1,000 played monitors", "5,000 played monitors"):
        assert any(f"guests: {kind}" in row[0] for row in rows)
