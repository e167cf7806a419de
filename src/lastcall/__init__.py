"""Stops running things without losing their work, says why one will not stop, and proves it."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["Draining", "Lifecycle", "__version__"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lastcall.app.lifecycle import Lifecycle as Lifecycle
    from lastcall.errors import Draining as Draining

_PLACES = {"Lifecycle": "lastcall.app.lifecycle", "Draining": "lastcall.errors"}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: whoever stops processes needs no `Lifecycle`."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # As importlib does, whose import would cost more than some of ours.
    found: object = getattr(__import__(_PLACES[name], fromlist=[name]), name)
    globals()[name] = found
    return found
