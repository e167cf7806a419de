"""Asking the guest agent (qemu-ga) through its own socket on the host.

What answers is inside the guest and is not to be trusted: every wait and every line has a limit,
and one connection serves one use. The socket serves one program at a time, as the monitor's does.

Source: QEMU 7.2 `qga/qapi-schema.json` (guest-sync-delimited, guest-shutdown), `qga/main.c`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError
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
_CHUNK_BYTES = 64 * 1024
_MARK = b"\xff"


async def sight(path: str, limit_s: float = SYNC_S) -> AgentSight:
    """What the agent is and says.

    Args:
        path: of its Unix socket on the host.
        limit_s: how long it may take to get in step, in seconds; each question has 3 s more.
    """
    try:
        talk = await _Talk.open(path, limit_s)
    except LastcallError as error:
        if not isinstance(error, Trouble):
            detail = f"the guest agent's socket {path} cannot be reached"
            return AgentSight(detail=detail)
        silent = error.fault is not Fault.BROKEN
        return AgentSight(answers=False if silent else None, detail=error.what)
    try:
        return await _asked(talk)
    finally:
        talk.close()


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


async def shutdown(path: str, limit_s: float = COMMAND_S) -> None:
    """Have the agent shut the system down. It says nothing when it does.

    Args:
        path: of its Unix socket on the host.
        limit_s: how long to wait for a word that it will not, in seconds.

    Raises:
        Trouble: HUNG (it does not answer at all; nothing was asked), REFUSED, BROKEN.
    """
    try:
        talk = await _Talk.open(path, SYNC_S)
    except Trouble:
        raise
    except LastcallError as error:
        raise Trouble(Fault.BROKEN, error.what, error.advice) from error
    try:
        await talk.ask("guest-shutdown", {"mode": "powerdown"}, limit_s)
    except Trouble as trouble:
        if trouble.fault is Fault.REFUSED:
            raise
        # Silence and a closed port are what success looks like.
    finally:
        talk.close()


class _Talk:
    """One connection to the agent, in step with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = bytearray()

    @classmethod
    async def open(cls, path: str, limit_s: float) -> _Talk:
        """Connect and get in step."""
        talk = cls(await connect(Place(path=path), limit_s))
        try:
            await talk._synchronise(limit_s)
        except BaseException:
            talk.close()
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
                answer = _loads(await self._line())
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
                more = await asyncio.get_running_loop().sock_recv(self._sock, _CHUNK_BYTES)
            except OSError as error:
                raise _closed() from error
            if not more:
                raise _closed()
            self._read += more
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def close(self) -> None:
        """Let go of the socket, for others."""
        self._sock.close()


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
