"""A server that keeps its word when it is stopped, in the standard library alone, to be read.

    python -m lastcall.drill.probe.careful 8000

On SIGTERM, in this order:

1. It turns newcomers away before they are connections: the listening socket is bound to a network
   interface that does not exist, so that the kernel refuses them.
2. It accepts everybody who is in the queue already, and closes the listener.
3. What was begun is finished: half-sent requests, uploads, streams, work. Each answer now says
   `Connection: close`.
4. A connection without a request may still bring one, for a moment; then it is ended in order.
5. It exits with 0 once nobody is left. What is not done within the limit is cut, and then it
   exits with 1.

One race remains, and HTTP/1.1 has no cure for it: a client that begins a request on an idle
connection at the very instant at which the moment of step 4 is over.

Source: RFC 9112, 9.3 to 9.6 (persistence, closing); socket(7); asyncio streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot

LIMIT_S = 20.0
MOMENT_S = 2.0
KEEP_ALIVE_S = 75.0
HEAD_S = 10.0
DRAIN_S = 0.02
LINGER_S = 2.0
_AT_HAND_S = 0.001
_CHUNK_BYTES = 65536
_REASON = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    431: "Request Header Fields Too Large",
}
_SO_BINDTOIFINDEX = 62  # asm-generic/socket.h; not in Python's socket module
_NOWHERE = 0x6C617374  # no interface has such an index


def turn_newcomers_away(listener: socket.socket) -> bool:
    """Let the kernel refuse whoever comes to this listener from now on, and nobody else.

    The socket is bound to a network interface that does not exist: who is in the queue, or in the
    middle of his handshake, goes on to it; for a new one nobody listens. Without it, a client that
    connects between our last accept() and the close is reset although it was connected. False: not
    to be had here (another system, or Linux before 5.7): that gap, some ten microseconds wide,
    remains.

    Source: net/core/sock.c, sock_bindtoindex_locked(); net/ipv4/inet_hashtables.c, compute_score().
    """
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NOWHERE)
    except OSError:
        return False
    return True


class Bad(Exception):
    """A request that cannot be served: it is answered with this status, and the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class House:
    """Who is being served, and whether the house is closing."""

    def __init__(self) -> None:
        self.closing = False
        self.guests: dict[asyncio.Task[None], Connection] = {}

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (asyncio calls this as a task)
        self.guests[task] = guest = Connection(self, reader, writer)
        try:
            await guest.serve()
        except (OSError, EOFError):
            pass  # the client left in the middle: nobody is there to be answered
        finally:
            writer.close()
            del self.guests[task]

    async def close(self, limit_s: float) -> int:
        """Wait for all to leave. Returns how many had to be cut off."""
        now = asyncio.get_running_loop().time
        end = now() + limit_s
        for guest in self.guests.values():
            if guest.patience is not None and not guest.patience.expired():
                guest.patience.reschedule(now() + MOMENT_S)
        while self.guests and (left_s := end - now()) > 0:
            await asyncio.wait(self.guests, timeout=left_s)
        return len(self.guests)


