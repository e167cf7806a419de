"""`lastcall check` and `lastcall signals` as people and programs use them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import python, victim
from lastcall.cli import show
from lastcall.errors import ExitCode
from lastcall.model import Confidence, Finding, Severity
from runtimes import go_command

FINDING = Finding(
    "no-handler",
    "SIGTERM would end it at once: work in hand would be lost",
    Severity.WARNING,
    Confidence.LIKELY,
    ("/proc/7/status: SigCgt shows no handler for SIGTERM",),
    "let its work finish first",
)


def lastcall(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command with its output piped."""
    command = [sys.executable, "-m", "lastcall.cli.main", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=60
    )


def on_terminal(*words: str, **env: str) -> str:
    """What the command shows on a terminal of 80 columns."""
    main, side = pty.openpty()
    try:
        command = [sys.executable, "-m", "lastcall.cli.main", *words]
        variables = {**os.environ, "TERM": "xterm", **env}
        child = subprocess.Popen(command, stdout=side, stderr=side, env=variables)
        os.close(side)
        said = b""
        try:
            while chunk := os.read(main, 65536):
                said += chunk
        except OSError:  # EIO: the other side is closed
            pass
        child.wait()
        return said.decode().replace("\r\n", "\n")
    finally:
        os.close(main)


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        (
            "handler",
            ExitCode.ORDERLY,
            ["handled by the program", "nothing found that keeps"],
        ),
        ("plain", ExitCode.FOUND, ["kills at once", "warning  SIGTERM would end it", "1 warning"]),
        ("ignore", ExitCode.FOUND, ["blocker  SIGTERM: ignored", "1 blocker"]),
    ],
)
def test_check_says_what_would_happen_and_exits_so(
    mode: str, code: ExitCode, words: list[str]
) -> None:
    """The exit code tells scripts, the text tells people, and neither sends anything."""
    with victim(*python("sig_modes.py", mode)) as process:
        done = lastcall("check", f"pid:{process.pid}")
        assert process.child.poll() is None
    assert done.returncode == code, done.stderr
    assert all(word in done.stdout for word in words), done.stdout
    assert f"pid:{process.pid}" in done.stdout.splitlines()[0]
    assert "\x1b" not in done.stdout


def test_check_takes_the_signals_that_a_stop_would_send() -> None:
    """--signal and --signals say what is asked; force is not a soft ask."""
    with victim(*python("sig_modes.py", "handler")) as process:
        target = f"pid:{process.pid}"
        assert lastcall("check", target, "--signal", "QUIT").returncode == ExitCode.FOUND
        both = lastcall("check", target, "--signals", "QUIT:5s,TERM")
        assert both.returncode == ExitCode.FOUND
        assert both.stdout.index("SIGQUIT") < both.stdout.index("SIGTERM")
        refused = lastcall("check", target, "--signal", "KILL")
    assert refused.returncode == ExitCode.USAGE
    assert "--force" in refused.stderr


def test_check_json_is_one_object_a_line() -> None:
    """Each target is one line of JSON, also one that is not there; the gravest code wins."""
    with victim(*python("sig_modes.py", "handler")) as process:
        done = lastcall("check", "--json", f"pid:{process.pid}", "pid:4194303")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["event"], first["exit_code"], first["runtime"]) == ("check", 0, "cpython")
    assert first["signals"]["SIGTERM"] == "handled"
    assert [finding["code"] for finding in first["findings"]] == ["handled"]
    assert (second["event"], second["code"]) == ("error", "not-running")
    assert done.returncode == ExitCode.ENDED_BEFORE


def test_check_of_several_goes_on_after_one_that_is_not_there() -> None:
    """A target that cannot be checked does not keep the others from it."""
    with victim(*python("sig_modes.py", "plain")) as process:
        done = lastcall("check", "pid:4194303", f"pid:{process.pid}")
    assert "no process 4194303 is running" in done.stderr
    assert "1 warning" in done.stdout
    assert done.returncode == ExitCode.FOUND


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pid:4194303"], ExitCode.ENDED_BEFORE),
        (["4242"], ExitCode.USAGE),
        (["pid:x"], ExitCode.USAGE),
        ([], ExitCode.USAGE),
    ],
)
def test_check_names_what_is_wrong(words: list[str], code: ExitCode) -> None:
    """What cannot be checked has its own exit code and a message."""
    done = lastcall("check", *words)
    assert done.returncode == code
    assert done.stderr.strip()


