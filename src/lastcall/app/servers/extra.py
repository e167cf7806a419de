"""What an adapter needs, and how to get it where it is missing."""

from __future__ import annotations

from contextlib import contextmanager

from lastcall.errors import MissingExtra

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs(module: str, package: str = "") -> Iterator[None]:
    """Around the import of a server.

    Args:
        module: what is imported. Only its own absence is told in our words: one that is there and
            lacks something itself is broken, and Python says how.
        package: what to install; empty: of the same name.

    Raises:
        MissingExtra: it is missing; says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        package = package or module
        raise MissingExtra(f"the package {package} is missing", f"pip install {package}") from error
