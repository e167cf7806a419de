"""What traffic a drill puts on a server: how many connections in which state, and their requests.

A scenario comes from the options of the command, from a TOML file, or is the one that fits the
probe application (`lastcall.drill.probe`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.drill.history import Kind

KEY = "{key}"


@record
class Request:
    """What one request consists of. `{key}` in its path, headers or body becomes its own key.

    Args:
        path: with its query, as it stands in the request line.
        method: of HTTP.
        headers: besides Host, Connection and Content-Length, which the client sets.
        body: sent with a Content-Length when it is not empty.
    """

    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def keyed(self) -> bool:
        """Whether it carries its key, so that a ledger can know it."""
        words = (self.path, *(value for _, value in self.headers))
        return any(KEY in word for word in words) or KEY.encode() in self.body


@record
class State:
    """Some connections that are to be in one state when the stop comes.

    Args:
        kind: the state.
        request: what they carry.
        count: how many.
        after_s: for states that go on after the stop (half a request, an idle connection): how
            long after it, in seconds.
        second: the request behind the first, where the kind needs one (`PIPELINED`,
            `IDLE_THEN_REQUEST`); None: the same as the first.
        message: what a WebSocket sends.
        optional: whether a server that does not speak its protocol is let off.
    """

    kind: Kind
    request: Request = Request()
    count: int = 1
    after_s: float = 0.5
    second: Request | None = None
    message: str = "lastcall"
    optional: bool = False


@record
class Newcomers:
    """New connections, one request each, tried at a fixed rate before, during and after the stop.

    Args:
        request: what each carries.
        rate: so many a second; 0: none.
        think_s: how long each waits between connecting and sending, in seconds.
    """

    request: Request = Request()
    rate: float = 20.0
    think_s: float = 0.0


@record
class Load:
    """Requests on open connections, all the time: what keeps a server busy.

    Args:
        request: what each carries.
        rate: so many a second over all connections; 0: none.
        connections: over how many, kept open.
    """

    request: Request = Request()
    rate: float = 0.0
    connections: int = 16


@record
class Scenario:
    """All the traffic of one drill."""

    states: tuple[State, ...] = ()
    newcomers: Newcomers = Newcomers()
    load: Load = Load()
