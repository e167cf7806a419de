"""The Linux guest by itself, without lastcall: what the tests of lastcall take it for is so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guests import linux, linux_image
from guests.linux_image import Missing

if TYPE_CHECKING:
    from guests.qmpclient import Side

STOPPING = ["agent-ended", "database-ending", "database-ended", "poweroff"]
# Each boots a system, on a machine that others may use too.
pytestmark = pytest.mark.timeout(240)


def shutdown(side: Side) -> dict[str, object]:
    """How it ended: guest or not, and QEMU's reason."""
    return dict(side.wait_event("SHUTDOWN")["data"])


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_press_ends_its_services_in_order_and_powers_it_off(machine: str) -> None:
    """It listens when up, takes a press, ends its services, unmounts its disk and is off."""
    with linux.start(machine) as guest:
        guest.wait_up()
        assert guest.side.port(0x602) & 0x100
        assert not guest.unmounted()
        guest.side.press()
        assert guest.side.wait_event("POWERDOWN")
        assert shutdown(guest.side) == {"guest": True, "reason": "guest-shutdown"}
        assert guest.wait_ended() == 0
        assert guest.milestones() == ["up", "press", *STOPPING]
        assert guest.unmounted()


def test_its_agent_answers_and_shuts_it_down() -> None:
    """qemu-ga answers sync, says the system and its users, and `guest-shutdown` stops it alike."""
    with linux.start(user=True) as guest:
        guest.wait_up()
        with guest.agent() as agent:
            assert agent.ask("guest-sync", id=4711) == 4711
            assert agent.ask("guest-get-osinfo")["id"] == "debian"
            assert [user["user"] for user in agent.ask("guest-get-users")] == ["kim"]
            agent.tell("guest-shutdown")
            assert shutdown(guest.side) == {"guest": True, "reason": "guest-shutdown"}
        assert guest.wait_ended() == 0
        assert guest.milestones() == ["up", "agent", *STOPPING]
        assert guest.unmounted()


def test_a_slow_service_writes_while_it_ends() -> None:
    """The port of its agent is closed, and the disk written to, before a slow service has ended."""
    with linux.start(slow_s=3) as guest:
        guest.wait_up()
        before_bytes = guest.side.written_bytes()
        guest.side.press()
        # QEMU tells of a port at most once a second: of a guest that stops at once it may not.
        while guest.side.wait_event("VSERPORT_CHANGE")["data"] != {"id": "agent0", "open": False}:
            pass
        guest.wait_said("database-ending")
        assert "database-ended" not in guest.milestones()
        guest.wait_said("database-ended")
        assert guest.side.written_bytes() - before_bytes > 500_000
        assert guest.wait_ended() == 0


def test_a_hung_service_is_waited_for_and_named_on_the_screen() -> None:
    """It never powers off, its console says why, and a forced end leaves its disk in use."""
    with linux.start(hung=True, agent=False) as guest:
        guest.wait_up()
        before = guest.screen()
        guest.side.press()
        guest.wait_said("database-ending")
        guest.wait_said("waiting")
        assert "A stop job is running for database.service" in guest.side.text()
        assert guest.screen() != before
        assert guest.milestones() == ["up", "press", "agent-ended", "database-ending", "waiting"]
        assert guest.side.status() == "running"
        guest.process.kill()
        guest.wait_ended()
        assert not guest.unmounted()


def test_a_frozen_agent_has_its_port_open_and_answers_nothing() -> None:
    """A press still stops a guest whose agent hangs."""
    with linux.start(frozen=True) as guest:
        guest.wait_up()
        with guest.agent(patience_s=1) as agent, pytest.raises(TimeoutError):
            agent.ask("guest-sync", id=1)
        guest.side.press()
        assert guest.wait_ended() == 0


def test_without_the_driver_of_the_button_it_is_deaf() -> None:
    """ACPI is on, and the button is not: a press leaves no trace."""
    with linux.start(button=False, agent=False) as guest:
        guest.wait_up()
        assert guest.side.port(0x604) & 1
        assert not guest.side.port(0x602) & 0x100
        guest.side.press()
        assert not guest.side.port(0x600) & 0x100


def test_a_panic_is_told() -> None:
    """Its kernel's panic reaches QEMU."""
    with linux.start(press="panic", extra=("-no-shutdown",)) as guest:
        guest.wait_up()
        guest.side.press()
        assert guest.side.wait_event("GUEST_PANICKED")
        assert guest.side.status() == "guest-panicked"


def test_it_sleeps_wakes_and_stops() -> None:
    """Asleep in S3 it does not stop; woken by the monitor it goes on and hears the next press."""
    with linux.start(asleep=True) as guest:
        guest.side.wait_event("SUSPEND")
        assert guest.side.status() == "suspended"
        guest.side.command("system_wakeup")
        guest.side.wait_event("WAKEUP")
        guest.wait_said("woken")
        guest.side.press()
        assert guest.wait_ended() == 0


def test_it_hibernates() -> None:
    """A press that hibernates it looks like a stop, but for one event before."""
    with linux.start(press="hibernate") as guest:
        guest.wait_up()
        guest.side.press()
        guest.side.wait_event("SUSPEND_DISK")
        assert shutdown(guest.side) == {"guest": True, "reason": "guest-shutdown"}
        assert guest.wait_ended() == 0


def test_a_press_that_means_nothing_is_refused() -> None:
    """The test that asks for a behaviour it does not have is told."""
    with pytest.raises(ValueError, match="a press cannot dance"):
        linux.command_line(press="dance")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt, the message says which package is wanted, and where."""
    monkeypatch.setattr(linux_image, "BUILD", tmp_path)
    monkeypatch.setenv("PATH", str(Path("/nonexistent")))
    with pytest.raises(Missing, match="linux-image-cloud-amd64, and apt-get is not here"):
        linux_image.made()
