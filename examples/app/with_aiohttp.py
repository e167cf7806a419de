"""aiohttp that is stopped without losing a request.

python -m lastcall.app.servers.aiohttp -P 8000 with_aiohttp:make_app
"""

import asyncio

from aiohttp import web

from lastcall import Lifecycle

lifecycle = Lifecycle("with-aiohttp")


@lifecycle.on("close")
async def close_clients() -> None:
    """Nobody needs them any more: requests and jobs are over."""
    print("clients are closed", flush=True)


async def fast(_: web.Request) -> web.Response:
    """At once."""
    return web.Response(text="ok")


async def report(request: web.Request) -> web.Response:
    """In flight when the stop comes."""
    await asyncio.sleep(float(request.query.get("seconds", "0.5")))
    return web.Response(text="done")


async def ready(_: web.Request) -> web.Response:
    """Readiness: off as soon as a stop is announced."""
    return web.Response(status=200 if lifecycle.ready() else 503)


def make_app(_: list[str]) -> web.Application:
    """Called by the server's command line, which runs it."""
    app = web.Application()
    app.add_routes([web.get("/", fast), web.get("/report", report), web.get("/readyz", ready)])
    return app
