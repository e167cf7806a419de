"""HTTP/2 streams over one connection (RFC 9113): some open at the stop, one opened after it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError

from lastcall.drill.clients.answer import ANSWER_BYTES
from lastcall.drill.clients.message import filled
from lastcall.drill.clients.tls import HTTP2
from lastcall.drill.clients.wire import Broken
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.clients.gate import Gate
    from lastcall.drill.clients.wire import Wire
    from lastcall.drill.scenario import Request, State
    from lastcall.drill.trail import Trail

_FRAME_HEAD, _GOAWAY = 9, 7
_LAST_BIT = 0x7FFFFFFF


class Session:
    """One connection of HTTP/2. Its methods may raise `Broken`.

    Args:
        wire: not open yet.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._protocol = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._buffer = bytearray()
        self._bodies: dict[int, bytes] = {}
        self._received: dict[int, int] = {}
        self.open: dict[int, Trail] = {}
        """The streams that have no answer yet."""
        self.last_stream: int | None = None
        """The last stream that the server will take, once a GOAWAY said so."""
        self.ready: bool = False

    async def start(self) -> None:
        """Connect and wait for the server's SETTINGS."""
        await self._wire.open(HTTP2)
        tls = self._wire.tls
        if tls is not None and tls.protocol != "h2":
            raise Broken(Failure.TURNED_AWAY, "the server does not speak HTTP/2 over TLS")
        self._protocol.initiate_connection()
        await self._flush()
        while not self.ready:
            await self.hear()

    async def request(self, request: Request, trail: Trail) -> None:
        """Open a stream and send its request, as far as the server's windows let it."""
        place = self._wire.place
        stream = self._protocol.get_next_available_stream_id()
        headers = [
            (":method", request.method),
            (":scheme", "https" if place.tls else "http"),
            (":authority", place.authority),
            (":path", request.path),
            *((name.lower(), value) for name, value in request.headers),
        ]
        if request.body:
            headers.append(("content-length", str(len(request.body))))
            self._bodies[stream] = request.body
        self.open[stream] = trail
        trail.attempted = monotonic()
        self._protocol.send_headers(stream, headers, end_stream=not request.body)
        await self._wire.send(self._protocol.data_to_send(), trail, last=not request.body)
        await self._push()

    async def hear(self) -> None:
        """Take in what comes next, and answer it."""
        data = await self._wire.recv()
        if not data:
            raise Broken(Failure.CLOSED, self._parting())
        self._wire.answered += len(data)
        self._buffer += data
        while (frame := self._frame()) is not None:
            if frame[3] == _GOAWAY:
                self._going_away(frame[_FRAME_HEAD:])
                continue
            try:
                heard = self._protocol.receive_data(frame)
            except DenialOfServiceError as error:
                raise Broken(Failure.TOO_LONG, f"HTTP/2: {error}") from error
            except ProtocolError as error:
                raise Broken(Failure.GARBAGE, f"HTTP/2: {error}") from error
            for event in heard:
                self._take(event)
        await self._push()

    async def leave(self) -> None:
        """Say goodbye."""
        self._protocol.close_connection()
        await self._flush()

    def _frame(self) -> bytes | None:
        """The next whole frame.

        They are told apart here because h2 takes a GOAWAY for the end of the connection and
        refuses every frame behind it, while the streams below it are still to be answered.
        """
        if len(self._buffer) < _FRAME_HEAD:
            return None
        size = _FRAME_HEAD + int.from_bytes(self._buffer[:3], "big")
        if size - _FRAME_HEAD > self._protocol.max_inbound_frame_size:
            raise Broken(Failure.GARBAGE, "no frame of HTTP/2, or one too large")
        if len(self._buffer) < size:
            return None
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        return frame

    def _going_away(self, body: bytes) -> None:
        self.last_stream = int.from_bytes(body[:4], "big") & _LAST_BIT
        code = _code(int.from_bytes(body[4:8], "big"))
        for stream in [s for s in self.open if s > self.last_stream]:
            note = f"GOAWAY ({code}), last stream {self.last_stream}, this is {stream}"
            self.open.pop(stream).fail(Failure.TURNED_AWAY, note)

    def _parting(self) -> str:
        return "" if self.last_stream is None else f"after GOAWAY, last stream {self.last_stream}"

    def _take(self, event: events.Event) -> None:
        """One event; those that say nothing about a stream of ours are h2's own business."""
        if isinstance(event, events.RemoteSettingsChanged):
            self.ready = True
        stream = getattr(event, "stream_id", None)
        if isinstance(event, events.DataReceived):
            self._protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        trail = self.open.get(stream or 0)
        if trail is None or stream is None:
            return
        if isinstance(event, events.ResponseReceived):
            headers = {str(name): str(value) for name, value in event.headers}
            trail.first_byte = monotonic()
            trail.status = int(headers[":status"])
            trail.retry_after = "retry-after" in headers
            # Counted up from minus its length, which h2 holds it to: one that is known has an end.
            self._received[stream] = -int(headers.get("content-length", "0"))
        elif isinstance(event, events.DataReceived):
            self._received[stream] = self._received.get(stream, 0) + len(event.data)
            if self._received[stream] > ANSWER_BYTES:
                self.open.pop(stream).fail(Failure.TOO_LONG, f"more than {ANSWER_BYTES} bytes")
                self._protocol.reset_stream(stream, ErrorCodes.CANCEL)
        elif isinstance(event, events.StreamEnded):
            self.open.pop(stream).done()
        elif isinstance(event, events.StreamReset):
            away = event.error_code == ErrorCodes.REFUSED_STREAM
            failure = Failure.TURNED_AWAY if away else Failure.RESET
            self.open.pop(stream).fail(failure, f"RST_STREAM {_code(event.error_code)}")

    async def _push(self) -> None:
        """Send what the windows allow of the bodies."""
        for stream in list(self._bodies):
            body = self._bodies.pop(stream)
            trail = self.open.get(stream)
            while trail is not None and body and (size := self._room(stream)) > 0:
                piece, body = body[:size], body[size:]
                self._protocol.send_data(stream, piece, end_stream=not body)
                await self._wire.send(self._protocol.data_to_send(), trail, last=not body)
            if trail is not None and body:
                self._bodies[stream] = body
        await self._flush()

    def _room(self, stream: int) -> int:
        window = self._protocol.local_flow_control_window(stream)
        return min(window, self._protocol.max_outbound_frame_size)

    async def _flush(self) -> None:
        await self._wire.send(self._protocol.data_to_send())


async def streams(
    wire: Wire, trails: Sequence[Trail], late: Trail, state: State, gate: Gate
) -> None:
    """Streams that are open at the stop, and a late one that is opened some time after it."""
    session = Session(wire)
    await session.start()
    for trail in trails:
        await session.request(filled(state.request, trail.key), trail)
    for trail in (*trails, late):
        trail.steady = True
    waiting = True
    while waiting or session.open:
        if not waiting or await wire.stirred(gate.after(state.after_s)):
            await session.hear()
        elif session.last_stream is None:
            waiting = False
            again = state.second or state.request
            await session.request(filled(again, late.key), late)
        if waiting and session.last_stream is not None:
            waiting = False
            late.fail(Failure.TURNED_AWAY, "GOAWAY came before it was opened")
    await session.leave()


def _code(number: int | None) -> str:
    try:
        return ErrorCodes(number or 0).name
    except ValueError:
        return f"code {number}"
