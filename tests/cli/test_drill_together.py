"""`lastcall drill compare --together`: its words, its lines, and going on where it was cut off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, environment, lastcall
from helpers import PATIENCE_S, wait_until
from lastcall.cli import drill_compare, drill_together, main
from lastcall.drill.servers import SERVERS, SERVERS_WITH_LASTCALL
from lastcall.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from lastcall.drill.servers import Server


def args_of(*words: str) -> argparse.Namespace:
    """The options, as the command reads them."""
    return main.parser("drill").parse_args(["drill", "compare", *words])


def chosen(*words: str) -> list[Server]:
    """The servers that the options choose."""
    return drill_compare._chosen(args_of(*words))


@pytest.fixture
def also(tmp_path: Path) -> str:
    """A file with the careful server as the twin of the careless one."""
    file = tmp_path / "servers.toml"
    python = json.dumps(sys.executable)
    file.write_text(
        f"""
        [[server]]
        name = "careless one"
        command = [{python}, "-P", "-m", "lastcall.drill.probe.careless", "{{port}}"]
        [[server]]
        name = "careful one"
        beside = "careless one"
        command = [{python}, "-P", "-m", "lastcall.drill.probe.careful", "{{port}}"]
        """
    )
    return str(file)


def test_which_servers_are_meant() -> None:
    """As they come, with lastcall, or each beside its twin; a name means the one that it names."""
    assert chosen() == list(SERVERS)
    assert chosen("--with-lastcall") == list(SERVERS_WITH_LASTCALL)
    both = chosen("--both")
    assert [server.name for server in both[::2]] == [server.beside for server in both[1::2]]
    assert [s.key for s in chosen("uvicorn", "--both")] == ["uvicorn", "uvicorn-with-lastcall"]
    assert [s.key for s in chosen("uvicorn", "--with-lastcall")] == ["uvicorn-with-lastcall"]
    assert [s.key for s in chosen("uvicorn-with-lastcall")] == ["uvicorn-with-lastcall"]
    with pytest.raises(UsageError, match="no-such"):
        chosen("no-such")
    with pytest.raises(UsageError, match="none of these"):
        chosen("node-http", "--both")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stops", "3"), "--stops"),
        (("--keep", "x"), "--keep"),
        (("--jobs", "2"), "--jobs"),
        (("--together", "--stops", "0"), "--stops 0"),
        (("--together", "--jobs", "99"), "--jobs 99"),
        (("--together", "--runs", "2"), "--runs"),
        (("--together", "--count", "2"), "--count"),
        (("--together", "--patience", "0s"), "--patience"),
        (("--together", "--how", "rolling:x"), "rolling"),
        (("--together", "--keep", ""), "--keep"),
        (("--together", "--keep", "/proc/nothing"), "/proc/nothing"),
        (("--both", "--with-lastcall"), "not allowed"),
    ],
)
def test_words_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """They are refused before the first server is started, by name."""
    try:
        code = main.run(["drill", "compare", *words])
    except SystemExit as error:  # as argparse ends
        code = int(str(error.code))
    assert code == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_before_and_after_in_earnest(tmp_path: Path, also: str) -> None:
    """A line a server, an object a server, one table; what was kept is not done again."""
    kept, page = tmp_path / "kept", tmp_path / "table.md"
    what = ("drill", "compare", "careless-one", "--also", also, "--together", "--both")
    words = (*what, "--stops", "1", "--jobs", "2", "--keep", str(kept))
    said = lastcall(tmp_path, *words)
    assert said.code == ExitCode.ORDERLY, said.err
    assert "careful one  0/1 stops: 0 lost work (0 to 100 %); 0 lost, 0 refused badly" in said.out
    assert "keeps its word" in said.out
    assert sorted(file.name for file in kept.glob("*.json")) == [
        "careful-one.json",
        "careless-one.json",
    ]
    again = lastcall(tmp_path, *words, "--json", "--markdown", str(page))
    careless, careful = sorted(again.messages, key=lambda row: str(row["verdict"]), reverse=True)
    assert (careless["verdict"], careful["verdict"]) == ("loses work", "keeps its word")
    assert careful["beside"] == careless["server"] == "careless one"
    assert (careful["stops"], careful["losing"], careful["interval"][0]) == (1, 0, 0.0)
    assert careless["states"]["in flight"]["lost"]
    assert careless["causes"]["no-handler"]["advice"]
    took = json.loads((kept / "careful-one.json").read_text())["tally"]["took_s"]
    assert careful["took_s"] == took
    assert "| careless one | 1 of 1" in page.read_text()


def test_interrupted_and_gone_on(tmp_path: Path, also: str) -> None:
    """Ctrl+C says that finished stops are kept; the same command goes on from them."""
    kept = tmp_path / "kept"
    words = ("drill", "compare", "careful-one", "--also", also, "--together", "--keep", str(kept))
    child = subprocess.Popen(
        [*COMMAND, *words, "--stops", "500"],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        file = kept / "careful-one.json"
        wait_until(
            lambda: file.exists() and json.loads(file.read_text())["tally"]["stops"] > 0, "a stop"
        )
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == ExitCode.INTERRUPTED, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    stops = json.loads(file.read_text())["tally"]["stops"]
    said = lastcall(tmp_path, *words, "--stops", str(stops))
    assert f"careful one: goes on from {stops} stops" in said.out


def test_the_line_of_a_terminal_is_drawn_over(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal one line shows all servers under way, and never wraps."""
    from lastcall.drill.endurance import Endured

    live = drill_together._Live(quiet=False, width=60)
    for server in SERVERS[:2]:
        live.tell(Endured(server, 20))
    drawn = capsys.readouterr().out.split(drill_together._CLEAR)
    assert [len(each) <= 60 for each in drawn] == [True] * 3
    assert "uvicorn  0/20" in drawn[-1]
    assert "uvicorn, 2 workers" in drawn[-1]
    live.done(Endured(SERVERS[0], 20))
    live.tell(Endured(SERVERS[1], 20, anew="its source was changed meanwhile"))
    *_, told, drawn_again = capsys.readouterr().out.split(drill_together._CLEAR)
    assert told == "uvicorn, 2 workers: the count begins anew: its source was changed meanwhile\n"
    assert drawn_again.startswith("uvicorn, 2 workers  0/20")
