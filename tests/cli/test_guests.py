"""`stop`, `check`, `log` and `resume` for virtual machines, as a person or a script has them.

What becomes of each guest of the zoo stands in `tests/guests`; here is the command line around it.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, Said, environment, lastcall
from cli.terminal import terminal
from guests import zoo
from guests.libvirtd import libvirtd
from helpers import python, victim
from lastcall.durations import in_words, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guests.libvirtd import Libvirtd

UNIT = Path(__file__).parents[2] / "packaging" / "lastcall-guests.service"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    """A libvirtd of these tests' own."""
    with libvirtd() as started:
        yield started


def without(*modules: str) -> tuple[str, ...]:
    """The command where these modules are not installed."""
    hidden = "".join(f"sys.modules[{module!r}] = None\n" for module in modules)
    run = "from lastcall.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    return (sys.executable, "-c", f"import sys\n{hidden}{run}")


def ran(state: Path, command: tuple[str, ...], *words: str) -> Said:
    """As `lastcall`, by another command."""
    done = subprocess.run(
        [*command, *words],
        env=environment(state),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


# Mistakes


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["stop", "qmp:"], "names nothing"),
        (["stop", "libvirt:"], "names nothing"),
        (["stop", "qmp:vm:70000"], "names no port of a host"),
        (["stop", "qmp:/etc/passwd"], "/etc/passwd is no socket"),
        (["stop", "qmp:x", "--ask", "shout"], "known: press, agent"),
        (["stop", "qmp:x", "--ask", "press,press"], "press stands twice"),
        (["stop", "qmp:x", "--ask", "press:soon"], "'soon' is not a length of time"),
        (["stop", "qmp:x", "--ask", ""], "known: press, agent"),
        (["stop", "qmp:x", "--press-again", "always"], "invalid choice"),
        (["stop", "qmp:x", "--guest-os", "beos"], "invalid choice"),
        (["stop", "qmp:x", "--signal", "INT"], "--signal is for processes"),
        (["stop", "qmp:x", "--tree"], "--tree is for processes"),
        (["stop", "qmp:x", "--allow", "init"], "--allow init is for processes"),
        (["stop", "qmp:x", "--connect", "qemu:///system"], "--connect is for libvirt: targets"),
        (["stop", "qmp:x", "--extend-up-to", "1min"], "before the grace of 120 s"),
        (["stop", "qmp:x", "--at-once", "0"], "from 1 on"),
        (["stop", "--all", "qmp:x"], "--all stops every guest"),
        (["stop", "--all", "--tree"], "--tree is for processes"),
        (["stop", "pid:1", "--ask", "press"], "--ask is for guests"),
        (["stop", "pid:1", "--guest-os", "linux"], "--guest-os is for guests"),
        (["stop", "pid:1", "--allow", "wake"], "is for guests"),
        (["stop", "pid:1", "--connect", "x"], "write libvirt:NAME"),
        (["stop"], "name a target, such as pid:4242, or --all"),
        (["check", "qmp:x", "--signal", "INT"], "--signal is for processes"),
        (["stop", "pid:1", "--press-again", "never"], "--press-again is for guests"),
        (
            ["stop", "qmp:x", "--ask", "press:60s,agent", "--grace", "10s"],
            "before the guest is asked",
        ),
        (["check", "pid:1", "--ask", "press"], "--ask is for guests"),
        (["check", "qmp:x", "--grace", "5s"], "--grace is for processes"),
    ],
)
def test_bad_usage(tmp_path: Path, words: list[str], what: str) -> None:
    """A mistake of the caller: code 2, a message that helps, and nothing is recorded."""
    said = lastcall(tmp_path, *words)
    assert (said.code, what in said.err) == (2, True), said
    assert "Traceback" not in said.err
    assert not (tmp_path / "journal.db").exists()


def test_one_bad_address_presses_nobody(tmp_path: Path) -> None:
    """A mistake among several targets: no guest is pressed, no process is asked."""
    with zoo.start("stops") as guest, victim(*python("worker.py", "exit", "0")) as child:
        guest.wait_up()
        words = ("stop", f"qmp:{guest.qmp}", f"pid:{child.pid}", "qmp:/etc/passwd")
        said = lastcall(tmp_path, *words)
        assert (said.code, "is no socket" in said.err) == (2, True), said
        assert "POWERDOWN" not in guest.side.names()
        assert child.child.poll() is None
    assert not lastcall(tmp_path, "log", "--json").out


