"""What may stand in a request: anything else would be several requests, or none. Pure.

Source: RFC 9112, section 3 (request line) and RFC 9110, section 5 (header fields).
"""

from __future__ import annotations

import re
from urllib.parse import quote

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
# All that may stand in a target as it is, and the braces of `{key}`.
_SAFE = "/?&=%:;,@!$'()*+~#[]{}"


def path_fault(path: str) -> tuple[str, str] | None:
    """What keeps a text from being the path of a request, and what to do; None: nothing."""
    if not path.startswith("/"):
        return f"the path {path[:60]!r} does not begin with /", "such as /report?days=30"
    if _TARGET.fullmatch(path) is None:
        encoded = quote(path[:60], safe=_SAFE, errors="replace")
        return (
            f"the path {path[:60]!r} contains a blank, a control character or what is not ASCII",
            f"write it percent-encoded: {encoded}",
        )
    return None


def method_fault(method: str) -> tuple[str, str] | None:
    """What keeps a text from being a method, and what to do; None: nothing."""
    if _TOKEN.fullmatch(method) is None:
        return f"{method[:60]!r} is no method of HTTP", "such as GET, POST or PUT"
    return None


def header_fault(name: str, value: str) -> tuple[str, str] | None:
    """What keeps a name and a value from being a header, and what to do; None: nothing."""
    if _TOKEN.fullmatch(name) is None:
        return f"{name[:60]!r} is no name of a header", "such as Content-Type: application/json"
    if any((c < " " and c != "\t") or c == "\x7f" for c in value):
        return f"the header {name} contains a control character", "write it in one line"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"the header {name} is not UTF-8", "write it in UTF-8"
    return None
