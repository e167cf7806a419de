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
import errno
import os
import socket
import ssl
from functools import lru_cache
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from lastcall.drill.clients.tls import HTTP1, Tls
from lastcall.drill.history import Failure

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
_RETRY_S = 0.01
_unix_number = count(1)
Address: TypeAlias = str | tuple[object, ...]


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
            Broken: nothing listens (REFUSED), or there was no connection in time (UNREACHED).
        """
        for trail in self._trails:
            trail.attempted = monotonic()
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connect_any()
        except TimeoutError as error:
            raise Broken(Failure.UNREACHED, f"none within {CONNECT_S:g} s") from error

    async def _connect_any(self) -> None:
        """The first address that takes us; what the last one said when none does."""
        broken = Broken(Failure.UNREACHED, "its name has no address")
        for family, address in addresses(self.place):
            try:
                sock = prepared(family)
            except OSError as error:
                raise Broken(Failure.UNREACHED, f"no socket here: {error.strerror}") from error
            try:
                reset = await connect(sock, address)
            except OSError as error:
                sock.close()
                broken = Broken(unconnected(error), error.strerror or f"{error}")
            except BaseException:
                sock.close()
                raise
            else:
                self.adopt(sock, reset)
                return
        raise broken

    def adopt(self, sock: socket.socket, reset: str = "") -> None:
        """Go on with a socket that is connected, or was and has been reset already."""
        self._sock = sock
        self._refused = reset
        at = monotonic()
        number = sock.getsockname()[1] if sock.family != socket.AF_UNIX else next(_unix_number)
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
                self._refused = f"{_name(error)} at a write"
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
                await _ready(self._socket, read=room, write=True)
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
                await _ready(self._socket, read=True)

    def _pull(self) -> None:
        """Take in what the kernel has now."""
        if self._end is not None:
            return
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end = Failure.RESET, _name(error)
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


def prepared(family: socket.AddressFamily) -> socket.socket:
    """A socket of our kind, not connected.

    Raises:
        OSError: there is none to be had, such as when this process has too many.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def connect(sock: socket.socket, address: Address) -> str:
    """Connect, or go on with a connect that was begun without waiting.

    Returns:
        What a reset was called that came right behind the connection; empty: it stands. Only a
        connection that stood can be reset: one that was never there is refused (`tcp_reset`).

    Raises:
        OSError: it failed.
    """
    if sock.family == socket.AF_UNIX:
        await _connect_unix(sock, address)
        return ""
    try:
        sock.connect(address)
    except BlockingIOError:
        await _ready(sock, write=True)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        failed = error.errno or errno.ECONNREFUSED
    else:
        failed = 0
    if failed == errno.ECONNRESET:
        return errno.errorcode[failed]
    if failed:
        raise OSError(failed, os.strerror(failed))
    if is_itself(sock):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens (it met itself)")
    return ""


async def _connect_unix(sock: socket.socket, address: Address) -> None:
    """EAGAIN says that the backlog is full, and nothing wakes us when it no longer is (unix(7))."""
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_RETRY_S)
        else:
            return


def is_itself(sock: socket.socket) -> bool:
    """Whether a socket is connected to itself.

    On one machine a connect to a port that nobody listens on succeeds when the kernel happens to
    pick that very port for our own end (TCP's simultaneous open, RFC 9293, section 3.5).
    """
    try:
        return sock.family != socket.AF_UNIX and bool(sock.getsockname() == sock.getpeername())
    except OSError:  # its peer is gone again, so it had one
        return False


def unconnected(error: OSError) -> Failure:
    """What a failed connect means: nobody is there, or nobody can be reached."""
    refused = {errno.ECONNREFUSED, errno.ENOENT}
    return Failure.REFUSED if error.errno in refused else Failure.UNREACHED


async def _ready(sock: socket.socket, *, read: bool = False, write: bool = False) -> None:
    """Wait until it can be read or written.

    Nothing is taken from it meanwhile, so that a cancelled wait loses no byte: the result of
    `loop.sock_recv` is lost when its task is cancelled in the very turn that it came in.
    """
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    if read:
        loop.add_reader(sock, _wake, woken)
    if write:
        loop.add_writer(sock, _wake, woken)
    try:
        await woken
    finally:
        if read:
            loop.remove_reader(sock)
        if write:
            loop.remove_writer(sock)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, f"{error}")
