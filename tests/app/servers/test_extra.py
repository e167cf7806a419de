"""What an adapter says when its server is not installed."""

from __future__ import annotations

from importlib import import_module

import pytest

from lastcall.app.servers.extra import needs
from lastcall.errors import MissingExtra


def test_a_server_that_is_not_installed() -> None:
    """The error names the package, and how to install it."""
    with pytest.raises(MissingExtra) as caught, needs("no_such_server", "no-such-server"):
        import_module("no_such_server")
    assert caught.value.what == "the package no-such-server is missing"
    assert caught.value.advice == "pip install no-such-server"


def test_a_server_that_lacks_something_itself() -> None:
    """Python's own error: to install the server again would not help."""
    with pytest.raises(ModuleNotFoundError, match="something_else"), needs("no_such_server"):
        import_module("something_else")
