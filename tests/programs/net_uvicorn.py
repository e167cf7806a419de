# A real uvicorn. Says "ready (pid: N)", then "slow" for each request to /slow, which is never
# answered, and "streaming" for each to /stream, which sends a piece every 20 ms for ever.
import asyncio
import os
import socket
from typing import Any

import uvicorn


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"text/plain")]
    if scope["path"] == "/slow":
        print("slow", flush=True)
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/stream":
        print("streaming", flush=True)
        while True:
            await send({"type": "http.response.body", "body": b"piece\n", "more_body": True})
            await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"ok\n"})


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"ready (pid: {os.getpid()})", flush=True)


listener = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config(app, lifespan="off", log_level="critical", timeout_keep_alive=600)
Server(config).run(sockets=[listener])
