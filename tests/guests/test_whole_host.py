"""A whole host: `lastcall stop --all`, and a libvirtd that fails in the middle of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from guests.commanding import lastcall, say
from helpers import victim, wait_until
from lastcall.errors import ExitCode
from lastcall.model import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from guests.libvirtd import Guest, Libvirtd
    from guests.stopping import Said

# A process that ends at once when it is asked.
ENDS = "import signal; print('ready', flush=True); signal.sigwait({signal.SIGTERM})"


@contextlib.contextmanager
def running(daemon: Libvirtd, *behaviours: str, **numbers: float) -> Iterator[list[Guest]]:
    """Guests that are all up."""
    told: dict[str, Any] = dict(numbers)
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(daemon.guest(each, **told)) for each in behaviours]
        for guest in guests:
            guest.wait_up()
        yield guests


def of(said: dict[str, Said], guest: Guest) -> Said:
    """What was said of a guest."""
    return said[f"libvirt:{guest.name}"]


def test_all_are_pressed_before_the_first_has_ended(daemon: Libvirtd, tmp_path: Path) -> None:
    """Six guests that take 3 s each are stopped side by side."""
    with running(daemon, *["slow"] * 6, delay_s=3) as guests:
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked", 6)
            assert all(guest.runs() for guest in guests)
            code, said = command.finish()
        assert code == ExitCode.ORDERLY
        assert {of(said, guest).ending for guest in guests} == {Ending.ORDERLY}
        assert all(guest.milestones() == ["up", "taken", "off"] for guest in guests)
        for guest in guests:
            guest.wait_off()


def test_one_that_hangs_keeps_none_from_its_press(daemon: Libvirtd, tmp_path: Path) -> None:
    """Two that hang have both turns first; the others get theirs, and the gravest code is told."""
    with running(daemon, "deaf", "deaf", "stops", "stops") as guests:
        words = ("--all", "--at-once", "2", "--grace", "4s", "--connect", daemon.uri)
        with lastcall(tmp_path, "stop", *words) as command:
            code, said = command.finish()
        assert code == ExitCode.STILL_RUNNING
        endings = [of(said, guest).ending for guest in guests]
        assert endings == [*[Ending.STILL_RUNNING] * 2, *[Ending.ORDERLY] * 2]
        assert all(of(said, guest).carried == ["press"] for guest in guests)


def test_nothing_runs(daemon: Libvirtd, tmp_path: Path) -> None:
    """There is nothing to stop, which is no failure."""
    ran = say(tmp_path, "stop", "--all", "--connect", daemon.uri)
    assert ran.returncode == ExitCode.ORDERLY, ran
    assert "there is nothing to stop" in ran.stdout


def test_no_libvirtd(tmp_path: Path) -> None:
    """One that cannot be reached is said so, with what to do, and soon."""
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    for whom in ("--all", "libvirt:web1"):
        ran = say(tmp_path, "stop", whom, "--connect", uri)
        assert ran.returncode == ExitCode.FAILED, ran
        assert "virsh uri" in ran.stdout + ran.stderr


def test_who_may_only_look_may_not_stop(daemon: Libvirtd, tmp_path: Path) -> None:
    """A read-only connection: not permitted, and the guest is left alone."""
    with running(daemon, "stops") as (guest,):
        words = ("--all", "--connect", daemon.look_uri, "--grace", "10s")
        with lastcall(tmp_path, "stop", *words) as command:
            code, said = command.finish()
        assert code == ExitCode.NOT_PERMITTED, said
        assert guest.milestones() == ["up"]
        assert guest.runs()


# libvirtd fails.


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_libvirtd_restarts_during_the_stop(
    daemon: Libvirtd, tmp_path: Path, how: signal.Signals
) -> None:
    """The end is heard once it is back."""
    with running(daemon, "slow", delay_s=10) as (guest,):
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked")
            daemon.stop(how)
            daemon.start()
            assert guest.milestones() == ["up", "taken"]
            code, said = command.finish()
        assert code == ExitCode.ORDERLY, said
        assert of(said, guest).ending == Ending.ORDERLY


def test_a_guest_powers_off_while_libvirtd_is_away(daemon: Libvirtd, tmp_path: Path) -> None:
    """Nobody heard how it ended: that is what is said, never more."""
    with running(daemon, "slow", delay_s=2) as (guest,):
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked")
            daemon.stop()
            guest.wait_said("off")
            daemon.start()
            code, said = command.finish()
        assert of(said, guest).ending in {Ending.ORDERLY, Ending.UNKNOWN}, said
        assert code in {ExitCode.ORDERLY, ExitCode.UNKNOWN}


def test_a_libvirtd_that_hangs_delays_nobody_else(daemon: Libvirtd, tmp_path: Path) -> None:
    """A process of the same command is stopped at once, and the guest's end is told in words."""
    with (
        running(daemon, "stops") as (guest,),
        victim(sys.executable, "-c", ENDS) as process,
        daemon.paused(),
    ):
        words = (f"libvirt:{guest.name}", f"pid:{process.pid}", "--connect", daemon.uri)
        with lastcall(tmp_path, "stop", *words) as command:
            first = command.wait_event("result")
            assert first["target"] == f"pid:{process.pid}"
            process.wait()
            code, said = command.finish()
        assert code == ExitCode.FAILED, said
        assert of(said, guest).result["error"], said
        assert of(said, guest).events == []
        assert guest.milestones() == ["up"]


