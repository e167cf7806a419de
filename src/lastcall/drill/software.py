"""Which server it is that is drilled: from its answers, its command, or its process."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

from lastcall.kernel import procfs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.place import Place

_LIMIT_S = 2.0
_HEADERS_BYTES = 32 * 1024
# What stands in the Server header, and tells less than the command does.
_GENERIC = {"basehttp", "simplehttp", "wsgiserver"}


async def software(place: Place, command: Sequence[str], pid: int | None) -> str:
    """What the server says it is, such as `uvicorn`; else its program's name; empty: unknown.

    Args:
        place: where it is asked.
        command: how it was started; empty: it ran already.
        pid: its main process; None: not known.
    """
    said = ""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        said = await asyncio.wait_for(_server_header(place), _LIMIT_S)
    if said and said.split("/")[0].lower() not in _GENERIC:
        return said[:80]
    words = list(command) or ([] if pid is None else _cmdline(pid))
    return " ".join(word.rpartition("/")[2] for word in words[:3])[:80]


def _cmdline(pid: int) -> list[str]:
    try:
        return procfs.cmdline(pid)
    except (ProcessLookupError, PermissionError):
        return []


async def _server_header(place: Place) -> str:
    tls = ssl._create_unverified_context() if place.tls else None  # noqa: S323, SLF001 (only a name is asked)
    if place.unix:
        reader, writer = await asyncio.open_unix_connection(place.unix, limit=_HEADERS_BYTES)
    else:
        reader, writer = await asyncio.open_connection(
            place.host, place.port, ssl=tls, limit=_HEADERS_BYTES
        )
    try:
        ask = f"HEAD / HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n"
        writer.write(ask.encode())
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return ""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "server":
            return value.strip()
    return ""
