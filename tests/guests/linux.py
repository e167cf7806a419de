"""A real Linux guest: Debian's kernel, its drivers, busybox's acpid, and qemu-ga.

It is up in 4 to 6 s under TCG, and takes about 240 MB. While it stops it ends qemu-ga first (its
port closes), then a database, then unmounts its disk (16 MiB, ext2, virtio) and powers off. Its
screen is a text console that shows what systemd would. On the serial port it says, a word a line:

    up                  all its services run and listen
    press               its acpid was told of the power button
    agent               its qemu-ga was asked to shut it down
    agent-ended         qemu-ga has ended
    database-ending     the database was asked to end
    waiting             the console says that a service takes long to end (2 s and more)
    database-ended      it has ended
    asleep, woken       it is about to sleep; it goes on
    poweroff, reboot    its disk is unmounted, and it does this now
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from xml.sax.saxutils import escape, quoteattr

from guests import linux_image
from guests.qmpclient import Closed
from guests.zoo import Guest as ZooGuest
from helpers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT_PORT = "org.qemu.guest_agent.0"
BOOT_S = 90.0
MEMORY_MIB = 128
_DISK_BYTES = 16 << 20
# To hibernate it copies its memory, then writes it to the disk.
_SWAP_BYTES = 256 << 20
_HIBERNATING_MIB = 256
_PATIENCE_S = 30.0


class Options(TypedDict, total=False):
    """What the guest does; all that is not said is as in a guest that stops at once.

    Attributes:
        slow_s: how long its database takes to end, writing to the disk meanwhile. 0.
        hung: its database never ends. False.
        agent: qemu-ga runs. True.
        frozen: qemu-ga is stopped (SIGSTOP): it has its port open and answers nothing. False.
        button: it has the driver of the power button. True.
        acpid: somebody listens to the button. True; with False the kernel takes a press, and
            nothing follows.
        press: what a press does: "poweroff", "reboot", "suspend" (S3), "hibernate" (S4), "panic"
            or "ignore". "poweroff".
        asleep: it goes to sleep (S3) once it is up. False.
        user: somebody ("kim") is logged on, as its utmp says. False.
    """

    slow_s: int
    hung: bool
    agent: bool
    frozen: bool
    button: bool
    acpid: bool
    press: str
    asleep: bool
    user: bool


PRESSES = ("poweroff", "reboot", "suspend", "hibernate", "panic", "ignore")


def command_line(**options: Unpack[Options]) -> str:
    """The kernel's command line for a guest that does this.

    Raises:
        ValueError: it can do no such thing on a press.
    """
    press = options.get("press", "poweroff")
    if press not in PRESSES:
        raise ValueError(f"a press cannot {press}; it can: {', '.join(PRESSES)}")
    # Nothing of the kernel goes to the serial port; a panic stands on the screen.
    words = ["console=tty0", "quiet", "nokaslr", "mitigations=off", f"lc.press={press}"]
    # On a busy host the kernel takes the timer of an emulated machine for a broken one, and panics
    # (Linux 6.1 arch/x86/kernel/apic/io_apic.c, check_timer).
    words += ["no_timer_check"]
    words += [f"lc.slow={options.get('slow_s', 0)}"]
    said = {
        "hung": options.get("hung", False),
        "frozen": options.get("frozen", False),
        "asleep": options.get("asleep", False),
        "user": options.get("user", False),
        "noagent": not options.get("agent", True),
        "nobutton": not options.get("button", True),
        "noacpid": not options.get("acpid", True),
    }
    return " ".join([*words, *(f"lc.{name}=1" for name, it_is in said.items() if it_is)])


class Agent:
    """A client of the guest agent: the test's own. The port takes one at a time.

    Args:
        path: the Unix socket of the agent's port.
        patience_s: how long an answer may take.
    """

    def __init__(self, path: Path, patience_s: float = _PATIENCE_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience_s)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def tell(self, command: str, **arguments: object) -> None:
        """Send a command, and wait for nothing."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": named})
        self._socket.sendall(request.encode() + b"\n")

    def ask(self, command: str, **arguments: object) -> Any:
        """What a command returns.

        Raises:
            TimeoutError: nothing came.
            AssertionError: it was refused, or the port closed.
        """
        self.tell(command, **arguments)
        answer = json.loads(self._lines.readline() or b"{}")
        assert "return" in answer, f"{command}: {answer}"
        return answer["return"]

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