def test_a_libvirtd_that_hangs_when_all_are_asked_for(daemon: Libvirtd, tmp_path: Path) -> None:
    """Which guests run cannot be told: an error, within the limit."""
    with daemon.paused():
        began_s = time.monotonic()
        ran = say(tmp_path, "stop", "--all", "--connect", daemon.uri)
        assert time.monotonic() - began_s < 20
    assert ran.returncode == ExitCode.FAILED, ran
    assert "libvirt" in ran.stderr


def test_libvirtd_hangs_in_the_middle(daemon: Libvirtd, tmp_path: Path) -> None:
    """All limits hold: the stop ends at its deadline and says that libvirt does not answer."""
    with running(daemon, "slow", delay_s=1) as (guest,):
        words = ("--grace", "4s", "--connect", daemon.uri)
        with lastcall(tmp_path, "stop", f"libvirt:{guest.name}", *words) as command:
            command.wait_event("asked")
            with daemon.paused():
                began_s = time.monotonic()
                code, said = command.finish()
                assert time.monotonic() - began_s < 25
        assert code == ExitCode.STILL_RUNNING, said
        assert of(said, guest).findings[:1] == ["libvirt-hung"], of(said, guest)


def test_a_guest_whose_qemu_hangs_delays_nobody_else(daemon: Libvirtd, tmp_path: Path) -> None:
    """The other one is off before anything of the hung one comes back."""
    with running(daemon, "stops", "stops") as (hung, other):
        os.kill(hung.pid, signal.SIGSTOP)
        try:
            words = ("--all", "--grace", "3s", "--connect", daemon.uri, "--allow", "monitor")
            with lastcall(tmp_path, "stop", *words) as command:
                assert command.wait_event("started")["target"] == f"libvirt:{other.name}"
                assert command.wait_event("result")["target"] == f"libvirt:{other.name}"
                code, said = command.finish()
                # It was off before the preflight of the hung one was given up.
                assert said.keys() == {f"libvirt:{hung.name}", f"libvirt:{other.name}"}
        finally:
            os.kill(hung.pid, signal.SIGCONT)
        assert code == ExitCode.STILL_RUNNING
        assert of(said, other).ending == Ending.ORDERLY
        assert of(said, hung).findings[:1] == ["libvirt-hung"], of(said, hung)


def test_an_agent_that_hangs_delays_nobody_else(daemon: Libvirtd, tmp_path: Path) -> None:
    """The other one is off while that agent is still waited for; its own guest is pressed, too."""
    with daemon.linux(frozen=True) as hung, running(daemon, "stops") as (other,):
        hung.wait_up()
        words = ("--all", "--grace", "60s", "--connect", daemon.uri)
        with lastcall(tmp_path, "stop", *words) as command:
            assert command.wait_event("started")["target"] == f"libvirt:{other.name}"
            assert command.wait_event("result")["target"] == f"libvirt:{other.name}"
            code, said = command.finish()
        assert code == ExitCode.ORDERLY, said
        assert "agent-silent" in of(said, hung).beforehand
        assert of(said, hung).carried == ["press"]


# Others do something to the guest meanwhile, or did before.


