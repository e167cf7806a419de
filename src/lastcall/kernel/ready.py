"""Waiting for a socket on the running loop, so that nothing is lost when the wait is cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


async def ready(sock: socket.socket, *, read: bool = False, write: bool = False) -> None:
    """Wait until it can be read or written.

    Nothing is taken from it meanwhile, so that a cancelled wait loses no byte: the result of
    `loop.sock_recv` is lost when its task is cancelled in the very turn that it came in.
    """
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    if read:
        loop.add_reader(sock, _wake, woken)
    if write:
        loop.add_writer(sock, _wake, woken)
    try:
        await woken
    finally:
        if read:
            loop.remove_reader(sock)
        if write:
            loop.remove_writer(sock)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