class Guest(ZooGuest):
    """The Linux guest, running.

    Attributes:
        agent_socket: the Unix socket of its agent's port.
        disk: the image of its disk.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.agent_socket = folder / "agent"
        self.disk = folder / "disk"
        super().__init__(process, folder)

    def wait_up(self) -> None:
        """Wait until all its services listen.

        Raises:
            AssertionError: they do not in time, or QEMU ended.
        """

        def fact() -> bool:
            return "up" in self.milestones() or self.process.poll() is not None

        try:
            wait_until(fact, f"Linux is up; it said {self}", BOOT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; its screen:\n{self.side.text()}") from error
        assert "up" in self.milestones(), f"QEMU ended before Linux was up: {self}"

    def screen(self) -> bytes:
        """What it shows, as PPM."""
        shown = self.folder / "screen.ppm"
        self.side.command("screendump", filename=str(shown))
        return shown.read_bytes()

    @contextlib.contextmanager
    def agent(self, patience_s: float = _PATIENCE_S) -> Iterator[Agent]:
        """A client of its agent."""
        client = Agent(self.agent_socket, patience_s)
        try:
            yield client
        finally:
            client.close()

    def unmounted(self) -> bool:
        """Whether its disk was unmounted in order; not so after the power was taken away."""
        return unmounted(self.disk)


def unmounted(disk: Path) -> bool:
    """Whether the ext2 on a disk was unmounted in order.

    Source: Linux 6.1 fs/ext4/super.c: without a journal the mark of a clean file system goes while
    it is mounted; Documentation/filesystems/ext4/super.rst: s_magic at 0x38, s_state at 0x3A.
    """
    with disk.open("rb") as image:
        image.seek(1024 + 0x38)
        magic, state = image.read(2), image.read(2)
    assert magic == b"\x53\xef", f"no ext2 on {disk}"
    return bool(state[0] & 1)


def _make_disk(path: Path, options: Options) -> None:
    path.touch()
    os.truncate(path, _SWAP_BYTES if options.get("press") == "hibernate" else _DISK_BYTES)


def _memory_mib(options: Options) -> int:
    return _HIBERNATING_MIB if options.get("press") == "hibernate" else MEMORY_MIB


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is missing: apt-get install {package}")
    return found


def _command(folder: Path, machine: str, extra: tuple[str, ...], options: Options) -> list[str]:
    kernel, initramfs = linux_image.made()
    # setpriv becomes QEMU, with its pid.
    return [
        *(_program("setpriv", "util-linux"), "--pdeathsig", "KILL"),
        _program("qemu-system-x86_64", "qemu-system-x86"),
        *(
            "-accel",
            "tcg",
            "-M",
            machine,
            "-m",
            str(_memory_mib(options)),
            "-nodefaults",
            "-no-user-config",
        ),
        *("-display", "none", "-device", "VGA", "-device", "pvpanic"),
        *("-kernel", str(kernel), "-initrd", str(initramfs), "-append", command_line(**options)),
        *("-drive", f"file={folder / 'disk'},format=raw,if=none,id=disk"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={folder / 'agent'},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT},id=agent0"),
        *("-serial", f"file:{folder / 'said'}"),
        *("-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"),
        *("-qmp", f"unix:{folder / 'side'},server=on,wait=off"),
        *extra,
    ]


@contextlib.contextmanager
def start(
    machine: str = "pc", extra: tuple[str, ...] = (), **options: Unpack[Options]
) -> Iterator[Guest]:
    """Run the guest, and take it away at the end, whatever has become of it.

    Start it from a thread that outlives it: QEMU is killed with that thread.

    Args:
        machine: "pc" or "q35"; options of the machine may follow.
        extra: more words for QEMU's command line.
        **options: what it does.

    Raises:
        AssertionError: a program or a package is missing, or QEMU did not start.
    """
    # A socket's path has room for 107 bytes, and a test's own folder may need them all.
    with tempfile.TemporaryDirectory(prefix="linux-", dir="/tmp") as made:
        folder = Path(made)
        _make_disk(folder / "disk", options)
        (folder / "said").touch()
        command = _command(folder, machine, extra, options)
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        try:
            yield from _guest(process, folder)
        finally:
            process.kill()
            process.wait()


def _guest(process: subprocess.Popen[bytes], folder: Path) -> Iterator[Guest]:
    try:
        guest = Guest(process, folder)
    except (AssertionError, Closed) as error:
        said = (folder / "errors").read_text().strip()
        raise AssertionError(f"QEMU did not start: {said or error}") from error
    try:
        yield guest
    finally:
        guest.side.close()


def domain_xml(
    name: str,
    folder: Path,
    uuid: str,
    machine: str = "pc",
    on_poweroff: str = "destroy",
    **options: Unpack[Options],
) -> str:
    """The XML of a libvirt domain that runs this guest, and the files for it.

    Args:
        name: of the domain.
        folder: an existing one, where libvirt's QEMU may read and write: it gets `kernel`,
            `initramfs` and `disk`; libvirt makes `said` there, which may be for root alone.
        uuid: of the domain.
        machine: "pc" or "q35".
        on_poweroff: "destroy", "restart" or "preserve".
        **options: what it does.

    Source: libvirt 9.0 docs/formatdomain.rst.
    """
    kernel, initramfs = linux_image.made()
    shutil.copyfile(kernel, folder / "kernel")
    shutil.copyfile(initramfs, folder / "initramfs")
    _make_disk(folder / "disk", options)
    for made in ("kernel", "initramfs", "disk"):
        # QEMU may run as a user of its own.
        (folder / made).chmod(0o666 if made == "disk" else 0o644)
    return _DOMAIN.format(
        name=escape(name),
        uuid=escape(uuid),
        machine=quoteattr(machine),
        memory=_memory_mib(options),
        kernel=escape(str(folder / "kernel")),
        initramfs=escape(str(folder / "initramfs")),
        words=escape(command_line(**options)),
        disk=quoteattr(str(folder / "disk")),
        said=quoteattr(str(folder / "said")),
        port=quoteattr(AGENT_PORT),
        on_poweroff=escape(on_poweroff),
    )


_DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine={machine}>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{words}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>{on_poweroff}</on_poweroff>
  <pm><suspend-to-mem enabled='yes'/><suspend-to-disk enabled='yes'/></pm>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file={disk}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path={said}/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name={port}/></channel>
    <video><model type='vga' vram='16384'/></video>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>
"""
