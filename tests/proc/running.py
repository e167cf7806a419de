"""What the tests of started programs share."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import TYPE_CHECKING, TypeVar

from helpers import PROGRAMS
from lastcall.proc import keeper

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from lastcall.proc.program import Program

T = TypeVar("T")
LIMIT_S = 30.0


def run(story: Coroutine[None, None, T]) -> T:
    """Run a test's coroutine, and see that it leaves no descriptor behind."""

    async def limited() -> T:
        async with asyncio.timeout(LIMIT_S):
            return await story

    before = descriptors()
    result = asyncio.run(limited())
    assert descriptors() == before
    return result


def descriptors() -> set[str]:
    """The descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


def python(program: str, *words: str) -> tuple[str, ...]:
    """The command line of a program in `tests/programs`."""
    return (sys.executable, "-u", str(PROGRAMS / program), *words)


async def heard(program: Program, pattern: str) -> re.Match[str]:
    """Wait for a line that matches; its match."""
    found: asyncio.Future[re.Match[str]] = asyncio.get_running_loop().create_future()

    def look(_at: float, text: str) -> None:
        match = re.search(pattern, text)
        if match and not found.done():
            found.set_result(match)

    for at, text in tuple(program.lines):
        look(at, text)
    unwatch = program.watch(look)
    try:
        return await found
    finally:
        unwatch()


def text_of(program: Program) -> list[str]:
    """The lines that it printed."""
    return [text for _, text in program.lines]


def own_keepers() -> list[int]:
    """The keepers below this process."""
    return [pid for pid in keeper.children(os.getpid()) if comm(pid) == "lastcall-keeper"]


def comm(pid: int) -> str:
    """The kernel's name of a process; it may contain anything."""
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        return file.read().rstrip("\n")


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return os.path.exists(f"/proc/{pid}")