def test_an_ancestor_may_be_looked_at() -> None:
    """What a stop would refuse is still checked, and the refusal is one of the findings."""
    done = lastcall("check", f"pid:{os.getpid()}")
    assert done.returncode == ExitCode.FOUND
    assert "is an ancestor of this command" in done.stdout


def test_a_zombie_is_checked() -> None:
    """A process that has ended but was not collected: the finding names it, nothing crashes."""
    with victim(*python("sig_modes.py", "plain")) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        done = lastcall("check", f"pid:{process.pid}")
        table = lastcall("signals", f"pid:{process.pid}")
    assert done.returncode == ExitCode.FOUND
    assert "has ended already" in done.stdout
    assert table.returncode == ExitCode.ENDED_BEFORE


def test_on_a_terminal_there_are_colours_and_lines_fit() -> None:
    """A terminal gets colours and wrapped lines; NO_COLOR and a dumb terminal get none."""
    with victim(*go_command("sig_go_plain.go")) as process:
        words = ("check", f"pid:{process.pid}")
        coloured = on_terminal(*words)
        plain = on_terminal(*words, NO_COLOR="1")
        dumb = on_terminal(*words, TERM="dumb")
    assert "\x1b[33;1mwarning" in coloured
    assert "\x1b" not in plain
    assert "\x1b" not in dumb
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert "no-handler" not in bare
    findings = bare[bare.index("warning") :]
    assert max(len(line) for line in findings.splitlines()) <= 80


def test_signals_lists_what_each_means() -> None:
    """The table has every stop signal, as text and as JSON."""
    text = lastcall("signals").stdout
    assert re.search(r"^SIGQUIT +3 ", text, re.MULTILINE)
    assert "HAProxy: the soft stop" in text
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in lastcall("signals", "--json").stdout.splitlines()
    ]
    assert {"SIGTERM", "SIGRTMIN+4", "SIGKILL"} <= {row["signal"] for row in rows}


def test_signals_of_a_target() -> None:
    """What a process does with its signals, one line each."""
    with victim(*python("sig_modes.py", "pending")) as process:
        target = f"pid:{process.pid}"
        text = lastcall("signals", target).stdout
        rows = [json.loads(x) for x in lastcall("signals", target, "--json").stdout.splitlines()]
    assert re.search(r"SIGTERM +15 +blocked +was sent and waits to be taken", text)
    assert len(rows) == 64
    assert next(row for row in rows if row["signal"] == "SIGTERM") == {
        "event": "signal",
        "target": target,
        "signal": "SIGTERM",
        "number": 15,
        "effect": "blocked",
        "pending": True,
    }


# -- how findings look


def test_a_finding_on_a_pipe_is_not_wrapped() -> None:
    """How grave, what is so, how sure; then the evidence and what to do."""
    assert show.finding_lines(FINDING, None, show.Palette()) == [
        "warning  SIGTERM would end it at once: work in hand would be lost (likely)",
        "         seen: /proc/7/status: SigCgt shows no handler for SIGTERM",
        "         do:   let its work finish first",
    ]


def test_a_finding_is_wrapped_below_itself() -> None:
    """On a narrow terminal, lines go on below where their text began."""
    assert show.finding_lines(FINDING, 44, show.Palette()) == [
        "warning  SIGTERM would end it at once: work",
        "         in hand would be lost (likely)",
        "         seen: /proc/7/status: SigCgt shows",
        "               no handler for SIGTERM",
        "         do:   let its work finish first",
    ]


@given(st.text(), st.none() | st.integers(1, 120))
def test_nothing_a_stranger_wrote_reaches_the_terminal_as_a_command(
    text: str, width: int | None
) -> None:
    """Whatever stands in a finding: no control character comes out, and no word is lost."""
    finding = Finding("x", text, evidence=(text,), advice=text)
    lines = show.finding_lines(finding, width, show.Palette())
    assert all(line.isprintable() for line in lines)
    assert "".join(show.harmless(text).split()) in "".join("".join(lines).split())


def test_a_table_keeps_its_columns_in_colour() -> None:
    """Colours change nothing about the columns; the last one wraps below itself."""
    rows: list[list[str | show.Cell]] = [
        [show.Cell("SIGTERM", ("bold",)), "x", "please end in order now"]
    ]
    rows.append(["A", "yy", "b"])
    plain = show.table_lines(rows, 36, show.Palette())
    assert plain == ["  SIGTERM  x   please end in order", "               now", "  A        yy  b"]
    coloured = show.table_lines(rows, 36, show.Palette(on=True))
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
