"""How a machine is built: its button, the agent's port, what it was started with.

Every question is asked so that an older or newer QEMU may refuse it: then the answer is not known.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Generic, TypeVar

from lastcall.kernel import procfs
from lastcall.record import record
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import reading
from lastcall.targets.guest.words import Button, Setup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from typing import Protocol

    from lastcall.kernel.identity import Handle

    class Call(Protocol):
        """What carries out a QMP command (`Link.call`)."""

        async def __call__(
            self, command: str, arguments: Mapping[str, object] | None = None
        ) -> object:
            """Its answer."""
            ...


T = TypeVar("T")
_PM_KINDS = ("PIIX4_PM", "piix4-pm", "ICH9-LPC", "ICH9 LPC")
_GED_KINDS = ("acpi-ged", "acpi-ged-x86")
_PORTS = 64
_ACPI_DEVICE = "/machine/acpi-device"
# QEMU sees a little later than we do it that we hung up.
_HANGS_UP_S = 0.05


@record
class Buttons:
    """The power button, and where the object with its registers stands.

    Args:
        pm: path of the object; empty: there is none.
        base: where the registers were when it was found; None: that was not asked.
    """

    button: Button
    pm: str = ""
    base: int | None = None


@record
class AgentPort:
    """The serial port that the guest agent uses.

    Args:
        chardev: the label of what stands behind it on the host.
    """

    chardev: str


class Once(Generic[T]):
    """What never changes: found out once, however many want to know at the same time.

    Args:
        find: finds it out; tried again for the next one who asks when it came to nothing.
    """

    def __init__(self, find: Callable[[], Coroutine[None, None, T]]) -> None:
        self._find = find
        self._task: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """It. Raises what `find` does."""
        task = self._task
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._task = asyncio.get_running_loop().create_task(self._find())
            task.add_done_callback(_seen)
        # Whoever gives up takes it from nobody else.
        return await asyncio.shield(task)


def _seen(task: asyncio.Task[T]) -> None:
    """Its error is not lost when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


async def unless_refused(answer: Awaitable[object]) -> object:
    """An answer, or None where QEMU says no to the question."""
    try:
        return await answer
    except Trouble as trouble:
        if trouble.fault is not Fault.REFUSED:
            raise
        return None


def _get(call: Call, path: str, name: str) -> Awaitable[object]:
    return unless_refused(call("qom-get", {"path": path, "property": name}))


async def machine_type(call: Call) -> str:
    """The machine's type with its version, such as "pc-i440fx-7.2"; empty: not known."""
    said = await _get(call, "/machine", "type")
    return "" if said is None else reading.text(said).removesuffix("-machine")


async def find_button(call: Call) -> Buttons:
    """The button that `system_powerdown` presses.

    PCs name the object that holds the registers; for others their devices tell.
    Source: QEMU 7.2 hw/i386/pc.c (PC_MACHINE_ACPI_DEVICE_PROP), hw/acpi/generic_event_device.c.
    """
    base = await _get(call, _ACPI_DEVICE, "pm_io_base")
    if base is not None:
        return Buttons(Button.PM1, _ACPI_DEVICE, reading.number(base))
    said = await unless_refused(call("qom-list", {"path": "/machine/unattached"}))
    kinds = dict(reading.children(said)) if said is not None else {}
    for name, kind in kinds.items():
        if kind in _PM_KINDS:
            return Buttons(Button.PM1, f"/machine/unattached/{name}")
    if any(kind in _GED_KINDS for kind in kinds.values()):
        return Buttons(Button.GED)
    machine = await machine_type(call)
    without = ("pc-", "isapc", "microvm")
    return Buttons(Button.NONE if machine.startswith(without) else Button.UNKNOWN)


async def find_agent(call: Call) -> AgentPort | None:
    """The agent's port, by its name; None: the machine has none."""
    folders = ("/machine/peripheral", "/machine/peripheral-anon")
    lists = await asyncio.gather(
        *(unless_refused(call("qom-list", {"path": each})) for each in folders)
    )
    ports = [
        f"{folder}/{name}"
        for folder, said in zip(folders, lists, strict=True)
        if said is not None
        for name, kind in reading.children(said)
        if kind == "virtserialport"
    ]
    for path in ports[:_PORTS]:
        if await is_agent(call, path):
            label = await _get(call, path, "chardev")
            return AgentPort("" if label is None else reading.text(label))
    return None


async def is_agent(call: Call, path: str) -> bool:
    """Whether that serial port is the agent's."""
    said = await _get(call, path, "name")
    return said is not None and reading.text(said) == reading.AGENT_PORT


