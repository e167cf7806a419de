"""What happens to one run of one guest: told once, in order, until it is gone.

Two tell of the end: libvirt by its events, and on this machine QEMU's pidfd, which also knows how
the process ended. libvirt clears QEMU away before it says so, and QEMU's last word may reach us
through libvirt after the process has ended.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.targets.guest.libvirt import telling
from lastcall.targets.guest.libvirt.telling import Raw, Source, Teller
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Kind, Power

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.kernel.identity import Handle
    from lastcall.targets.guest.libvirt.domain import DomainXml
    from lastcall.targets.guest.libvirt.host import Host
    from lastcall.targets.guest.libvirt.library import Connection
    from lastcall.targets.guest.words import Happening

# QEMU's process may end before libvirt has told why.
_LAST_WORDS_S = 2.0
_AGAIN_S = 1.0


class Watch:
    """Watches one run of one guest, from now on.

    Args:
        host: that it runs on.
        xml: what libvirt says of it.
        handle: QEMU's process, where it may be seen.
    """

    def __init__(self, host: Host, xml: DomainXml, handle: Handle | None) -> None:
        self._host = host
        self._name, self._uuid, self._number = xml.name, xml.uuid, xml.number or 0
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._teller = Teller(self._number, xml.agent_alias, monitor=host.monitor_events)
        self._heard: Callable[[Happening], None] | None = None
        self._waiting: list[Happening] = []
        self._status: int | None = None
        self._exit_fd = -1
        self._last_words: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closed = False
        self._unsubscribe = host.subscribe(self._uuid, self._hear)
        self._watch_process()

    @property
    def over(self) -> bool:
        """Whether it was told that the guest is gone."""
        return self._teller.over

    def listen(self, heard: Callable[[Happening], None]) -> None:
        """From now on tell what happens to it; what happened since it was opened comes first."""
        self._heard = heard
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            heard(each)

    def _tell(self, happening: Happening) -> None:
        if self._heard is None:
            self._waiting.append(happening)
        else:
            self._heard(happening)

    def _hear(self, raw: Raw) -> None:
        """One event of libvirt's, on the loop."""
        if self._closed or self._teller.over:
            return
        if raw.source is Source.BACK:
            self._reading = self._loop.create_task(self._look_again())
            return
        told = self._teller.tell(raw)
        if told is None:
            return
        if told.kind is Kind.GONE:
            told = self._with_status(told)
        self._tell(told)
        # The process went first: these were the words that it was waited for.
        if told.kind is Kind.SHUTDOWN and self._last_words is not None:
            self._process_gone()

    def _with_status(self, gone: Happening) -> Happening:
        if self._status is None and self._handle is not None and not self._handle.closed:
            self._status = self._handle.wait_status()
        return self._teller.gone(gone.at_s, (gone.reason, gone.detail), self._status)

    async def _look_again(self) -> None:
        """The connection is back: what became of the guest meanwhile?"""
        self._teller.monitor = self._host.monitor_events
        while True:
            try:
                state, reason, number = await self.state()
            except Trouble as trouble:
                if trouble.fault is Fault.GONE:
                    state, reason, number = 0, 0, -1
                    break
                # libvirtd may still be looking for its guests; cut again, this comes again.
                if self._closed or self._teller.over:
                    return
                await asyncio.sleep(_AGAIN_S)
            else:
                break
        if self._closed or self._teller.over:
            return
        power = telling.power_of(state, reason)
        if number == self._number and power is not Power.GONE:
            for each in self._teller.back(now_s(), power):
                self._tell(each)
            return
        for each in self._teller.back(now_s(), Power.UNKNOWN):
            self._tell(each)
        how = telling.SHUTOFF.get(reason, ("", "")) if power is Power.GONE else ("", "")
        detail = how[1] or "it ended while the connection was lost; libvirt does not say how"
        self._over((how[0], detail))

    async def state(self) -> tuple[int, int, int]:
        """Libvirt's state, its reason, and the id, of whatever has this UUID now.

        Raises:
            Trouble: libvirt knows no such guest (GONE), or does not say.
        """

        def look(connection: Connection) -> tuple[int, int, int]:
            found = connection.lookupByUUIDString(self._uuid)
            state, reason = found.state(0)
            return state, reason, found.ID()

        what = f"asking for the state of {self._name}"
        return await self._host.call(look, what, owner=self._uuid)

    def _watch_process(self) -> None:
        if self._handle is None:
            return
        # A descriptor of our own: the loop knows one reader of each, and others may watch it too.
        self._exit_fd = os.dup(self._handle.fd)
        self._loop.add_reader(self._exit_fd, self._process_ended)

    def _process_ended(self) -> None:
        self._unwatch()
        if self._handle is not None and not self._handle.closed:
            self._status = self._handle.wait_status()
        killed = self._status is not None and os.WIFSIGNALED(self._status)
        if not self._teller.moving and (killed or self._teller.off_told):
            self._process_gone()
        elif not self._teller.over:
            self._last_words = self._loop.call_later(_LAST_WORDS_S, self._process_gone)

    def _process_gone(self) -> None:
        self._over(("", "QEMU's process has ended"))

    def _over(self, how: tuple[str, str]) -> None:
        if self._closed or self._teller.over:
            return
        gone = self._teller.gone(now_s(), how)
        if gone.kind is Kind.GONE:
            gone = self._with_status(gone)
        self._teller.over = True
        self._tell(gone)

    def _unwatch(self) -> None:
        if self._exit_fd >= 0:
            self._loop.remove_reader(self._exit_fd)
            os.close(self._exit_fd)
            self._exit_fd = -1

    def close(self) -> None:
        """Tell nothing more. Harmless to repeat."""
        self._closed = True
        self._unsubscribe()
        self._unwatch()
        if self._last_words is not None:
            self._last_words.cancel()
        if self._reading is not None:
            self._reading.cancel()
