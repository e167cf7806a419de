# Starts a program as lastcall does; then waits for its own end, says so and returns, or raises.
from __future__ import annotations

import asyncio
import sys

from lastcall.proc.program import Program

deed, *command = sys.argv[1:]


async def main() -> None:
    ready = asyncio.Event()

    def heard(_at: float, text: str) -> None:
        if text.startswith("ready"):
            ready.set()

    started = Program.start(command, on_line=heard, notify=deed == "notify")
    async with await started as program:
        await ready.wait()
        place = program.notify.path if program.notify else "-"
        print(f"ready {' '.join(map(str, program.left()))} {place}", flush=True)
        if deed == "fail":
            raise RuntimeError("on purpose")
        try:
            await asyncio.Event().wait()
        finally:
            print("leaving", flush=True)


asyncio.run(main())
