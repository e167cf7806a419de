"""The states of HTTP/1.1: each is one short way over a connection."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients.answer import Answer, has
from lastcall.drill.clients.message import Message, filled, message
from lastcall.drill.clients.tls import Tls
from lastcall.drill.clients.wire import Broken
from lastcall.drill.history import Failure, Kind
from lastcall.drill.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    import h11

    from lastcall.drill.clients.gate import Gate
    from lastcall.drill.clients.wire import Wire
    from lastcall.drill.scenario import Request, State

    Way: TypeAlias = Callable[[Wire, Trail, State, Gate], Awaitable[None]]

_CONTINUE_S = 1.0
_BODILY = {Kind.HALF_BODY, Kind.EXPECT_CONTINUE}


async def exchange(wire: Wire, trail: Trail, said: Message) -> None:
    """Send a whole request and read its answer. Raises Broken."""
    await wire.send(said.whole, trail, last=True)
    await Answer(wire, trail, said.method).whole()


async def in_handler(wire: Wire, trail: Trail, state: State, _gate: Gate) -> None:
    """A whole request that the server works on, or lets wait (a long poll)."""
    said = _message(wire, trail, state)
    await wire.open()
    await wire.send(said.whole, trail, last=True)
    trail.steady = True
    await Answer(wire, trail, said.method).whole()


async def half(wire: Wire, trail: Trail, state: State, gate: Gate) -> None:
    """A request, or nothing of it yet, whose rest comes some time after the stop."""
    said = _message(wire, trail, state)
    first, rest = said.until(_CUT[state.kind](said))
    await wire.open()
    await wire.send(first, trail)
    trail.steady = True
    if not await wire.stirred(gate.after(state.after_s)):
        await wire.send(rest, trail, last=True)
    await Answer(wire, trail, said.method).whole()


async def streaming(wire: Wire, trail: Trail, state: State, _gate: Gate) -> None:
    """An answer that has begun, and goes on over the stop."""
    said = _message(wire, trail, state)
    await wire.open()
    await wire.send(said.whole, trail, last=True)
    answer = Answer(wire, trail, said.method)
    trail.note = _framing(state.kind, await answer.streaming())
    trail.steady = not trail.note and not answer.ended
    await answer.whole()


async def idle(wire: Wire, trail: Trail, state: State, gate: Gate) -> None:
    """A connection that was answered once, and is used again some time after the stop."""
    # A key of its own: the server's ledger would otherwise tell of two executions.
    warm = Trail(0, state.kind, f"{trail.key}-warm")
    said = message(wire.place, filled(state.request, warm.key))
    await wire.open()
    await exchange(wire, warm, said)
    wire.answered = 0
    if warm.close:
        raise Broken(Failure.CLOSED, "the server keeps no connection open")
    trail.steady = True
    if await wire.stirred(gate.after(state.after_s)):
        await Answer(wire, trail).whole()
        return
    trail.attempted = monotonic()
    again = state.second or state.request
    await exchange(wire, trail, message(wire.place, filled(again, trail.key)))


async def pipelined(wire: Wire, first: Trail, second: Trail, state: State) -> None:
    """Two requests at once; the second waits behind the first.

    An answer with `Connection: close` says that nothing behind it is processed (RFC 9112, 9.6):
    then the second was turned away, and its client may send it elsewhere.
    """
    one = message(wire.place, filled(state.request, first.key))
    two = message(wire.place, filled(state.second or state.request, second.key))
    await wire.open()
    await wire.send(one.whole, first, last=True)
    second.attempted = monotonic()
    await wire.send(two.whole, second, last=True)
    first.steady = second.steady = True
    await Answer(wire, first, one.method).whole(last=False)
    try:
        await Answer(wire, second, two.method).whole()
    except Broken:
        if not first.close or second.first_byte is not None:
            raise
        note = "the answer before it announced that the connection ends"
        second.fail(Failure.TURNED_AWAY, note)


async def expecting(wire: Wire, trail: Trail, state: State, gate: Gate) -> None:
    """The headers of a request that asks whether its body is welcome (RFC 9110, 10.1.1)."""
    said = _message(wire, trail, state, ("Expect", "100-continue"))
    await wire.open()
    await wire.send(said.head, trail)
    trail.steady = True
    answer = Answer(wire, trail, said.method)
    welcome = early = False
    # Anything that comes before the stop is the answer, but for further 100s (Werkzeug sends two).
    while not early and await wire.stirred(gate.after(0)):
        early = not await answer.interim()
        welcome = welcome or not early
    if not (welcome or early) and await wire.stirred(gate.after(_CONTINUE_S)):
        early = not await answer.interim()
    if not early:
        await wire.send(said.body, trail, last=True)
    await answer.whole()


async def half_secured(wire: Wire, trail: Trail, state: State, gate: Gate) -> None:
    """Half of a TLS ClientHello; the handshake goes on some time after the stop."""
    said = _message(wire, trail, state)
    tls = Tls(wire.place)
    await wire.connect()
    tls.shake()
    hello = tls.outgoing()
    await wire.send(hello[: len(hello) // 2])
    trail.steady = True
    if not await wire.stirred(gate.after(state.after_s)):
        await wire.send(hello[len(hello) // 2 :])
    await wire.secure(tls)
    await exchange(wire, trail, said)


WAYS: dict[Kind, Way] = {
    Kind.SILENT: half,
    Kind.HALF_LINE: half,
    Kind.HALF_HEADERS: half,
    Kind.HALF_BODY: half,
    Kind.IN_HANDLER: in_handler,
    Kind.LONG_POLL: in_handler,
    Kind.STREAMING_CHUNKED: streaming,
    Kind.STREAMING_LENGTH: streaming,
    Kind.EVENTS: streaming,
    Kind.IDLE_THEN_REQUEST: idle,
    Kind.EXPECT_CONTINUE: expecting,
    Kind.TLS_HALF: half_secured,
}

_CUT: dict[Kind, Callable[[Message], int]] = {
    Kind.SILENT: lambda _said: 0,
    Kind.HALF_LINE: lambda said: len(said.line) // 2,
    Kind.HALF_HEADERS: lambda said: len(said.line) + len(said.headers) // 2,
    Kind.HALF_BODY: lambda said: len(said.head) + len(said.body) // 2,
}


def _message(wire: Wire, trail: Trail, state: State, *extra: tuple[str, str]) -> Message:
    request: Request = filled(state.request, trail.key, body=state.kind in _BODILY)
    return message(wire.place, request, *extra)


def _framing(kind: Kind, response: h11.Response) -> str:
    """Why an answer is not what its state is to test; empty when it is."""
    wanted, name, token = {
        Kind.STREAMING_CHUNKED: ("chunked", b"transfer-encoding", b"chunked"),
        Kind.STREAMING_LENGTH: ("sent with its length", b"content-length", b""),
    }.get(kind, ("a stream of events", b"content-type", b""))
    there = has(response, name, token)
    if kind is Kind.EVENTS:
        types = [value for key, value in response.headers if key == name]
        there = any(value.lower().startswith(b"text/event-stream") for value in types)
    return "" if there else f"its answer is not {wanted}"
