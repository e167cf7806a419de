"""`lastcall drill`: clumsy and nasty words, real drills with their reports, and interruptions."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, environment, lastcall
from helpers import PATIENCE_S, wait_until
from lastcall.cli import drill as cli_drill
from lastcall.cli import drill_plan, main
from lastcall.drill.history import Kind
from lastcall.drill.how import To
from lastcall.errors import ExitCode, UsageError
from lastcall.targets.process import sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.plan import Plan

CAREFUL = ("--", sys.executable, "-m", "lastcall.drill.probe.careful", "{port}")
# Answers soon enough for many drills, and writes down what it did.
QUICK = ("--path", "/fast?key={key}", "--slow-path", "/slow?key={key}&s=0.4", "--count", "2")
FEW = ("--only", "in-handler, half-headers")
NOWHERE = ("--", "/nonexistent/server")


@pytest.fixture(autouse=True)
def _same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run in this process leaves the limits of the tests as they are."""
    monkeypatch.setattr(cli_drill, "_many_files", lambda: None)


def plan(*words: str, ledger: str = "") -> Plan:
    """The plan that the command line describes."""
    args = main.parser("drill").parse_args(["drill", "http", *words])
    cli_drill.refuse_empty(args)
    return drill_plan.plan_of(args, ledger)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said to words that are refused; nothing was started."""
    assert main.run(["drill", *words]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("lastcall: ")
    assert len(said.splitlines()) > 1, f"no advice: {said}"
    assert "Traceback" not in said
    return said


# -- words


LENGTHS = ("--ready-within", "--slow-boot", "--think", "--twice", "--at", "--patience")


@pytest.mark.parametrize("option", LENGTHS)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e9", "", "99999999h", "soon", "1 s\0"])
def test_a_length_that_is_none_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    """A nonsensical length of time is refused, and the option is named."""
    assert option in refused(capsys, "http", f"{option}={value}", *NOWHERE)


@pytest.mark.parametrize(
    "words",
    [
        ("--count", "-1"),
        ("--count", "99999999999999999999"),
        ("--count", "nan"),
        ("--rate", "-1"),
        ("--rate", "nan"),
        ("--rate", "inf"),
        ("--rate", "1e9"),
        ("--load", "-1"),
        ("--load", "nan"),
        ("--load", "inf"),
        ("--sweep", "0"),
        ("--sweep", "-1"),
        ("--sweep", "1e9"),
        ("--sweep", "99999999999"),
        ("--sweep", "1", "--span", "0"),
        ("--sweep", "1", "--span", "x"),
        ("--sweep", "1", "--at", "1s"),
        ("--seed", "nan", "--sweep", "1"),
        ("--patience", "0"),
        ("--how", "nonsense"),
        ("--how", "99"),
        ("--how", "rolling:"),
        ("--how", "rolling:'"),
        ("--how", "rolling:true", "--twice", "1s"),
        ("--how", "rolling:true", "--to", "tree"),
        ("--how", "rolling:no-such-program-anywhere"),
        ("--stop-with", ""),
        ("--stop-with", "'"),
        ("--stop-with", "no-such-program-anywhere"),
        ("--stop-with", "true", "--how", "INT"),
        ("--stop-with", "true", "--to", "group"),
        ("--stop-with", "true", "--twice", "1s"),
        ("--to", "everybody"),
        ("--env", "DEBUG"),
        ("--env", "=1"),
        ("--env", ""),
        ("--ready", "x"),
        ("--ready", "line:"),
        ("--ready", "port:0"),
        ("--only", "in-handlr"),
        ("--only", "websocket-idle"),
        ("--only", "in-handler,"),
        ("--only", "silent", "--without", "silent"),
        ("--url", "127.0.0.1:8000"),
        ("--url", "http://a\r\nb:1"),
        ("--target", "pid:1"),
        ("--html", ""),
        ("--probee",),
        ("--scenario", "no-such-file"),
        ("--request", "no-such-file"),
        ("--request", "/dev/zero"),
        ("--request", "/"),
    ],
)
def test_nonsense_is_refused_with_advice(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """What makes no sense is refused before anything is started, with what to do instead."""
    assert "/nonexistent/server" not in refused(capsys, "http", *words, *NOWHERE)


@pytest.mark.parametrize(
    "path", ["a", "/a b", "/a\r\nX: y", "/a\n", "/é", "/a\tb", "/\x7f", "http://x/", "/\udcff"]
)
@pytest.mark.parametrize("option", ["--path", "--slow-path", "--websocket-path"])
def test_a_path_cannot_smuggle_in_a_header(
    capsys: pytest.CaptureFixture[str], option: str, path: str
) -> None:
    """A path with blanks or line ends is refused: it would be another request."""
    assert option in refused(capsys, "http", option, path, *NOWHERE)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--url", "http://127.0.0.1:1"),
        ("--target", "port:1", "--pid1"),
        ("--target", "port:1", "--env", "A=1"),
        ("--target", "port:1", "--slow-boot", "1s"),
        ("--",),
    ],
)
def test_without_a_server_to_drill(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """A drill of nothing, or of what cannot be stopped, is refused at once."""
    refused(capsys, "http", *words)


def test_the_kind_of_drill_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """No kind names both; a mistyped one, or a mistyped command, names the nearest."""
    assert "drill compare" in refused(capsys)
    assert "did you mean http ?" in refused(capsys, "htpp")
    assert main.run(["dril"]) == ExitCode.USAGE
    assert "did you mean drill ?" in capsys.readouterr().err
    assert "`--`" in refused(capsys, "http", "uvicorn", "--port", "1")


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is an object on the standard output."""
    assert main.run(["drill", "http", "--json", "--path", "x", *NOWHERE]) == ExitCode.USAGE
    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["code"], said["exit_code"]) == ("error", "usage", 2)
    assert said["advice"]


