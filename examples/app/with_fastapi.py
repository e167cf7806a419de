"""FastAPI (Starlette alike) that is stopped without losing a request.

uvicorn with_fastapi:app
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import Lifecycle

lifecycle = Lifecycle("with-fastapi")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open here; close in the hooks below, which run after whatever stands behind the yield."""
    yield


@lifecycle.on("close")
async def close_clients() -> None:
    """Nobody needs them any more: requests and jobs are over."""
    print("clients are closed", flush=True)


api = FastAPI(lifespan=lifespan)


@api.get("/")
async def fast() -> str:
    """At once."""
    return "ok"


@api.get("/report")
async def report(seconds: float = 0.5) -> str:
    """In flight when the stop comes."""
    await asyncio.sleep(seconds)
    return "done"


app = lifecycle.asgi(api, ready="/readyz", live="/livez")
