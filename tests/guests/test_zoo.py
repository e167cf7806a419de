"""Each guest of the zoo does what its name says, on a real QEMU with nothing of lastcall in it."""

from __future__ import annotations

import resource
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from guests import zoo
from guests.qmpclient import Refused
from helpers import wait_until

pytestmark = pytest.mark.parametrize("machine", zoo.MACHINES)
STATUS, ENABLE, CONTROL = 0x600, 0x602, 0x604
PRESSED = 0x0100


def registers(guest: zoo.Guest) -> tuple[bool, bool, bool]:
    """Whether a press waits, whether the guest listens, whether ACPI is on."""
    side = guest.side
    waits, listens = side.port(STATUS) & PRESSED, side.port(ENABLE) & PRESSED
    return bool(waits), bool(listens), bool(side.port(CONTROL) & 1)


def press(guest: zoo.Guest, times: int = 1) -> None:
    """Press, and wait until the guest took this press, its n-th."""
    guest.side.press()
    guest.wait_said("taken", times)


def pass_time(guest: zoo.Guest) -> None:
    """Wait for half a second of the guest's own clock: more than a quick guest needs."""
    first = clock(guest)
    wait_until(lambda: clock(guest) >= first + 9, "nine more ticks")


def assert_powers_off(guest: zoo.Guest) -> None:
    """It powers itself off, and QEMU ends."""
    shutdown = guest.side.wait_event("SHUTDOWN")
    assert shutdown["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert guest.wait_ended() == 0
    assert guest.milestones()[-1] == "off"


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("stops", {}),
        ("slow", {"delay_s": 1}),
        ("updates", {"delay_s": 1}),
        ("late", {"delay_s": 1}),
    ],
)
def test_those_that_stop(machine: str, name: str, numbers: dict[str, float]) -> None:
    """They take one press, and power themselves off."""
    with zoo.start(name, machine, disk=zoo.image(name, **numbers)) as guest:
        guest.wait_said("listening" if name == "late" else "up")
        assert registers(guest) == (False, True, True)
        press(guest)
        assert_powers_off(guest)
        assert guest.side.names() == ["POWERDOWN", "SHUTDOWN"]


def test_updates_tell_so_write_and_move(machine: str) -> None:
    """While it installs updates it writes to its disk, and its screen tells so and moves."""
    with zoo.start("updates", machine, delay_s=600) as guest:
        guest.wait_up()
        press(guest)
        wait_until(lambda: "Do not turn off your computer" in guest.side.text(), "its text")
        before = guest.side.written_bytes()
        wait_until(lambda: guest.side.written_bytes() > before, "a write")
        corner = guest.side.hmp("xp /10bx 0xb8096")
        wait_until(lambda: guest.side.hmp("xp /10bx 0xb8096") != corner, "a change of the screen")
        assert guest.milestones() == ["up", "taken"]


def test_slow_is_quiet(machine: str) -> None:
    """The slow one writes, and shows nothing."""
    with zoo.start("slow", machine, delay_s=600) as guest:
        guest.wait_up()
        before = guest.side.written_bytes()
        press(guest)
        wait_until(lambda: guest.side.written_bytes() > before, "a write")
        assert guest.side.text() == ""


def test_reason_waits_for_a_key(machine: str) -> None:
    """It asks for the reason, and powers off when a key is pressed, not before."""
    with zoo.start("reason", machine) as guest:
        guest.wait_up()
        press(guest)
        wait_until(lambda: "Other (Unplanned)" in guest.side.text(), "its text")
        pass_time(guest)
        assert guest.milestones() == ["up", "taken"]
        guest.side.command("send-key", keys=[{"type": "qcode", "data": "ret"}])
        assert_powers_off(guest)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("logon", "Press Ctrl+Alt+Delete to unlock."),
        ("app-blocks", "This app is preventing you from shutting down."),
        ("takes-and-ignores", ""),
    ],
)
def test_those_that_take_it_and_stay(machine: str, name: str, text: str) -> None:
    """They take every press, and nothing follows: no write, no change, no event."""
    with zoo.start(name, machine) as guest:
        guest.wait_up()
        press(guest)
        wait_until(lambda: text in guest.side.text(), "its text")
        pass_time(guest)
        shown = guest.side.text()
        press(guest, 2)
        pass_time(guest)
        assert guest.side.text() == shown
        assert guest.side.written_bytes() == 0
        assert guest.side.names() == ["POWERDOWN", "POWERDOWN"]
        assert registers(guest) == (False, True, True)


