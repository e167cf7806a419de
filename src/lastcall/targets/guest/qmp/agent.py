"""Asking the guest agent (qemu-ga) through its own socket on the host.

What answers is inside the guest and is not to be trusted: every wait and every line has a limit,
and one connection serves one use. The socket serves one program at a time, as the monitor's does.

Whoever hangs up on an answer harms the guest: qemu-ga tries without end to write it, heeds no
signal meanwhile, and so holds up the shutdown. A talk that is given up therefore stays open.

Source: QEMU 7.2 `qga/qapi-schema.json` (guest-sync-delimited, guest-shutdown), `qga/main.c`,
`qga/channel-posix.c` (ga_channel_write_all).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError
from lastcall.kernel.ready import ready
from lastcall.kernel.run import printable
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import reading
from lastcall.targets.guest.qmp.reach import Place, connect
from lastcall.targets.guest.words import AgentSight, System

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

LINE_BYTES = 256 * 1024
# What may come before it is in step: answers to somebody else's questions, cut short.
STALE_BYTES = 2 * LINE_BYTES
SYNC_S = 2.0
COMMAND_S = 3.0
# What a talk may take: getting in step, and two questions.
TALK_S = SYNC_S + 2 * COMMAND_S
_CHUNK_BYTES = 64 * 1024
# After the answer that was waited for another may come; then it is quiet.
_QUIET_S = 0.5
_MARK = b"\xff"
STILL_SILENT = "the guest agent has still not answered an earlier question"


class GivenUp:
    """The talks with one agent that were given up before it answered; at most one at a time."""

    def __init__(self) -> None:
        self._reading: asyncio.Task[None] | None = None

    def take(self, talk: _Talk) -> None:
        """Hear a talk out in the background, then close it."""
        self._reading = asyncio.get_running_loop().create_task(talk.hear_out())
        # A task that is cancelled before it began would close nothing.
        self._reading.add_done_callback(lambda _: talk.close())

    async def over(self, limit_s: float) -> bool:
        """Whether the socket is free for another talk; waited for that long, in seconds."""
        if self._reading is None:
            return True
        done, _ = await asyncio.wait((self._reading,), timeout=limit_s)
        return bool(done)

    def close(self) -> None:
        """Hang up, whatever may still come."""
        if self._reading is not None:
            self._reading.cancel()


async def sight(path: str, limit_s: float = SYNC_S, given_up: GivenUp | None = None) -> AgentSight:
    """What the agent is and says.

    Args:
        path: of its Unix socket on the host.
        limit_s: how long it may take to get in step, in seconds; each question has 3 s more.
        given_up: takes the talk if the agent is too slow; None: it is closed at once.
    """
    try:
        talk = await _Talk.open(path, limit_s, given_up)
    except LastcallError as error:
        if not isinstance(error, Trouble):
            detail = f"the guest agent's socket {path} cannot be reached"
            return AgentSight(detail=detail)
        silent = error.fault is not Fault.BROKEN
        return AgentSight(answers=False if silent else None, detail=error.what)
    try:
        return await _asked(talk)
    finally:
        talk.leave()


async def _asked(talk: _Talk) -> AgentSight:
    system, name, users = System.UNKNOWN, "", None
    missing = []
    try:
        system, name = reading.guest_system(await talk.ask("guest-get-osinfo"))
    except Trouble as trouble:
        missing.append(trouble.what)
        if trouble.fault is not Fault.REFUSED:
            return AgentSight(answers=True, detail=trouble.what)
    try:
        users = reading.guest_users(await talk.ask("guest-get-users"))
    except Trouble as trouble:
        missing.append(trouble.what)
    return AgentSight(
        connected=True,
        answers=True,
        system=system,
        name=name,
        users=users,
        detail="; ".join(missing),
    )


async def shutdown(
    path: str,
    limit_s: float = COMMAND_S,
    given_up: GivenUp | None = None,
    left: asyncio.Event | None = None,
) -> None:
    """Have the agent shut the system down. It says nothing when it does.

    Args:
        path: of its Unix socket on the host.
        limit_s: how long to wait for a word that it will not, in seconds.
        given_up: as of `sight`.
        left: set when the agent's port is closed: then it does. None: nobody tells.

    Raises:
        Trouble: HUNG (it does not answer at all; nothing was asked), REFUSED, BROKEN.
    """
    try:
        talk = await _Talk.open(path, SYNC_S, given_up)
    except Trouble:
        raise
    except LastcallError as error:
        raise Trouble(Fault.BROKEN, error.what, error.advice) from error
    # Silence and a closed port are what success looks like.
    no = asyncio.ensure_future(talk.ask("guest-shutdown", {"mode": "powerdown"}, limit_s))
    gone = asyncio.ensure_future((left or asyncio.Event()).wait())
    try:
        await asyncio.wait((no, gone), return_when=asyncio.FIRST_COMPLETED)
        refused = no.exception() if no.done() else None
        if isinstance(refused, Trouble) and refused.fault is Fault.REFUSED:
            raise refused
    finally:
        no.cancel()
        gone.cancel()
        # Not before it has let go: the loop would take the next socket of its number for this one.
        no.add_done_callback(lambda _: talk.close())


class _Talk:
    """One connection to the agent, in step with it."""

    def __init__(self, sock: socket.socket, given_up: GivenUp | None) -> None:
        self._sock = sock
        self._given_up = given_up
        self._owed = False
        self._read = bytearray()

    @classmethod
    async def open(cls, path: str, limit_s: float, given_up: GivenUp | None) -> _Talk:
        """Connect and get in step."""
        if given_up is not None and not await given_up.over(limit_s):
            raise Trouble(Fault.HUNG, STILL_SILENT)
        talk = cls(await connect(Place(path=path), limit_s), given_up)
        try:
            await talk._synchronise(limit_s)
        except BaseException:
            talk.leave()
            raise
        return talk

    async def _synchronise(self, limit_s: float) -> None:
        """Skip what was said to others: the answer with our own number begins a new talk."""
        number = secrets.randbits(31)
        try:
            async with asyncio.timeout(limit_s):
                await self._send("guest-sync-delimited", {"id": number}, before=_MARK)
                skipped = 0
                while True:
                    line = await self._line()
                    skipped += len(line)
                    if skipped > STALE_BYTES:
                        raise Trouble(Fault.BROKEN, "the guest agent does not stop talking")
                    marked = line.rpartition(_MARK)
                    if marked[1] and _loads(marked[2]).get("return") == number:
                        self._owed = False
                        return
        except TimeoutError:
            raise Trouble(
                Fault.HUNG, f"the guest agent did not answer within {limit_s:g} s"
            ) from None

    async def ask(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        limit_s: float = COMMAND_S,
    ) -> object:
        """Ask one thing.

        Raises:
            Trouble: HUNG, REFUSED, BROKEN.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self._send(command, arguments)
                line = await self._line()
                self._owed = False
                answer = _loads(line)
        except TimeoutError:
            raise Trouble(
                Fault.HUNG, f"the guest agent did not answer {command} within {limit_s:g} s"
            ) from None
        if "return" in answer:
            return answer["return"]
        error = answer.get("error")
        said = error.get("desc") if isinstance(error, dict) else None
        if not isinstance(said, str):
            raise Trouble(Fault.BROKEN, f"the guest agent's answer to {command} makes no sense")
        raise Trouble(Fault.REFUSED, f"the guest agent refused {command}: {printable(said)}")

    async def _send(
        self, command: str, arguments: Mapping[str, object] | None, before: bytes = b""
    ) -> None:
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        data = before + json.dumps(message).encode() + b"\n"
        self._owed = True
        try:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
        except OSError as error:
            raise _closed() from error

    async def _line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > LINE_BYTES:
                raise Trouble(Fault.BROKEN, "the guest agent sent a line longer than 256 KiB")
            try:
                more = await self._more()
            except OSError as error:
                self._owed = False
                raise _closed() from error
            if not more:
                self._owed = False
                raise _closed()
            self._read += more
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    async def _more(self) -> bytes:
        """What has come next. What comes in the moment when the wait is cut off is not lost."""
        while True:
            await ready(self._sock, read=True)
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(_CHUNK_BYTES)

    def close(self) -> None:
        """Let go of the socket, for others."""
        self._sock.close()

    def leave(self) -> None:
        """Let go of the socket, for others: at once, or once the agent has answered."""
        if self._owed and self._given_up is not None:
            self._given_up.take(self)
        else:
            self.close()

    async def hear_out(self) -> None:
        """Wait for what the agent still has to say."""
        wait_s, heard = None, 0
        try:
            while heard < STALE_BYTES:
                async with asyncio.timeout(wait_s):
                    heard += len(await self._line())
                wait_s = _QUIET_S
        except (TimeoutError, Trouble):
            return  # quiet, closed, or no agent at all


def _closed() -> Trouble:
    return Trouble(Fault.BROKEN, "the connection to the guest agent was closed")


def _loads(line: bytes) -> dict[str, object]:
    """One message of the agent."""
    try:
        message = json.loads(line.strip(_MARK))
    except (ValueError, RecursionError) as error:
        raise Trouble(Fault.BROKEN, "the guest agent sent what is no JSON") from error
    if not isinstance(message, dict):
        raise Trouble(Fault.BROKEN, "the guest agent sent what is no JSON object")
    return message
