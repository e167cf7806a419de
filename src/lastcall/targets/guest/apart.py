"""Working on pictures beside the event loop, with few threads however many guests there are.

Each thread keeps the memory of the largest picture it ever had. Those of asyncio itself are more
the more processors there are, and all of them would come to have one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_THREADS = 2


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "lastcall-picture")


async def apart(work: Callable[..., T], *given: object) -> T:
    """What some work comes to, done in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), work, *given)
