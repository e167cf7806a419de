"""The child processes of a server with `ForkingMixIn`: each serves one connection.

Source: Lib/socketserver.py, ForkingMixIn (CPython 3.11 to 3.14).
"""

from __future__ import annotations

import os
import signal
import socketserver
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_LOOK_S = 0.02


class Children:
    """The children of a server; of most there are none, and nothing is to be done."""

    @classmethod
    def of(cls, server: socketserver.BaseServer) -> Children:
        """Those of this server.

        Args:
            server: any.
        """
        mixin = getattr(socketserver, "ForkingMixIn", None)
        return Forked(server) if mixin is not None and isinstance(server, mixin) else cls()

    def count(self) -> int:
        """How many are at work."""
        return 0

    def begin(self) -> None:
        """A connection is to be served in this process: it may be one of them."""

    def wait(self, given_up: threading.Event) -> None:
        """Wait until they have ended.

        Args:
            given_up: nobody is waited for any more.
        """

    def end(self) -> None:
        """End those that are left."""


class Forked(Children):
    """Those of a server that forks.

    Args:
        server: whose.
    """

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server: socketserver.ForkingMixIn = server  # type: ignore[assignment]
        self._parent = os.getpid()

    def count(self) -> int:
        """How many are at work."""
        return len(self._server.active_children or ())

    def begin(self) -> None:
        """In a child: it has one connection to serve, and is not to be ended before."""
        if os.getpid() != self._parent:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)

    def wait(self, given_up: threading.Event) -> None:
        """Wait until they have ended: their end is no event that a thread could wait for."""
        while self._left() and not given_up.wait(_LOOK_S):
            pass

    def end(self) -> None:
        """End those that are left."""
        for pid in self._left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _left(self) -> set[int]:
        self._server.collect_children()
        return set(self._server.active_children or ())
