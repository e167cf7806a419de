"""Litestar that is stopped without losing a request.

uvicorn with_litestar:app
"""

import asyncio

from litestar import Litestar, get

from lastcall import Lifecycle

lifecycle = Lifecycle("with-litestar")


@lifecycle.on("close")
async def close_clients() -> None:
    """Nobody needs them any more: requests and jobs are over."""
    print("clients are closed", flush=True)


@get("/")
async def fast() -> str:
    """At once."""
    return "ok"


@get("/report")
async def report(seconds: float = 0.5) -> str:
    """In flight when the stop comes."""
    await asyncio.sleep(seconds)
    return "done"


api = Litestar([fast, report])
app = lifecycle.asgi(api, ready="/readyz", live="/livez")