@pytest.mark.parametrize(
    "words",
    [
        ("--runs", "0"),
        ("--runs", "101"),
        ("--count", "-1"),
        ("--count", "99999999"),
        ("--how", "x"),
        ("--how", "rolling:true"),
        ("--patience", "x"),
        ("--twice", "-1"),
        ("--also", ""),
        ("--also", "/"),
        ("--also", "/dev/zero"),
        ("--sources", "/nonexistent"),
        ("--markdown", "/nonexistent/table.md"),
        ("no-such-server",),
        ("",),
    ],
)
def test_compare_refuses_nonsense(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """A comparison refuses nonsense before the first server is started."""
    refused(capsys, "compare", *words)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever reads a file refuses a FIFO that nobody writes to."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('[[state]]\nkind = "half-body"\nbody-file = "fifo"\n')
    for words in (
        ("--request", str(fifo)),
        ("--scenario", str(fifo)),
        ("--scenario", str(scenario)),
        ("--html", str(fifo)),
        ("--ledger", str(fifo)),
    ):
        assert "fifo" in refused(capsys, "http", *words, *NOWHERE)
    assert "fifo" in refused(capsys, "compare", "--also", str(fifo))


def test_a_report_that_cannot_be_written_is_told_before_the_drill(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No folder, a link, a device, another's file, two reports in one: refused at the start."""
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("precious")
    link.symlink_to(there)
    for path in ("nope/x.html", str(link), "/dev/null", str(tmp_path)):
        for option in ("--html", "--junit", "--history"):
            assert path in refused(capsys, "http", option, path, *NOWHERE)
    twice = str(tmp_path / "x")
    assert "two reports" in refused(capsys, "http", "--html", twice, "--junit", twice, *NOWHERE)
    assert there.read_text() == "precious"
    assert not Path(twice).exists()


def test_a_file_of_another_user_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report never replaces what belongs to somebody else."""
    other = tmp_path / "other.html"
    other.write_text("precious")
    monkeypatch.setattr(os, "geteuid", lambda: other.stat().st_uid + 1)
    assert "another user" in refused(capsys, "http", "--html", str(other), *NOWHERE)
    assert other.read_text() == "precious"


def test_a_report_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    """A link that was put there during the drill is replaced; what it names stays as it was."""
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("precious")
    link.symlink_to(there)
    cli_drill.write_private(str(link), "report \udcff")
    assert there.read_text() == "precious"
    assert not link.is_symlink()
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    with pytest.raises(cli_drill.CannotWrite):
        cli_drill.write_private(str(tmp_path / "nope" / "x"), "report")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "there"]


# -- plans


def test_a_plan_of_a_stop() -> None:
    """The options of the stop are what the plan says."""
    stop = plan("--how", "INT", "--to", "group", "--twice", "0.3s", *NOWHERE).how
    assert (stop.signum, stop.to, stop.again_s) == (signal.SIGINT, To.GROUP, 0.3)
    assert plan(*NOWHERE).how.signum == signal.SIGTERM
    assert plan("--stop-with", "sh -c 'kill {pid}'", *NOWHERE).how.command == (
        *("sh", "-c", "kill {pid}"),
    )
    rolling = plan("--how", "rolling:kill -HUP {pid}", *NOWHERE).how
    assert (rolling.rolling, rolling.command) == (True, ("kill", "-HUP", "{pid}"))
    at = plan("--at", "500ms", "--patience", "5s", "--pid1", "--env", "A=b=c", *NOWHERE)
    assert (at.moment_s, at.patience_s, at.pid1, at.env) == (0.5, 5.0, True, (("A", "b=c"),))


def test_a_plan_of_traffic(tmp_path: Path) -> None:
    """The options of the traffic are what the scenario says."""
    made = plan("--slow-path", "/s", "--count", "3", "--rate", "5", "--think", "50ms", *NOWHERE)
    counts = {state.kind: state.count for state in made.scenario.states}
    assert counts[Kind.IN_HANDLER] == 3
    assert Kind.HALF_BODY not in counts
    assert (made.scenario.newcomers.rate, made.scenario.newcomers.think_s) == (5.0, 0.05)
    only = plan("--only", "silent, in-handler", "--without", "silent", *NOWHERE).scenario
    assert [state.kind for state in only.states] == [Kind.IN_HANDLER]
    body = tmp_path / "order"
    body.write_bytes(b"POST /orders HTTP/1.1\r\nHost: shop\r\nA: b\r\n\r\na\r\nb")
    ask = ("--request", str(body))
    with_request = plan("--load", "200", "--count", "4", *ask, *ask, *NOWHERE).scenario
    assert with_request.load.rate == 200
    flying = [s for s in with_request.states if s.kind is Kind.IN_HANDLER]
    assert [(s.count, s.request.path, s.request.body) for s in flying] == [
        (2, "/orders", b"a\r\nb")
    ] * 2
    uneven = plan("--uneven", *ask, *ask, *NOWHERE).scenario.states
    assert [(s.kind, s.count) for s in uneven] == [(Kind.IN_HANDLER, 1)]


def test_a_scenario_file_and_options_do_not_contradict_each_other(tmp_path: Path) -> None:
    """What the file says cannot be said by an option, and what is beside it can."""
    file = tmp_path / "scenario.toml"
    file.write_text(
        '[newcomers]\npath = "/n"\n[[state]]\nkind = "in-handler"\npath = "/own"\ncount = 2\n'
    )
    for words in (("--count", "3"), ("--rate", "1"), ("--path", "/x"), ("--slow-path", "/x")):
        with pytest.raises(UsageError, match=words[0]):
            plan("--scenario", str(file), *words, *NOWHERE)
    order = tmp_path / "order"
    order.write_text("GET /order\n")
    made = plan("--scenario", str(file), "--load", "9", "--request", str(order), *NOWHERE).scenario
    assert made.load.request.path == "/n"
    assert [state.request.path for state in made.states] == ["/own", "/order"]


# -- real drills


def strangers(tag: str) -> list[int]:
    """The processes that inherited a mark in their environment."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"DRILL_MARK={tag}".encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
    return found


@contextlib.contextmanager
def running(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A drill under way whose server runs; what it is marked with, and never left behind."""
    tag = f"{os.getpid()}-{tmp_path.name}"
    child = subprocess.Popen(
        [*COMMAND, "drill", *words],
        env=environment(tmp_path, DRILL_MARK=tag),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # lastcall, who keeps the server, and the server.
        wait_until(lambda: len(strangers(tag)) > 2, "the server runs")
        yield child, tag
    finally:
        child.kill()
        child.communicate()
        for pid in strangers(tag):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


SLOW = ("http", "--slow-path", "/slow?s=20", "--count", "2", "--only", "in-handler", *CAREFUL)
SWEPT = ("http", "--sweep", "3", *SLOW[1:])
COMPARED = ("compare", "lastcall-s-careful-example", "--count", "2")


@pytest.mark.parametrize(
    ("words", "signum"),
    [
        (SLOW, signal.SIGINT),
        (SLOW, signal.SIGTERM),
        (SLOW, signal.SIGHUP),
        (SLOW, signal.SIGKILL),
        (SWEPT, signal.SIGINT),
        (SWEPT, signal.SIGKILL),
        (COMPARED, signal.SIGINT),
        (COMPARED, signal.SIGKILL),
    ],
)
def test_an_interrupted_drill_leaves_no_server_behind(
    tmp_path: Path, words: tuple[str, ...], signum: signal.Signals
) -> None:
    """Whatever ends lastcall in the middle of a drill, its server ends with it."""
    with running(tmp_path, *words) as (child, tag):
        child.send_signal(signum)
        _, err = child.communicate(timeout=PATIENCE_S)
        wait_until(lambda: not strangers(tag), "the server is gone")
    if signum == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
        return
    assert child.returncode == ExitCode.INTERRUPTED, err
    assert f"interrupted by {signum.name}" in err
    assert "gone" in err
    assert "Traceback" not in err


def test_an_interrupted_drill_in_its_middle(tmp_path: Path) -> None:
    """Ctrl+C while the server drains: the same, and as JSON an error object."""
    with running(tmp_path, *SLOW) as (child, tag):
        assert child.stdout is not None
        while "stop" not in child.stdout.readline().split():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=PATIENCE_S)
        wait_until(lambda: not strangers(tag), "the server is gone")
    assert child.returncode == ExitCode.INTERRUPTED
    with running(tmp_path, SLOW[0], "--json", *SLOW[1:]) as (child, _):
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=PATIENCE_S)
    assert json.loads(out)["exit_code"] == ExitCode.INTERRUPTED


def kinds_of(history: Path) -> list[str]:
    """The states of the attempts in a history, by their names."""
    return [str(json.loads(line)["kind"]) for line in history.read_text().splitlines()]


def test_a_drill_writes_private_reports_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    """HTML, JUnit, history and JSON say the same; `again` in a shell does the same drill."""
    html, junit, history = tmp_path / "a b.html", tmp_path / "j.xml", tmp_path / "h's.jsonl"
    html.write_text("an old report")
    html.chmod(0o644)
    reports = ("--html", str(html), "--junit", str(junit), "--history", str(history))
    said = lastcall(tmp_path, "drill", "http", *QUICK, *FEW, *reports, "--json", *CAREFUL)
    assert (said.code, said.err) == (ExitCode.ORDERLY, "")
    told = said.messages[-1]
    assert (told["event"], told["verdict"]) == ("drill", "keeps its word")
    for file in (html, junit, history):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "<!doctype html>" in html.read_text().lower()
    assert "<testsuite" in junit.read_text()
    kinds = kinds_of(history)
    states = {row["state"]: row["attempts"] for row in told["states"]}
    assert {kind: kinds.count(kind) for kind in states} == states
    # What repeats it must survive a shell: quotes, blanks, braces, question marks, ampersands.
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "lastcall").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    (folder / "lastcall").chmod(0o700)
    again = subprocess.run(
        ["sh", "-c", told["again"]],
        env=environment(tmp_path, PATH=f"{folder}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    repeated = json.loads(again.stdout)
    assert repeated["again"] == told["again"]
    assert [row["state"] for row in repeated["states"]] == list(states)


def test_background_load_stands_in_the_history(tmp_path: Path) -> None:
    """`--load 200` makes some hundred attempts; without UTF-8 and colours the output is ASCII."""
    history = tmp_path / "history"
    words = ("--load", "200", "--at", "0.3s", "--history", str(history), *QUICK, *FEW)
    done = subprocess.run(
        [*COMMAND, "drill", "http", *words, *CAREFUL],
        env=environment(tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", TERM="dumb"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == ExitCode.ORDERLY, done.stdout + done.stderr
    assert done.stdout.isascii()
    assert b"\x1b" not in done.stdout
    assert f"written: {history}".encode() in done.stdout
    assert kinds_of(history).count("load") > 50


def test_a_reader_that_goes_away_does_not_leave_a_server_behind(tmp_path: Path) -> None:
    """With `| head -1` the drill ends in order, and so does its server."""
    tag = f"{os.getpid()}-{tmp_path.name}"
    line = shlex.join([*COMMAND, "drill", "http", *QUICK, *FEW, *CAREFUL])
    done = subprocess.run(
        ["sh", "-c", f"{line} | head -1"],
        env=environment(tmp_path, DRILL_MARK=tag),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "started as pid" in done.stdout
    assert "Traceback" not in done.stderr
    wait_until(lambda: not strangers(tag), "the server is gone")


def test_a_sweep_in_earnest(tmp_path: Path) -> None:
    """Three stops of a server that keeps its word: no ledger line of one blames the next."""
    ledger = ("--ledger", str(tmp_path / "ledger"))
    swept = lastcall(
        tmp_path,
        *("drill", "http", "--sweep", "3", "--span", "0.3s", "--seed", "7", "--json"),
        *(*QUICK, *FEW, *ledger, *CAREFUL),
    )
    assert swept.code == ExitCode.ORDERLY, swept.out + swept.err
    told = swept.messages[-1]
    assert (told["event"], told["rate"], told["losing"], told["seed"]) == ("sweep", 0.0, [], 7)
    moments = [one["moment_s"] for one in told["tries"]]
    assert len(moments) == 3
    assert all(i * 0.1 <= moment <= (i + 1) * 0.1 for i, moment in enumerate(moments))
    assert told["worst"]["event"] == "drill"
    begun = [line for line in (tmp_path / "ledger").read_text().splitlines() if "begun" in line]
    assert len(begun) == len(set(begun))


def test_a_server_that_runs_already_is_stopped_by_a_command(tmp_path: Path) -> None:
    """`--target pid:N --stop-with CMD` drills a server that somebody else started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "lastcall.drill.probe.careful", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(port), "the server listens")
        words = ("--target", f"pid:{server.pid}", "--stop-with", "sh -c 'kill {pid}'", "--quiet")
        said = lastcall(tmp_path, "drill", "http", *words, *QUICK, *FEW)
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait()
    assert said.code == ExitCode.ORDERLY, said.out + said.err
    assert len(said.out.splitlines()) == 1
    gone = lastcall(tmp_path, "drill", "http", "--target", f"pid:{server.pid}")
    assert gone.code == ExitCode.ENDED_BEFORE


def _listens(port: int) -> bool:
    return any(each.local.port == port for each in sockets.listening())


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Without its libraries a drill says which extra to install, and needs none to say so."""
    code = textwrap.dedent("""
        import importlib.machinery, sys
        class Without(importlib.machinery.PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                if name.partition(".")[0] in {"h11", "h2", "httptools", "wsproto"}:
                    return None
                return super().find_spec(name, path, target)
        sys.meta_path[:] = [f for f in sys.meta_path if f is not importlib.machinery.PathFinder]
        sys.meta_path.append(Without)
        from lastcall.cli.main import main
        sys.argv = ["lastcall", "drill", *sys.argv[1:]]
        main()
    """)
    for words in (("http", *NOWHERE), ("compare",)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == ExitCode.USAGE, done.stderr
        assert "lastcall[drill]" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_comparison_in_earnest(tmp_path: Path) -> None:
    """Two servers of one's own: one table, one object a line; the careless one loses work."""
    also, table = tmp_path / "servers.toml", tmp_path / "table.md"
    also.write_text(
        "".join(
            f'[[server]]\nname = "{name} one"\nready = "/fast"\n'
            f'command = [{json.dumps(sys.executable)}, "-m", "lastcall.drill.probe.{name}",'
            ' "{port}"]\n'
            for name in ("careful", "careless")
        )
    )
    words = ("drill", "compare", "--also", str(also), "careful-one", "careless-one")
    listed = lastcall(tmp_path, *words, "--list")
    assert listed.code == ExitCode.ORDERLY
    assert [line.split()[:2] for line in listed.out.splitlines()] == [
        ["careful-one", "found"],
        ["careless-one", "found"],
    ]
    said = lastcall(tmp_path, *words, "--count", "3", "--json", "--markdown", str(table))
    assert said.code == ExitCode.ORDERLY, said.out + said.err
    careful, careless = said.messages
    assert (careful["event"], careful["server"]) == ("compared", "careful one")
    assert careful["verdict"] == "keeps its word"
    assert careless["verdict"] == "loses work"
    assert careless["findings"]
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert "| careless one | loses work |" in table.read_text()
