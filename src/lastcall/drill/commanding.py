"""The command that stops or replaces a server: run, bounded, and cleared away with the drill."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from lastcall.drill.how import CannotStop
from lastcall.proc.program import CannotStart, Program
from lastcall.proc.ready import last_words

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# No program ends with it: exit statuses go to 255, and signals are negative here.
NOT_ENDED = 256
# So much less than the drill's own patience: it is to be told before that is over.
_SOONER_S = 0.1


class Commanding:
    """The command of one drill, with all that came of it. Leave it when the drill is over.

    What a rolling replacement starts is the server that serves next: it must live on until then,
    and no longer. Whom the command only asks (systemd, Docker) does not come of it, and what they
    start is left alone.

    Args:
        patience_s: how long the command may take, in seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self._limit_s = max(patience_s / 2, patience_s - _SOONER_S)
        self._program: Program | None = None

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that it printed, and what came of it; they never reach our own output."""
        return () if self._program is None else last_words(self._program)

    async def run(self, words: tuple[str, ...]) -> int:
        """Run it. Returns its exit status (negative: of this signal), or `NOT_ENDED`.

        Raises:
            CannotStop: it cannot be started.
            KeeperLost: nobody can tell any more how it ended.
        """
        try:
            self._program = await Program.start(words)
        except CannotStart as error:
            raise CannotStop(
                f"the stop command could not be started: {error.what}",
                "nothing was stopped; check the command's name and its rights",
                error.evidence,
            ) from error
        try:
            async with asyncio.timeout(self._limit_s):
                exit_ = await self._program.wait()
        except TimeoutError:
            return NOT_ENDED
        return os.waitstatus_to_exitcode(exit_.status)

    async def clear(self) -> int:
        """End all that came of it. Returns how many processes still ran. Harmless to repeat.

        Raises:
            LastcallError: some cannot be ended, or nobody can tell.
        """
        return 0 if self._program is None else len(await self._program.clear())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._program is not None:
            await self._program.__aexit__(kind, error, trace)