def test_nothing_there(tmp_path: Path) -> None:
    """A monitor that is not there, and a port where nobody listens: code 3, with what to do."""
    for target, what in (
        (f"qmp:{tmp_path}/none", "there is no monitor at"),
        ("qmp:127.0.0.1:1", "nothing listens at 127.0.0.1:1\n  its QEMU has ended, or listens"),
    ):
        said = lastcall(tmp_path, "stop", target)
        assert (said.code, what in said.err) == (3, True), said


def test_a_name_longer_than_a_sockets(tmp_path: Path) -> None:
    """A path that no socket can have is an error in words."""
    said = lastcall(tmp_path, "stop", f"qmp:{tmp_path}/{'a' * 200}")
    assert "too long" in said.err, said
    assert "None" not in said.err


# Lengths of time


def test_the_units_own_options(tmp_path: Path) -> None:
    """What the systemd unit passes is understood: here with nothing to stop."""
    [options] = [
        line.partition("LASTCALL_OPTIONS=")[2].rstrip('"')
        for line in UNIT.read_text().splitlines()
        if "LASTCALL_OPTIONS=" in line
    ]
    said = lastcall(tmp_path, "stop", f"qmp:{tmp_path}/none", *shlex.split(options))
    assert (said.code, "there is no monitor" in said.err) == (3, True), said


@pytest.mark.parametrize(
    ("text", "length_s", "words"),
    [
        ("250ms", 0.25, "0.25 s"),
        ("45s", 45, "45 s"),
        ("2min", 120, "2 min"),
        ("2m", 120, "2 min"),
        ("1h30min", 5400, "1 h 30 min"),
        ("1h30m", 5400, "1 h 30 min"),
        ("150", 150, "2 min 30 s"),
    ],
)
def test_lengths(text: str, length_s: float, words: str) -> None:
    """Lengths are read as the documents write them, and told in words."""
    assert parse_duration(text) == length_s
    assert in_words(length_s) == words
    assert in_words(length_s - 0.0001 * (length_s >= 1)) == words


def test_the_usual_grace(tmp_path: Path) -> None:
    """A guest gets two minutes, with a ceiling as well; with `--ask` what its asks take."""
    with zoo.start("stops") as guest, zoo.start("stops") as other:
        for each, options, words in (
            (guest, ("--extend-up-to", "1h"), "grace 2 min"),
            (other, ("--ask", "press:40s,agent:30s"), "grace 1 min 10 s"),
        ):
            each.wait_up()
            said = lastcall(tmp_path, "stop", f"qmp:{each.qmp}", *options)
            assert (said.code, words in said.out) == (0, True), said


# Several at once


def test_one_guest_by_two_names_is_pressed_once(tmp_path: Path) -> None:
    """Two ways to the same monitor, and a second monitor of it: one stop, one press."""
    another = tmp_path / "another"
    more = ("-qmp", f"unix:{another},server=on,wait=off")
    with zoo.start("takes-and-ignores", extra=more) as guest:
        guest.wait_up()
        link = tmp_path / "link"
        link.symlink_to(guest.qmp)
        targets = [f"qmp:{path}" for path in (guest.qmp, link, another)]
        said = lastcall(tmp_path, "stop", "--grace", "500ms", *targets)
        assert said.code == 20, said
        assert guest.side.names().count("POWERDOWN") == 1
    assert len(lastcall(tmp_path, "log", "--json").messages) == 1


def test_checking_one_guest_by_two_names(tmp_path: Path) -> None:
    """Each name gets its answer, and it is the same one."""
    with zoo.start("deaf") as guest:
        guest.wait_up()
        link = tmp_path / "link"
        link.symlink_to(guest.qmp)
        names = [f"qmp:{guest.qmp}", f"qmp:{link}", f"qmp:{guest.qmp}"]
        said = lastcall(tmp_path, "check", "--json", *names)
    assert said.code == 6, said
    assert [message["target"] for message in said.messages] == names
    assert len({json.dumps(message["identity"]) for message in said.messages}) == 1


