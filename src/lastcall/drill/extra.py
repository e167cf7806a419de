"""The libraries that a drill needs, and whether they are here."""

from __future__ import annotations

from importlib.util import find_spec

from lastcall.errors import MissingExtra

_NEEDED = ("h11", "h2", "httptools", "wsproto")


def need_extra() -> None:
    """Make sure that the protocols of a drill are installed.

    Raises:
        MissingExtra: they are not.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"a drill needs {', '.join(missing)}", "pip install 'lastcall[drill]', then try again"
        )
