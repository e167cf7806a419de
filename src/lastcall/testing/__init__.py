"""Helpers for your own tests: the contract suite of targets, a fake clock, the drill's fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcall.testing.drilling import drill

__all__ = ["drill"]


def __getattr__(name: str) -> object:
    """The fixture loads pytest, which the other helpers do without."""
    if name == "drill":
        from lastcall.testing.drilling import drill

        return drill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
