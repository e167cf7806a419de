"""No wrong process is ever signalled, however fast its pid is given away.

Both halves run in a pid namespace of their own: thousands of stops against churners that take every
free pid at once, and single cases in which a pid changes hands exactly between two steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from helpers import python

if TYPE_CHECKING:
    from pathlib import Path

STOPS = 10_000
OPERATIONS = 200
# A run in which less of this happened proves nothing.
LEAST_SHARE = 0.05

Identity = tuple[int, int, int]


def in_a_namespace(tmp_path: Path, program: str, *words: str) -> dict[str, Any]:
    """Run a program as pid 1 of a new pid namespace; what it printed.

    Raises:
        AssertionError: namespaces cannot be made here, or the program failed.
    """
    rootless = ["--user", "--map-root-user"] if os.geteuid() else []
    space = ["unshare", *rootless, "--pid", "--fork", "--mount-proc", "--kill-child"]
    probe = subprocess.run([*space, "true"], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, (
        f"{probe.stderr.strip()}: needs unshare (package util-linux), and root or user namespaces"
    )
    state = str(tmp_path / "state")
    done = subprocess.run(
        [*space, *python(program, state, *words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def wrongly_signalled(said: dict[str, Any]) -> list[Identity]:
    """Who got a signal that was not meant for it, or more signals than were meant for it."""
    asked = Counter(tuple(identity) for identity in said["asked"])
    got = Counter(tuple(identity) for identity in said["signalled"])
    return list((got - asked).elements())


def proves_something(said: dict[str, Any], stops: int) -> bool:
    """Whether pids really were reused before the signal, and stops really went both ways."""
    bare = Counter(said["bare"])
    shares = (bare["reused before the signal"], bare["gone"], bare["done"], len(said["signalled"]))
    return all(share >= LEAST_SHARE * stops for share in shares)


@pytest.mark.timeout(400)
def test_ten_thousand_stops_race_against_reuse(tmp_path: Path) -> None:
    """Every signal reached exactly the process that the stop had fixed, each at most once."""
    said = in_a_namespace(tmp_path, "reuse_bulk.py", str(STOPS), str(OPERATIONS))
    measured = {key: said[key] for key in ("own_pid_max", "bare", "bare_s", "whole", "whole_s")}
    sys.stdout.write(json.dumps(measured) + "\n")
    assert wrongly_signalled(said) == []
    assert proves_something(said, STOPS)
    bare, whole = Counter(said["bare"]), Counter(said["whole"])
    assert bare["done"] + bare["gone"] + bare["gone at the look-up"] == STOPS
    # Whole operations: each is in the journal with its ending; some were asked, some were gone.
    assert whole["recorded"] + whole["gone at the look-up"] == 2 * OPERATIONS
    assert said["journal"] == {
        ending: whole[ending] for ending in ("orderly", "ended before") if whole[ending]
    }
    assert min(whole["orderly"], whole["ended before"]) >= LEAST_SHARE * OPERATIONS


def test_a_kernel_without_a_pid_max_of_its_own(tmp_path: Path) -> None:
    """Before Linux 6.14 pids are rewound instead (ns_last_pid); the result is the same."""
    said = in_a_namespace(tmp_path, "reuse_bulk.py", "500", "20", "old-kernel")
    assert said["own_pid_max"] is False
    assert wrongly_signalled(said) == []
    assert Counter(said["bare"])["reused before the signal"] > 0


def test_the_checker_sees_a_kill_by_number(tmp_path: Path) -> None:
    """Planted: with os.kill instead of the pidfd, strangers are hit, and they are counted."""
    said = in_a_namespace(tmp_path, "reuse_bulk.py", "1000", "0", "plain-kill")
    assert proves_something(said, 1000)
    assert len(wrongly_signalled(said)) >= LEAST_SHARE * 1000


def test_the_checker_sees_a_second_signal() -> None:
    """Planted: one signal more than was meant is one too many."""
    one = [1, 2, 3]
    assert wrongly_signalled({"asked": [one], "signalled": [one]}) == []
    assert wrongly_signalled({"asked": [one], "signalled": [one, one]}) == [(1, 2, 3)]
    assert wrongly_signalled({"asked": [one, one], "signalled": [one]}) == []


def test_an_empty_run_proves_nothing() -> None:
    """No stops, or none against reuse: that is not a success."""
    assert not proves_something({"bare": {}, "signalled": []}, 1)
    quiet = {"done": 900, "gone": 100, "reused before the signal": 0}
    assert not proves_something({"bare": quiet, "signalled": [[1, 2, 3]] * 900}, 1000)


GONE = {"code": "not-running", "exit": 3}
BEFORE = {"ending": "ended before", "exit": 3}
UNSEEN = {"ending": "unknown", "why": "UNSEEN", "exit": 21, "open": 1}


@pytest.mark.parametrize(
    ("case", "options", "expected"),
    [
        ("stat_and_pidfd_open", (), GONE),
        ("pidfd_open_and_second_stat", (), GONE),
        ("pidfd_open_and_second_stat", ("same-tick",), GONE),
        ("identity_and_signal", (), {**BEFORE, "asked": []}),
        ("identity_and_signal", ("same-tick",), {**BEFORE, "asked": []}),
        ("intent_and_signal", (), {**BEFORE, "asked": ["gone"]}),
        ("stop_and_resume", (), UNSEEN),
        ("stop_and_resume_with_the_same_tick", (), UNSEEN),
        ("pidfile_and_look_up", (), {"code": "refused", "exit": 5}),
        ("name_and_look_up", (), GONE),
        ("port_and_look_up", (), GONE),
    ],
)
def test_a_pid_that_changes_hands_between(
    tmp_path: Path, case: str, options: tuple[str, ...], expected: dict[str, object]
) -> None:
    """The newcomer gets no signal, and the stop says what became of the one it was about."""
    said = in_a_namespace(tmp_path, "reuse_cases.py", case, *options)
    assert said["newcomer_got"] == []
    assert {key: said[key] for key in expected} == expected
    assert said["same_tick"] == ("same-tick" in options)


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("stat_and_pidfd_open", "no process 4000 is running"),
        ("pidfile_and_look_up", "is stale: process 4000"),
        ("name_and_look_up", "no process is called 'reuse-old'"),
        ("port_and_look_up", "nobody listens on port"),
    ],
)
def test_what_is_said_of_it(tmp_path: Path, case: str, what: str) -> None:
    """The message names what was looked for and did not stay."""
    assert what in in_a_namespace(tmp_path, "reuse_cases.py", case)["what"]


def test_before_anybody_is_held_the_one_who_is_there_is_meant(tmp_path: Path) -> None:
    """Two holders of one pid within 10 ms look alike until one is held: that one is the target.

    `pid:4000` means whoever runs under it. The identity is that of the one who was asked.
    """
    said = in_a_namespace(tmp_path, "reuse_cases.py", "stat_and_pidfd_open", "same-tick")
    assert said["inode"] == said["newcomer_inode"]
    assert said["newcomer_got"] == ["SIGTERM"]


def test_the_newcomer_can_be_stopped_itself(tmp_path: Path) -> None:
    """A stop of the same pid later is another stop: asked once, the open one is left out of it."""
    said = in_a_namespace(tmp_path, "reuse_cases.py", "stop_and_next_stop")
    assert said["inode"] == said["newcomer_inode"]
    assert said["newcomer_got"] == ["SIGTERM"]
    assert (said["asked"], said["exit"]) == (["done"], 20)
    assert {key: said["resumed"][key] for key in UNSEEN} == UNSEEN


def test_the_cases_see_a_kill_by_number(tmp_path: Path) -> None:
    """Planted: with os.kill instead of the pidfd, the newcomer says that it was hit."""
    said = in_a_namespace(tmp_path, "reuse_cases.py", "plain_kill")
    assert said["newcomer_got"] == ["SIGTERM"]
    assert said["inode"] != said["newcomer_inode"]
