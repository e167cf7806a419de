"""A service manager, as far as it hears what is told to NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CREDENTIALS = struct.Struct("=3i")
_BYTES = 4096


class Manager:
    """Hears what a service tells.

    Args:
        link: what NOTIFY_SOCKET names.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def hear(self) -> tuple[int, list[str]]:
        """Wait for the next message: who sent it, and its fields."""
        said, extra, _, _ = self._link.recvmsg(_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
        return _CREDENTIALS.unpack(extra[0][2])[0], said.decode().splitlines()

    def rest(self) -> list[tuple[int, list[str]]]:
        """What it was told since, by a service that has ended."""
        self._link.setblocking(False)
        heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(self.hear())
        return heard


@contextlib.contextmanager
def manager(path: Path) -> Iterator[Manager]:
    """One that listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        link.settimeout(PATIENCE_S)
        link.bind(str(path))
        yield Manager(link)
