"""Waiting until a server is ready: a port, an answer, a line of its output, or sd_notify.

A port and a URL can only be asked again and again; a line, a notice and the end of the program
wake us.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from lastcall.errors import ExitCode, LastcallError, UsageError
from lastcall.proc.asking import Asking, Site
from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.proc.ending import Exit
    from lastcall.proc.notify import Notice
    from lastcall.proc.program import Program

KINDS = ("port", "url", "line", "notify")
_ALLOWED = "write it as port:8080, http://127.0.0.1:8080/health, /health, line:some text, or notify"
# With Node the error itself stands some ten lines above the end.
_SHOWN_LINES = 20
_LAST_PORT = 65535


class BadReady(UsageError):
    """What is to be waited for makes no sense."""

    code = "bad-ready"


class NotReady(LastcallError):
    """A server did not get ready.

    Args:
        what: as in `LastcallError`.
        advice: as in `LastcallError`.
        evidence: as in `LastcallError`.
        ended: how its main process ended; None: it ran still, and the time was over.
    """

    code = "not-ready"
    exit_code = ExitCode.INCONCLUSIVE

    def __init__(
        self,
        what: str,
        advice: str = "",
        evidence: tuple[str, ...] = (),
        ended: Exit | None = None,
    ) -> None:
        super().__init__(what, advice, evidence)
        self.ended = ended


class Where(Protocol):
    """What is asked of a server's address; `lastcall.drill.place.Place` answers it."""

    @property
    def host(self) -> str:
        """A name or an address."""
        ...

    @property
    def port(self) -> int:
        """Of TCP; 0 for a Unix socket."""
        ...

    @property
    def unix(self) -> str:
        """The path of a Unix socket; empty: TCP."""
        ...

    @property
    def tls(self) -> bool:
        """Whether the connection is TLS."""
        ...


@record
class Ready:
    """What shows that a server is ready.

    Args:
        kind: one of `KINDS`.
        value: `8080` or `HOST:8080`; a URL, or a path on the server's own address; a part of a
            line; nothing for notify.
    """

    kind: str
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Ready:
        """Read `port:8080`, `http://...`, `https://...`, `/health`, `line:some text`, `notify`.

        Raises:
            BadReady: it is none of these.
        """
        kind, colon, value = text.partition(":")
        if text == "notify":
            return cls("notify")
        if kind == "line" and colon:
            if not value:
                raise BadReady("line: names no text to wait for", "such as line:Listening on")
            return cls("line", value)
        if any(not c.isprintable() or c == " " for c in text):
            raise BadReady(f"{text!r} contains a blank or a control character", _ALLOWED)
        if text.startswith("/"):
            return cls("url", text)
        if kind in {"http", "https"} and colon:
            _site_of(text)
            return cls("url", text)
        if kind == "port" and colon:
            _port_of(value)
            return cls("port", value)
        raise BadReady(f"{text!r} does not say what to wait for", _ALLOWED)

    def __str__(self) -> str:
        return {
            "port": f"an open port {self.value}",
            "url": f"an answer from {self.value}",
            "line": f"a line with {self.value!r}",
            "notify": "READY=1 by sd_notify",
        }[self.kind]


class _Waiting:
    """One wait, in the way that its kind needs."""

    def __init__(self, program: Program | None, ready: Ready, place: Where | None) -> None:
        self._ready = ready
        self._program = program
        self._asking: Asking | None = None
        self._status = ""
        if ready.kind in {"port", "url"}:
            self._asking = Asking(_sites(ready, place))
        elif program is None:
            raise BadReady(f"{ready} needs a program that was started here", _ALLOWED)
        elif ready.kind == "notify" and program.notify is None:
            raise BadReady("the program got no notify socket", "start it with notify=True")

    @property
    def seen(self) -> str:
        """What was seen last, for the error; empty: nothing."""
        return self._asking.seen if self._asking is not None else self._status

    async def over(self) -> float:
        """Wait; returns when it became ready."""
        if self._asking is not None:
            return await self._asking.answered()
        assert self._program is not None  # noqa: S101 (checked above)
        if self._ready.kind == "line":
            return await self._line(self._program)
        return await self._notified(self._program)

    async def _line(self, program: Program) -> float:
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def look(at: float, text: str) -> None:
            if self._ready.value in text and not found.done():
                found.set_result(at)

        for at, text in tuple(program.lines):
            look(at, text)
        unwatch = program.watch(look)
        try:
            return await found
        finally:
            unwatch()

    async def _notified(self, program: Program) -> float:
        notify = program.notify
        assert notify is not None  # noqa: S101 (checked above)
        told = asyncio.Event()

        def look(notice: Notice) -> None:
            if notice.status:
                self._status = f"it told its status: {notice.status[:200]}"
            if notice.ready:
                told.set()

        for notice in tuple(notify.notices):
            look(notice)
        unwatch = notify.watch(look)
        try:
            while notify.ready_at is None:
                await told.wait()
            return notify.ready_at
        finally:
            unwatch()


