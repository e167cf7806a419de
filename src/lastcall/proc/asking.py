"""Asking a server again and again whether it answers: at a port, or over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.1
_ASK_LIMIT_S = 5.0
_BODY_LIMIT_S = 0.5
_HEAD_BYTES = 16 * 1024
_BODY_BYTES = 64 * 1024
_SERVER_ERROR = 500


@record
class Site:
    """Where to connect, and what to ask for.

    Args:
        host: a name or an address.
        port: of TCP.
        unix: the path of a Unix socket; empty: TCP.
        tls: whether the connection is TLS; its certificate is not checked.
        path: what to GET; empty: a connection is enough.
    """

    host: str = ""
    port: int = 0
    unix: str = ""
    tls: bool = False
    path: str = ""

    def __str__(self) -> str:
        return self.unix or self.authority

    @property
    def authority(self) -> str:
        """As it stands in the Host header."""
        if self.unix:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Asking:
    """Asks until it is answered.

    Args:
        sites: asked in turn; one that answers is enough.

    Attributes:
        seen: what became of the last try; empty: there was none.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self.seen: str = ""
        self._sites = sites

    async def answered(self) -> float:
        """Wait for an answer; returns when it came (`time.monotonic`)."""
        pause_s = _FIRST_PAUSE_S
        while True:
            for site in self._sites:
                at = await self._try(site)
                if at is not None:
                    return at
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.25, _LONGEST_PAUSE_S)

    async def _try(self, site: Site) -> float | None:
        if not self.seen:
            self.seen = f"{site}: no answer yet"
        try:
            async with asyncio.timeout(_ASK_LIMIT_S):
                return await self._ask(site)
        except TimeoutError:
            self.seen = f"{site}: no answer within {_ASK_LIMIT_S:g} s"
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.seen = f"{site}: {_in_words(error)}"
        return None

    async def _ask(self, site: Site) -> float | None:
        reader, writer = await _connect(site)
        try:
            if not site.path:
                return monotonic()
            writer.write(
                f"GET {site.path} HTTP/1.1\r\nHost: {site.authority}\r\nUser-Agent: lastcall\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n".encode()
            )
            line = (await reader.readuntil(b"\n")).decode("latin-1").strip()
            at = monotonic()
            version, _, rest = line.partition(" ")
            status = rest[:3]
            if not version.startswith("HTTP/") or not (status.isascii() and status.isdecimal()):
                self.seen = f"{site}: this is not HTTP: {line[:80]!r}"
                return None
            self.seen = f"{site}: it answered {line[:80]}"
            await _read_on(reader)
            return at if int(status) < _SERVER_ERROR else None
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def _connect(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = None
    if site.tls:
        # Whether it answers is asked here, not who it is.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    name = (site.host or "localhost") if context else None
    if site.unix:
        return await asyncio.open_unix_connection(
            site.unix, ssl=context, server_hostname=name, limit=_HEAD_BYTES
        )
    return await asyncio.open_connection(
        site.host, site.port, ssl=context, server_hostname=name, limit=_HEAD_BYTES
    )


async def _read_on(reader: asyncio.StreamReader) -> None:
    """Read the answer to its end, for a server complains of who hangs up; not for long."""
    taken = 0
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_BODY_LIMIT_S):
            while taken < _BODY_BYTES and (part := await reader.read(_HEAD_BYTES)):
                taken += len(part)


def _in_words(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        begun = f", only {error.partial[:40]!r}" if error.partial else ""
        return f"it closed the connection without an answer{begun}"
    if isinstance(error, asyncio.LimitOverrunError):
        return "its answer begins with a line without end"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__
