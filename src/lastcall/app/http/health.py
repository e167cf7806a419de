"""Readiness and liveness, as any kind of middleware answers them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lastcall.app.lifecycle import Lifecycle

_READY, _LIVE = "ready", "live"


def paths(ready: str, live: str) -> dict[str, str]:
    """What is asked on which path.

    Args:
        ready: the path of readiness; empty: none.
        live: the path of liveness; empty: none.
    """
    return {path: name for path, name in ((ready, _READY), (live, _LIVE)) if path}


def answer(lifecycle: Lifecycle, name: str) -> tuple[bool, bytes]:
    """Whether all is well (200, or else 503 and Retry-After), and the body.

    Args:
        lifecycle: of this process.
        name: what is asked, as `paths` names it.
    """
    good = name == _LIVE or lifecycle.ready()
    return good, (f"{name}\n" if good else "stopping\n").encode()
