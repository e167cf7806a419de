"""Asking a hypervisor for what may come to nothing: the trouble is kept, and told with the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from lastcall.targets.guest.machine import Fault, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")
# Several questions at once make a look; a look that takes 5 s is given up as a whole.
LOOK_S = 4.5


async def attempt(
    call: Awaitable[T], troubles: list[Trouble], what: str, limit_s: float = LOOK_S
) -> T | None:
    """What a call comes to; None when it comes to nothing, which is then among the troubles.

    Args:
        call: has a limit of its own, which may be longer.
        troubles: where what kept it from an answer goes.
        what: is asked, for words: "the guest agent".
        limit_s: how long it is waited for, in seconds.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except Trouble as trouble:
        troubles.append(trouble)
    except TimeoutError:
        troubles.append(Trouble(Fault.HUNG, f"{what} gave no answer within {limit_s:.1f} s"))
    return None