class Connection:
    """One client's requests, one after the other."""

    def __init__(
        self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.house = house
        self.reader = reader
        self.writer = writer
        self.patience: asyncio.Timeout | None = None  # while it waits for a request
        self.more: bytes = b""  # of the next request, its first byte
        self.last: bool = False  # no request is taken after this one
        self.bodiless: bool = False  # the request is a HEAD

    async def serve(self) -> None:
        """Answer requests until either side has had enough, and leave in order."""
        try:
            while not self.last and await self._request_within(
                MOMENT_S if self.house.closing else KEEP_ALIVE_S
            ):
                await self._answer_one()
        except Bad as bad:
            self.last = True
            await self._answer(bad.status, f"{bad}\n".encode())
        # Closing with bytes unread would make the kernel send a reset, which can destroy the
        # answer on its way: say goodbye first, and listen until the client has left.
        self.writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await self.reader.read(_CHUNK_BYTES):
                    pass

    async def _request_within(self, wait_s: float) -> bool:
        """Wait for the first byte of a request. False: none came."""
        if not self.more:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s) as self.patience:
                    self.more = await self.reader.read(1)
            self.patience = None
        return bool(self.more)

    async def _answer_one(self) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                head = self.more + await self.reader.readuntil(b"\r\n\r\n")
        except TimeoutError as error:
            raise Bad(408, "the rest of the request did not come") from error
        except asyncio.LimitOverrunError as error:
            raise Bad(431, "too many headers") from error
        self.more = b""
        line, *fields = head.decode("latin-1").strip().split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        headers = {k.strip().lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}
        self.bodiless = method == "HEAD"
        if method not in {"GET", "HEAD", "POST", "PUT"}:
            raise Bad(405, "GET, HEAD, POST or PUT")
        self.last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
        taken = await self._read_body(headers)
        path, _, query = target.partition("?")
        try:
            asked = paths.understand(path, query)
        except paths.BadAsk as error:
            raise Bad(400, str(error)) from error
        if asked is None or asked.path == paths.WEBSOCKET:
            await self._answer(404, b"no such path\n")
        elif asked.path in paths.STREAMS and not self.bodiless:
            await self._stream(asked, chunked=asked.length is None and version == "HTTP/1.1")
        else:
            pay(asked.key)
            await asyncio.sleep(asked.wait_s)
            order(asked.key)
            await self._answer(200, b"%d\n" % taken if asked.path == paths.UPLOAD else asked.text)

    async def _read_body(self, headers: dict[str, str]) -> int:
        if "transfer-encoding" in headers:
            raise Bad(411, "send the body with its length")
        stated = headers.get("content-length", "0")
        if not (stated.isascii() and stated.isdigit()):
            raise Bad(400, "Content-Length is no number")
        if headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = left = int(stated)
        while left:
            chunk = await self.reader.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise EOFError
            left -= len(chunk)
        return length

    async def _head(self, status: int, *fields: str) -> None:
        """Begin an answer; whether it is the last is decided only now, after the work."""
        if self.house.closing and not self.last:
            # A request that is here already, behind this one, was sent in good faith.
            self.last = not await self._request_within(_AT_HAND_S)
        lines = [f"HTTP/1.1 {status} {_REASON[status]}", *fields]
        if self.last:
            lines.append("Connection: close")
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def _answer(self, status: int, text: bytes) -> None:
        await self._head(status, "Content-Type: text/plain", f"Content-Length: {len(text)}")
        if not self.bodiless:
            self.writer.write(text)
        await self.writer.drain()

    async def _stream(self, asked: paths.Asked, *, chunked: bool) -> None:
        pay(asked.key)
        length = [f"Content-Length: {asked.length}"] if asked.length is not None else []
        coding = ["Transfer-Encoding: chunked"] if chunked else []
        await self._head(200, f"Content-Type: {asked.content_type}", *length, *coding)

        async def send(piece: bytes) -> None:
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writer.drain()

        for piece in asked.stream():
            await asyncio.sleep(asked.pause_s)
            await send(piece)
        order(asked.key)
        await send(asked.last)
        if chunked:
            await send(b"")  # a chunk of length 0 ends it


async def serve(port: int, limit_s: float = LIMIT_S) -> int:
    """Serve until SIGTERM (or Ctrl+C), then finish. Returns what to exit with."""
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, asked_to_stop.set)  # a second one changes nothing
    house = House()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    server = await asyncio.start_server(house.welcome, sock=listener, backlog=1024)
    print(f"ready (pid: {os.getpid()})", flush=True)  # noqa: T201 (a program's own word)
    await asked_to_stop.wait()
    house.closing = True
    turn_newcomers_away(listener)
    await asyncio.sleep(DRAIN_S)  # handshakes under way end, and the loop accepts them
    server.close()
    await asyncio.sleep(DRAIN_S)  # those accepted last become guests
    cut = await house.close(limit_s)
    return 1 if cut else 0


def main() -> None:
    """Serve on the port that the command line names, with a limit in seconds if it says one."""
    slow_boot()
    sys.exit(asyncio.run(serve(int(sys.argv[1]), *map(float, sys.argv[2:3]))))


if __name__ == "__main__":
    main()
