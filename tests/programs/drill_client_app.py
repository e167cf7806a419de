# A real ASGI server with a small application. Words: uvicorn or hypercorn, then, for TLS, the files
# of a certificate and its key. Says "ready (pid: N)" and then "port N".
import asyncio
import os
import signal
import socket
import sys
from typing import Any

PIECES = 10


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        print(f"ready (pid: {os.getpid()})\nport {listener.getsockname()[1]}", flush=True)
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await http(scope, receive, send)


async def http(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while (event := await receive()).get("more_body"):
        body += event["body"]
    body += event.get("body", b"")
    headers = [(b"content-type", b"text/event-stream"), (b"retry-after", b"1")]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    if scope["path"] == "/length":
        headers.append((b"content-length", b"%d" % (PIECES * 6)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] in {"/stream", "/length"}:
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": b"piece\n", "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": b"%d bytes\n" % len(body)})


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await asyncio.sleep(0.1)
        await send({"type": "websocket.send", "text": event["text"]})


def on_uvicorn() -> None:
    import uvicorn

    config = uvicorn.Config(app, log_level="critical", ws="wsproto", timeout_keep_alive=600)
    uvicorn.Server(config).run(sockets=[listener])


async def on_hypercorn() -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    if len(sys.argv) > 2:
        config.certfile, config.keyfile = sys.argv[2:4]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await serve(app, config, shutdown_trigger=ended.wait)


listener = socket.create_server(("127.0.0.1", 0))
if sys.argv[1] == "uvicorn":
    on_uvicorn()
else:
    asyncio.run(on_hypercorn())
