"""The guest zoo: boot sectors that behave as guests do when the power button is pressed.

Each is a real ACPI machine on a real QEMU (TCG, 16 MiB), assembled by nasm when first wanted and
kept under `build/zoo`. It halts while idle. What it has come to it says in words (milestones),
which a test waits for instead of sleeping.

| name | what it does | says after "up" | numbers |
|---|---|---|---|
| `stops` | powers off at once | taken, off | |
| `slow` | powers off later, quietly | taken, off | `delay_s`, `writes` |
| `updates` | the same, with a text that says so | taken, off | `delay_s`, `writes`, `moves` |
| `reason` | asks for a reason, waits for a key | taken, off | |
| `logon` | a logon screen, drops the press | taken | |
| `app-blocks` | an application holds it up | taken | |
| `takes-and-ignores` | a blank screen, nothing follows | taken | |
| `needs-two` | the first press wakes its screen | taken, taken, off | |
| `cancels-on-second` | a second press cancels it | taken, taken, cancelled | `delay_s`, `writes` |
| `hibernates` | goes to S4 | taken, off | |
| `reboots` | resets itself | taken, reset, up | |
| `triple-faults` | crashes, so that it resets | taken, crash, up | |
| `panics` | its kernel panics | taken, panic | |
| `late` | boots first, deaf until then | listening, taken, off | `delay_s` |
| `deaf` | has ACPI, and no driver of the button | | |
| `firmware` | never leaves firmware | | |
| `halts` | listens, then halts with interrupts off | | |
| `sleeps` | sleeps in S3, stops once woken | asleep, woken, taken, off | `restores` |
| `sleeps-on-press` | each press puts it to sleep | taken, asleep, woken | `restores` |

`delay_s` is in seconds (of the guest's clock, 55 ms a tick); the others are 0 or 1: `writes` to the
disk all the while, `moves` something on the screen; `restores` maps the PM registers again after
waking, which SeaBIOS does not do on `q35`: without it the guest is deaf there once woken.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from guests.qmpclient import Closed, Side
from helpers import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCES = Path(__file__).parent / "zoo-guests"
BUILD = Path(__file__).parents[2] / "build" / "zoo"
MACHINES = ("pc", "q35")

NUMBERS: Mapping[str, Mapping[str, float]] = {
    "app-blocks": {},
    "cancels-on-second": {"delay_s": 3, "writes": 1},
    "deaf": {},
    "firmware": {},
    "halts": {},
    "hibernates": {},
    "late": {"delay_s": 3},
    "logon": {},
    "needs-two": {},
    "panics": {},
    "reason": {},
    "reboots": {},
    "sleeps": {"restores": 0},
    "sleeps-on-press": {"restores": 0},
    "slow": {"delay_s": 5, "writes": 1},
    "stops": {},
    "takes-and-ignores": {},
    "triple-faults": {},
    "updates": {"delay_s": 20, "writes": 1, "moves": 1},
}
NAMES = tuple(NUMBERS)
# The guests that show something, and so can show a picture instead.
SHOWING = ("app-blocks", "late", "logon", "needs-two", "reason", "updates")

_SECTOR_BYTES = 512
_USED_BYTES = 256 * _SECTOR_BYTES
# SeaBIOS boots no SATA disk smaller than a cylinder (504 KiB). The rest is a hole in the file.
_IMAGE_BYTES = 2 << 20
_PIECE_BYTES = 16 * _SECTOR_BYTES
_TICKS_A_SECOND = 1193182 / 65536
# VESA's numbers of the modes with a byte a pixel, by width and height.
_MODES = {(640, 480): 0x101, (800, 600): 0x103, (1024, 768): 0x105}


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is missing: apt-get install {package}")
    return found


def _defines(name: str, numbers: Mapping[str, float]) -> list[str]:
    """What nasm is told of a guest's numbers.

    Raises:
        ValueError: there is no such guest, or it knows no such number, or not that high.
    """
    if name not in NUMBERS:
        raise ValueError(f"no guest {name} in the zoo; there are: {', '.join(NAMES)}")
    known = NUMBERS[name]
    if unknown := sorted(numbers.keys() - known.keys()):
        raise ValueError(f"the guest {name} knows no {unknown[0]}; it knows: {', '.join(known)}")
    defines = []
    for key, value in sorted({**known, **numbers}.items()):
        if key == "delay_s":
            ticks = max(round(value * _TICKS_A_SECOND), 1)
            if ticks > 65535:
                raise ValueError(f"a guest can count an hour, not {value:g} s")
            defines.append(f"-DDELAY={ticks}")
        else:
            defines.append(f"-D{key.upper()}={int(value)}")
    return defines


def _assemble(name: str, defines: list[str]) -> bytes:
    """A boot sector.

    Raises:
        AssertionError: nasm is missing, or the guest does not fit in a sector.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        made = Path(folder, "sector")
        source = SOURCES / f"{name}.asm"
        command = [_program("nasm", "nasm"), "-f", "bin", "-Werror", "-o", str(made), *defines]
        subprocess.run([*command, "-I", f"{SOURCES}/", str(source)], check=True, timeout=PATIENCE_S)
        code = made.read_bytes()
    if len(code) > _SECTOR_BYTES - 2:
        raise AssertionError(f"the guest {name} has {len(code)} bytes; 510 fit in a boot sector")
    return code.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def _kept(name: str, defines: list[str], picture: bytes) -> Path:
    """The image of a guest, from the cache or made now."""
    known = hashlib.sha256(repr((name, defines)).encode() + picture)
    # Its size and layout come from here.
    for source in (SOURCES / f"{name}.asm", *sorted(SOURCES.glob("*.inc")), Path(__file__)):
        known.update(source.read_bytes())
    kept = BUILD / f"{name}-{known.hexdigest()[:16]}.img"
    if not kept.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        content = _assemble(name, defines) + picture
        # Tests run side by side: nobody sees half an image.
        with tempfile.NamedTemporaryFile(dir=BUILD, delete=False) as partial:
            partial.write(content)
            partial.truncate(_IMAGE_BYTES)
            os.fchmod(partial.fileno(), 0o644)
        Path(partial.name).replace(kept)
    return kept


