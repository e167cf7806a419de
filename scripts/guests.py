"""Measures how often the diagnosis of a guest is right, and writes docs/guests-matrix.md.

    .venv/bin/python scripts/guests.py                      everything, about half an hour
    .venv/bin/python scripts/guests.py --only logon         one row, shown and not written
    .venv/bin/python scripts/guests.py --seed 2             other drawings

Every guest of the zoo, on real QEMU, stopped by the real command. It goes on where it was
interrupted: every finished run is kept in build/guests.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
# The zoo and the judge are there; and this folder is not wanted: this file is named as they are.
sys.path[0] = str(ROOT / "tests")

from guests import matrix, screens_unseen, stopping, zoo  # noqa: E402 (after the path)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guests.stopping import Said

PAGE = ROOT / "docs" / "guests-matrix.md"
KEPT = ROOT / "build" / "guests"
END = "<!-- measured: end -->"
_NEVER_UP = {"late", "firmware"}


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One stop of one guest, to be made."""

    case: matrix.Case
    number: int
    words: argparse.Namespace

    @property
    def kept(self) -> Path:
        """Where its result is."""
        name = re.sub(r"\W+", "-", self.case.name)
        return KEPT / f"seed-{self.words.seed}" / name / f"{self.number}.json"

    @property
    def machine(self) -> str:
        """They take turns, and each screen meets the other one with the next seed."""
        return zoo.MACHINES[(self.number + self.words.seed) % len(zoo.MACHINES)]

    @property
    def guest(self) -> str:
        """Of the zoo."""
        return self.case.guests[self.number // 2 % len(self.case.guests)]


def main() -> int:
    """Measure, show, and write when all is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="of each row")
    parser.add_argument("--at-once", type=int, default=6, help="so many guests by one command")
    parser.add_argument("--only", metavar="NAME", help="this row alone; nothing is written")
    parser.add_argument("--seed", type=int, default=1, help="which drawings of the screens")
    words = parser.parse_args()
    chosen = [case for case in matrix.CASES if words.only in {None, case.name}]
    if not chosen:
        parser.error(f"no row {words.only}; there are: {', '.join(c.name for c in matrix.CASES)}")
    runs = [Run(case, number, words) for number in range(words.runs) for case in chosen]
    for batch in _batches([run for run in runs if not run.kept.exists()], words.at_once):
        try:
            _carry_out(batch)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(f"a batch failed, repeat it: {error}", file=sys.stderr, flush=True)
    results = _results(runs)
    missing = matrix.missing(results, words.runs)
    if words.only or missing:
        print("\n".join(_measured(results)))
        print(f"\nnot written; not complete: {', '.join(missing)}")
        return 0 if words.only else 1
    return _write(words.seed, _measured(results))


def _batches(runs: Sequence[Run], at_once: int) -> Iterator[list[Run]]:
    """Those that one command may stop together: the same options."""
    for options in dict.fromkeys(run.case.options for run in runs):
        alike = [run for run in runs if run.case.options == options]
        for start in range(0, len(alike), at_once):
            yield alike[start : start + at_once]


def _carry_out(batch: Sequence[Run]) -> None:
    drawn = [_screen(run) for run in batch]
    with contextlib.ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guests-")))
        guests = [
            stack.enter_context(_start(run, picture))
            for run, (_, picture) in zip(batch, drawn, strict=True)
        ]
        for run, guest in zip(batch, guests, strict=True):
            if run.guest not in _NEVER_UP:
                guest.wait_up()
            if run.guest == "sleeps":
                guest.side.wait_event("SUSPEND")
        addresses = [f"qmp:{guest.qmp}" for guest in guests]
        said = stopping.stop(addresses, batch[0].case.options, state)
        for run, shown, guest in zip(batch, drawn, guests, strict=True):
            if (guest.process.poll() or 0) < 0:
                # Then that is what it was: no run of this guest.
                named = said[f"qmp:{guest.qmp}"].ending
                print(f"{run.case.name} {run.number}: QEMU itself crashed ({guest}); told: {named}")
            else:
                _keep(run, *shown, said[f"qmp:{guest.qmp}"])


def _screen(run: Run) -> tuple[str, screens_unseen.Drawn | None]:
    """The words on its screen, and the picture; nothing: it shows its own."""
    wording = run.case.screen(run.number, run.words.seed, run.words.runs)
    if wording is None:
        return "", None
    seed = f"{run.words.seed} {run.case.name} {run.number}"
    return wording.text, screens_unseen.draw(wording, seed)


def _start(
    run: Run, picture: screens_unseen.Drawn | None
) -> contextlib.AbstractContextManager[zoo.Guest]:
    numbers = dict(run.case.numbers)
    if picture is None:
        own = zoo.image(run.guest, **numbers)
        return zoo.start(run.guest, run.machine, disk=own)
    disk = zoo.picture_image(picture.pixels, run.guest, picture.size, **numbers)
    try:
        # The guest has its own copy once it runs: this one would never be wanted again.
        return _without(disk, zoo.start(run.guest, run.machine, disk=disk))
    except BaseException:
        disk.unlink()
        raise


@contextlib.contextmanager
def _without(
    disk: Path, started: contextlib.AbstractContextManager[zoo.Guest]
) -> Iterator[zoo.Guest]:
    try:
        with started as guest:
            disk.unlink()
            yield guest
    finally:
        disk.unlink(missing_ok=True)


def _keep(run: Run, text: str, picture: screens_unseen.Drawn | None, said: Said) -> None:
    finished = said.of("finished")
    findings = finished[-1]["findings"] if finished else []
    result = matrix.Result(
        run.case.name,
        run.machine,
        said.ending,
        tuple(said.findings),
        text,
        picture.how if picture else "",
        tuple(findings[0].get("evidence", ())) if findings else (),
        str(said.result["detail"]),
    )
    run.kept.parent.mkdir(parents=True, exist_ok=True)
    partial = run.kept.with_suffix(".partial")
    made = json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1)
    partial.write_text(made, encoding="utf-8")
    partial.replace(run.kept)
    mark = "" if result.named == run.case.right else f"   (right: {run.case.right})"
    print(f"{run.case.name} {run.number} {run.machine}: {result.code}{mark}", flush=True)


def _results(runs: Sequence[Run]) -> dict[str, list[matrix.Result]]:
    results: dict[str, list[matrix.Result]] = {}
    for run in runs:
        if run.kept.exists():
            told = json.loads(run.kept.read_text(encoding="utf-8"))
            told |= {"findings": tuple(told["findings"]), "read": tuple(told["read"])}
            results.setdefault(run.case.name, []).append(matrix.Result(**told))
    return results


def _measured(results: dict[str, list[matrix.Result]]) -> list[str]:
    return [
        f"{_versions()}.",
        "",
        *matrix.summary(results),
        "",
        *matrix.matrix(results),
        "",
        *matrix.by_screen(results),
        "",
        "**Wrong names**",
        "",
        *matrix.listed(results),
        "",
        "**Left open, though the screen said it**",
        "",
        *matrix.left_open(results),
    ]


def _versions() -> str:
    qemu = re.search(r"version (\S+)", _said("qemu-system-x86_64", "--version"))
    reader = re.search(r"tesseract (\S+)", _said("tesseract", "--version"))
    packages = ("tesseract-ocr-eng", "tesseract-ocr-kor", *screens_unseen.PACKAGES)
    fonts = _said("dpkg-query", "-W", "-f", "${Package} ${Version}, ", *packages).strip(", \n")
    return f"QEMU {qemu and qemu[1]}, tesseract {reader and reader[1]}, {fonts}"


def _said(*command: str) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return ran.stdout


def _write(seed: int, lines: list[str]) -> int:
    """Put the lines between the marks of this seed."""
    begin = f"<!-- measured: begin (written by `make guests`, seed {seed}) -->"
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    if not found:
        print("\n".join(lines))
        print(f"\nnot written: {PAGE.name} has no place for seed {seed}")
        return 0
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n".join([begin, "", *lines, "", END]) + after, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