def _sites(ready: Ready, place: Where | None) -> list[Site]:
    if ready.kind == "port":
        host, port = _port_of(ready.value)
        if not host and place is not None and not place.unix:
            host = place.host
        return [Site(each, port) for each in ((host,) if host else ("127.0.0.1", "::1"))]
    if not ready.value.startswith("/"):
        return [_site_of(ready.value)]
    if place is None:
        raise BadReady(f"the path {ready.value} needs the address of a server", _ALLOWED)
    return [Site(place.host, place.port, place.unix, place.tls, ready.value)]


async def wait_ready(
    program: Program | None, ready: Ready, limit_s: float, place: Where | None = None
) -> float:
    """Wait until a server is ready.

    A port or a URL does not tell whose it is: make sure beforehand that nobody else answers there.

    Args:
        program: the server, as started here; None: it was started by somebody else.
        ready: what shows it.
        limit_s: how long to wait at most, in seconds.
        place: the server's address, for what names none itself; None: there is none.

    Returns:
        When it became ready, on the clock of `time.monotonic`.

    Raises:
        NotReady: the time was over, or the program ended before.
        BadReady: this cannot be waited for here.
        KeeperLost: nobody can tell any more whether the program runs.
    """
    waiting = _Waiting(program, ready, place)
    reached = asyncio.create_task(waiting.over())
    tasks: list[asyncio.Task[float] | asyncio.Task[Exit]] = [reached]
    ended: asyncio.Task[Exit] | None = None
    if program is not None:
        ended = asyncio.create_task(program.wait())
        tasks.append(ended)
    try:
        await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if reached.done():
            return reached.result()
        if ended is not None and program is not None and ended.done():
            raise _died(program, ready, ended.result())
        raise _late(program, ready, limit_s, waiting.seen)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _died(program: Program, ready: Ready, ended: Exit) -> NotReady:
    evidence = (f"waited for {ready}", *_last_lines(program))
    advice = "start the command by hand and see what it says"
    left = program.left()
    if left:
        listed = ", ".join(str(pid) for pid in left)
        evidence = (f"it left others behind: pid {listed}", *evidence)
        advice = "if it goes into the background, let it stay in the foreground"
    return NotReady(f"it ended before it was ready: {ended}", advice, evidence, ended)


def _late(program: Program | None, ready: Ready, limit_s: float, seen: str) -> NotReady:
    evidence: tuple[str, ...] = (seen,) if seen else ()
    if program is not None:
        evidence += _last_lines(program)
    what = f"it was not ready within {limit_s:g} s: waited for {ready}"
    return NotReady(what, "give it more time, or wait for something else", evidence)


def last_words(program: Program) -> tuple[str, ...]:
    """What it printed last: some twenty lines, without the empty ones."""
    return tuple([text for _, text in program.lines if text.strip()][-_SHOWN_LINES:])


def _last_lines(program: Program) -> tuple[str, ...]:
    lines = last_words(program)
    return tuple(f"it printed: {text}" for text in lines) or ("it printed nothing",)


def _port_of(text: str) -> tuple[str, int]:
    """Host (empty: not named) and port."""
    host, _, digits = text.rpartition(":")
    if digits.isascii() and digits.isdecimal() and 0 < int(digits) <= _LAST_PORT:
        return host.removeprefix("[").removesuffix("]"), int(digits)
    raise BadReady(f"{text!r} is not a port", "write it as port:8080, port:[::1]:8080")


def _site_of(url: str) -> Site:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadReady(f"{url!r} is not a URL: {error}", _ALLOWED) from error
    if not parts.hostname:
        raise BadReady(f"{url!r} names no host", _ALLOWED)
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Site(parts.hostname, port or (443 if tls else 80), tls=tls, path=path)