def image(name: str, **numbers: float) -> Path:
    """The disk of a guest. Shared: run a guest on a copy (`copy_disk`; `start` makes one).

    Args:
        name: of the table above.
        **numbers: of the table above; the others stay as in `NUMBERS`.

    Raises:
        ValueError: there is no such guest, or it knows no such number.
        AssertionError: nasm is missing.
    """
    return _kept(name, _defines(name, numbers), b"")


def picture_image(
    pixels: bytes, behaviour: str, size: tuple[int, int] = (640, 480), **numbers: float
) -> Path:
    """The disk of a guest that shows a picture wherever the named guest shows its text.

    Args:
        pixels: row by row, one bit a pixel, the leftmost highest; 1 is white (as PIL's
            `Image.tobytes` gives a picture of mode "1").
        behaviour: a guest of `SHOWING`.
        size: width and height: 640 x 480, 800 x 600 or 1024 x 768.
        **numbers: as of `image`.

    Raises:
        ValueError: that guest shows nothing, or the picture is not of that size.
        AssertionError: nasm is missing.
    """
    if behaviour not in SHOWING:
        raise ValueError(f"{behaviour} shows nothing; these do: {', '.join(SHOWING)}")
    if size not in _MODES:
        raise ValueError(f"no mode of {size}; there are: {', '.join(map(str, _MODES))}")
    if len(pixels) != size[0] * size[1] // 8:
        raise ValueError(f"{len(pixels)} bytes are no picture of {size[0]} x {size[1]}")
    pieces = -(-len(pixels) // _PIECE_BYTES)
    defines = [*_defines(behaviour, numbers), f"-DMODE={_MODES[size]}", f"-DPIECES={pieces}"]
    return _kept(behaviour, defines, pixels)


def copy_disk(source: Path, target: Path) -> None:
    """Make a guest's own copy of an image."""
    with source.open("rb") as given, target.open("wb") as made:
        made.write(given.read(_USED_BYTES))
        made.truncate(_IMAGE_BYTES)


class Guest:
    """A guest that runs.

    Attributes:
        qmp: the Unix socket of QEMU's monitor for what is tested; nobody else uses it.
        side: the test's own connection to QEMU, on another socket, open from the start.
        process: QEMU. It dies with the thread that started it.
        folder: of everything of this guest; goes with it.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.qmp = folder / "qmp"
        self.side = Side(folder / "side", alive=lambda: process.poll() is None)

    @property
    def pid(self) -> int:
        """QEMU's pid."""
        return self.process.pid

    def milestones(self) -> list[str]:
        """The words it has said so far."""
        return self.said().split()

    def said(self) -> str:
        """What it has said so far, a word a line."""
        # The last line may not be complete yet.
        return (self.folder / "said").read_text().rpartition("\n")[0]

    def wait_said(self, word: str, times: int = 1) -> None:
        """Wait for a milestone, or for its n-th time.

        Raises:
            AssertionError: it did not come in time, or QEMU ended before it.
        """

        def fact() -> bool:
            ended = self.process.poll()
            if self.milestones().count(word) >= times:
                return True
            if ended is not None:
                raise AssertionError(f"QEMU ended ({ended}) before the guest said {word}: {self}")
            return False

        wait_until(fact, f"{word} from the guest, which said {self.milestones()}")

    def wait_up(self) -> None:
        """Wait until it is in its loop, or, for one that sleeps, about to sleep."""
        self.wait_said("up")

    def wait_ended(self) -> int:
        """Wait until QEMU has ended: its exit status (negative: a signal)."""
        return self.process.wait(PATIENCE_S)

    def __str__(self) -> str:
        return f"{self.milestones()}, QEMU: {(self.folder / 'errors').read_text().strip()!r}"


def _command(folder: Path, machine: str, extra: tuple[str, ...]) -> list[str]:
    # setpriv becomes QEMU, with its pid.
    return [
        *(_program("setpriv", "util-linux"), "--pdeathsig", "KILL"),
        _program("qemu-system-x86_64", "qemu-system-x86"),
        *("-accel", "tcg", "-M", machine, "-m", "16", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-device", "VGA"),
        *("-drive", f"file={folder / 'disk'},format=raw,if=ide"),
        *("-debugcon", f"file:{folder / 'said'}"),
        *("-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"),
        *("-qmp", f"unix:{folder / 'side'},server=on,wait=off"),
        *extra,
    ]


@contextlib.contextmanager
def start(
    name: str,
    machine: str = "pc",
    extra: tuple[str, ...] = (),
    disk: Path | None = None,
    **numbers: float,
) -> Iterator[Guest]:
    """Run a guest, and take it away at the end, whatever has become of it.

    Start it from a thread that outlives it: QEMU is killed with that thread.

    Args:
        name: of the table above.
        machine: "pc" or "q35"; options of the machine may follow, such as "pc,acpi=off".
        extra: more words for QEMU's command line.
        disk: another image that it runs on (`picture_image`); None: the guest's own. It is copied.
        **numbers: as of `image`.

    Raises:
        ValueError: there is no such guest, or it knows no such number.
        AssertionError: a program is missing, or QEMU did not start.
    """
    source = image(name, **numbers) if disk is None else disk
    if name == "panics":
        extra = ("-device", "pvpanic", *extra)
    # A socket's path has room for 107 bytes, and a test's own folder may need them all.
    with (
        tempfile.TemporaryDirectory(prefix="zoo-", dir="/tmp") as made,
        contextlib.ExitStack() as s,
    ):
        folder = Path(made)
        copy_disk(source, folder / "disk")
        (folder / "said").touch()
        errors = s.enter_context((folder / "errors").open("wb"))
        process = subprocess.Popen(
            _command(folder, machine, extra), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        s.callback(_take_away, process)
        try:
            guest = Guest(process, folder)
        except (AssertionError, Closed) as error:
            said = (folder / "errors").read_text().strip()
            raise AssertionError(f"QEMU did not start: {said or error}") from error
        s.callback(guest.side.close)
        yield guest


def _take_away(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def domain_xml(
    name: str,
    disk: Path,
    machine: str,
    uuid: str,
    said: Path | None = None,
    on_poweroff: str = "destroy",
) -> str:
    """The XML of a libvirt domain that runs a guest of the zoo.

    Args:
        name: of the domain.
        disk: a copy of the image where libvirt's QEMU may read and write it.
        machine: "pc" or "q35".
        uuid: of the domain.
        said: the file to which its milestones go; None: nowhere. libvirt makes it, for root alone.
        on_poweroff: "destroy", "restart" or "preserve".

    Source: libvirt 9.0 docs/formatdomain.rst.
    """
    target = (
        "<target dev='hda' bus='ide'/>" if machine == "pc" else "<target dev='sda' bus='sata'/>"
    )
    console = "" if said is None else _DEBUG_CONSOLE.format(path=quoteattr(str(said)))
    return _DOMAIN.format(
        name=escape(name),
        uuid=escape(uuid),
        machine=quoteattr(machine),
        disk=quoteattr(str(disk)),
        target=target,
        console=console,
        on_poweroff=escape(on_poweroff),
    )


_DEBUG_CONSOLE = """
    <serial type='file'>
      <source path={path}/>
      <target type='isa-debug' port='0'><model name='isa-debugcon'/></target>
      <address type='isa' iobase='0xe9'/>
    </serial>"""

_DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine={machine}>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <on_poweroff>{on_poweroff}</on_poweroff>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file={disk}/>
      {target}
    </disk>
    <controller type='usb' model='none'/>{console}
    <video><model type='vga' vram='16384'/></video>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>
"""
