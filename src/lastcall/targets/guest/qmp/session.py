"""One conversation with QEMU's monitor, over `qemu.qmp`, with a limit on everything.

The library reads and writes; here stands what it leaves open: how long a greeting or a reply may
take, how large a line may be, how much a peer may say unasked, and that none of it is kept. A peer
that goes beyond is cut off with a word that says why.

Source: QEMU `docs/interop/qmp-spec.rst`, 7.2; qemu.qmp 0.0.6 (`protocol.py`, `qmp_client.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from functools import cache
from typing import TYPE_CHECKING

from lastcall.errors import MissingExtra
from lastcall.kernel.run import printable
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp.reading import greeted_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lastcall.targets.guest.qmp.client import Client

GREETING_S = 3.0
COMMAND_S = 3.0
# What a peer that does not read may leave unsent.
_UNSENT_BYTES = 64 * 1024
_TAKEN = (
    "another program may hold the monitor, which serves one at a time: where libvirt runs the "
    "guest use libvirt:NAME, else start QEMU with a second -qmp; or QEMU itself hangs"
)


class Session:
    """An open, negotiated conversation. Made by `open`; it ends once, and says so."""

    def __init__(
        self, client: Client, sock: socket.socket, ended: Callable[[Trouble], None]
    ) -> None:
        self._client = client
        self._sock = sock
        self._ended = ended
        self._over: Trouble | None = None
        self.version: tuple[int, int] = greeted_version(
            client.greeting.QMP.version if client.greeting else None
        )
        client.watch_over()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        heard: Callable[[Mapping[str, object]], None],
        ended: Callable[[Trouble], None],
        greeting_s: float = GREETING_S,
    ) -> Session:
        """Greet and negotiate over a connected socket, which belongs to the session from now on.

        Args:
            sock: a connected stream socket.
            heard: called at once with each event. What it raises ends the session.
            ended: called once when the session is over, unless it was closed from here.
            greeting_s: how long greeting and negotiation may take together, in seconds.

        Raises:
            Trouble: HUNG (no greeting: another program may hold the monitor), BROKEN.
            MissingExtra: qemu.qmp is not installed.
        """
        try:
            kind = _client_kind()
        except BaseException:
            sock.close()
            raise
        _keep_quiet()
        client = kind(heard)
        client.sock = sock
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            _shut(sock)

        sock.setblocking(False)
        timer = asyncio.get_running_loop().call_later(greeting_s, give_up)
        try:
            await client.connect(sock)
        except Exception as failed:
            error = await _settled(client, sock, failed)
            if late and client.greeting is None:
                what = f"QEMU's monitor did not greet within {greeting_s:g} s"
                raise Trouble(Fault.HUNG, what, _TAKEN) from failed
            if late:
                what = f"QEMU's monitor did not negotiate within {greeting_s:g} s"
                raise Trouble(Fault.HUNG, what) from failed
            raise _trouble(getattr(error, "exc", error)) from failed
        finally:
            timer.cancel()
            if client.runstate.name != "RUNNING":
                sock.close()
        return cls(client, sock, ended)

    @property
    def alive(self) -> bool:
        """Whether it can still be used."""
        return self._over is None and self._client.runstate.name == "RUNNING"

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        limit_s: float = COMMAND_S,
    ) -> object:
        """Have a command carried out and take its answer.

        Args:
            command: QMP's name of it.
            arguments: what it takes; None: nothing.
            limit_s: how long the answer may take, in seconds. A later one is dropped.

        Raises:
            Trouble: HUNG (QEMU may still carry it out later), REFUSED, BROKEN.
        """
        from qemu.qmp import ExecuteError, QMPError

        if self._over is not None:
            raise self._over
        if self.unsent_bytes() > _UNSENT_BYTES:
            raise Trouble(Fault.CUT, f"QEMU's monitor does not read: {command} was not sent")
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.execute(command, arguments)
        except TimeoutError as error:
            raise Trouble(
                Fault.HUNG, f"QEMU's monitor did not answer {command} within {limit_s:g} s"
            ) from error
        except ExecuteError as error:
            word = printable(error.error_class, 40)
            raise Trouble(
                Fault.REFUSED,
                f"QEMU refused {command}: {printable(error.error.error.desc)}",
                evidence=(f"error class {word}",),
            ) from error
        except QMPError as error:
            if self.alive:  # an answer of no known shape: no more is to be had from this peer
                _shut(self._sock)
                self._over = _trouble(error, command)
            await self.over(limit_s)
            raise self._why(_trouble(error, command)) from error

    def _why(self, otherwise: Trouble) -> Trouble:
        return self._over or otherwise

    def unsent_bytes(self) -> int:
        """How much waits to be sent because the peer does not read."""
        writer = self._client._writer  # noqa: SLF001 (the library does not show it)
        return writer.transport.get_write_buffer_size() if writer is not None else 0

    def send_fd(self, fd: int) -> None:
        """Pass a descriptor to QEMU, for the next command that takes one. Ours stays open.

        Raises:
            Trouble: this connection cannot carry one (UNSUPPORTED), or is lost or full (BROKEN).
        """
        from qemu.qmp import QMPError

        if self._sock.family != socket.AF_UNIX:
            raise Trouble(Fault.UNSUPPORTED, "only a Unix socket can pass a file to QEMU")
        try:
            if self.unsent_bytes():
                raise BlockingIOError
            self._client.send_fd_scm(fd)
        except (OSError, QMPError) as error:
            raise Trouble(Fault.BROKEN, "a file could not be passed to QEMU") from error

    def close(self) -> None:
        """End it from here: `ended` is not called. Harmless to repeat."""
        if self._over is None:
            self._over = Trouble(Fault.BROKEN, "the connection to QEMU's monitor was closed")
            self._ended = _nobody
            self._watcher.cancel()
            self._client.drop()

    async def over(self, limit_s: float) -> None:
        """Wait until it is over and all is let go of, or so long."""
        await asyncio.wait((self._watcher,), timeout=limit_s)

    async def _watch(self) -> None:
        """Wait for the end, take the reader's and writer's errors, and tell it."""
        while self._client.runstate.name == "RUNNING":
            await self._client.runstate_changed()
        _shut(self._sock)  # so that nothing waits for a peer that does not read
        error = await self._client.settled()
        if self._over is None:
            self._over = _trouble(error or EOFError())
        self._ended(self._over)


async def _settled(client: Client, sock: socket.socket, error: Exception) -> Exception:
    """The root of a failed start, with all of it ended.

    A peer whose first words after the negotiation make no sense ends the library's reader before
    `connect` is done, which then only says that it expected to run.
    """
    if client.runstate.name == "IDLE":
        return error
    _shut(sock)
    try:
        await client.disconnect()
    except Exception as root:  # noqa: BLE001 (whatever the peer brought about)
        return root
    return error


def _nobody(_trouble: Trouble) -> None:
    """Nobody listens any more."""


def _shut(sock: socket.socket) -> None:
    """End a connection both ways: the library's reader and writer come to their ends by it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _trouble(error: BaseException, command: str = "") -> Trouble:
    """What went wrong below, in words."""
    during = f" while it was asked for {command}" if command else ""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, (EOFError, ConnectionError)):
        return Trouble(Fault.BROKEN, f"QEMU closed the connection to its monitor{during}")
    kind = type(error).__name__
    return Trouble(
        Fault.BROKEN,
        f"what answers there does not speak QMP{during}",
        "is this the socket of a QMP monitor (-qmp), not of a human monitor or of the agent?",
        (f"{kind}: {printable(str(error).partition(chr(10))[0])}",),
    )


@cache
def _client_kind() -> type[Client]:
    """The library's client with our limits in it.

    Raises:
        MissingExtra: qemu.qmp is not installed.
    """
    try:
        from lastcall.targets.guest.qmp.client import Client
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("qemu"):
            raise
        raise MissingExtra(
            "talking to QEMU's monitor needs qemu.qmp",
            "pip install 'lastcall[qemu]', then try again",
        ) from error
    return Client


def _keep_quiet() -> None:
    """The library logs what we tell in our own words: not to the terminal, unless asked to.

    It gives its logger a handler that does nothing: any other is somebody's wish.
    """
    logger = logging.getLogger("qemu.qmp")
    if logger.level == logging.NOTSET and all(
        isinstance(each, logging.NullHandler) for each in logger.handlers
    ):
        logger.propagate = False