async def learn(
    call: Call, handle: Handle | None, buttons: Buttons, agent: AgentPort | None, uuid: str
) -> Setup:
    """All of it."""
    machine, current, kvm = await asyncio.gather(
        machine_type(call),
        unless_refused(call("query-current-machine")),
        unless_refused(call("query-kvm")),
    )
    words = command_line(handle)
    return Setup(
        machine=machine,
        button=buttons.button,
        wakes=None if current is None else reading.flag(current, "wakeup-suspend-support"),
        stays_when_off=stays_when_off(words) if words else None,
        agent=agent is not None,
        started_s=started_s(handle),
        uuid=uuid,
        accelerator=_accelerator(kvm, words),
    )


def learn_locally(handle: Handle | None) -> Setup:
    """What QEMU's process alone tells, while its monitor does not answer."""
    words = command_line(handle)
    return Setup(
        stays_when_off=stays_when_off(words) if words else None,
        started_s=started_s(handle),
        accelerator=accelerator_named(words),
    )


def _accelerator(kvm: object, words: Sequence[str]) -> str:
    if kvm is not None and reading.flag(kvm, "enabled"):
        return "kvm"
    named = accelerator_named(words)
    # KVM may have been wished for first and not been had.
    return named if named != "kvm" else "tcg"


def command_line(handle: Handle | None) -> list[str]:
    """What QEMU was started with; empty: not known."""
    if handle is None or handle.closed:
        return []
    try:
        return procfs.cmdline(handle.identity.pid)
    except OSError:
        return []


def started_s(handle: Handle | None) -> float | None:
    """When QEMU was started, on the boot-time clock."""
    return None if handle is None else handle.identity.start_ticks / procfs.TICKS_PER_S


def options(words: Sequence[str], name: str) -> list[str]:
    """The values of one of QEMU's options, which may begin with one or two dashes."""
    return [
        value for option, value in itertools.pairwise(words) if option in {f"-{name}", f"--{name}"}
    ]


def stays_when_off(words: Sequence[str]) -> bool:
    """Whether QEMU stays after the guest powered off (`-no-shutdown`, `-action`)."""
    actions = [part for value in options(words, "action") for part in value.split(",")]
    last = [part.partition("=")[2] for part in actions if part.startswith("shutdown=")]
    if last:
        return last[-1] == "pause"
    return any(word in {"-no-shutdown", "--no-shutdown"} for word in words)


def accelerator_named(words: Sequence[str]) -> str:
    """The accelerator that the command line names first; without one it is TCG."""
    if not words:
        return ""
    for value in options(words, "accel"):
        return value.partition(",")[0].removeprefix("accel=")
    for value in (*options(words, "machine"), *options(words, "M")):
        for part in value.split(","):
            if part.startswith("accel="):
                return part.removeprefix("accel=").partition(":")[0]
    if any(word in {"-enable-kvm", "--enable-kvm"} for word in words):
        return "kvm"
    return "tcg"


def name_given(words: Sequence[str]) -> str:
    """The guest's name on the command line (`-name`); empty: it was given none."""
    for value in reversed(options(words, "name")):
        for part in value.split(","):
            if part.startswith("guest="):
                return part.removeprefix("guest=")
        first = value.partition(",")[0]
        if "=" not in first:
            return first
    return ""


def absolute(path: str, handle: Handle | None) -> str:
    """A path as QEMU meant it, which may be relative to where QEMU runs; empty: not known."""
    if os.path.isabs(path):
        return path
    if handle is None or handle.closed or not path:
        return ""
    try:
        return os.path.join(os.readlink(f"/proc/{handle.identity.pid}/cwd"), path)
    except OSError:
        return ""


async def agent_socket(
    call: Call, handle: Handle | None, port: AgentPort | None, *, talked: bool = False
) -> tuple[str, bool | None, str]:
    """The agent's socket on the host, whether the guest holds its port open, why there is none.

    Args:
        call: has a command carried out.
        handle: QEMU's process.
        port: the agent's.
        talked: whether a talk of our own may just be over, and not look so yet.
    """
    if port is None:
        return "", None, "the machine has no port for the guest agent"
    found = reading.chardev(await call("query-chardev"), port.chardev)
    if talked and found is not None and found.held:
        await asyncio.sleep(_HANGS_UP_S)
        found = reading.chardev(await call("query-chardev"), port.chardev)
    if found is None:
        return "", None, "nothing on the host stands behind the guest agent's port"
    path = absolute(found.path, handle)
    if found.held:
        return "", found.open, "another program (libvirt?) holds the guest agent's port"
    if not path:
        return "", found.open, "the guest agent's port is no Unix socket of this machine"
    return path, found.open, ""
