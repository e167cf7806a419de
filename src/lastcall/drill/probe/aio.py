"""The probe application on aiohttp's own server: `... lastcall.drill.probe.aio PORT [lastcall]`.

With `run_app` as it comes: what it does at the stop is aiohttp's doing. With the word `lastcall`,
`lastcall.app.servers.aiohttp` serves the same application.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSMsgType, web

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot


async def handle(request: web.Request) -> web.StreamResponse:
    """Answer one request, or one WebSocket."""
    try:
        asked = paths.understand(request.path, request.query_string)
    except paths.BadAsk as error:
        return web.Response(status=400, text=f"{error}\n")
    if asked is None:
        return web.Response(status=404, text="no such path\n")
    if asked.path == paths.WEBSOCKET:
        return await _websocket(asked, request)
    if asked.path in paths.STREAMS:
        return await _stream(asked, request)
    text = asked.text
    if asked.path == paths.UPLOAD:
        text = b"%d\n" % len(await request.read())
    pay(asked.key)
    await asyncio.sleep(asked.wait_s)
    order(asked.key)
    return web.Response(body=text, content_type="text/plain")


async def _stream(asked: paths.Asked, request: web.Request) -> web.StreamResponse:
    pay(asked.key)
    answer = web.StreamResponse(headers={"Content-Type": asked.content_type})
    answer.content_length = asked.length
    await answer.prepare(request)
    for piece in asked.stream():
        await asyncio.sleep(asked.pause_s)
        await answer.write(piece)
    order(asked.key)
    await answer.write(asked.last)
    return answer


async def _websocket(asked: paths.Asked, request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return web.Response(status=404, text="no such path\n")
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        pay(asked.key)
        await asyncio.sleep(asked.wait_s)
        order(asked.key)
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def main() -> None:
    """Serve on the port that the command line names."""
    slow_boot()
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", handle)
    port = int(sys.argv[1])
    if sys.argv[2:] == ["lastcall"]:
        from lastcall.app.servers.aiohttp import serve

        serve(app, host="127.0.0.1", port=port)
    else:
        web.run_app(app, host="127.0.0.1", port=port, access_log=None)


if __name__ == "__main__":
    main()
