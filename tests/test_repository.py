"""The checkout as a whole: what must stay in step, and what must not stand in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lastcall
import pages
from lastcall.errors import GRAVITY, MEANING, ExitCode
from lastcall.model import Ending, Stage
from lastcall.targets.process.before import preflight

ROOT = Path(__file__).parent.parent
# Put together, so that this file does not name what it looks for.
OUTSIDE = ("/" + "work/", "../" + "shared")


def tracked() -> list[Path]:
    """Every file of the repository, also those not yet committed."""
    # A clone may belong to another user than the one who tests it.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted((ROOT / "src").rglob("*.py"))


def rows(page: str) -> list[list[str]]:
    """The cells of all table rows of a page."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]


def test_nothing_points_outside_the_repository() -> None:
    """No file names a path of the machine that it was written on."""
    found = [
        f"{path.relative_to(ROOT)}: {outside}"
        for path in tracked()
        for outside in OUTSIDE
        if outside.encode() in path.read_bytes()
    ]
    assert not found


def test_the_lock_names_no_host() -> None:
    """The locked requirements say what is installed, never from where."""
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    assert [lock.name for lock in locks] == ["dev.txt", "libvirt.txt", "uv.txt"]
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text
        assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)


def test_both_readmes_have_the_same_sections_and_blocks() -> None:
    """The Korean README has the headings and code blocks of the English one."""
    levels, blocks = pages.read((ROOT / "README.md").read_text())
    levels_ko, blocks_ko = pages.read((ROOT / "README.ko.md").read_text())
    assert levels, "README.md has no headings"
    assert levels_ko == levels

    def without_remarks(given: list[pages.Block]) -> list[tuple[str, str]]:
        remark = re.compile(r"(^|\s+)# .*$", re.MULTILINE)
        return [(b.language, remark.sub("", b.text)) for b in given]

    assert without_remarks(blocks_ko) == without_remarks(blocks)


def test_the_version_stands_in_two_places_and_is_one() -> None:
    """pyproject.toml and `lastcall.__version__` agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == lastcall.__version__


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_every_module_says_what_it_is(path: Path) -> None:
    """Each module begins with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_table_of_exit_codes_is_in_step() -> None:
    """docs/exit-codes.md lists every code with its name and meaning, in order."""
    expected = [
        [str(code.value), code.name.lower().replace("_", " "), MEANING[code]]
        for code in sorted(ExitCode)
    ]
    shown = "\n".join("| " + " | ".join(row) + " |" for row in expected)
    assert [row for row in rows("exit-codes.md") if row[0].isdecimal()] == expected, shown


def test_the_gravity_of_exit_codes_is_in_step() -> None:
    """docs/exit-codes.md orders all codes as `GRAVITY` does, and each occurs once."""
    expected = ", ".join(str(code.value) for code in GRAVITY) + "."
    assert expected in " ".join((ROOT / "docs" / "exit-codes.md").read_text().split())
    assert sorted(GRAVITY) == sorted(ExitCode)


def test_every_ending_and_stage_is_a_word_of_the_design() -> None:
    """docs/design.md explains each stage and each ending under the name that is shown."""
    explained = {row[0] for row in rows("design.md")}
    assert {str(word) for word in (*Ending, *Stage)} <= explained


def test_the_wheel_works_alone(tmp_path: Path) -> None:
    """The built wheel, without any other package, prints its version."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    start = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); sys.argv = ['lastcall', '--version'];"
        "from lastcall.cli.main import run; sys.exit(run())"
    )
    alone = [sys.executable, "-I", "-S", "-c", start]  # no site-packages
    done = subprocess.run(alone, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lastcall.__version__ in done.stdout


def test_every_finding_is_documented() -> None:
    """The codes of docs/findings.md are those that the sources can give, no more and no less."""
    given: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Finding":
                continue
            named = [k.value for k in node.keywords if k.arg == "code"]
            [code] = node.args[:1] or named
            if isinstance(code, ast.Constant):
                given.add(str(code.value))
    given |= {code for code, _, _ in preflight._NO_EFFECT.values()}
    documented = {code for row in rows("findings.md") for code in re.findall(r"`([\w-]+)`", row[0])}
    assert documented == given
