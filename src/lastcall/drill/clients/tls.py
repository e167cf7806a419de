"""TLS over memory: each byte of the handshake is ours to hold back, and each error ours to see."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcall.drill.place import Place

_CHUNK = 64 * 1024
HTTP1, HTTP2 = ("http/1.1",), ("h2",)


class Tls:
    """One TLS session that is moved by hand.

    Every method but `outgoing` and `incoming` may raise `ssl.SSLError`: the peer broke the
    protocol, or has a certificate that was to be checked and is not good.

    Args:
        place: where the server is.
        alpn: what is offered to it.
    """

    def __init__(self, place: Place, alpn: tuple[str, ...] = HTTP1) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = place.host or None
        context = _context(verify=place.verify, alpn=alpn)
        self._session = context.wrap_bio(self._in, self._out, server_hostname=name)

    def shake(self) -> bool:
        """Go on with the handshake as far as the bytes reach; True: it is done."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    @property
    def protocol(self) -> str | None:
        """What was agreed upon by ALPN."""
        return self._session.selected_alpn_protocol()

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return self._out.read()

    def incoming(self, data: bytes) -> None:
        """Bytes of the handshake that came."""
        self._in.write(data)

    def encrypt(self, data: bytes) -> bytes:
        """What is to be sent so that the peer reads these bytes."""
        self._session.write(data)
        return self._out.read()

    def decrypt(self, data: bytes) -> tuple[bytes, bool]:
        """What the peer wrote, and whether it closed the session in order."""
        self._in.write(data)
        plain = bytearray()
        try:
            while piece := self._session.read(_CHUNK):
                plain += piece
        except ssl.SSLWantReadError:
            return bytes(plain), False
        except ssl.SSLZeroReturnError:
            pass
        return bytes(plain), True


@lru_cache
def _context(*, verify: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context
