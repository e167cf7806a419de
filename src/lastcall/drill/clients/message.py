"""Requests as bytes of HTTP/1.1, in the pieces that the states send them in."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.drill.scenario import KEY
from lastcall.drill.trail import Trail
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.history import Kind
    from lastcall.drill.place import Place
    from lastcall.drill.scenario import Request

_WITH_BODY = {"POST", "PUT", "PATCH"}
# For the states that need a body, where the request has none.
_FILLER = b"lastcall " * 16


@record
class Message:
    """One request, ready to be sent.

    Args:
        method: of HTTP.
        line: the request line.
        headers: all of them, with the empty line.
        body: may be empty.
    """

    method: str
    line: bytes
    headers: bytes
    body: bytes

    @property
    def head(self) -> bytes:
        """What comes before the body."""
        return self.line + self.headers

    @property
    def whole(self) -> bytes:
        """All of it."""
        return self.line + self.headers + self.body

    def until(self, size: int) -> tuple[bytes, bytes]:
        """Its first bytes, and the rest."""
        return self.whole[:size], self.whole[size:]


class Ids:
    """Numbers for the attempts of one drill, from 1.

    Its mark is part of every key: a ledger, or the application's own database, may still know the
    keys of the drills before.
    """

    def __init__(self) -> None:
        self.mark: str = f"{secrets.token_hex(4)}-"
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self._numbers)


def trail(kind: Kind, ids: Iterator[int]) -> Trail:
    """A new attempt, with the key that its request carries."""
    number = next(ids)
    return Trail(number, kind, key_of(number, kind, ids))


def key_of(number: int, kind: Kind, ids: Iterator[int]) -> str:
    """The key of an attempt, of letters, digits and hyphens."""
    return f"k{getattr(ids, 'mark', '')}{number}-{kind.key}"


def filled(request: Request, key: str, *, body: bool = False) -> Request:
    """A request with its own key in it.

    Args:
        request: the template.
        key: takes the place of `{key}`.
        body: whether it must have a body, even when the template has none.
    """
    filler = _FILLER if body else b""
    return replace(
        request,
        path=request.path.replace(KEY, key),
        headers=tuple((name, value.replace(KEY, key)) for name, value in request.headers),
        body=request.body.replace(KEY.encode(), key.encode()) or filler,
    )


def message(place: Place, request: Request, *extra: tuple[str, str]) -> Message:
    """A request as it is sent.

    Args:
        place: what stands in the Host header.
        request: with its key filled in.
        extra: headers of ours.
    """
    headers = [("Host", place.authority), *request.headers, *extra]
    if request.body or request.method in _WITH_BODY:
        headers.append(("Content-Length", str(len(request.body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return Message(
        request.method,
        f"{request.method} {request.path} HTTP/1.1\r\n".encode(),
        f"{lines}\r\n".encode(),
        request.body,
    )
