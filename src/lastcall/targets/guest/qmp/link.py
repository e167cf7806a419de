"""Keeps a guest's monitor in reach: connects, mends, and tells what happens in order.

A guest is gone when its process is (its pidfd says so), or where that is not known, when nobody
listens at its address any more. Everything else is a cut that is mended.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.errors import LastcallError, NotRunning
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import reach, reading
from lastcall.targets.guest.qmp.session import COMMAND_S, GREETING_S, Session
from lastcall.targets.guest.words import Happening, Kind, Power, missed, power_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lastcall.kernel.identity import Handle

_SOON_S, _LATE_S = 0.2, 5.0
# While another program holds the monitor: asked for seldom, for it may want it back.
_TAKEN_S = 2.0
# libvirt's own monitor: were we to sit there when libvirtd comes back, it would miss its guest.
_LIBVIRT_S = 60.0
# QEMU closes its monitor some moments before it ends: not a cut.
_ENDING_S = 0.3
# A process that has ended left its last words in the socket: read these first.
_LAST_WORDS_S = 1.0
_REAP_S = 2.0
_LOOKS = 20
_EARLY = 1000
_MEANWHILE = "seen when the connection was back"


class Link:
    """The way to one guest's monitor. Closed once; told `GONE` at most once, and last.

    Args:
        place: where it listens.
        handle: QEMU's process; None: not known.
        proves: asked after each new connection whether it is the very same guest.
        is_agent: asked whether the serial port of that name is the agent's.
    """

    def __init__(
        self,
        place: reach.Place,
        handle: Handle | None,
        proves: Callable[[Session], Awaitable[bool]],
        is_agent: Callable[[str], Awaitable[bool]],
    ) -> None:
        self.place = place
        self.handle = handle
        self.session: Session | None = None
        self.trouble: Trouble | None = None
        self.state: Power | None = None
        self._proves = proves
        self._is_agent = is_agent
        self._told: Callable[[Happening], None] | None = None
        self._gone = self._ended = self._cut = self._closed = False
        self._told_off = self._looks_moved = self._unheard = False
        self._interrupted: str | None = None
        self._early: list[tuple[Mapping[str, object], float]] | None = None
        self._delay_s, self._next_s = _SOON_S, 0.0
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mender: asyncio.Task[None] | None = None
        self._ports: dict[str, bool] = {}
        self.agent_left: asyncio.Event = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether the guest's machine is gone, as far as is known."""
        return self._gone or (self.handle is not None and self._exited(self.handle))

    @staticmethod
    def _exited(handle: Handle) -> bool:
        return handle.closed or handle.exited()

    async def call(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        limit_s: float = COMMAND_S,
    ) -> object:
        """Have a command carried out, over a new connection where the old one is lost.

        Raises:
            Trouble: as `Session.execute`; GONE: the guest's machine is.
        """
        session = self.session
        if session is None or not session.alive:
            session = await self.mend()
        try:
            return await session.execute(command, arguments, limit_s)
        except Trouble as trouble:
            if trouble.fault is Fault.BROKEN and self.over:
                raise self._is_gone() from trouble
            raise

    async def act(self, command: str) -> None:
        """Have a command carried out that does something to the guest, so that it counts how often.

        Raises:
            Trouble: as `call`; CUT: there is no connection, and nothing was sent.
        """
        try:
            await self.mend()
        except Trouble as trouble:
            if trouble.fault is Fault.GONE:
                raise
            raise Trouble(Fault.CUT, trouble.what, trouble.advice, trouble.evidence) from trouble
        await self.call(command)

    def _is_gone(self) -> Trouble:
        return Trouble(Fault.GONE, f"the QEMU at {self.place} has ended")

    async def mend(self) -> Session:
        """A session: the present one, or a new one unless the last attempt was a moment ago.

        Raises:
            Trouble: GONE, or why there is none.
        """
        async with self._lock:
            if self.session is not None and self.session.alive:
                return self.session
            if self.over:
                raise self._is_gone()
            if self._closed:
                raise Trouble(Fault.BROKEN, "the connection to QEMU's monitor was closed")
            if self.trouble is not None and now_s() < self._next_s:
                raise self.trouble
            try:
                sock = await reach.connect(self.place)
                return await self._adopt(sock)
            except Trouble as trouble:
                raise self._put_off(trouble) from trouble
            except LastcallError as error:
                if isinstance(error, NotRunning) and self.handle is None:
                    self._gone_at(error.what)
                    raise self._is_gone() from error
                raise self._put_off(Trouble(Fault.BROKEN, error.what, error.advice)) from error

    async def first(self, sock: socket.socket) -> Session:
        """The first session, over the socket that the identity was read from.

        Raises:
            Trouble: why there is none; remembered for later calls.
        """
        async with self._lock:
            try:
                return await self._adopt(sock)
            except Trouble as trouble:
                raise self._put_off(trouble) from trouble

    def _put_off(self, trouble: Trouble) -> Trouble:
        """Remember why, and wait longer before each next attempt."""
        if trouble.fault is Fault.HUNG:
            mine = "/libvirt/" not in self.place.path
            self._delay_s = max(self._delay_s, _TAKEN_S if mine else _LIBVIRT_S)
        self._next_s = now_s() + self._delay_s
        self._delay_s = min(self._delay_s * 2, max(_LATE_S, self._delay_s))
        self.trouble = trouble
        return trouble

    async def _adopt(self, sock: socket.socket) -> Session:
        if self.handle is not None and sock.family == socket.AF_UNIX:
            try:
                other, _ = reach.listener(sock)
            except OSError as error:
                sock.close()
                what = f"who listens at {self.place} cannot be seen: {error.strerror}"
                raise Trouble(Fault.BROKEN, what) from error
            same = other is not None and other.identity == self.handle.identity
            if other is not None:
                other.close()
            if not same:
                sock.close()
                raise Trouble(
                    Fault.BROKEN, f"another program listens at {self.place} now than this guest's"
                )
        greeting_s = GREETING_S if self.trouble is None else GREETING_S / 3
        self._early = []
        session = await Session.open(sock, self._heard, self._lost, greeting_s)
        try:
            await self._prove(session)
        except BaseException:
            session.close()
            raise
        early, self._early = self._early, None
        self.session, self.trouble, self._delay_s = session, None, _SOON_S
        if self._interrupted is not None:
            self._tell_cut()
            self._cut, self._interrupted, self._unheard = False, None, True
            self._tell(Happening(Kind.BACK, now_s()))
            self._start(self.power())
        for event, at_s in early:
            self._hear(event, at_s)
        return session

    async def _prove(self, session: Session) -> None:
        """Make sure that it is the very same guest that answers."""
        same = await self._proves(session)
        if self._closed:
            raise Trouble(Fault.BROKEN, "the connection to QEMU's monitor was closed")
        if not same:
            self._gone_at(f"another guest answers at {self.place} now")
            raise self._is_gone()

    def _tell_cut(self) -> None:
        if not self._cut and self._interrupted is not None:
            self._cut = True
            self._tell(Happening(Kind.CUT, now_s(), detail=self._interrupted))

    # What is heard, and what becomes of it.

    def listen(self, told: Callable[[Happening], None]) -> None:
        """Tell what happens from now on, on the running loop."""
        loop = asyncio.get_running_loop()
        self._told = told
        if self.handle is not None and not self.handle.closed:
            loop.add_reader(self.handle.fd, self._process_ended)
            if self.handle.exited():
                loop.call_soon(self._process_ended)
        if self.session is None or not self.session.alive:
            self._interrupted = self.trouble.what if self.trouble else "the connection was lost"
            self._mender = self._start(self._mending(0.0))

    def _start(self, work: Awaitable[object]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except Trouble:  # told to whoever calls next
                return

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell(self, what: Happening) -> None:
        if self._gone or self._closed:
            return
        self.state = power_after(self.state, what.kind)
        self._told_off |= what.kind is Kind.SHUTDOWN
        if self._told is not None:
            self._told(what)

    def _heard(self, event: Mapping[str, object]) -> None:
        """An event; what makes no sense raises, which ends the session."""
        if self._early is None:
            self._hear(event, now_s())
        elif len(self._early) < _EARLY:  # until it is proved whose they are
            self._early.append((event, now_s()))

    def _hear(self, event: Mapping[str, object], at_s: float) -> None:
        changed = reading.port_change(event)
        if changed is not None:
            port, opened = changed
            if port in self._ports:
                self._tell_port(port, at_s, opened=opened)
            elif len(self._ports) < _LOOKS:
                self._ports[port] = False  # until it is known
                self._start(self._look_at_port(port, at_s, opened=opened))
            return
        what = reading.happening(event, at_s)
        if what is not None:
            self._tell(what)
        kind, data = reading.event_name(event), reading.event_data(event)
        moved = kind == "STOP" or (kind == "MIGRATION" and data.get("status") == "completed")
        if moved and not self._looks_moved:
            self._looks_moved = True
            self._start(self._moved())

    def _tell_port(self, port: str, at_s: float, *, opened: bool) -> None:
        if self._ports[port]:
            (self.agent_left.clear if opened else self.agent_left.set)()
            self._tell(Happening(Kind.AGENT_OPEN if opened else Kind.AGENT_CLOSED, at_s))

    async def _look_at_port(self, port: str, at_s: float, *, opened: bool) -> None:
        try:
            self._ports[port] = await self._is_agent(port)
        except Trouble:
            del self._ports[port]  # to be looked at again
            raise
        self._tell_port(port, at_s, opened=opened)

    async def _moved(self) -> None:
        """Whether it stopped because it has moved to another host."""
        try:
            for _ in range(_LOOKS):
                state = reading.run_state(await self.call("query-status"))
                if state == "postmigrate":
                    self._tell(Happening(Kind.MIGRATED, now_s()))
                if state != "finish-migrate":
                    return
                await asyncio.sleep(_SOON_S)
        finally:
            self._looks_moved = False

    async def power(self) -> Power:
        """What it does now; what that shows to have happened while nobody heard it is told."""
        before = self.state
        state = reading.power(answer := await self.call("query-status"))
        if self.state is not before:
            return state  # what was heard meanwhile may be newer
        if self._unheard:
            self._unheard = False
            kind = missed(before, state)
            if kind is None and reading.run_state(answer) == "postmigrate":
                kind = Kind.MIGRATED
            if kind is not None:
                self._tell(Happening(kind, now_s(), detail=_MEANWHILE))
        self.state = state
        return state

    def _lost(self, trouble: Trouble) -> None:
        """The session is over."""
        self.session, self.trouble = None, trouble
        if self._closed or self._gone:
            return
        if self._ended:
            self._process_gone()
        elif self.handle is None and self._told_off:
            self._gone_at("it powered off, and its QEMU closed the connection")
        else:
            self._interrupted = trouble.what
            if self._told is not None and (self._mender is None or self._mender.done()):
                self._mender = self._start(self._mending(_ENDING_S))

    async def _mending(self, patience_s: float) -> None:
        """Connect again and again, ever more slowly, until it is back or gone."""
        await asyncio.sleep(patience_s)
        while not (self._gone or self._closed or self._ended):
            try:
                await self.mend()
            except Trouble:
                if not self._gone:
                    self._tell_cut()
            else:
                return
            await asyncio.sleep(max(self._next_s - now_s(), _SOON_S))

    def _process_ended(self) -> None:
        """Its pidfd says that QEMU has ended; what it said last may still wait to be read."""
        if self._ended or self.handle is None or self.handle.closed:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.handle.fd)
        self._ended = True
        if self.session is None or not self.session.alive:
            self._process_gone()
        else:
            loop.call_later(_LAST_WORDS_S, self._process_gone)

    def _process_gone(self, until_s: float | None = None) -> None:
        """Tell how it ended, once that can be read; else, after a while, that it ended."""
        handle = self.handle
        if self._gone or self._closed or handle is None or handle.closed:
            return
        reaped = handle.reaped()
        status = handle.wait_status()
        until_s = now_s() + _REAP_S if until_s is None else until_s
        if status is None and not reaped and now_s() < until_s:
            # Not ours to read: its parent has to take it first.
            asyncio.get_running_loop().call_later(0.05, self._process_gone, until_s)
            return
        self._gone_at(reading.ended_words(status), status)

    def _gone_at(self, detail: str, status: int | None = None) -> None:
        self._tell(Happening(Kind.GONE, now_s(), detail=detail, status=status))
        self._gone = True
        if self.session is not None:
            self.session.close()
            self.session = None

    def rest(self) -> None:
        """Let go of the connection until the next call: another is to have it."""
        for task in self._tasks:
            task.cancel()
        if self.session is not None:
            self.session.close()
            self.session = None
            self._interrupted = "left to another lastcall"

    def close(self) -> None:
        """Let go of everything; the guest is left alone. Harmless to repeat."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self.session is not None:
            self.session.close()
            self.session = None
        if self.handle is not None and not self.handle.closed:
            if self._told is not None and not self._ended:
                asyncio.get_running_loop().remove_reader(self.handle.fd)
            self.handle.close()
