"""The probe application for ASGI servers: `lastcall.drill.probe.asgi:app`.

Source: ASGI specification 3.0 (asgi.readthedocs.io), HTTP and WebSocket message format.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

slow_boot()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one request, one WebSocket, or the questions of a server's start and end."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    try:
        asked = paths.understand(scope["path"], scope["query_string"].decode("latin-1"))
    except paths.BadAsk as error:
        asked, status, text = None, 400, f"{error}\n".encode()
    else:
        status, text = 404, b"no such path\n"
    if scope["type"] == "websocket":
        await _websocket(asked, receive, send)
    elif asked is None or asked.path == paths.WEBSOCKET:
        await _answer(send, status, text)
    elif asked.path == paths.UPLOAD:
        await _upload(asked, receive, send)
    elif asked.path in paths.STREAMS:
        await _stream(asked, send)
    else:
        await _work(asked, send)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _work(asked: paths.Asked, send: Send) -> None:
    pay(asked.key)
    if asked.wait_s:
        await asyncio.sleep(asked.wait_s)
    order(asked.key)
    await _answer(send, 200, asked.text)


async def _stream(asked: paths.Asked, send: Send) -> None:
    pay(asked.key)
    await _begin(send, 200, asked.content_type, asked.length)
    for piece in asked.stream():
        await asyncio.sleep(asked.pause_s)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    order(asked.key)
    await send({"type": "http.response.body", "body": asked.last})


async def _upload(asked: paths.Asked, receive: Receive, send: Send) -> None:
    taken, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        taken += len(message.get("body", b""))
        more = message.get("more_body", False)
    pay(asked.key)
    order(asked.key)
    await _answer(send, 200, b"%d\n" % taken)


async def _websocket(asked: paths.Asked | None, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    if asked is None or asked.path != paths.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        pay(asked.key)
        await asyncio.sleep(asked.wait_s)
        order(asked.key)
        echo = {kind: message[kind] for kind in ("text", "bytes") if message.get(kind) is not None}
        await send({"type": "websocket.send", **echo})


async def _answer(send: Send, status: int, text: bytes) -> None:
    await _begin(send, status, "text/plain; charset=utf-8", len(text))
    await send({"type": "http.response.body", "body": text})


async def _begin(send: Send, status: int, content_type: str, length: int | None) -> None:
    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})