def test_processes_and_guests_in_one_command(tmp_path: Path) -> None:
    """Each is asked in its own way and has its result, whatever becomes of the others."""
    with zoo.start("stops") as guest, victim(*python("worker.py", "exit", "0")) as child:
        guest.wait_up()
        targets = [f"pid:{child.pid}", f"qmp:{guest.qmp}", f"qmp:{tmp_path}/none"]
        checked = lastcall(tmp_path, "check", "--json", *targets)
        assert [m["event"] for m in checked.messages] == ["check", "check", "error"]
        assert "signals" in checked.messages[0]
        assert checked.messages[1]["guest"]["state"] == "running"
        said = lastcall(tmp_path, "stop", "--json", *targets)
        assert said.code == 3, said
        results = {m["target"]: m for m in said.messages if m["event"] == "result"}
        assert [results[target]["ending"] for target in targets] == ["orderly", "orderly", None]
        assert results[targets[2]]["error"]["code"] == "not-running"
        assert guest.wait_ended() == 0


# Check


def test_what_check_says(tmp_path: Path) -> None:
    """Beforehand: a guest that listens, one that is deaf and one that sleeps; nobody is pressed."""
    with zoo.start("stops") as good, zoo.start("deaf") as deaf, zoo.start("sleeps") as asleep:
        for guest in (good, deaf, asleep):
            guest.wait_up()
        asleep.side.wait_event("SUSPEND")
        said = {
            name: lastcall(tmp_path, "check", f"qmp:{guest.qmp}")
            for name, guest in (("good", good), ("deaf", deaf), ("asleep", asleep))
        }
        for guest in (good, deaf, asleep):
            assert "POWERDOWN" not in guest.side.names()
    assert [said[name].code for name in ("good", "deaf", "asleep")] == [0, 6, 6]
    assert "nothing found that keeps ACPI power button from ending it" in said["good"].last
    assert "nobody in it listens to the power button" in said["deaf"].out
    assert "--allow wake" in said["asleep"].out
    assert not (tmp_path / "journal.db").exists()


def test_the_shape_of_a_check(tmp_path: Path) -> None:
    """The keys that a program may rely on."""
    with zoo.start("stops") as guest:
        guest.wait_up()
        [said] = lastcall(tmp_path, "check", "--json", f"qmp:{guest.qmp}").messages
        assert said["identity"]["facts"]["pid"] == guest.pid
    keys = {"event", "target", "label", "identity", "asked", "guest", "findings", "exit_code"}
    assert said.keys() == keys
    assert said["asked"] == ["ACPI power button"]
    assert said["guest"].keys() == {"machine", "state", "button", "registers"}
    assert [finding["code"] for finding in said["findings"]] == ["listens"]


# Stop


def test_the_lines_of_a_stop(tmp_path: Path) -> None:
    """What a person reads, step by step: nothing twice, and the verdict last."""
    with zoo.start("stops") as guest:
        guest.wait_up()
        said = lastcall(tmp_path, "stop", f"qmp:{guest.qmp}", "--reason", "tests")
        assert (said.code, said.err) == (0, "")
    tags = [line.split()[2] for line in said.out.splitlines()[1:-1]]
    assert [tag for tag in tags if tag not in {"delivered", "taken"}] == [
        "begin",
        "asked",
        "off",
        "ended",
    ]
    assert "the guest is off (guest-shutdown)" in said.out
    assert "reason: tests" in said.out
    assert said.last.startswith(f"orderly: qmp:{guest.qmp}: the guest powered itself off after")


def test_quiet(tmp_path: Path) -> None:
    """The exit code alone."""
    with zoo.start("stops") as guest:
        guest.wait_up()
        said = lastcall(tmp_path, "stop", "--quiet", f"qmp:{guest.qmp}")
        assert said == Said(0, "", "")


