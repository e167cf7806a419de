"""The probe application for WSGI servers: `lastcall.drill.probe.wsgi:app`. No WebSockets here.

Source: PEP 3333.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

_CHUNK_BYTES = 65536
_PLAIN = "text/plain; charset=utf-8"

slow_boot()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    try:
        asked = paths.understand(environ.get("PATH_INFO") or "/", environ.get("QUERY_STRING", ""))
    except paths.BadAsk as error:
        return _answer(start_response, "400 Bad Request", f"{error}\n".encode())
    if asked is None or asked.path == paths.WEBSOCKET:
        return _answer(start_response, "404 Not Found", b"no such path\n")
    if asked.path in paths.STREAMS:
        pay(asked.key)
        _begin(start_response, "200 OK", asked.content_type, asked.length)
        return _pieces(asked)
    text = asked.text
    if asked.path == paths.UPLOAD:
        text = b"%d\n" % _read(environ)
    pay(asked.key)
    if asked.wait_s:
        time.sleep(asked.wait_s)
    order(asked.key)
    return _answer(start_response, "200 OK", text)


def _pieces(asked: paths.Asked) -> Iterator[bytes]:
    for piece in asked.stream():
        time.sleep(asked.pause_s)
        yield piece
    order(asked.key)
    yield asked.last


def _read(environ: WSGIEnvironment) -> int:
    """Read the whole body: how many bytes it had. One cut short is an error, never work."""
    stream = environ["wsgi.input"]
    # Reading beyond the length would wait for ever in servers that pass their socket on; without
    # a length the server must end the stream itself (chunked bodies).
    known = environ.get("CONTENT_LENGTH")
    left = int(known) if known else None
    chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
    taken = 0
    while (left is None and chunked) or left:
        chunk = stream.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        if not chunk:
            break
        taken += len(chunk)
        left = None if left is None else left - len(chunk)
    if left:
        raise EOFError(f"the body ended {left} bytes early")
    return taken


def _answer(start_response: StartResponse, status: str, text: bytes) -> list[bytes]:
    _begin(start_response, status, _PLAIN, len(text))
    return [text]


def _begin(
    start_response: StartResponse, status: str, content_type: str, length: int | None
) -> None:
    headers = [("Content-Type", content_type)]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    start_response(status, headers)
