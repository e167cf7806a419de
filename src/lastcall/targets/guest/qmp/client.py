"""The library's QMP client with our limits in it. Imported when it is first needed: an extra.

Source: qemu.qmp 0.0.6 (`protocol.py`, `qmp_client.py`: the hooks overridden here).
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecInterruptedError, QMPClient
from qemu.qmp.error import ProtocolError
from qemu.qmp.message import Message

from lastcall.kernel.run import printable
from lastcall.targets.guest.machine import Fault, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LINE_BYTES = 1024 * 1024
# What a peer may say within a window, answers included. QEMU's own events are few: most kinds are
# held back to one a second (`monitor_qapi_event_conf` in monitor/monitor.c).
WINDOW_S = 5.0
WINDOW_MESSAGES = 2000
WINDOW_BYTES = 5 * LINE_BYTES
# How much is read in one go before other guests get their turn.
_TURN_MESSAGES = 16
_TURN_BYTES = 64 * 1024


class _Meter:
    """How much a peer says, and when it is too much."""

    __slots__ = ("_bytes", "_messages", "_now_s", "_since_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._since_s = now_s()
        self._messages = self._bytes = 0

    def count(self, size_bytes: int) -> None:
        """Take note of a message.

        Raises:
            Trouble: there were too many within the window.
        """
        now_s = self._now_s()
        if now_s - self._since_s > WINDOW_S:
            self._since_s, self._messages, self._bytes = now_s, 0, 0
        self._messages += 1
        self._bytes += size_bytes
        if self._messages > WINDOW_MESSAGES or self._bytes > WINDOW_BYTES:
            said = f"{self._messages} messages, {self._bytes} bytes"
            raise Trouble(
                Fault.BROKEN,
                "QEMU's monitor does not stop talking and was cut off",
                evidence=(f"{said} within {now_s - self._since_s:.1f} s",),
            )


class Client(QMPClient):
    """The library's client: bounded, fair to its neighbours, and it keeps no events."""

    def __init__(self, heard: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__(None, LINE_BYTES)
        self._heard = heard
        self.sock: socket.socket | None = None
        self._meter = _Meter(asyncio.get_running_loop().time)
        self._turn_messages = self._turn_bytes = 0
        self.events.event_filter = self._hear  # which keeps none

    def _hear(self, event: Message) -> bool:
        self._heard(event)
        return False

    # The library renders every message as text here, whether anybody reads it or not.
    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _do_send(self, msg: Message) -> None:
        """Send it past the transport, which forgets what is still to be read when a write fails.

        QEMU's last word (SHUTDOWN) may well wait there while we ask it for something.
        """
        assert self._writer is not None  # noqa: S101 (as in the library)
        data = bytes(msg)
        if self.sock is not None and not self._writer.transport.get_write_buffer_size():
            try:
                data = data[self.sock.send(data, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it has closed: the reader comes to the end by itself
        if data:
            self._writer.write(data)

    async def _do_recv(self) -> Message:
        try:
            line = await self._readline()
        except ValueError as error:
            raise _nonsense("a line longer than 1 MiB") from error
        if not line.endswith(b"\n"):
            raise _nonsense("half a line before it closed the connection")
        self._meter.count(len(line))
        await self._give_way(len(line))
        try:
            return Message(line, eager=True)
        except (ProtocolError, ValueError, RecursionError) as error:
            raise _nonsense("what is no JSON object", line) from error

    def watch_over(self) -> None:
        """From now on no error of its own tasks goes astray, whoever cancels whom."""
        for each in (self._reader_task, self._writer_task, self._bh_tasks):
            if each is not None:
                each.add_done_callback(_taken)

    def _schedule_disconnect(self) -> None:
        super()._schedule_disconnect()
        if self._dc_task is not None:
            self._dc_task.add_done_callback(_taken)

    async def settled(self) -> BaseException | None:
        """Wait until all its tasks have ended: the error that came first."""
        tasks = [t for t in (self._reader_task, self._writer_task, self._dc_task) if t is not None]
        await asyncio.wait(tasks)
        errors = (None if each.cancelled() else each.exception() for each in tasks)
        return next((error for error in errors if error is not None), None)

    def drop(self) -> None:
        """Let go of everything at once, without waiting for anybody.

        The library's own `disconnect` takes several turns of the loop, which may not come.
        """
        for task in (self._reader_task, self._writer_task):
            if task is not None:
                task.cancel()  # they end without an error that somebody would have to take
        if self._writer is not None:
            self._writer.transport.abort()
        for queue in self._pending.values():
            if queue.empty():
                queue.put_nowait(ExecInterruptedError("closed from here"))

    async def _give_way(self, size_bytes: int) -> None:
        """A reader that finds its buffer full would never let the loop go on."""
        self._turn_messages += 1
        self._turn_bytes += size_bytes
        if self._turn_messages >= _TURN_MESSAGES or self._turn_bytes >= _TURN_BYTES:
            self._turn_messages = self._turn_bytes = 0
            await asyncio.sleep(0)

    async def _on_message(self, msg: Message) -> None:
        number = msg.get("id")
        if "QMP" in msg:
            raise _nonsense("a second greeting")
        if number is not None and not isinstance(number, str):
            raise _nonsense("an answer with an id that was never given")
        queue: Any = self._pending.get(number)
        if queue is not None and queue.full():
            raise _nonsense("two answers to one command")
        await super()._on_message(msg)


def _taken(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()


def _nonsense(said: str, line: bytes = b"") -> Trouble:
    shown = (printable(line[:120].decode(errors="replace").strip()),) if line else ()
    return Trouble(Fault.BROKEN, f"QEMU's monitor sent {said}", evidence=shown)