def test_forced(tmp_path: Path) -> None:
    """With consent it is taken away at the deadline: forced, with the reason and what it risks."""
    with zoo.start("takes-and-ignores") as guest:
        guest.wait_up()
        words = ("--grace", "1s", "--force", "--reason", "it is a test")
        said = lastcall(tmp_path, "stop", f"qmp:{guest.qmp}", *words)
        assert (said.code, said.last.split(":")[0]) == (11, "forced"), said
        assert guest.wait_ended() == 0
    assert "force allowed: it is a test" in said.out
    assert "a power cut to the guest: what is not saved" in said.out
    [row] = lastcall(tmp_path, "log", "--json").messages
    assert row["ending"] == "forced"


def test_candidates_are_not_told_as_seen(tmp_path: Path) -> None:
    """What may be the cause stands apart from what was seen."""
    with zoo.start("takes-and-ignores") as guest:
        guest.wait_up()
        said = lastcall(tmp_path, "stop", f"qmp:{guest.qmp}", "--grace", "6s")
    assert said.code == 20, said
    assert "why?  its power button set to nothing" in said.out
    assert "seen: may be" not in said.out
    picture = said.out.partition("seen: picture: ")[2].splitlines()[0]
    assert Path(picture).parent == tmp_path / "screens"
    assert Path(picture).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "screens").stat().st_mode & 0o777 == 0o700


def test_asking_an_agent_that_is_not_there(tmp_path: Path) -> None:
    """It is said beforehand; nobody is asked, nothing is pressed."""
    with zoo.start("stops") as guest:
        guest.wait_up()
        words = ("--ask", "agent", "--guest-os", "linux", "--grace", "5s")
        said = lastcall(tmp_path, "stop", f"qmp:{guest.qmp}", *words)
        assert said.code == 20, said
        assert "POWERDOWN" not in guest.side.names()
    assert "no guest agent answers" in said.out
    assert "no port for the guest agent" in said.out or "no port for a guest agent" in said.out
    assert "no ask could be delivered" in said.last


def test_never_pressed_again(tmp_path: Path) -> None:
    """With `--press-again never` a guest that was booting keeps its dropped press."""
    with zoo.start("late", delay_s=2) as guest:
        words = ("--press-again", "never", "--grace", "5s", "--json")
        said = lastcall(tmp_path, "stop", f"qmp:{guest.qmp}", *words)
        assert said.code == 20, said
        assert "listening" in guest.milestones()
        assert guest.side.names().count("POWERDOWN") == 1
    [started] = [m["data"] for m in said.messages if m["event"] == "started"]
    assert "press-again" not in [rung["id"] for rung in started["ladder"]]


