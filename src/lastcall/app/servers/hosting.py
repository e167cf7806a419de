"""What adapters have in common: they enter the lifecycle, and reach into a server's own loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractContextManager

    from lastcall.app.lifecycle import Lifecycle

# A loop that an application blocks does not hear us: its server is told all the same.
_LOOP_ANSWERS_S = 5.0


def around(lifecycle: Lifecycle) -> AbstractContextManager[object]:
    """Its `with`, unless the program is inside it already.

    Args:
        lifecycle: of this process.
    """
    return nullcontext() if lifecycle.house.main.inside else lifecycle


@asynccontextmanager
async def around_here(lifecycle: Lifecycle) -> AsyncIterator[None]:
    """Its `async with`; if the program is inside it already, it learns of the running loop.

    Args:
        lifecycle: of this process.
    """
    if lifecycle.house.main.inside:
        lifecycle.attach(asyncio.get_running_loop())
        yield
        return
    async with lifecycle:
        yield


async def rest(lifecycle: Lifecycle) -> None:
    """The server has ended: keep the loop going for the hooks of later phases.

    Args:
        lifecycle: of this process.
    """
    lifecycle.house.main.back("the web server ended")
    await lifecycle.ended.wait_async()


def in_loop(loop: asyncio.AbstractEventLoop, job: Callable[[], object]) -> bool:
    """Have a loop do something soon. From any thread.

    Args:
        loop: whose.
        job: what.

    Returns:
        False: it is closed, the server has ended.
    """
    try:
        loop.call_soon_threadsafe(job)
    except RuntimeError:
        return False
    return True


def do_in(ask: Callable[[Callable[[], object]], bool], job: Callable[[], object]) -> None:
    """Have a server's loop do something, and wait until it is done. In another thread.

    Args:
        ask: has the loop do it soon; says whether there is a loop still.
        job: what.
    """
    done = threading.Event()

    def doing() -> None:
        try:
            job()
        finally:
            done.set()

    if ask(doing):
        done.wait(_LOOP_ANSWERS_S)


def let_nobody_in(
    loop: asyncio.AbstractEventLoop, servers: Callable[[], Iterable[asyncio.Server]]
) -> None:
    """Close the listeners of a loop, and serve whoever was accepted last. In another thread.

    `Server.close` alone resets them: a loop accepts in one round, and makes the transport in the
    next, which a server that is closed by then refuses.
    Source: CPython 3.11 to 3.13, asyncio/selector_events.py (_accept_connection),
    asyncio/base_events.py (Server._attach).

    Args:
        loop: theirs.
        servers: tells them, in the loop.
    """

    def listen_no_more() -> None:
        for server in servers():
            for sock in server.sockets:
                with suppress(NotImplementedError):  # a loop that waits in other ways
                    loop.remove_reader(sock.fileno())

    def close() -> None:
        for server in servers():
            server.close()

    for job in (listen_no_more, close):
        do_in(partial(in_loop, loop), job)


def cut_off(lifecycle: Lifecycle) -> None:
    """Have what is in flight count as cut off (`shutdown="immediate"`): threads cannot be ended.

    Args:
        lifecycle: of this process.
    """
    coordinator = lifecycle.house.coordinator
    if coordinator.report is None or coordinator.report.hurried:
        return  # once more would be the third wish: all at once
    coordinator.inbox.put(lambda: coordinator.ask("shutdown='immediate'", signal.SIGTERM))
