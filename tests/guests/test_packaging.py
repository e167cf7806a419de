"""The systemd unit that takes the place of libvirt-guests: its command is one that works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guests.libvirtd import libvirtd
from lastcall.cli.main import parser
from lastcall.durations import parse_duration
from lastcall.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIT = Path(__file__).parents[2] / "packaging" / "lastcall-guests.service"


def lines(key: str) -> list[str]:
    """What the unit says of a key; each line of it."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def environment() -> dict[str, str]:
    """The variables that the unit sets."""
    words = [word for line in lines("Environment") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


def words_of(line: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a command line as systemd makes them: $X is several, ${X} is one.

    Source: systemd.service(5), COMMAND LINES.
    """
    words = []
    for word in shlex.split(line.lstrip("-")):
        if re.fullmatch(r"\$\w+", word):
            words += shlex.split(variables[word[1:]])
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word))
    return words


def stopping(variables: Mapping[str, str]) -> list[str]:
    """The one command that stops the guests."""
    (line,) = lines("ExecStop")
    return words_of(line, variables)


def test_the_words_of_a_command_line() -> None:
    """A variable in braces stays one word, one without is split, and quotes hold."""
    variables = {"ONE": "a b", "SOME": "--x 1 --y '2 3'"}
    words = words_of('-/bin/it --u ${ONE} "the host" $SOME', variables)
    assert words == ["/bin/it", "--u", "a b", "the host", "--x", "1", "--y", "2 3"]


def test_its_command_line_is_one_of_ours() -> None:
    """All guests, of the host's libvirt, without force, with a reason."""
    program, *words = stopping(environment())
    assert Path(program).name == "lastcall"
    said = parser("stop").parse_args(words)
    assert said.all
    assert said.connect == "qemu:///system"
    assert said.reason
    assert not said.force


def test_lastcall_ends_before_systemd_ends_it() -> None:
    """The grace lies below the ceiling; how many guests there are, no limit of the unit knows."""
    said = parser("stop").parse_args(stopping(environment())[1:])
    (limit,) = lines("TimeoutStopSec")
    grace_s, ceiling_s = parse_duration(said.grace), parse_duration(said.extend_up_to)
    assert grace_s < ceiling_s
    assert limit == "infinity"


def test_systemd_takes_it(tmp_path: Path) -> None:
    """Systemd finds nothing wrong with it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    # What it names has to be there: the command, and the target of libvirt's own units.
    command = shutil.which("lastcall") or str(Path(sys.executable).parent / "lastcall")
    text = UNIT.read_text().replace("/usr/local/bin/lastcall", command)
    (tmp_path / UNIT.name).write_text(text)
    (tmp_path / "virt-guest-shutdown.target").write_text("[Unit]\nDescription=a stand-in\n")
    # Others' units of this machine may have faults of their own.
    variables = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    ran = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=variables,
    )
    ours = [line for line in ran.stderr.splitlines() if "lastcall" in line]
    assert not ours, ran.stderr


def test_its_command_stops_the_guests_of_a_host(tmp_path: Path) -> None:
    """With its own environment, and a libvirtd of the test's: off, and written in the journal."""
    with libvirtd() as daemon, daemon.guest("stops") as one, daemon.guest("slow", delay_s=1) as two:
        for guest in (one, two):
            guest.wait_up()
        variables = {
            **environment(),
            "LASTCALL_CONNECT": daemon.uri,
            "LASTCALL_STATE_DIR": str(tmp_path),
        }
        _, *words = stopping(variables)
        ran = subprocess.run(
            [sys.executable, "-m", "lastcall", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**variables, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        assert ran.returncode == ExitCode.ORDERLY, ran
        assert not ran.stderr
        for guest in (one, two):
            assert f"libvirt:{guest.name}" in ran.stdout
            guest.wait_off()
        log = subprocess.run(
            [sys.executable, "-m", "lastcall", "log"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"LASTCALL_STATE_DIR": str(tmp_path)},
        )
        assert one.name in log.stdout
        assert two.name in log.stdout