@pytest.mark.parametrize(("name", "acpi"), [("deaf", True), ("firmware", False), ("late", False)])
def test_those_that_do_not_listen(machine: str, name: str, acpi: bool) -> None:  # noqa: FBT001 (parametrized)
    """QEMU tells of the press, and drops it."""
    numbers = {"delay_s": 600} if name == "late" else {}
    with zoo.start(name, machine, disk=zoo.image(name, **numbers)) as guest:
        guest.wait_up()
        assert registers(guest) == (False, False, acpi)
        guest.side.press()
        guest.side.wait_event("POWERDOWN")
        assert registers(guest) == (False, False, acpi)
        pass_time(guest)
        assert guest.milestones() == ["up"]


def test_halts_never_takes_it(machine: str) -> None:
    """It listens, and a press stays pending."""
    with zoo.start("halts", machine) as guest:
        guest.wait_up()
        guest.side.press()
        guest.side.wait_event("POWERDOWN")
        assert registers(guest) == (True, True, True)
        assert guest.side.status() == "running"
        assert guest.milestones() == ["up"]


def test_needs_two(machine: str) -> None:
    """The first press wakes its screen, the second powers it off."""
    with zoo.start("needs-two", machine) as guest:
        guest.wait_up()
        assert guest.side.text() == ""
        press(guest)
        wait_until(lambda: "10:42" in guest.side.text(), "its screen")
        pass_time(guest)
        assert guest.milestones() == ["up", "taken"]
        press(guest, 2)
        assert_powers_off(guest)


def test_cancels_on_a_second_press(machine: str) -> None:
    """One press powers it off after a while; a second one within keeps it up for good."""
    with zoo.start("cancels-on-second", machine, delay_s=1) as guest:
        guest.wait_up()
        press(guest)
        assert_powers_off(guest)
    with zoo.start("cancels-on-second", machine, delay_s=30) as guest:
        guest.wait_up()
        press(guest)
        press(guest, 2)
        guest.wait_said("cancelled")
        press(guest, 3)
        assert guest.milestones() == ["up", "taken", "taken", "cancelled", "taken"]


def test_hibernates(machine: str) -> None:
    """It writes its memory to disk: QEMU says so, and then tells of a shutdown like any other."""
    with zoo.start("hibernates", machine) as guest:
        guest.wait_up()
        press(guest)
        assert_powers_off(guest)
        assert guest.side.names() == ["POWERDOWN", "SUSPEND_DISK", "SHUTDOWN"]


@pytest.mark.parametrize("name", ["reboots", "triple-faults"])
def test_those_that_come_back(machine: str, name: str) -> None:
    """The press resets them, and they boot again."""
    with zoo.start(name, machine) as guest:
        guest.wait_up()
        press(guest)
        assert guest.side.wait_event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}
        guest.wait_said("up", 2)
        assert registers(guest) == (False, True, True)


def test_panics(machine: str) -> None:
    """Its kernel's panic reaches QEMU."""
    with zoo.start("panics", machine) as guest:
        guest.wait_up()
        press(guest)
        guest.side.wait_event("GUEST_PANICKED")
        assert guest.side.wait_event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-panic"}


def test_sleeps_until_woken(machine: str) -> None:
    """A press does not wake it; woken, it stops on a press, if its registers are there again."""
    with zoo.start("sleeps", machine, restores=1) as guest:
        guest.side.wait_event("SUSPEND")
        assert guest.side.status() == "suspended"
        guest.side.press()
        guest.side.wait_event("POWERDOWN")
        assert guest.side.status() == "suspended"
        assert registers(guest)[0]
        guest.side.command("system_wakeup")
        guest.side.wait_event("WAKEUP")
        guest.wait_said("woken")
        wait_until(lambda: registers(guest) == (False, True, True), "its registers")
        press(guest)
        assert_powers_off(guest)


def test_registers_after_waking(machine: str) -> None:
    """On `q35` SeaBIOS leaves nobody at the ports of PM1 after waking; on `pc` all is as before."""
    with zoo.start("sleeps", machine) as guest:
        guest.side.wait_event("SUSPEND")
        guest.side.command("system_wakeup")
        guest.wait_said("woken")
        pass_time(guest)
        found = [guest.side.port(port) for port in (STATUS, ENABLE, CONTROL)]
        assert found == ([0, PRESSED, 1] if machine == "pc" else [0xFFFF] * 3)
        guest.side.press()
        if machine == "pc":
            assert_powers_off(guest)
        else:
            pass_time(guest)
            assert guest.milestones()[-1] == "woken"


