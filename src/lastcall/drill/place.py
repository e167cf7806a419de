"""Where a server is: an address that its user named, or one on this machine."""

from __future__ import annotations

from lastcall.errors import UsageError
from lastcall.record import record


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
        return host if self.port in {80, 443} else f"{host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it is a loopback address: then the kernel can be asked about both ends."""
        return not self.unix and (
            self.host in {"localhost", "::1"} or self.host.startswith(("127.", "::ffff:127."))
        )

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

        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(unix=text.removeprefix("unix:"))
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadPlace(f"{text!r} is not a URL: {error}", _EXAMPLES) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadPlace(f"{text!r} is not the URL of a server", _EXAMPLES)
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls=tls)


_EXAMPLES = "such as http://127.0.0.1:8000, https://localhost:8443 or unix:/run/app.sock"
