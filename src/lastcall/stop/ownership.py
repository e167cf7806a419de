"""One process drives a stop; others follow it, and may allow force, extend or cancel.

The owner listens on one private socket, `run/PID-START.sock` in the state folder. One JSON object
a line, both ways:

    -> {"do": "follow", "stop": 17}
    -> {"do": "force", "stop": 17, "consent": {...}, "deadline_s": 123.4}
    -> {"do": "extend", "stop": 17, "deadline_s": 123.4, "ceiling_s": 456.7, "by": "..."}
    -> {"do": "cancel", "stop": 17, "by": "..."}
    <- {"at_s": 120.1, "kind": "asked", "data": {...}}      (each event, first those of the past)
    <- {"error": "..."}

`consent` is a `ForceConsent` and `data` an event, both as `lastcall.journal.codec` writes them.
A force moves the deadline forward only, an extension backward only. The kernel tells who speaks
(SO_PEERCRED): only the same user and root are heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import struct
from typing import TYPE_CHECKING

from lastcall.clock import boot_id
from lastcall.errors import OwnerUnreachable
from lastcall.journal import codec
from lastcall.kernel import procfs
from lastcall.model import Consented, DeadlineMoved, Event, Finished, ForceConsent, Released

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from lastcall.stop.runner import Run

LINE_BYTES = 1024 * 1024
ANSWER_S = 3.0
# JSON as Python reads it also has Infinity and NaN: a stop must come to its end.
_FOR_EVER_S = 1e12


def ourselves() -> str:
    """This process as an owner: `boot_id/pid/start_ticks`."""
    pid = os.getpid()
    return f"{boot_id()}/{pid}/{procfs.stat(pid).start_ticks}"


def who() -> str:
    """Who we are, for the record."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = "?"
    return f"{user} (uid {uid}, pid {os.getpid()})"


def alive(owner: str) -> bool:
    """Whether that very process still runs (in our pid namespace)."""
    boot, pid, start = owner.split("/")
    if boot != boot_id():
        return False
    try:
        entry = procfs.stat(int(pid))
    except (ProcessLookupError, PermissionError):
        return False
    return entry.start_ticks == int(start) and entry.state not in "ZX"


def _socket_name(owner: str) -> str:
    _, pid, start = owner.split("/")
    return f"{pid}-{start}.sock"


