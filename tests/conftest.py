"""What holds for every test."""

from __future__ import annotations

import signal


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
