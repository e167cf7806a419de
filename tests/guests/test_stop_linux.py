"""The real Linux guest, stopped or explained by `lastcall stop`: by its button and by its agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from guests import linux, stopping
from lastcall.model import Ending
from lastcall.targets.guest.qmp import agent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from guests.libvirtd import Guest as Domain
    from guests.libvirtd import Libvirtd
    from guests.linux import Guest, Options
    from guests.stopping import Said
    from lastcall.targets.guest.words import AgentSight

# Each boots a system, on a machine that others may use too.
pytestmark = pytest.mark.timeout(240)

SERVICES = ["agent-ended", "database-ending", "waiting", "database-ended", "poweroff"]
HUNG_UNIT = "database.service"
# It shows what it waits for after 2 s, and all looks but the last want two pictures.
LOOKED = "8s"


def stop(guest: Guest, state: Path, *options: str) -> Said:
    """What one command says of one guest."""
    address = f"qmp:{guest.qmp}"
    return stopping.stop([address], options, state)[address]


def check(address: str, *options: str) -> Mapping[str, Any]:
    """What `lastcall check` says of a guest."""
    command = [sys.executable, "-m", "lastcall", "check", "--json", *options, address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not ran.stderr, ran.stderr
    report: Mapping[str, Any] = json.loads(ran.stdout)
    return report


def codes(report: Mapping[str, Any]) -> list[str]:
    """The codes of its findings."""
    return [str(finding["code"]) for finding in report["findings"]]


@contextlib.contextmanager
def running(*each: Options, extra: tuple[str, ...] = ()) -> Iterator[list[Guest]]:
    """Guests that boot side by side, all up."""
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(linux.start("pc", extra, **options)) for options in each]
        for guest in guests:
            guest.wait_up()
        yield guests


def ended_in_order(said: Said, guest: Guest) -> None:
    """The stop is orderly, and so is what it leaves.

    Raises:
        AssertionError: it is not.
    """
    assert said.ending == Ending.ORDERLY, said
    assert said.result["exit_code"] == 0
    assert said.findings == []
    assert guest.wait_ended() == 0
    assert guest.unmounted()


def first(said: Said) -> Mapping[str, Any]:
    """The finding that the ending rests on."""
    finding: Mapping[str, Any] = said.of("finished")[-1]["findings"][0]
    return finding


def in_order(stages: list[str], *ends: str) -> bool:
    """Whether the stages end so, and none came too late.

    Through a slow monitor the registers may show "taken" only after what follows from it.
    """
    known = ["delivered", "taken", "draining", "powered off"]
    return stages == [each for each in known if each in stages] and stages[-len(ends) :] == [*ends]


# By the button, and by the agent.


def test_its_stages_show_its_services_ending(tmp_path: Path) -> None:
    """Heard before, taken, its agent gone while a service still ends, off, and a clean disk."""
    with contextlib.ExitStack() as stack:
        guests = [
            stack.enter_context(linux.start(machine, slow_s=3, user=True))
            for machine in ("pc", "q35")
        ]
        for guest in guests:
            guest.wait_up()
            before = check(f"qmp:{guest.qmp}")
            assert before["guest"]["logged on"] == "kim"
            assert before["guest"]["system"] == "Debian GNU/Linux"
            assert codes(before) == ["listens", "agent-answers"]
            assert before["exit_code"] == 0
            assert guest.milestones() == ["up"]
        addresses = [f"qmp:{guest.qmp}" for guest in guests]
        said = stopping.stop(addresses, ("--grace", "60s"), tmp_path)
        for address, guest in zip(addresses, guests, strict=True):
            _its_services_ended(said[address], guest)


def _its_services_ended(said: Said, guest: Guest) -> None:
    ended_in_order(said, guest)
    assert said.beforehand == ["listens", "agent-answers"]
    assert in_order(said.stages, "draining", "powered off")
    assert said.carried == ["press"]
    assert guest.milestones() == ["up", "press", *SERVICES]
    at_s = {data["stage"]: at_s for kind, data, at_s in said.events if kind == "reached"}
    assert at_s["powered off"] - at_s["draining"] > 1.0
    looked = [finding for look in said.of("looked") for finding in look["findings"]]
    assert "service-ending-slowly" in [finding["code"] for finding in looked]


def test_the_agent_stops_it(tmp_path: Path) -> None:
    """Asked by its agent alone, it is never pressed, and its stages show its services ending."""
    with running({"slow_s": 3}) as (guest,):
        said = stop(guest, tmp_path, "--ask", "agent", "--grace", "60s")
        ended_in_order(said, guest)
        assert said.carried == ["agent"]
        assert said.stages == ["draining", "powered off"]
        # The ask is over when the agent's port closes: that is its only word.
        asked_s = next(at_s for kind, _, at_s in said.events if kind == "asked")
        off_s = next(s for kind, data, s in said.events if data.get("stage") == "powered off")
        assert off_s - asked_s > 1.0
        assert guest.milestones() == ["up", "agent", *SERVICES]
        assert "POWERDOWN" not in guest.side.names()


def test_one_that_does_not_hear_the_button_is_asked_by_its_agent_at_once(tmp_path: Path) -> None:
    """Without a driver of the button the press is known to be lost: nobody waits a minute."""
    with running({"button": False}) as (guest,):
        before = check(f"qmp:{guest.qmp}", "--ask", "press:60s,agent")
        assert codes(before) == ["button-not-heard", "agent-answers"]
        assert "modprobe button" in before["findings"][0]["advice"]
        said = stop(guest, tmp_path, "--ask", "press:60s,agent", "--grace", "90s")
        ended_in_order(said, guest)
        assert said.carried == ["press", "agent"]
        assert "delivered" not in said.stages
        assert said.events[-1][2] < 30


# What holds it up.


def test_each_that_does_not_stop_is_explained(tmp_path: Path) -> None:
    """A hung service is named; a press nobody acts on is a set of candidates; sleep is told."""
    ways: tuple[Options, ...] = ({"hung": True}, {"acpid": False}, {"press": "suspend"})
    with running(*ways) as guests:
        hung, ignores, sleeps = guests
        addresses = [f"qmp:{guest.qmp}" for guest in guests]
        said = stopping.stop(addresses, ("--grace", LOOKED), tmp_path)
        for address in addresses:
            assert said[address].ending == Ending.STILL_RUNNING
            assert said[address].result["exit_code"] == 20
            assert said[address].carried == ["press"]
            assert said[address].beforehand == ["listens", "agent-answers"]
        with ThreadPoolExecutor() as at_once:
            going_on = [
                at_once.submit(_the_hung_one, hung, said[addresses[0]], tmp_path),
                at_once.submit(_the_ignoring_one, ignores, said[addresses[1]], tmp_path),
                at_once.submit(_the_sleeping_one, sleeps, said[addresses[2]], tmp_path),
            ]
        for each in going_on:
            each.result()


def _the_hung_one(guest: Guest, said: Said, state: Path) -> None:
    """The finding names its service; force ends it, and says what that costs."""
    assert in_order(said.stages, "draining")
    holds = first(said)
    assert holds["code"] == "service-ending-slowly"
    assert HUNG_UNIT in holds["title"]
    assert "without limit" in holds["title"]
    evidence = "\n".join(holds["evidence"])
    assert "A stop job is running for" in evidence
    assert "the guest agent left" in evidence
    assert "picture: " in evidence
    assert "updat" not in holds["title"]
    assert guest.process.poll() is None
    forced = stop(guest, state, "--grace", "2s", "--force", "--reason", "its database hangs")
    assert forced.ending == Ending.FORCED
    assert forced.result["exit_code"] == 11
    assert forced.carried[-1] == "end"
    assert "what is not saved or not yet written is lost" in forced.of("asked")[-1]["detail"]
    assert "powered off" not in forced.stages
    assert guest.wait_ended() == 0
    assert not guest.unmounted()


def _the_ignoring_one(guest: Guest, said: Said, state: Path) -> None:
    """No cause is named without evidence; the agent is the way out that is advised, and works."""
    assert said.stages == ["delivered", "taken"]
    holds = first(said)
    assert holds["code"] == "taken-nothing-moves"
    assert holds["confidence"] == "possible"
    assert any("nobody acts on it (logind, acpid)" in line for line in holds["evidence"])
    assert not any("Windows" in line for line in holds["evidence"])
    assert "--ask press:60s,agent" in holds["advice"]
    assert guest.milestones() == ["up"]
    again = stop(guest, state, "--ask", "press:2s,agent", "--grace", "60s")
    ended_in_order(again, guest)
    assert again.carried == ["press", "agent"]


def _the_sleeping_one(guest: Guest, said: Said, state: Path) -> None:
    """Told as fallen asleep; woken where that is allowed, and pressed again once it is awake."""
    # Its drivers may close the agent's port on their way to sleep.
    assert said.stages[:2] == ["delivered", "taken"]
    assert said.findings[0] == "fell-asleep"
    assert "HandlePowerKey=poweroff" in first(said)["advice"]
    again = stop(guest, state, "--grace", "12s", "--allow", "wake")
    assert again.beforehand[0] == "asleep"
    # Its button puts it to sleep each time: no press stops it, and there is an end to pressing.
    assert again.ending == Ending.STILL_RUNNING
    assert again.findings[0] == "fell-asleep"
    assert again.carried[:3] == ["press", "wake", "press-again"]
    assert sum(rung.startswith("press") for rung in again.carried) <= 3
    assert guest.milestones().count("press") >= 2


def test_one_that_sleeps_is_woken_and_stopped(tmp_path: Path) -> None:
    """With consent it is woken, pressed once its drivers are awake as well, and stops."""
    with linux.start(asleep=True) as guest:
        guest.side.wait_event("SUSPEND")
        said = stop(guest, tmp_path, "--grace", "60s", "--allow", "wake")
        ended_in_order(said, guest)
        assert said.beforehand[0] == "asleep"
        assert said.carried == ["press", "wake", "press-again"]
        assert said.stages[-1] == "powered off"


def test_a_frozen_agent_is_told_and_holds_up_no_press(tmp_path: Path) -> None:
    """Known before anything is asked; nobody is asked through it; the button still works."""
    with running({"frozen": True}) as (guest,):
        said = stop(guest, tmp_path, "--ask", "agent", "--guest-os", "linux", "--grace", "20s")
        assert said.ending == Ending.STILL_RUNNING
        assert said.result["why"] == "ask-failed"
        assert said.beforehand == ["agent-silent", "listens"]
        assert said.findings == ["agent-silent"]
        (asked,) = said.of("asked")
        assert asked["outcome"] == "failed"
        assert "no guest agent answers" in asked["detail"]
        said = stop(guest, tmp_path, "--ask", "agent:2s,press", "--grace", "60s")
        ended_in_order(said, guest)
        assert said.carried == ["press"]
        assert "draining" in said.stages


def test_an_agent_that_was_given_up_heeds_its_signals() -> None:
    """It answers late, to somebody who still listens, and so is no service that ends slowly."""

    async def give_up(path: str) -> AgentSight:
        given_up = agent.GivenUp()
        try:
            seen = await agent.sight(path, 0.000_1, given_up)
            assert await given_up.over(30)
            return seen
        finally:
            given_up.close()

    with running({}) as (guest,):
        given_up = [asyncio.run(give_up(str(guest.agent_socket))) for _ in range(3)]
        assert [seen.answers for seen in given_up] == [False] * 3
        assert asyncio.run(agent.sight(str(guest.agent_socket))).answers is True
        guest.side.press()
        assert guest.wait_ended() == 0
        assert "waiting" not in guest.milestones()


# Endings that are not what was asked for.


def test_endings_that_look_like_a_stop_are_told_apart(tmp_path: Path) -> None:
    """Hibernated, panicked and started again are neither orderly nor one another."""
    ways: tuple[Options, ...] = ({"press": "hibernate"}, {"press": "panic"}, {"press": "reboot"})
    with running(*ways) as guests:
        addresses = [f"qmp:{guest.qmp}" for guest in guests]
        said = stopping.stop(addresses, ("--grace", "90s"), tmp_path)
        endings = [said[address].ending for address in addresses]
        assert endings == [Ending.HIBERNATED, Ending.PANICKED, Ending.REBOOTED]
        assert [said[address].result["exit_code"] for address in addresses] == [14, 16, 15]
        hibernated, panicked, rebooted = guests
        assert hibernated.wait_ended() == 0
        assert panicked.wait_ended() == 0
        assert not panicked.unmounted()
        assert rebooted.process.poll() is None


def test_a_panic_that_keeps_its_machine_is_the_finding(tmp_path: Path) -> None:
    """With -no-shutdown QEMU stays for whoever wants a dump: it is left alone, and told."""
    with running({"press": "panic"}, extra=("-no-shutdown",)) as (guest,):
        said = stop(guest, tmp_path, "--grace", "3s")
        assert said.ending == Ending.STILL_RUNNING
        assert said.findings[0] == "panicked"
        assert "save a memory dump" in first(said)["advice"]
        assert said.carried == ["press"]
        assert guest.side.status() == "guest-panicked"


# Through libvirt.


def stop_domain(guest: Domain, state: Path, *options: str) -> Said:
    """What one command says of one domain."""
    address = f"libvirt:{guest.name}"
    return stopping.stop([address], ("--connect", guest.daemon.uri, *options), state)[address]


def clean(guest: Domain) -> bool:
    """Whether its disk was unmounted in order."""
    return linux.unmounted(guest.daemon.folder / guest.name / "disk")


def test_libvirt_stops_it(daemon: Libvirtd, tmp_path: Path) -> None:
    """By button and by agent, its services seen ending, and nothing that taints the domain."""
    with daemon.linux(slow_s=3, user=True) as pressed, daemon.linux(slow_s=3) as asked:
        for guest, ask in ((pressed, "press"), (asked, "agent")):
            guest.wait_up()
            before = check(f"libvirt:{guest.name}", "--connect", daemon.uri)
            assert before["guest"]["logged on"] == {"press": "kim", "agent": "nobody"}[ask]
            assert codes(before) == ["agent-answers", "monitor-unread"]
            said = stop_domain(guest, tmp_path, "--ask", ask, "--grace", "60s")
            assert said.ending == Ending.ORDERLY
            assert said.carried == [ask]
            assert said.stages == ["draining", "powered off"]
            guest.wait_off()
            assert clean(guest)
            # Neither custom-monitor nor custom-ga-command.
            assert "custom-" not in guest.log()


def test_libvirt_explains_a_hung_service_and_forces(daemon: Libvirtd, tmp_path: Path) -> None:
    """With consent to read the monitor all is known as with QEMU alone; destroy is forced."""
    with daemon.linux(hung=True) as guest:
        guest.wait_up()
        said = stop_domain(guest, tmp_path, "--allow", "monitor", "--grace", LOOKED)
        assert said.ending == Ending.STILL_RUNNING
        assert in_order(said.stages, "draining")
        assert first(said)["code"] == "service-ending-slowly"
        assert HUNG_UNIT in first(said)["title"]
        assert guest.runs()
        options = ("--grace", "2s", "--force", "--reason", "its database hangs")
        forced = stop_domain(guest, tmp_path, *options)
        assert forced.ending == Ending.FORCED
        assert forced.carried[-1] == "end"
        guest.wait_off()
        assert not clean(guest)