def test_left_and_resumed(tmp_path: Path) -> None:
    """Ctrl+C leaves the guest alone; `resume` sees it end, and nobody presses twice."""
    with zoo.start("slow", delay_s=3) as guest:
        guest.wait_up()
        stop = subprocess.Popen(
            [*COMMAND, "stop", f"qmp:{guest.qmp}"],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            guest.wait_said("taken")
            stop.send_signal(signal.SIGINT)
            out, _ = stop.communicate(timeout=30)
        finally:
            stop.kill()
            stop.wait()
        assert (stop.returncode, "lastcall resume 1" in out) == (130, True), out
        said = lastcall(tmp_path, "resume")
        assert (said.code, said.last.split(":")[0]) == (0, "orderly"), said
        assert guest.side.names().count("POWERDOWN") == 1
    told = lastcall(tmp_path, "log", "1").out
    for word in ("intent", "asked", "left", "resumed", "off", "ended", "orderly"):
        assert f"  {word} " in told, told


def test_the_live_view(tmp_path: Path) -> None:
    """On a terminal a bar shows how far it has come, and the verdict stays."""
    env = environment(tmp_path, TERM="xterm-256color")
    del env["NO_COLOR"]
    with zoo.start("slow", delay_s=1) as guest:
        guest.wait_up()
        with terminal([*COMMAND, "stop", f"qmp:{guest.qmp}"], env) as screen:
            assert screen.wait() == 0
    assert "━━━" in screen.text
    assert " 2 min " in screen.text
    assert "taken: the guest" in screen.text
    steps = [screen.text.index(word) for word in ("begin", "asked", "ended", "orderly: qmp:")]
    assert steps == sorted(steps)


# libvirt


def test_every_guest_of_a_host(tmp_path: Path, daemon: Libvirtd) -> None:
    """`--all` stops what runs, one at a time if so wished; then there is nothing left to stop."""
    connect = ("--connect", daemon.uri)
    with daemon.guest("stops") as first, daemon.guest("stops") as second:
        for guest in (first, second):
            guest.wait_up()
        said = lastcall(tmp_path, "stop", "--all", "--at-once", "1", *connect, "--json")
        assert said.code == 0, said
        ended = {m["target"]: m["ending"] for m in said.messages if m["event"] == "result"}
        assert ended == {f"libvirt:{guest.name}": "orderly" for guest in (first, second)}
    said = lastcall(tmp_path, "stop", "--all", *connect)
    assert (said.code, said.out) == (0, "No guest runs on this host: there is nothing to stop.\n")


def test_checking_over_libvirt(tmp_path: Path, daemon: Libvirtd) -> None:
    """The monitor is read with consent only; without it the message says what one would learn."""
    with daemon.guest("deaf") as guest:
        guest.wait_up()
        words = ("check", "--connect", daemon.uri, f"libvirt:{guest.name}")
        unread = lastcall(tmp_path, *words)
        assert "tainted: custom-monitor" not in guest.log()
        read = lastcall(tmp_path, *words, "--allow", "monitor")
    assert "--allow monitor" in unread.out
    assert "PM1_EN" not in unread.out
    assert (read.code, "PM1_EN=0x0000" in read.out) == (6, True), read


def test_what_libvirt_does_not_know(tmp_path: Path, daemon: Libvirtd) -> None:
    """An unknown guest and an address of no libvirt: each error says it once, and what to do."""
    said = lastcall(tmp_path, "stop", "--connect", daemon.uri, "libvirt:no-such-guest")
    assert (said.code, "knows no guest 'no-such-guest'" in said.err) == (3, True), said
    nowhere = f"qemu+unix:///system?socket={tmp_path}/none"
    said = lastcall(tmp_path, "stop", "--connect", nowhere, "libvirt:a")
    assert (said.code, "what --connect names" in said.err) == (1, True), said
    assert said.err.count("Failed to connect socket") == 1, said


# Without the extras


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Without the extras each command names what to install, and guests of the other kind work."""
    for module, extra, target in (
        ("qemu", "qemu", "qmp:{qmp}"),
        ("libvirt", "libvirt", "libvirt:vm"),
    ):
        with zoo.start("stops") as guest:
            for command in ("stop", "check"):
                words = (command, target.format(qmp=guest.qmp))
                said = ran(tmp_path, without(module), *words)
                assert (said.code, f"pip install 'lastcall[{extra}]'" in said.err) == (2, True), (
                    said
                )
                assert "Traceback" not in said.err
    said = ran(tmp_path, without("libvirt"), "stop", "--all")
    assert (said.code, "pip install 'lastcall[libvirt]'" in said.err) == (2, True), said


def test_without_pillow_the_rest_stands(tmp_path: Path) -> None:
    """Without the library for pictures a guest is stopped and explained without its screen."""
    with zoo.start("takes-and-ignores") as guest:
        guest.wait_up()
        words = ("stop", f"qmp:{guest.qmp}", "--grace", "6s")
        said = ran(tmp_path, without("PIL"), *words)
    assert (said.code, "its kernel took the press" in said.out) == (20, True), said
    assert "pip install 'lastcall[qemu]'" in said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", ["stop", "check"])
def test_processes_need_none_of_it(tmp_path: Path, command: str) -> None:
    """A process is stopped and checked without loading a line of what guests need."""
    with victim(*python("worker.py", "exit", "0")) as child:
        timed = (sys.executable, "-X", "importtime", "-m", "lastcall")
        said = ran(tmp_path, timed, command, f"pid:{child.pid}")
        assert said.code == 0, said
    loaded = {line.rpartition("|")[2].strip() for line in said.err.splitlines()}
    assert "lastcall.cli.guests" in loaded
    heavy = ("qemu", "PIL", "libvirt", "lastcall.targets.guest", "lastcall.cli.check_guest")
    assert not [name for name in loaded if name.startswith(heavy)]
