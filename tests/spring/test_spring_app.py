"""The Spring Boot applications while they serve: the paths and the ledger of the probe."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

import spring_boot
from calls import Call, get, post
from lastcall.drill.judge import Deed
from lastcall.drill.ledger import read_ledger
from lastcall.drill.servers_file import load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(2 * spring_boot.BUILD_S)  # the first test of a checkout builds

PIECES = "piece 000001\npiece 000002\n"
ANSWERS = {
    "/": "200 ok",
    "/health?key=health&s=0": "200 ok",
    "/fast?key=fast": "200 done fast",
    "/slow?key=slow&s=0.1": "200 done slow",
    "/poll?key=poll&s=0.1": "200 done poll",
    "/stream?key=stream&s=0.1&n=2": f"200 {PIECES}done stream",
    "/length?key=length&s=0.1&n=2": f"200 {PIECES}done length",
    "/events?key=events&s=0.1&n=2": "200 data: piece 000001\n\ndata: piece 000002\n\n"
    "data: done events",
}
MEANINGLESS = ("/slow?s=-1", "/slow?s=x", "/stream?n=0", "/fast?key=two%20words")


def ask(port: int, request: bytes) -> str:
    """One request on a connection of its own."""
    with Call(port, request) as call:
        return call.fate()


@pytest.mark.parametrize("name", spring_boot.APPS)
def test_it_answers_as_the_probe_does(name: str, tmp_path: Path) -> None:
    """Every path answers, every deed stands in the ledger once, nonsense is turned away."""
    ledger = tmp_path / "ledger"
    with spring_boot.started(name, ledger=ledger) as (_, port):
        assert {path: ask(port, get(path)) for path in ANSWERS} == ANSWERS
        assert ask(port, post("/upload?key=upload", 4, b"1234")) == "200 4"
        assert [ask(port, get(path))[:3] for path in MEANINGLESS] == ["400"] * len(MEANINGLESS)
        assert ask(port, get("/ws"))[:3] == "404"
    worked = ["health", "fast", "slow", "poll", "stream", "length", "events", "upload"]
    steps = ("begun", "paid", "ordered")
    expected = Counter(Deed(key, step) for key in worked for step in steps)
    assert Counter(read_ledger(str(ledger))) == expected


@pytest.mark.parametrize("name", spring_boot.APPS)
def test_a_stream_goes_out_piece_by_piece(name: str) -> None:
    """The first byte of a stream comes long before its end."""
    with spring_boot.started(name) as (_, port):
        for path in ("/stream", "/length", "/events"):
            with Call(port, get(f"{path}?s=3600&n=2")) as call:
                assert call.socket.recv(12) == b"HTTP/1.1 200"


def test_what_is_built_is_found_again() -> None:
    """A second call gives the same jar and does not build."""
    made = spring_boot.jar("legacy")
    before = made.stat().st_mtime_ns
    assert spring_boot.jar("legacy") == made
    assert made.stat().st_mtime_ns == before


def test_a_build_that_fails_says_what_maven_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources that do not compile fail with the compiler's message, and leave no jar behind."""
    broken = tmp_path / "spring"
    (broken / "src").mkdir(parents=True)
    (broken / "src" / "Broken.java").write_text("class Broken { int x = ; }\n")
    (broken / "legacy").mkdir()
    pom = (spring_boot.SOURCES / "legacy" / "pom.xml").read_text()
    (broken / "legacy" / "pom.xml").write_text(pom)
    monkeypatch.setattr(spring_boot, "SOURCES", broken)
    monkeypatch.setattr(spring_boot, "BUILT", tmp_path / "built")
    with pytest.raises(AssertionError, match=r"programs/spring/legacy(?s:.*)Broken.java"):
        spring_boot.jar("legacy")
    assert not list((tmp_path / "built").iterdir())


def test_a_missing_maven_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Maven the error names the Debian package."""
    monkeypatch.setattr(spring_boot, "BUILT", tmp_path / "built")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="Debian package maven"):
        spring_boot.jar("current")


def test_the_list_of_servers_is_one(tmp_path: Path) -> None:
    """The list for `lastcall drill compare` can be read, and names the jars that were built."""
    path = tmp_path / "servers.toml"
    path.write_text(spring_boot.servers())
    commands = [server.command for server in load(str(path))]
    jars = [str(spring_boot.jar(name)) for name in ("current", "current", "legacy", "legacy")]
    assert [command[2] for command in commands] == jars
    assert all("--server.port={port}" in command for command in commands)