@contextlib.contextmanager
def _short(folder: str, name: str) -> Iterator[str]:
    """A path to a socket that fits into the 108 bytes of sun_path, however long the folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


class Door:
    """The owner's side.

    Args:
        folder: the state folder.
        owner: as `ourselves` says.
        runs: the stops driven here, by number.
    """

    def __init__(self, folder: str, owner: str, runs: Mapping[int, Run]) -> None:
        self._folder = os.path.join(folder, "run")
        self._name = _socket_name(owner)
        self._runs = runs
        self._server: asyncio.Server | None = None
        self._guests: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be made.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(self._folder, self._name) as path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                listener.bind(path)
                os.chmod(path, 0o600)
            listener.setblocking(False)
            self._server = await asyncio.start_unix_server(
                self._welcome, sock=listener, limit=LINE_BYTES
            )
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        """Close the socket; followers have heard everything by then."""
        if self._server is None:
            return
        self._server.close()
        if self._guests:
            await asyncio.wait(self._guests, timeout=ANSWER_S)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._folder, self._name))
        self._sweep()

    def _sweep(self) -> None:
        """Take away what the dead have left behind."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                pid, dash, start = name.removesuffix(".sock").partition("-")
                if dash and not alive(f"{boot_id()}/{pid}/{start}"):
                    os.unlink(os.path.join(self._folder, name))

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = asyncio.ensure_future(self._serve(reader, writer))
        self._guests.add(guest)
        guest.add_done_callback(self._guests.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        run: Run | None = None
        outbox: asyncio.Queue[tuple[float, Event] | None] = asyncio.Queue()

        def follower(at_s: float, event: Event) -> None:
            outbox.put_nowait((at_s, event))

        try:
            _check_peer(writer.get_extra_info("socket"))
            async with asyncio.timeout(ANSWER_S):
                run = self._heed(await reader.readline())
            for pair in list(run.history):
                outbox.put_nowait(pair)
            run.followers.append(follower)
            await self._stream(outbox, reader, writer)
        except (ValueError, PermissionError, TimeoutError, RecursionError) as error:
            await _send(writer, {"error": str(error) or "nothing was asked in time"})
        except OSError:
            pass  # The follower went away; that is its own affair.
        finally:
            if run is not None and follower in run.followers:
                run.followers.remove(follower)
            writer.close()

    async def _stream(
        self,
        outbox: asyncio.Queue[tuple[float, Event] | None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Tell all that comes; None in the outbox means that the follower went away."""
        listening = asyncio.ensure_future(self._listen(reader))
        listening.add_done_callback(lambda _: outbox.put_nowait(None))
        try:
            while (pair := await outbox.get()) is not None:
                at_s, event = pair
                kind, data = codec.encode(event)
                await _send(writer, {"at_s": at_s, "kind": kind, "data": data})
                if isinstance(event, Finished | Released):
                    return
        finally:
            listening.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ValueError, OSError, RecursionError):
            while line := await reader.readline():
                self._heed(line)

    def _heed(self, line: bytes) -> Run:
        """Do what one line asks for.

        Raises:
            ValueError: it makes no sense.
        """
        wish = json.loads(line)
        if not isinstance(wish, dict) or not isinstance(wish.get("stop"), int):
            raise ValueError("a request is an object with a stop's number")  # noqa: TRY004 (their data)
        run = self._runs.get(wish["stop"])
        if run is None:
            raise ValueError(f"stop {wish['stop']} is not driven here")
        by = str(wish.get("by", "another lastcall"))
        deadline_s, ceiling_s = _moment(wish, "deadline_s"), _moment(wish, "ceiling_s")
        now = run.state
        match wish.get("do"):
            case "follow":
                pass
            case "force":
                consent = codec.revive(ForceConsent, wish.get("consent"))
                run.tell(Consented(consent))
                earlier_s = min(now.deadline_s, deadline_s or now.deadline_s)
                _move(run, DeadlineMoved(earlier_s, consent.by, ceiling_s))
            case "extend":
                later_s = max(now.deadline_s, deadline_s or now.deadline_s)
                _move(run, DeadlineMoved(later_s, by, ceiling_s))
            case "cancel":
                run.leave(by)
            case other:
                raise ValueError(f"unknown request {other!r}")
        return run


def _move(run: Run, to: DeadlineMoved) -> None:
    """Move a deadline or its ceiling, unless that changes nothing."""
    if to.deadline_s != run.state.deadline_s or (to.ceiling_s or 0.0) > run.state.ceiling_s:
        run.tell(to)


def _moment(wish: dict[str, object], key: str) -> float | None:
    given = wish.get(key)
    if given is None:
        return None
    if not isinstance(given, int | float) or not abs(given) < _FOR_EVER_S:
        raise ValueError(f"{key} is not a moment")
    return float(given)


def _check_peer(connection: socket.socket) -> None:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid not in {0, os.geteuid()}:
        raise PermissionError(f"uid {uid} may not speak to this stop")


async def _send(writer: asyncio.StreamWriter, message: dict[str, object]) -> None:
    if writer.is_closing():
        return  # The other side is gone; asyncio would complain of every further word.
    with contextlib.suppress(OSError):
        writer.write(json.dumps(message).encode() + b"\n")
        await writer.drain()


async def follow(
    folder: str, owner: str, request: dict[str, object]
) -> AsyncIterator[tuple[float, Event]]:
    """The events of a stop that another process drives, first those of the past.

    Ends when the stop ends or the owner lets go of it.

    Args:
        folder: the state folder.
        owner: who drives it.
        request: what to ask for, as in the module's description.

    Raises:
        OwnerUnreachable: it does not answer, or refuses.
    """
    path = os.path.join(folder, "run")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        with _short(path, _socket_name(owner)) as short:
            await asyncio.get_running_loop().sock_connect(connection, short)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_BYTES)
    except OSError as error:
        connection.close()
        raise OwnerUnreachable(f"lastcall pid {owner.split('/')[1]} does not answer") from error
    try:
        await _send(writer, request)
        first = True
        while True:
            try:
                async with asyncio.timeout(ANSWER_S if first else None):
                    line = await reader.readline()
            except (TimeoutError, OSError, ValueError) as error:
                raise OwnerUnreachable(
                    f"lastcall pid {owner.split('/')[1]} drives this stop and does not answer",
                    f"it may be stopped itself: lastcall check pid:{owner.split('/')[1]}",
                ) from error
            if not line:
                return
            first = False
            yield _understood(line)
    finally:
        writer.close()


def _understood(line: bytes) -> tuple[float, Event]:
    try:
        message = json.loads(line)
        if "error" in message:
            raise OwnerUnreachable(str(message["error"]))
        return float(message["at_s"]), codec.decode(message["kind"], message["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise OwnerUnreachable(f"the owner answered garbage: {error}") from error
