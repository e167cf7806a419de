"""What holds for every test."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure() -> None:
    """Let signals do what they do at a terminal, whoever started the tests.

    Background jobs of a script, as CI often is, begin with SIGINT and SIGQUIT ignored, and `nohup`
    ignores SIGHUP; all that the tests start would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A test that leaves its wakeup fd to the interpreter makes another one fail, much later."""
    yield
    assert signal.set_wakeup_fd(-1) == -1, "this test left a wakeup fd (signal.set_wakeup_fd)"
