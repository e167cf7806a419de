"""One connection over a plain socket: every byte and every error of it is seen.

asyncio's own streams hide what a drill is about: whether the peer closed (`recv` gives nothing) or
reset (ECONNRESET), whether the kernel took the first byte of a request, and what stood in the
receive buffer when a write failed. So the socket is read and written by hand.

Two facts that this rests on (Linux, `tcp_reset` and `tcp_recvmsg` of net/ipv4): bytes that came
before a reset can still be read, and once the peer has closed, a first write succeeds and later
ones fail with EPIPE, while reading goes on to say "closed".
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients.reach import (
    Address,
    connect,
    errno_name,
    is_shortage,
    prepared,
    unix_number,
)
from lastcall.drill.clients.tls import HTTP1, Tls
from lastcall.drill.history import Failure
from lastcall.kernel.ready import ready

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from lastcall.drill.place import Place
    from lastcall.drill.trail import Trail

CONNECT_S = 5.0
_CHUNK = 64 * 1024
# While a write is stuck, so much of what comes meanwhile is taken in: an answer sent before the
# request was read, such as a 413 or a 503, must not be waited for in vain.
_EARLY_BYTES = 1024 * 1024
_SPOKEN_S = 1.0


class Broken(Exception):
    """The connection or the answer on it is over; not an error to show, only a way out.

    Args:
        failure: how.
        note: what else is known.
    """

    def __init__(self, failure: Failure, note: str = "") -> None:
        super().__init__(failure, note)
        self.failure = failure
        self.note = note


class Wire:
    """A connection, with the attempts that it carries.

    Args:
        place: where the server is.
        trails: the attempts; they are told when it was tried, and when it stood.
    """

    def __init__(self, place: Place, trails: Sequence[Trail]) -> None:
        self.place = place
        self.tls: Tls | None = None
        self.answered = 0
        """Bytes that have come of the answer that is under way."""
        self._trails = trails
        self._sock: socket.socket | None = None
        self._inbox = bytearray()
        self._end: tuple[Failure, str] | None = None
        self._refused = ""

    async def open(self, alpn: tuple[str, ...] = HTTP1) -> None:
        """Connect, and shake hands where the place has TLS.

        Raises:
            Broken: nothing listens, or not in time, or the handshake failed.
        """
        await self.connect()
        if self.place.tls:
            await self.secure(Tls(self.place, alpn))

    async def connect(self) -> None:
        """Connect, without TLS.

        Raises:
            Broken: nothing listens (REFUSED), there was no connection in time (UNREACHED), or
                this machine had no socket or port for it (OURS).
        """
        for trail in self._trails:
            trail.attempted = monotonic()
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connect_any()
        except TimeoutError as error:
            raise Broken(Failure.UNREACHED, f"none within {CONNECT_S:g} s") from error

    async def _connect_any(self) -> None:
        """The first address that takes us; why there is none otherwise."""
        broken: Broken | None = None
        for family, address in addresses(self.place):
            try:
                sock = prepared(family)
            except OSError as error:
                raise unconnected(error, family) from error
            try:
                reset = await connect(sock, address)
            except OSError as error:
                sock.close()
                broken = worse(broken, unconnected(error, family, address))
            except BaseException:
                sock.close()
                raise
            else:
                self.adopt(sock, reset)
                return
        raise broken or Broken(Failure.UNREACHED, "its name has no address")

    def adopt(self, sock: socket.socket, reset: str = "") -> None:
        """Go on with a socket that is connected, or was and has been reset already."""
        self._sock = sock
        self._refused = reset
        at = monotonic()
        number = sock.getsockname()[1] if sock.family != socket.AF_UNIX else next(unix_number)
        for trail in self._trails:
            trail.connected = at
            trail.connection = number

    async def secure(self, tls: Tls) -> None:
        """Bring a TLS handshake to its end, whoever began it.

        Raises:
            Broken: the server closed, reset, or broke the protocol.
        """
        try:
            while not tls.shake():
                await self.send(tls.outgoing())
                if not (data := await self.recv()):
                    raise Broken(Failure.CLOSED, "in the TLS handshake")
                tls.incoming(data)
            await self.send(tls.outgoing())
            self.tls = tls
            self._take(b"")  # what came right behind the handshake
        except ssl.SSLError as error:
            raise Broken(Failure.GARBAGE, f"TLS: {error.reason or error}") from error

    async def send(self, data: bytes, trail: Trail | None = None, *, last: bool = False) -> None:
        """Write all of it, or as much as the peer's kernel takes before the connection is over.

        That it is over is not told here but by the next `recv`, after what came before it: an
        answer may lie there already.

        Args:
            data: the bytes.
            trail: is told when the first byte of it was written; None: nobody.
            last: and when the last one was.
        """
        try:
            data = data if self.tls is None else self.tls.encrypt(data)
        except ssl.SSLError as error:
            self._refused = f"TLS: {error.reason or error}"
            return
        rest = memoryview(data)
        while rest and self._end is None and not self._refused:
            at = monotonic()
            try:
                sent = self._socket.send(rest)
            except BlockingIOError:
                if await self._stuck():
                    continue
                return
            except OSError as error:
                self._refused = f"{errno_name(error)} at a write"
                return
            rest = rest[sent:]
            if trail is not None and trail.sent is None:
                trail.sent = at
        if trail is not None and last and not rest:
            trail.sent_all = monotonic()

    async def recv(self) -> bytes:
        """The next bytes; none at all: the peer closed.

        Raises:
            Broken: it was reset, or TLS was broken.
        """
        await self._fill()
        # A server that sends faster than we read must not keep the others waiting.
        await asyncio.sleep(0)
        if self._inbox:
            data = bytes(self._inbox)
            self._inbox.clear()
            return data
        if self._refused:
            raise Broken(Failure.RESET, self._refused)
        failure, note = self._end or (Failure.CLOSED, "")
        if failure is Failure.CLOSED:
            return b""
        raise Broken(failure, note)

    async def _stuck(self) -> bool:
        """Wait until a write may go on; False: the peer has spoken and reads no more."""
        room = len(self._inbox) < _EARLY_BYTES
        try:
            async with asyncio.timeout(_SPOKEN_S if self._inbox else None):
                await ready(self._socket, read=room, write=True)
        except TimeoutError:
            return False
        if room:
            self._pull()
        return True

    def unread(self, data: bytes) -> None:
        """Put bytes back that belong to what follows."""
        self._inbox[:0] = data

    async def stirred(self, moment: Coroutine[None, None, None]) -> bool:
        """Wait for a moment; True: before it something came, be it bytes or an end."""
        filling, waiting = asyncio.ensure_future(self._fill()), asyncio.ensure_future(moment)
        try:
            await asyncio.wait({filling, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            filling.cancel()
            waiting.cancel()
            await asyncio.gather(filling, waiting, return_exceptions=True)
        self._pull()
        return self._over

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @property
    def _socket(self) -> socket.socket:
        if self._sock is None:
            raise Broken(Failure.UNREACHED, "there is no connection")
        return self._sock

    @property
    def _over(self) -> bool:
        return bool(self._inbox) or self._end is not None

    async def _fill(self) -> None:
        """Read until there is something to give, or no more to come."""
        while not self._over:
            self._pull()
            if not self._over:
                await ready(self._socket, read=True)

    def _pull(self) -> None:
        """Take in what the kernel has now."""
        if self._end is not None:
            return
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end = Failure.RESET, errno_name(error)
        else:
            if data:
                self._take(data)
            else:
                self._end = Failure.CLOSED, ""

    def _take(self, data: bytes) -> None:
        if self.tls is None:
            self._inbox += data
            return
        try:
            plain, closed = self.tls.decrypt(data)
        except ssl.SSLError as error:
            self._end = Failure.GARBAGE, f"TLS: {error.reason or error}"
            return
        self._inbox += plain
        if closed:
            self._end = Failure.CLOSED, ""


@lru_cache
def addresses(place: Place) -> tuple[tuple[socket.AddressFamily, Address], ...]:
    """Where to connect to, in order. A name is looked up once, and not while the clock runs.

    Raises:
        Broken: the name is not known.
    """
    if place.unix:
        return ((socket.AF_UNIX, place.unix),)
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Broken(Failure.UNREACHED, f"{place.host}: {error.strerror}") from error
    return tuple((socket.AddressFamily(family), address) for family, _, _, _, address in found)


def unconnected(
    error: OSError, family: socket.AddressFamily | int, address: Address = ()
) -> Broken:
    """What a failed connect means: nobody is there, nobody can be reached, or it was our fault.

    Args:
        error: what the kernel said.
        family: of the socket.
        address: where it was to go; empty: there was no socket.
    """
    said = error.strerror or f"{error}"
    if is_shortage(error, family, address):
        return Broken(Failure.OURS, f"{errno_name(error)}: {said}")
    refused = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
    return Broken(Failure.REFUSED if refused else Failure.UNREACHED, said)


def worse(before: Broken | None, now: Broken) -> Broken:
    """What is told of two addresses that both failed: the last, unless the first was our fault."""
    return before if before is not None and before.failure is Failure.OURS else now
