"""One connection of the background load: it carries one request after the other.

Written by hand over a non-blocking socket, as `wire` is and for the same reasons, but with
callbacks of the event loop instead of a task and a future for each step: thousands of requests a
second are to leave room for everything else on the same core.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from lastcall.drill.clients.follow import break_off
from lastcall.drill.clients.reach import errno_name, is_itself, prepared, unix_number
from lastcall.drill.clients.reply import Reply
from lastcall.drill.clients.tls import Tls
from lastcall.drill.clients.wire import Broken, unconnected, worse
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    import asyncio

    from lastcall.drill.place import Place
    from lastcall.drill.trail import Trail

_CHUNK = 64 * 1024
# A reset refuses a connect with ECONNREFUSED; with these, there was a connection, and it was reset
# before we looked (Linux, tcp_reset in net/ipv4/tcp_input.c).
_STOOD = {errno.ECONNRESET, errno.EPIPE}


class Owner(Protocol):
    """Who has lines, and hears what becomes of them."""

    def free(self, line: Line) -> None:
        """The line stands, and carries nothing."""

    def gone(self, line: Line) -> None:
        """The line, which stood, is closed."""

    def unconnected(self, line: Line, failure: Failure | None, note: str) -> None:
        """No connection; failure None: not yet, the backlog of a Unix socket is full.

        A line with a time of connection had one, and was reset, or its TLS handshake failed.
        """


class Line:
    """One connection that is opened, used many times, and opened again.

    Args:
        owner: hears what becomes of it.
        place: where the server is.
        addresses: where to connect to, in order, as `wire.addresses` gives them.
        loop: the running event loop.
        head_only: whether the requests are HEAD.
    """

    def __init__(
        self,
        owner: Owner,
        place: Place,
        addresses: tuple[tuple[socket.AddressFamily, str | tuple[object, ...]], ...],
        loop: asyncio.AbstractEventLoop,
        *,
        head_only: bool,
    ) -> None:
        self.trail: Trail | None = None
        self.began: float = 0.0
        self.connected: float | None = None
        self.number: int = 0
        self.carried: int = 0
        """How many requests this connection has carried, answered or not."""
        self._owner = owner
        self._place = place
        self._addresses = addresses
        self._loop = loop
        self._head_only = head_only
        self._sock: socket.socket | None = None
        self._tls: Tls | None = None
        self._shaking = False
        self._reply = Reply(head_only=head_only)
        self._took = 0.0
        self._rest: memoryview | None = None
        self._refused = ""
        self._broken: Broken | None = None

    # -- connecting

    def open(self) -> None:
        """Connect; the owner hears of it, maybe at once."""
        self.began = monotonic()
        self.connected = None
        self.number = self.carried = 0
        self._tls, self._shaking = None, False
        self._broken = None
        self._try(0)

    def _try(self, nth: int) -> None:
        if nth >= len(self._addresses):
            self._owner.unconnected(self, Failure.UNREACHED, "its name has no address")
            return
        family, address = self._addresses[nth]
        try:
            self._sock = sock = prepared(family)
        except OSError as error:
            broken = unconnected(error, family)
            self._owner.unconnected(self, broken.failure, broken.note)
            return
        try:
            sock.connect(address)
        except BlockingIOError:
            if family != socket.AF_UNIX:
                self._loop.add_writer(sock, self._tried, nth)
                return
            # A full backlog, and nothing wakes us when it no longer is (unix(7), EAGAIN).
            self.close()
            self._owner.unconnected(self, None, "")
        except OSError as error:
            self._not_there(error, nth)
        else:
            self._stands()

    def _tried(self, nth: int) -> None:
        """The kernel has an answer to our connect."""
        sock = self._socket
        self._loop.remove_writer(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number in _STOOD:
            self.connected, self.number = monotonic(), _port(sock)
            self.close()
            self._owner.unconnected(self, Failure.RESET, "before anything was sent")
        elif number:
            self._not_there(OSError(number, os.strerror(number)), nth)
        elif is_itself(sock):
            self._not_there(
                ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens (it met itself)"), nth
            )
        else:
            self._stands()

    def _not_there(self, error: OSError, nth: int) -> None:
        self.close()
        self._broken = broken = worse(self._broken, unconnected(error, *self._addresses[nth]))
        if nth + 1 < len(self._addresses):
            self._try(nth + 1)
        else:
            self._owner.unconnected(self, broken.failure, broken.note)

    def _stands(self) -> None:
        sock = self._socket
        self.connected = monotonic()
        self.number = _port(sock)
        self._loop.add_reader(sock, self._readable)
        self._reply = Reply(head_only=self._head_only)
        if self._place.tls:
            self._shaking, self._tls = True, Tls(self._place)
            self._shake(self._tls, b"")
        else:
            self._owner.free(self)

    def _shake(self, tls: Tls, data: bytes) -> None:
        try:
            tls.incoming(data)
            done = tls.shake()
            if out := tls.outgoing():
                self._socket.send(out)  # the buffer of a fresh connection takes a handshake
        except ssl.SSLError as error:
            self._ended(Failure.GARBAGE, f"TLS: {error.reason or error}")
        except OSError as error:
            self._ended(Failure.RESET, errno_name(error))
        else:
            if done:
                self._shaking = False
                self._owner.free(self)

    # -- a request

    def take(self, trail: Trail, data: bytes) -> Broken | None:
        """Send a request on a line that is free.

        Args:
            trail: of the request.
            data: all of it.

        Returns:
            None: it is under way. Otherwise how the line was over already; it is closed, and not
            one byte was sent.
        """
        try:
            self._look()
            if self._tls is not None:
                data = self._tls.encrypt(data)
            at = monotonic()
            sent = self._send(data)
        except (Broken, OSError) as error:  # an SSLError is an OSError
            self.close()
            if isinstance(error, Broken):
                return error
            if isinstance(error, ssl.SSLError):
                return Broken(Failure.GARBAGE, f"TLS: {error.reason or error}")
            return Broken(Failure.RESET, "before anything was sent")
        self.trail, self._took = trail, at
        trail.connected, trail.connection = self.connected, self.number
        trail.steady = True
        self.carried += 1
        if sent:
            trail.sent = at
        if sent == len(data):
            trail.sent_all = monotonic()
        else:
            self._rest = memoryview(data)[sent:]
            self._loop.add_writer(self._socket, self._writable)
        return None

    def _look(self) -> None:
        """See what came while nobody looked: the loop may not have told of it yet.

        A first write succeeds although the peer has closed, so that a request would count as sent
        which nobody was to read. What the server says on a line that was used is its farewell, and
        not the answer to what comes next.

        Raises:
            Broken: it is over.
            OSError: it was reset, or TLS was broken.
        """
        closed = False
        while not closed:
            try:
                data = self._socket.recv(_CHUNK, 0 if self._tls else socket.MSG_PEEK)
            except BlockingIOError:
                return
            closed = not data
            if self._tls is not None and data:
                data, closed = self._tls.decrypt(data)  # it may be no more than a session ticket
            elif data and not self.carried:
                return  # a 503 at once, say: that is how this server receives it
            if data:
                raise Broken(Failure.CLOSED, "it spoke before anything was sent")
        raise Broken(Failure.CLOSED, "before anything was sent")

    def _send(self, data: bytes) -> int:
        """How many of the bytes the kernel took."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _writable(self) -> None:
        assert self._rest is not None  # noqa: S101 (only then this is called)
        at = monotonic()
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError as error:
            # An answer may lie there already: reading tells what became of it.
            self._refused = errno_name(error)
            self._loop.remove_writer(self._socket)
            return
        trail = self.trail
        if trail is not None and trail.sent is None:
            trail.sent = at
        if not self._rest:
            self._rest = None
            self._loop.remove_writer(self._socket)
            if trail is not None:
                trail.sent_all = monotonic()

    # -- its answer

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._ended(Failure.RESET, errno_name(error))
            return
        if not data:
            self._closed()
        elif self._tls is None:
            self._feed(data)
        elif self._shaking:
            self._shake(self._tls, data)
        else:
            self._decrypt(self._tls, data)

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        sock = self._sock
        try:
            plain, closed = tls.decrypt(data)
        except ssl.SSLError as error:
            self._ended(Failure.GARBAGE, f"TLS: {error.reason or error}")
            return
        if plain:
            self._feed(plain)
        if closed and self._sock is sock:
            self._closed()

    def _feed(self, data: bytes) -> None:
        trail = self.trail
        if trail is None:  # nothing was asked: a 408 as a farewell, say
            self._drop()
            return
        try:
            whole = self._reply.feed(trail, data, monotonic())
        except Broken as broken:
            self._ended(broken.failure, broken.note)
            return
        if whole:
            self._answered()

    def _closed(self) -> None:
        if self.trail is not None and self._reply.closed(self.trail, monotonic()):
            self._answered()
        elif self._refused:
            self._ended(Failure.RESET, f"{self._refused} at a write")
        else:
            self._ended(Failure.CLOSED)

    def _answered(self) -> None:
        self.trail = None
        if self._reply.last or self._rest is not None:
            self._drop()
        else:
            self._owner.free(self)

    # -- its end

    def _ended(self, failure: Failure, note: str = "") -> None:
        if self._shaking:
            self.close()
            self._owner.unconnected(self, failure, note or "in the TLS handshake")
            return
        if self.trail is not None:
            break_off(self.trail, Broken(failure, note), self._reply.got)
            self.trail = None
        self._drop()

    def expire(self, before: float) -> None:
        """Give up what was begun before this time of `time.monotonic`."""
        trail = self.trail
        if trail is not None:
            if self._took < before:
                got = self._reply.got
                note = f"{got} bytes of the answer had come" if got else ""
                self._ended(Failure.HUNG, note)
        elif self._sock is not None and self.began < before and self._waits:
            self.close()
            what = "no end of the TLS handshake" if self._shaking else "no answer to a connect"
            self._owner.unconnected(self, Failure.UNREACHED, what)

    @property
    def _waits(self) -> bool:
        """Whether it is on its way to a connection."""
        return self.connected is None or self._shaking

    @property
    def _socket(self) -> socket.socket:
        assert self._sock is not None  # noqa: S101 (a line that is open has one)
        return self._sock

    def _drop(self) -> None:
        self.close()
        self._owner.gone(self)

    def close(self) -> None:
        """Let go of the socket; the owner is not told."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
        self._rest, self._refused = None, ""


def _port(sock: socket.socket) -> int:
    return int(next(unix_number) if sock.family == socket.AF_UNIX else sock.getsockname()[1])
