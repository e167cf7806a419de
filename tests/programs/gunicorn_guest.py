"""An application for gunicorn that tells what happens to it: `wsgi`, `asgi`.

It writes lines to the file named TOLD: `<pid> <what>`. Environment: GRACE and ANNOUNCE in seconds
make it have a lifecycle of its own, with HANG a hook of it hangs; WRAPPED wraps the applications
in the middleware.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any
from urllib.parse import parse_qs

from lastcall import Lifecycle


def tell(what: str) -> None:
    """Write a line."""
    with open(os.environ["TOLD"], "a", encoding="utf-8") as told:
        told.write(f"{os.getpid()} {what}\n")


if "GRACE" in os.environ:
    lifecycle = Lifecycle(
        grace_s=float(os.environ["GRACE"]), announce_s=float(os.environ.get("ANNOUNCE", "0"))
    )
    lifecycle.on("close", name="close")(lambda: tell("close"))
    if "HANG" in os.environ:
        lifecycle.on("close", name="hang")(lambda: time.sleep(60))


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """`/?s=0.3` takes so long; answers with the number of the process."""
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("s", ["0"])[0])
    if seconds:
        tell("begun")
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(0.01)
        tell("done")
    body = f"{os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same, with a lifespan and WebSockets that only listen."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            tell(message["type"])
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    seconds = float(parse_qs(scope["query_string"].decode()).get("s", ["0"])[0])
    if seconds:
        tell("begun")
        await asyncio.sleep(seconds)
        tell("done")
    body = f"{os.getpid()}\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if "WRAPPED" in os.environ:
    wsgi = Lifecycle.current().wsgi(wsgi, ready="/readyz")
    asgi = Lifecycle.current().asgi(asgi, ready="/readyz")