def test_a_paused_guest_is_resumed_only_with_consent(daemon: Libvirtd, tmp_path: Path) -> None:
    """Libvirt presses no button of a paused guest: told why, or let go on first and pressed."""
    with running(daemon, "stops") as (guest,):
        daemon.virsh("suspend", guest.name)
        words = (f"libvirt:{guest.name}", "--connect", daemon.uri, "--grace", "20s")
        with lastcall(tmp_path, "stop", *words) as command:
            code, said = command.finish()
        assert code == ExitCode.STILL_RUNNING
        assert of(said, guest).findings[:1] == ["paused"], of(said, guest)
        assert "--allow resume" in of(said, guest).of("asked")[0]["detail"]
        assert guest.milestones() == ["up"]
        with lastcall(tmp_path, "stop", *words, "--allow", "resume") as command:
            code, said = command.finish()
        assert of(said, guest).ending == Ending.ORDERLY, of(said, guest)
        assert code == ExitCode.ORDERLY


def test_somebody_saves_it_in_a_file(daemon: Libvirtd, tmp_path: Path) -> None:
    """Its machine is gone and its disk not clean, as after hibernation."""
    with running(daemon, "deaf") as (guest,):
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked")
            daemon.virsh("save", guest.name, str(tmp_path / "saved"))
            code, said = command.finish()
        assert of(said, guest).ending == Ending.HIBERNATED, of(said, guest)
        assert code == ExitCode.HIBERNATED


def test_its_definition_is_taken_away_during_the_stop(daemon: Libvirtd, tmp_path: Path) -> None:
    """It runs on until it has stopped, and its end is heard all the same."""
    with daemon.guest("slow", keep=True, delay_s=3) as guest:
        guest.wait_up()
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked")
            daemon.virsh("undefine", guest.name)
            code, said = command.finish()
        assert of(said, guest).ending == Ending.ORDERLY
        assert code == ExitCode.ORDERLY


@pytest.mark.parametrize("graceful", [True, False])
def test_somebody_else_destroys_it(daemon: Libvirtd, tmp_path: Path, *, graceful: bool) -> None:
    """It was killed from outside: neither our force nor an orderly end."""
    with running(daemon, "deaf") as (guest,):
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri) as command:
            command.wait_event("asked")
            daemon.virsh("destroy", guest.name, *(["--graceful"] if graceful else []))
            code, said = command.finish()
        assert of(said, guest).ending == Ending.KILLED_OUTSIDE, of(said, guest)
        assert code == ExitCode.KILLED_OUTSIDE


def test_a_later_run_of_the_same_name_is_never_touched(daemon: Libvirtd, tmp_path: Path) -> None:
    """Restarted between the stop that was left and its resumption, it is another guest."""
    with daemon.guest("takes-and-ignores", keep=True) as guest:
        guest.wait_up()
        words = (f"libvirt:{guest.name}", "--connect", daemon.uri)
        with lastcall(tmp_path, "stop", *words) as command:
            command.wait_event("asked")
            command.interrupt()
            code, _ = command.finish()
        assert code == ExitCode.INTERRUPTED
        daemon.virsh("destroy", guest.name)
        daemon.virsh("start", guest.name)
        wait_until(lambda: guest.milestones() == ["up"], "the later run")
        forced = ("--force", "--reason", "the test", "--grace", "1s")
        with lastcall(tmp_path, "resume", *forced) as command:
            code, said = command.finish()
        assert code == ExitCode.UNKNOWN, said
        assert of(said, guest).ending == Ending.UNKNOWN
        assert guest.milestones() == ["up"]
        assert guest.runs()


def test_force_ends_it_in_order_first(daemon: Libvirtd, tmp_path: Path) -> None:
    """With consent QEMU is told to end, and is not killed; the reason is recorded."""
    with running(daemon, "deaf") as (guest,):
        words = ("--grace", "1s", "--force", "--reason", "the host goes down")
        with lastcall(tmp_path, "stop", "--all", "--connect", daemon.uri, *words) as command:
            code, said = command.finish()
        assert code == ExitCode.FORCED
        assert of(said, guest).ending == Ending.FORCED
        assert of(said, guest).carried == ["press", "end"]
        consent = of(said, guest).of("started")[0]["consent"]
        assert consent["reason"] == "the host goes down"
        assert not guest.runs()
