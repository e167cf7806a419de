"""The probe application's ledger: what it executed, one line a deed.

The file is named by `LASTCALL_LEDGER`; without it nothing is written. Each line, `KEY STEP`, is one
write to a file opened with O_APPEND, so that the lines of several processes never mix. There is no
fsync: the ledger has to outlive the server, not the machine.

Source: open(2), O_APPEND; write(2).
"""

from __future__ import annotations

import functools
import os
import time

ENV_LEDGER = "LASTCALL_LEDGER"
ENV_SLOW_BOOT = "LASTCALL_SLOW_BOOT"


def pay(key: str) -> None:
    """Begin the work of this key: take its payment."""
    _write(key, "begun")
    _write(key, "paid")


def order(key: str) -> None:
    """End the work of this key: make its order."""
    _write(key, "ordered")


def slow_boot() -> None:
    """Take as long to start as `LASTCALL_SLOW_BOOT` says, in seconds."""
    time.sleep(float(os.environ.get(ENV_SLOW_BOOT) or 0))


def _write(key: str, step: str) -> None:
    if key and (fd := _opened()) is not None:
        os.write(fd, f"{key} {step}\n".encode())


@functools.cache  # for each process; a forked worker may share it, thanks to O_APPEND
def _opened() -> int | None:
    path = os.environ.get(ENV_LEDGER)
    if not path:
        return None
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
