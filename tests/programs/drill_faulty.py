# The careful server with one fault planted: `drill_faulty.py PORT MODE [WORD]`. Each fault begins
# with the stop; with the word `always`, at once. `perfect` has none.
from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill.probe import careful, ledger, paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PORT, MODE, WORD = int(sys.argv[1]), sys.argv[2], [*sys.argv[3:], ""][0]
ALWAYS = WORD == "always"
LIMIT_S = {"cut-at-limit": 1.0}.get(MODE, careful.LIMIT_S)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
TEXT, CLOSE = 0x1, 0x8
TEN_GIB, CHUNK = 10 * 1024**3, bytes(65536)
SLOW = {"/slow", "/poll"}
KEEPS_LISTENER = {"reset-after-accept", "never-accept"}
guests: list[Guest] = []
held: list[socket.socket] = []
stopping: list[asyncio.Event] = []
slow_answers = 0


def reset(guest: careful.Connection) -> None:
    """Not an orderly end: the kernel sends RST (socket(7), SO_LINGER)."""
    sock = guest.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    guest.writer.transport.abort()


class Guest(careful.Connection):
    asked: paths.Asked | None = None
    headers: dict[str, str]
    served = 0

    async def serve(self) -> None:
        guests.append(self)
        try:
            await super().serve()
        finally:
            guests.remove(self)

    async def _answer_one(self) -> None:
        self.asked = None
        if MODE == "keep-alive" and self.house.closing and self.served:
            reset(self)
        await super()._answer_one()
        self.served += 1

    async def _read_body(self, headers: dict[str, str]) -> int:
        self.headers = headers
        return await super()._read_body(headers)

    async def _answer(self, status: int, text: bytes) -> None:
        path = self.asked.path if self.asked else ""
        if path == paths.WEBSOCKET and "websocket" in MODE:
            await self.websocket()
        elif ALWAYS or (self.house.closing and path in SLOW):
            await self.faulty(status, text)
        else:
            await super()._answer(status, text)

    async def faulty(self, status: int, text: bytes) -> None:
        global slow_answers  # noqa: PLW0603 (a short program)
        slow_answers += 1
        if MODE == "lose-one" and slow_answers == int(WORD):
            raise EOFError
        if MODE == "random" and random.random() < 0.5:
            reset(self)
        elif MODE == "garbage":
            self.last = True
            self.writer.write(b"\x00\x01\x02 no answer of HTTP\r\n\r\n")
        elif MODE == "endless":
            await self._head(200)
            await self.pour(None)
        elif MODE == "ten-gigabytes":
            self.last = True
            self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TEN_GIB)
            await self.pour(TEN_GIB)
        elif MODE == "five-hundred":
            await super()._answer(500, b"no longer\n")
        elif MODE == "answer-twice":
            self.last = True
            one = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
            self.writer.write((one.encode() + text) * 2)
        elif MODE == "hang":
            await asyncio.Event().wait()
        else:
            await super()._answer(status, text)

    async def pour(self, size: int | None) -> None:
        while size is None or size > 0:
            self.writer.write(CHUNK)
            await self.writer.drain()
            size = size and size - len(CHUNK)

    # -- a WebSocket by hand (RFC 6455), as far as the drill's client needs it

    async def websocket(self) -> None:
        self.last = True
        digest = hashlib.sha1(self.headers["sec-websocket-key"].encode() + GUID).digest()  # noqa: S324 (RFC 6455)
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        hearing = asyncio.ensure_future(self.hear())
        leaving = asyncio.ensure_future(stopping[0].wait())
        try:
            await asyncio.wait({hearing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if MODE == "cut-websocket" and not hearing.done():
                self.writer.transport.abort()
            elif MODE == "websocket" and not hearing.done():
                async with asyncio.timeout(2):
                    await self.idle.wait()
                self.writer.write(struct.pack("!BBH", 0x80 | CLOSE, 2, 1001))
            else:
                await hearing
        finally:
            hearing.cancel()
            leaving.cancel()
            await asyncio.gather(hearing, leaving, return_exceptions=True)

    async def hear(self) -> None:
        assert self.asked is not None
        self.idle = asyncio.Event()
        self.idle.set()
        while True:
            first, size = await self.reader.readexactly(2)
            mask, size = size & 0x80, size & 0x7F
            assert mask
            assert size < 126  # longer ones are never sent here
            key = await self.reader.readexactly(4)
            data = bytes(b ^ key[i % 4] for i, b in enumerate(await self.reader.readexactly(size)))
            if first & 0xF == CLOSE and MODE == "deaf-websocket":
                await asyncio.Event().wait()
            self.idle.clear()
            if first & 0xF == TEXT:
                await asyncio.sleep(self.asked.wait_s)
            self.writer.write(bytes((first, size)) + data)
            await self.writer.drain()
            self.idle.set()
            if first & 0xF == CLOSE:
                return


def at_the_stop(listener: socket.socket) -> bool:
    """Takes the place of what turns newcomers away, the first deed of the stop."""
    stopping[0].set()
    for guest in tuple(guests):
        path = guest.asked.path if guest.asked else ""
        half_sent = guest.asked is None and guest.patience is None
        if (MODE == "drop-half" and half_sent) or (MODE == "truncate" and path in paths.STREAMS):
            guest.writer.transport.abort()
    if MODE in KEEPS_LISTENER or WORD == "listening":
        held.append(listener.dup())  # stays when the server closes its own
        if MODE == "reset-after-accept":
            held[0].setblocking(False)
            asyncio.get_running_loop().add_reader(held[0], accept_and_reset)
        return True
    return listener.family == socket.AF_UNIX or filter_newcomers(listener)


def accept_and_reset() -> None:
    with contextlib.suppress(BlockingIOError):
        sock, _ = held[0].accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def understand(path: str, query: str) -> paths.Asked | None:
    asked = really_understand(path, query)
    if MODE == "die" and asked is not None and asked.path in SLOW:
        print("cannot go on", flush=True)
        os._exit(4)
    if MODE == "nothing-in-flight" and asked is not None:
        asked = replace(asked, wait_s=0.0)
    current = asyncio.current_task()
    for guest in guests:
        if current is not None and guest.house.guests.get(current) is guest:
            guest.asked = asked
    return asked


def order(key: str) -> None:
    at_work = bool(stopping) and stopping[0].is_set() and "-in-handler" in key
    if MODE == "half-execute" and at_work:
        raise EOFError  # the payment stands; the connection ends without an answer
    really_order(key)
    if MODE == "execute-twice" and at_work:
        really_order(key)


def listen(address: tuple[str, int], **options: Any) -> socket.socket:
    """Takes the place of `socket.create_server`."""
    if MODE == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(WORD)
        listener.listen(128)
        return listener
    if MODE == "six":
        return really_listen(("::1", address[1]), family=socket.AF_INET6, **options)
    if MODE in {"any-six", "dual"}:
        both = MODE == "dual"
        options |= {"family": socket.AF_INET6, "dualstack_ipv6": both}
        return really_listen(("::", address[1]), **options)
    return really_listen(address, **options)


def say(text: str, **_options: bool) -> None:
    """Takes the place of `print` in the careful server: it is ready."""
    print(text, flush=True)
    if MODE == "notify":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect(os.environ["NOTIFY_SOCKET"])
            link.send(b"READY=1")


def go_into_background() -> None:
    """As daemon(3), twice forked: the starter ends, and the server is nobody's child."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def serve_anew() -> int:
    """A parent that ends its server and starts another at each SIGHUP: a restart with a gap."""
    command = [sys.executable, "-u", __file__, str(PORT), "perfect"]
    server = [subprocess.Popen(command)]
    signals = {signal.SIGHUP, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while signal.sigwait(signals) == signal.SIGHUP:
        server[0].terminate()
        server[0].wait()
        server[0] = subprocess.Popen(command)
    server[0].terminate()
    return server[0].wait()


def leave_child() -> None:
    subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[s.fileno() for s in held]
    )


def second_signal(serving: asyncio.Future[int]) -> None:
    if stopping[0].is_set():
        serving.cancel()
    signal.raise_signal(signal.SIGINT)  # the careful server stops at that, too


async def main() -> int:
    stopping.append(asyncio.Event())
    serving = asyncio.ensure_future(careful.serve(PORT, LIMIT_S))
    await asyncio.sleep(0)  # now its signal handlers are set
    if MODE == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE == "no-handler":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if MODE == "second":
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, second_signal, serving)
    if MODE == "leave-child" and WORD != "listening":
        leave_child()
    try:
        code = await serving
    except asyncio.CancelledError:
        return 0
    if MODE == "leave-child" and WORD == "listening":
        leave_child()
    return 0 if MODE == "cut-at-limit" and WORD != "error" else code


filter_newcomers: Callable[[socket.socket], bool] = careful.turn_newcomers_away
really_understand, really_order = paths.understand, ledger.order
really_listen = socket.create_server
if MODE == "restarting":
    sys.exit(serve_anew())
if MODE == "daemon":
    go_into_background()
if MODE in {"perfect", "daemon"}:
    sys.argv[2:] = []
    careful.main()
careful.Connection = Guest  # type: ignore[misc]
careful.turn_newcomers_away = at_the_stop
careful.order = order  # type: ignore[attr-defined]
careful.print = say  # type: ignore[attr-defined]
careful._REASON[500] = "Internal Server Error"
paths.understand = understand
socket.create_server = listen  # type: ignore[assignment]
sys.exit(asyncio.run(main()))
