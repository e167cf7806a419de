"""Reading the ledger of a drilled server: what it executed, by its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.judge import Deed
from lastcall.errors import LastcallError

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = frozenset({"begun", "paid", "ordered"})
LIMIT_BYTES = 256 * 1024 * 1024
_LINE_BYTES = 1024
_SHOWN = 60


class BadLedger(LastcallError):
    """A ledger cannot be read."""

    code = "bad-ledger"


def read_ledger(path: str, limit_bytes: int = LIMIT_BYTES) -> list[Deed]:
    """Every deed of a ledger, in the order of writing.

    A last line without its end is left out: the disk was full, or it is being written.

    Args:
        path: of a file with lines `KEY STEP`, where STEP is begun, paid or ordered.
        limit_bytes: how much is read at most.

    Raises:
        BadLedger: there is none, it cannot be read, a line is no deed, or it is too long.
    """
    try:
        return list(_deeds(path, limit_bytes))
    except OSError as error:
        raise BadLedger(
            f"the ledger {path} cannot be read: {error.strerror}",
            "the server writes to the file that LASTCALL_LEDGER names",
        ) from error


def _deeds(path: str, limit_bytes: int) -> Iterator[Deed]:
    number = taken = 0
    with open(path, "rb") as stream:
        while (line := stream.readline(_LINE_BYTES)).endswith(b"\n"):
            number += 1
            taken += len(line)
            if taken > limit_bytes:
                raise BadLedger(
                    f"the ledger {path} is longer than {limit_bytes} bytes",
                    "drill with less load, or for a shorter time",
                )
            yield _deed(line, path, number)
    if len(line) == _LINE_BYTES:  # not the end of the file, but of our patience
        _deed(line, path, number + 1)


def _deed(line: bytes, path: str, number: int) -> Deed:
    words = line.decode("utf-8", "replace").split()
    if len(line) >= _LINE_BYTES or len(words) != 2 or words[1] not in STEPS:  # noqa: PLR2004 (KEY STEP)
        raise BadLedger(
            f"line {number} of the ledger {path} is no deed: {line[:_SHOWN]!r}",
            "each line is a key and one of begun, paid, ordered; nothing else may write there",
        )
    return Deed(words[0], words[1])
