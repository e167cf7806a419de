"""Where a server is: an address that its user named, or one on this machine."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lastcall.errors import UsageError
from lastcall.record import record

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


class BadPlace(UsageError):
    """A server's URL cannot be read."""

    code = "bad-url"


@record
class Place:
    """Where a server listens, and how it is spoken to.

    Args:
        host: a name or an address; what stands in the Host header, too.
        port: of TCP; 0 for a Unix socket.
        unix: the path of a Unix socket; empty: TCP.
        tls: whether the connection is TLS.
        verify: whether its certificate is checked.
    """

    host: str = "127.0.0.1"
    port: int = 0
    unix: str = ""
    tls: bool = False
    verify: bool = False

    @property
    def authority(self) -> str:
        """As it stands in the Host header."""
        if self.unix:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _usual_port(tls=self.tls) else f"{host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it is a loopback address: then the kernel can be asked about both ends."""
        return not self.unix and (self.host == "localhost" or _is_loopback(self.host))

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"unix:{self.unix}" if self.unix else f"{scheme}://{self.authority}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `http://host:port`, `https://host:port` or `unix:/path`.

        Raises:
            BadPlace: it is none of these.
        """
        from urllib.parse import urlsplit

        if not text.isprintable() or " " in text:
            raise BadPlace(f"{text!r} contains a blank or a control character", _EXAMPLES)
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(unix=_socket_path(text.removeprefix("unix:")))
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadPlace(f"{text!r} is not a URL: {error}", _EXAMPLES) from error
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host:
            raise BadPlace(f"{text!r} is not the URL of a server", _EXAMPLES)
        if not _is_name(host):
            raise BadPlace(f"{host[:60]!r} cannot be the name of a server", _EXAMPLES)
        if port == 0:
            raise BadPlace(f"{text!r}: a server cannot listen on port 0", _EXAMPLES)
        if "@" in parts.netloc:
            raise BadPlace(
                "a server's URL has no user and no password",
                "send them as a header: --request FILE with `Authorization: ...`",
            )
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise BadPlace(
                f"{text!r} is more than the address of a server",
                "name the path with --path or --slow-path",
            )
        tls = parts.scheme == "https"
        return cls(host, port or _usual_port(tls=tls), tls=tls)


_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}")
_LONGEST_NAME = 253
# Source: unix(7): sun_path has 108 bytes, with the zero at its end.
_LONGEST_SOCKET = 107


def _usual_port(*, tls: bool) -> int:
    return 443 if tls else 80


def _address(host: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)  # its own is_loopback comes with Python 3.13
    return address is not None and bool((mapped or address).is_loopback)


def _is_name(host: str) -> bool:
    """Whether it is an address, or what DNS can be asked for. Source: RFC 1123, section 2.1."""
    if ":" in host:
        return _address(host.partition("%")[0]) is not None
    labels = host.removesuffix(".").split(".")
    return len(host) <= _LONGEST_NAME and all(_NAME.fullmatch(label) for label in labels)


def _socket_path(path: str) -> str:
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise BadPlace(
            f"the path of a Unix socket has at most {_LONGEST_SOCKET} bytes: {path[:60]}...",
            "run it from the socket's folder, with the relative path",
        )
    return path


_EXAMPLES = "such as http://127.0.0.1:8000, https://localhost:8443 or unix:/run/app.sock"