def test_sleeps_on_each_press(machine: str) -> None:
    """Each press puts it to sleep, also after waking."""
    with zoo.start("sleeps-on-press", machine, restores=1) as guest:
        guest.wait_up()
        for times in (1, 2):
            press(guest, times)
            guest.side.wait_event("SUSPEND")
            guest.side.command("system_wakeup")
            guest.wait_said("woken", times)
            wait_until(lambda: registers(guest) == (False, True, True), "its registers")


def test_an_idle_guest_is_idle(machine: str) -> None:
    """It halts between the ticks: it uses a small part of a core, and the memory of one of many."""
    with zoo.start("takes-and-ignores", machine) as guest:
        guest.wait_up()
        before, first = cpu_ticks(guest.pid), clock(guest)
        wait_until(lambda: clock(guest) >= first + 2 * 18, "two seconds of its clock")
        assert cpu_ticks(guest.pid) - before < 60, "of 200, and our own questions cost some"
        assert resident_bytes(guest.pid) < 128 << 20


def test_a_picture_is_shown(machine: str, tmp_path: Path) -> None:
    """A picture stands on the screen pixel by pixel, in each size; the guest behaves as named."""
    for size in zoo._MODES:
        # No two rows and no two columns are the same.
        row = bytes((7 * i) % 251 for i in range(size[0] // 8))
        pixels = b"".join(bytes(b ^ (y % 253) for b in row) for y in range(size[1]))
        disk = zoo.picture_image(pixels, "reason", size)
        with zoo.start("reason", machine, disk=disk) as guest:
            guest.wait_up()
            press(guest)
            shot = tmp_path / f"{size[0]}.ppm"

            def same(
                shot: Path = shot, size: tuple[int, int] = size, pixels: bytes = pixels
            ) -> bool:
                guest.side.command("screendump", filename=str(shot))
                with Image.open(shot) as seen:
                    return bool(seen.size == size and seen.convert("1").tobytes() == pixels)

            wait_until(same, "the picture")
            guest.side.command("send-key", keys=[{"type": "qcode", "data": "ret"}])
            assert_powers_off(guest)


def test_what_the_zoo_does_not_have(machine: str) -> None:
    """Unknown guests, numbers and pictures are refused; the side says what QEMU refuses."""
    with pytest.raises(ValueError, match="no guest unicorn"):
        zoo.image("unicorn")
    with pytest.raises(ValueError, match="knows no delay_s"):
        zoo.image("stops", delay_s=1)
    with pytest.raises(ValueError, match="shows nothing"):
        zoo.picture_image(bytes(38400), "stops")
    with pytest.raises(ValueError, match="no picture of 640 x 480"):
        zoo.picture_image(b"", "reason")
    with zoo.start("stops", machine) as guest, pytest.raises(Refused, match="CommandNotFound"):
        guest.side.command("no-such-command")


def test_nothing_is_left(machine: str) -> None:
    """QEMU and the guest's folder go with the test, also when it fails."""
    with pytest.raises(ZeroDivisionError), zoo.start("stops", machine) as guest:
        raise ZeroDivisionError
    assert guest.process.returncode == -9
    assert not guest.folder.exists()
    with (
        pytest.raises(AssertionError, match="unsupported machine type"),
        zoo.start("stops", "no-such-machine"),
    ):
        pass


def test_the_domain_is_xml(machine: str) -> None:
    """The domain of a guest is well formed, whatever stands in its names."""
    made = zoo.domain_xml("a<b", Path("/x'&y"), machine, "0", said=Path("/s"))
    root = ET.fromstring(made)  # noqa: S314 (our own)
    assert root.findtext("name") == "a<b"
    assert [source.get("file") or source.get("path") for source in root.iter("source")] == [
        "/x'&y",
        "/s",
    ]


def clock(guest: zoo.Guest) -> int:
    """The ticks of the guest's clock."""
    return int(guest.side.hmp("xp /1dw 0x46c").split()[-1])


def cpu_ticks(pid: int) -> int:
    """The processor time of a process so far, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(pid: int) -> int:
    """The memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
