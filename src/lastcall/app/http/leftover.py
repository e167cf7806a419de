"""What is on its way through a connection where the kernel cannot see it, or not say whose it is.

A server holds the rest of a large answer in its own memory, and a client that asked `Expect:
100-continue` looks answered while it sends its body: a connection that looks QUIET owes something.
Both are waited for as long as they move.
"""

from __future__ import annotations

from time import monotonic

from lastcall.app.http import descriptors
from lastcall.app.http.descriptors import SIOCINQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class Moving:
    """Counts the things that moved within the last while.

    Args:
        patience_s: how long one may stand still and still count, in seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def count(self, found: Iterable[tuple[Hashable, object]]) -> int:
        """How many of these count.

        Args:
            found: each with a number that changes when it moves.
        """
        now_s = monotonic()
        seen = {}
        for key, number in found:
            before = self._seen.get(key)
            seen[key] = before if before and before[0] == number else (number, now_s)
        self._seen = seen
        return sum(now_s - since_s < self._patience_s for _, since_s in seen.values())


def unread(fd: int) -> bool:
    """Whether bytes have come that the server has not read; False where it cannot be told."""
    kernel = descriptors.kernel()
    return kernel is not None and fd >= 0 and kernel.queue(fd, SIOCINQ) > 0
