"""What tests of guests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from guests.libvirtd import Libvirtd, libvirtd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    """One libvirtd for all tests of a file; each leaves it running, without guests."""
    with libvirtd() as made:
        yield made
