"""The connection that hears what happens to the guests of one host, and mends itself.

Nothing else goes over it, so that no call that hangs can be in its way. libvirt asks for a sign of
life on it (keepalive): a libvirtd that has stopped is noticed after 20 s.

Source: libvirt 9.0, src/libvirt-domain.c (virConnectDomainEventRegisterAny), src/libvirt-host.c
(virConnectSetKeepAlive, virConnectRegisterCloseCallback), src/libvirt-qemu.c
(virConnectDomainQemuMonitorEventRegister: it does not taint the domain).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.targets.guest.libvirt import library, telling
from lastcall.targets.guest.libvirt.faults import trouble_of
from lastcall.targets.guest.libvirt.telling import Raw, Source
from lastcall.targets.guest.machine import Fault, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.targets.guest.libvirt.library import Connection, Library, LibvirtDomain

KEEPALIVE_S, KEEPALIVES = 5, 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 1.0
_WHY_CLOSED = {
    0: "the connection to libvirt failed",
    1: "libvirt closed the connection",
    2: "libvirt gave no sign of life any more",
    3: "the connection to libvirt was closed",
}
_REGEX = 1  # VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX


class Wire:
    """One connection that tells, with what has to be undone before it can be closed."""

    def __init__(self, connection: Connection, *, read_only: bool) -> None:
        self.connection = connection
        self.read_only: bool = read_only
        self.monitor: bool = False
        self.callbacks: list[int] = []
        self.monitor_callbacks: list[int] = []
        # Why libvirt closed it; set on libvirt's event thread, before the loop hears of it.
        self.cut: str = ""

    def close(self) -> None:
        """Give it back: as long as anything is registered, libvirt keeps it open."""
        libvirt, libvirt_qemu = library.load()
        for number in self.monitor_callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                libvirt_qemu.qemuMonitorEventDeregister(self.connection, number)
        for number in self.callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                self.connection.domainEventDeregisterAny(number)
        with contextlib.suppress(libvirt.libvirtError):
            self.connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self.connection.close()


def open_connection(uri: str | None, *, read_only: bool) -> Connection:
    """Connect; blocks.

    Raises:
        libvirt.libvirtError: it cannot be reached.
    """
    libvirt, _ = library.load()
    connection = (libvirt.openReadOnly if read_only else libvirt.open)(uri)
    with contextlib.suppress(libvirt.libvirtError):  # a driver without a daemon
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVES)
    return connection


class Ear:
    """Hears of all guests of one host.

    Args:
        uri: libvirt's connection URI; None: its own default.
        heard: is called on the running loop with each event, in order.

    Attributes:
        read_only: whether this user may only look.
        monitor: whether QEMU's own events come.
    """

    def __init__(self, uri: str | None, heard: Callable[[Raw], None]) -> None:
        self._uri = uri
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self.read_only: bool = False
        self.monitor: bool = False
        self._mending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether it hears now."""
        return self._wire is not None

    async def open(self, limit_s: float) -> None:
        """Connect for the first time.

        Raises:
            Trouble: it cannot be reached within the limit, in seconds.
        """
        opening = library.in_thread(self._connect)
        if not await _settled(opening, limit_s):
            raise Trouble(
                Fault.HUNG,
                f"libvirt does not answer within {limit_s:g} s at {self._uri or 'its default URI'}",
                "see whether it hangs: virsh uri; systemctl status libvirtd virtqemud",
            )
        self._take(self._outcome(opening))

    def _outcome(self, opening: asyncio.Future[Wire]) -> Wire:
        error = opening.exception()
        what = f"libvirt cannot be reached at {self._uri or 'its default URI'}"
        if error is not None:
            libvirt, _ = library.load()
            raise trouble_of(error, what, libvirt) from error
        wire = opening.result()
        if wire.cut:
            # It was not ours yet when the loop heard of it: nobody would hear of it again.
            library.apart(wire.close)
            raise Trouble(Fault.BROKEN, f"{what}: {wire.cut}")
        return wire

    def _take(self, wire: Wire) -> None:
        if self._closed:
            library.apart(wire.close)
            return
        self._wire = wire
        self.read_only, self.monitor = wire.read_only, wire.monitor

    def _connect(self) -> Wire:
        """Connect and register for everything. On a thread."""
        libvirt, libvirt_qemu = library.load()
        try:
            wire = Wire(open_connection(self._uri, read_only=False), read_only=False)
        except libvirt.libvirtError as error:
            if trouble_of(error, "", libvirt).fault is not Fault.DENIED:
                raise
            try:
                wire = Wire(open_connection(self._uri, read_only=True), read_only=True)
            except libvirt.libvirtError:
                raise error from None
        with contextlib.suppress(libvirt.libvirtError):  # a driver without a daemon
            wire.connection.registerCloseCallback(self._on_closed, wire)
        with contextlib.suppress(libvirt.libvirtError):  # no QEMU, or only looking is allowed
            number = libvirt_qemu.qemuMonitorEventRegister(
                wire.connection, None, telling.MONITOR_EVENTS, self._on_monitor, None, _REGEX
            )
            wire.monitor_callbacks.append(number)
            wire.monitor = True
        try:
            self._register(libvirt, wire)
        except libvirt.libvirtError:
            wire.close()
            raise
        return wire

    def _register(self, libvirt: Library, wire: Wire) -> None:
        """Subscribe to libvirt's own events; without those on lifecycles nothing would do."""
        add = wire.connection.domainEventRegisterAny
        wire.callbacks.append(
            add(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
        )
        if wire.monitor:
            return
        for number, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._on_watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR, self._on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_PMWAKEUP, self._on_wakeup),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
        ):
            with contextlib.suppress(libvirt.libvirtError):
                wire.callbacks.append(add(None, number, callback, None))

    # What follows runs on libvirt's event thread.

    def _on_closed(self, _connection: Connection, reason: int, wire: Wire) -> None:
        wire.cut = _WHY_CLOSED.get(reason, _WHY_CLOSED[0])
        self._on_loop(self._cut, wire, Raw(Source.CUT, now_s(), word=wire.cut))

    def _on_lifecycle(
        self, _c: Connection, domain: LibvirtDomain, event: int, detail: int, _o: object
    ) -> None:
        self._pass(Source.LIFECYCLE, domain, event=event, detail=detail)

    def _on_monitor(
        self,
        _c: Connection,
        domain: LibvirtDomain,
        event: str,
        _seconds: int,
        _micros: int,
        details: str | None,
        _o: object,
    ) -> None:
        try:
            data = json.loads(details) if details else {}
        except (ValueError, RecursionError):
            data = {}
        self._pass(Source.MONITOR, domain, word=event, data=data if isinstance(data, dict) else {})

    def _on_reboot(self, _c: Connection, domain: LibvirtDomain, _o: object) -> None:
        self._pass(Source.REBOOT, domain)

    def _on_watchdog(self, _c: Connection, domain: LibvirtDomain, _action: int, _o: object) -> None:
        self._pass(Source.WATCHDOG, domain)

    def _on_io_error(
        self, _c: Connection, domain: LibvirtDomain, _path: str, alias: str, *_rest: object
    ) -> None:
        self._pass(Source.IO_ERROR, domain, word=alias)

    def _on_wakeup(self, _c: Connection, domain: LibvirtDomain, *_rest: object) -> None:
        self._pass(Source.WAKEUP, domain)

    def _on_agent(
        self, _c: Connection, domain: LibvirtDomain, state: int, _reason: int, _o: object
    ) -> None:
        self._pass(Source.AGENT, domain, event=state)

    def _pass(
        self,
        source: Source,
        domain: LibvirtDomain,
        event: int = 0,
        detail: int = 0,
        word: str = "",
        data: dict[str, object] | None = None,
    ) -> None:
        raw = Raw(
            source, now_s(), domain.UUIDString(), domain.ID(), event, detail, word, data or {}
        )
        self._on_loop(self._heard, raw)

    def _on_loop(self, function: Callable[..., None], *words: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, *words)

    # And this on the loop.

    def _cut(self, wire: Wire, raw: Raw) -> None:
        if self._closed or wire is not self._wire:
            return
        self._wire = None
        library.apart(wire.close)
        self._heard(raw)
        self._mending = self._loop.create_task(self._mend())

    async def _mend(self) -> None:
        """Connect again, however long it takes: one that hangs on the way shows a hung daemon."""
        pause_s = _FIRST_PAUSE_S
        while not self._closed:
            await asyncio.sleep(pause_s)
            opening = library.in_thread(self._connect)
            await _settled(opening)
            try:
                wire = self._outcome(opening)
            except Trouble:
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            self._take(wire)
            self._heard(Raw(Source.BACK, now_s()))
            return

    def close(self) -> None:
        """Hear nothing more. Harmless to repeat."""
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()
        wire, self._wire = self._wire, None
        if wire is not None:
            library.apart(wire.close)


async def _settled(opening: asyncio.Future[Wire], limit_s: float | None = None) -> bool:
    """Whether it comes in time; when nobody waits for it any more, it is closed when it comes."""
    done: set[asyncio.Future[Wire]] = set()
    try:
        done, _ = await asyncio.wait({opening}, timeout=limit_s)
    finally:
        if not done:
            opening.add_done_callback(_forget)
    return bool(done)


def _forget(opening: asyncio.Future[Wire]) -> None:
    """A connection that came too late."""
    if not opening.cancelled() and opening.exception() is None:
        library.apart(opening.result().close)
