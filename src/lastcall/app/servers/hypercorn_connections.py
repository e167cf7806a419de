"""The connections of a hypercorn server, as far as they can be had without replacing any of it.

hypercorn hands an application functions that are bound to its streams; those know their protocol,
and that its connection. The transports are noted as the loop makes them.

A client that has gone is noticed by hypercorn only when its connection has been idle for
`keep_alive_timeout`: until then it looks as if it were closing. Those are closed here.

HTTP/2: GOAWAY comes in two steps (RFC 9113, 6.8). The first, as soon as the drain begins, says that
streams are still served, so that the client opens no more. The second says which was the last, once
nothing is in flight and late streams have had their moment; the connection is closed with it.

Source: hypercorn 0.18.0: protocol/h11.py, protocol/h2.py, protocol/http_stream.py,
asyncio/tcp_server.py, asyncio/task_group.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from hypercorn.events import Closed, RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hyperframe.frame import GoAwayFrame

from lastcall.app.http.leftover import unread
from lastcall.app.http.serving import LINGER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from lastcall.app.lifecycle import Lifecycle

_ALL_STREAMS = 2**31 - 1
_LOOK_S = 0.01
_READ_S = 0.05
# The kernel ends idle connections at the end of their moment: GOAWAY has to come before.
_LATE_S = LINGER_S * 0.9


class Connections:
    """Those that have had a request, while they last.

    Args:
        lifecycle: of this process.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._draining = lifecycle.draining
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._gone: WeakSet[asyncio.BaseTransport] = WeakSet()  # their client has ended them
        self._known: WeakSet[H2Protocol] = WeakSet()
        self._busy: Counter[asyncio.BaseTransport] = Counter()
        self._leaving: dict[H2Protocol, asyncio.Task[None]] = {}
        self._late_s = 0.0

    def watched(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """A protocol of asyncio's streams whose transport is noted.

        Args:
            factory: what makes it.
        """
        protocol: Any = factory()
        made, ended = protocol.connection_made, protocol.eof_received
        seen: list[asyncio.BaseTransport] = []

        def connection_made(transport: asyncio.BaseTransport) -> None:
            seen.append(transport)
            self._transports.add(transport)
            made(transport)

        def eof_received() -> object:
            self._gone.update(seen)
            if self._draining.is_set():
                self._close_gone_soon()
            return ended()

        protocol.connection_made, protocol.eof_received = connection_made, eof_received
        found: asyncio.BaseProtocol = protocol
        return found

    @contextmanager
    def note(self, send: Any) -> Iterator[H11Protocol | H2Protocol | None]:  # noqa: ANN401 (a bound method)
        """A request is in hand.

        Args:
            send: what hypercorn gave for its answer.
        """
        stream = getattr(send, "__self__", None)
        protocol = getattr(getattr(stream, "send", None), "__self__", None)
        if not isinstance(protocol, H11Protocol | H2Protocol):
            yield None
            return
        transport = _server_of(protocol).writer.transport
        if isinstance(protocol, H2Protocol):
            self._known.add(protocol)
            if self._draining.is_set():
                self._let_leave(protocol)
        self._busy[transport] += 1
        try:
            yield protocol
        finally:
            self._busy[transport] -= 1
            if not self._busy[transport]:
                del self._busy[transport]

    def more_behind(self, protocol: H11Protocol | H2Protocol | None) -> bool:
        """Whether another request has come behind the one in hand, or a part of one."""
        if not isinstance(protocol, H11Protocol):
            return False
        if isinstance(protocol.connection, H11WSConnection):
            return False
        server = _server_of(protocol)
        reader, writer = server.reader, server.writer
        found = writer.get_extra_info("socket")
        return bool(
            protocol.connection.trailing_data[0]
            or getattr(reader, "_buffer", b"")  # there is no other way to ask a StreamReader
            or (found is not None and unread(found.fileno()))
        )

    def leave(self) -> None:
        """The drain begins."""
        if not self._late_s:
            self._late_s = asyncio.get_running_loop().time() + _LATE_S
        for protocol in list(self._known):
            self._let_leave(protocol)
        self._close_gone_soon()

    def abort(self) -> None:
        """Cut all of them."""
        for transport in list(self._transports):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    def _close_gone_soon(self) -> None:
        # What came before the end is read and handed to the application by then.
        asyncio.get_running_loop().call_later(_READ_S, self._close_gone)

    def _close_gone(self) -> None:
        for transport in list(self._gone):
            if transport not in self._busy:
                transport.close()

    def _let_leave(self, protocol: H2Protocol) -> None:
        if protocol not in self._leaving and not protocol.closed:
            task = asyncio.get_running_loop().create_task(self._leave(protocol))
            self._leaving[protocol] = task
            task.add_done_callback(lambda _: self._leaving.pop(protocol, None))

    async def _leave(self, protocol: H2Protocol) -> None:
        loop = asyncio.get_running_loop()
        await protocol.send(RawData(data=_goaway(_ALL_STREAMS)))
        while not protocol.closed and not (protocol.idle and loop.time() >= self._late_s):  # noqa: ASYNC110 (no event tells it)
            await asyncio.sleep(_LOOK_S)
        if not protocol.closed:
            last = protocol.connection.highest_inbound_stream_id
            await protocol.send(RawData(data=_goaway(last)))
            await protocol.send(Closed())


def _server_of(protocol: H11Protocol | H2Protocol) -> Any:  # noqa: ANN401 (found by its bound method)
    return getattr(protocol.send, "__self__", None)


def _goaway(last_stream: int) -> bytes:
    # Not by h2's close_connection(): after it, what is in flight could not be answered any more.
    return bytes(GoAwayFrame(stream_id=0, last_stream_id=last_stream).serialize())
