"""The library's QMP client with our limits in it. Imported when it is first needed: an extra.

Source: qemu.qmp 0.0.6 (`protocol.py`, `qmp_client.py`: the hooks overridden here).
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecInterruptedError, ExecuteError, QMPClient, Runstate
from qemu.qmp.error import ProtocolError
from qemu.qmp.message import Message
from qemu.qmp.models import ErrorResponse
from qemu.qmp.qmp_client import BadReplyError

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


# Made once: `json.dumps` makes one for each message.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class _Answer:
    """The place of one answer, in the shape that the library expects: a queue for one."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def empty(self) -> bool:
        """Whether it is still waited for."""
        return not self._future.done()

    def full(self) -> bool:
        """Whether it is there."""
        return self._future.done() and not self._future.cancelled()

    def put_nowait(self, what: object) -> None:
        """Here it is; or the error instead of it. Nobody may wait any more."""
        if not self._future.done():
            self._future.set_result(what)

    async def put(self, what: object) -> None:
        """The same."""
        self.put_nowait(what)

    async def get(self) -> Any:  # noqa: ANN401 (JSON of any shape)
        """Wait for it."""
        what = await self._future
        if isinstance(what, ExecInterruptedError):
            raise what
        return what


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
        self._put(bytes(msg))

    def _put(self, data: bytes) -> None:
        assert self._writer is not None  # noqa: S101 (as in the library)
        if self.sock is not None and not self._writer.transport.get_write_buffer_size():
            try:
                data = data[self.sock.send(data, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it has closed: the reader comes to the end by itself
        if data:
            self._writer.write(data)

    # The library takes a command through two queues, two tasks and three copies. With thousands of
    # guests that is most of the time there is; here it goes out at once and comes back in one step.
    async def execute(
        self,
        cmd: str,
        arguments: Mapping[str, object] | None = None,
        oob: bool = False,  # noqa: FBT001, FBT002 (the library's)
    ) -> object:
        """Have a command carried out. As the library has it, errors included."""
        if oob or self.runstate is not Runstate.RUNNING:
            return await super().execute(cmd, arguments, oob)  # which knows what to say
        number = self._get_exec_id()
        asked = {"execute": cmd, **({"arguments": arguments} if arguments else {}), "id": number}
        waits: Any = _Answer()
        self._pending[number] = waits
        try:
            self._put(_encode(asked).encode())
            answer = await waits.get()
        finally:
            del self._pending[number]
        if "error" in answer:
            try:
                response = ErrorResponse(answer)
            except (KeyError, TypeError) as error:
                what = "QMP error reply is malformed"
                raise BadReplyError(what, Message(answer), Message(asked)) from error
            raise ExecuteError(response, Message(asked), Message(answer))
        if "return" not in answer:
            what = "QMP reply is missing a 'error' or 'return' member"
            raise BadReplyError(what, Message(answer), Message(asked))
        return answer["return"]

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
            # An end that comes as an error (QEMU left a command of ours unread) would throw away
            # what was read before it. So it has to wait, too.
            transport: Any = self._writer.transport if self._writer is not None else None
            if transport is None or not transport.is_reading():
                await asyncio.sleep(0)
                return
            transport.pause_reading()
            try:
                await asyncio.sleep(0)
            finally:
                transport.resume_reading()

    async def _on_message(self, msg: Message) -> None:
        said = msg._object  # noqa: SLF001 (asked of the message itself, each key is slow)
        number = said.get("id")
        if "QMP" in said:
            raise _nonsense("a second greeting")
        if number is not None and not isinstance(number, str):
            raise _nonsense("an answer with an id that was never given")
        waits: Any = self._pending.get(number)
        if waits is None or "event" in said:
            await super()._on_message(msg)
            return
        if waits.full():
            raise _nonsense("two answers to one command")
        waits.put_nowait(said)


def _taken(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()


def _nonsense(said: str, line: bytes = b"") -> Trouble:
    shown = (printable(line[:120].decode(errors="replace").strip()),) if line else ()
    return Trouble(Fault.BROKEN, f"QEMU's monitor sent {said}", evidence=shown)
