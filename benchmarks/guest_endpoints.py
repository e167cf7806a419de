"""Many guests' monitors played by one process: each greets, answers, and powers off after a press.

    python benchmarks/guest_endpoints.py FOLDER COUNT SHORTEST_S LONGEST_S

Endpoint N listens at FOLDER/N.qmp. They say what a QEMU once said (a transcript of the tests), and
power off at different times after their press. It tells a line each: "ready", when all of them
listen; the moment of the last press (CLOCK_MONOTONIC, ns), once all are pressed; and that of the
last power-off, once all are off. It ends with its standard input, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from guests.peers import TRANSCRIPTS, Commands, Transcript, listening, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from guests.peers import Reader, Writer

TRANSCRIPT = "qemu-7.2-pc"


class Endpoints:
    """See the module.

    Args:
        delays_s: how long each takes to power off, in seconds.
    """

    def __init__(self, delays_s: list[float]) -> None:
        self._transcript = Transcript(TRANSCRIPTS / f"{TRANSCRIPT}.jsonl")
        self._delays_s = delays_s
        self._unpressed = self._on = len(delays_s)

    def serving(self, number: int) -> Callable[[Reader, Writer], Awaitable[None]]:
        """What one of them does with a client."""

        async def serve(reader: Reader, writer: Writer) -> None:
            say(writer, self._transcript.greeting)
            commands = Commands(reader)
            closing: asyncio.TimerHandle | None = None
            while (command := await commands.next()) is not None and not writer.is_closing():
                say(writer, self._transcript.answer(command))
                if command.get("execute") == "system_powerdown" and closing is None:
                    say(writer, _event("POWERDOWN"))
                    self._unpressed -= 1
                    if not self._unpressed:
                        _tell(time.monotonic_ns())
                    loop = asyncio.get_running_loop()
                    closing = loop.call_later(self._delays_s[number], self._power_off, writer)

        return serve

    def _power_off(self, writer: Writer) -> None:
        say(writer, _event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}))
        moment_ns = time.monotonic_ns()
        writer.close()
        self._on -= 1
        if not self._on:
            _tell(moment_ns)


def _event(name: str, data: dict[str, object] | None = None) -> dict[str, object]:
    here_s = time.time()
    stamp = {"seconds": int(here_s), "microseconds": int(here_s % 1 * 1e6)}
    return {"timestamp": stamp, "event": name, **({"data": data} if data else {})}


async def _serve(folder: Path, delays_s: list[float]) -> None:
    endpoints = Endpoints(delays_s)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(len(delays_s)):
            path = folder / f"{number}.qmp"
            await stack.enter_async_context(listening(path, endpoints.serving(number)))
        _tell("ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _tell(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the standard input closes."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    shortest_s, longest_s = float(sys.argv[3]), float(sys.argv[4])
    step_s = (longest_s - shortest_s) / max(1, count - 1)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve(folder, [shortest_s + step_s * number for number in range(count)]))


if __name__ == "__main__":
    main()
