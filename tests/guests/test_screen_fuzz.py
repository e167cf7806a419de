"""The fuzzer of screens runs for a moment here, finds what is planted, and reads its corpus."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from guests import fuzz_screen
from lastcall.targets.guest.screen import phrases, picture

if TYPE_CHECKING:
    from pathlib import Path

MOMENT_S = 2.0


@pytest.mark.parametrize("what", ["picture", "phrases"])
def test_a_moment_of_fuzzing_finds_nothing(what: str, tmp_path: Path) -> None:
    """Damaged files and texts give proper answers, in time."""
    count, failed = fuzz_screen.fuzz(what, MOMENT_S, seed=1, keep=tmp_path)
    assert count > 10
    assert failed == []


def test_a_planted_fault_is_found_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is no BadPicture fails, and the file that caused it is kept."""

    def broken(_data: bytes) -> picture.Picture:
        raise IndexError("planted")

    monkeypatch.setattr(picture, "read", broken)
    _, failed = fuzz_screen.fuzz("picture", 0.1, seed=1, keep=tmp_path)
    assert failed
    assert all(path.stat().st_size >= 0 for path in failed)
    assert "planted" in capsys.readouterr().err


def test_a_planted_hang_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case that goes on for ever is broken off and kept."""

    def endless(_text: str) -> tuple[phrases.Sign, ...]:
        while True:
            pass

    monkeypatch.setattr(phrases, "signs", endless)
    monkeypatch.setattr(fuzz_screen, "CASE_LIMIT_S", 0.1)
    _, failed = fuzz_screen.fuzz("phrases", 0.05, seed=1, keep=tmp_path)
    assert failed
    assert "TooSlow" in capsys.readouterr().err


def test_some_damage_gets_past_the_checksums() -> None:
    """The fuzzer reaches the decoder: some of its files are read, and some are refused by it."""
    chance = random.Random(3)
    files = fuzz_screen.corpus("picture")
    read, decoder = 0, 0
    for _ in range(3000):
        try:
            picture.read(fuzz_screen.made("picture", files, chance))
            read += 1
        except picture.BadPicture as error:
            decoder += error.__cause__ is not None
    assert read > 50
    assert decoder > 50


@pytest.mark.parametrize("name", [path.name for path in fuzz_screen.CORPUS.iterdir()])
def test_the_corpus_is_taken(name: str) -> None:
    """What the fuzzer begins with, and what it once found, gives a proper answer."""
    data = (fuzz_screen.CORPUS / name).read_bytes()
    if name.endswith(".txt"):
        fuzz_screen.phrases_case(data)
    else:
        fuzz_screen.picture_case(data)
        if not name.startswith("found-"):
            assert picture.read(data).width > 0
