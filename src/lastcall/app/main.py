"""The main code of an application: what runs inside the `with`."""

from __future__ import annotations

import threading

from lastcall.app.hooks import CANCEL_S
from lastcall.app.phases import State
from lastcall.app.voice import INFO, voice

# Before it is said what is waited for, in seconds.
_PATIENCE_S = 1.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from lastcall.app.hooks import HookRun
    from lastcall.app.house import House


class Main:
    """The main code: what runs inside the `with`.

    Args:
        house: whose.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self.inside: bool = False
        self.here: threading.Event = threading.Event()  # it has come back to us
        self._over = threading.Event()  # it has, or nobody waits for it any more
        self.gone = False  # it did not come, and the process leaves without it
        self.task: asyncio.Task[Any] | None = None
        self.cancelled = False  # by us
        self.thread: int | None = None  # ident of the thread that it runs in

    def enter(self) -> None:
        """The main code begins."""
        self.inside = True
        self.thread = threading.get_ident()
        self.here.clear()
        self._over.clear()

    def back(self, reason: str) -> None:
        """It has come to its end."""
        self.here.set()
        self._over.set()
        if self._house.state is State.RUNNING:
            self._house.coordinator.inbox.put(lambda: self._house.coordinator.ask_once(reason))

    def is_waited_for(self) -> bool:
        """Whether it is still to come back."""
        return self.inside and not self._house.guest and not self.here.is_set()

    def wait(self, run: HookRun) -> None:
        """The hook in phase `work`: wait for it.

        A coroutine is cancelled first, unless it has waited for `draining`: it ends by itself
        then, and is cancelled at the limit.
        """
        if not self.inside or self._house.guest:
            return
        heeds = self.task is not None and self._house.draining.is_heeded_by(self.task)
        if not heeds and not self.cancel():
            return
        run.on_cancel.append(self._over.set)
        if not self._over.wait(_PATIENCE_S):
            voice.say(
                INFO,
                "waiting for the main code: it is to come back once lifecycle.draining is set",
            )
            self._over.wait()
        if heeds and run.cancelled.is_set() and not self.here.is_set() and self.cancel():
            self._house.broken_off("the main code", run.took_s)
            self.here.wait(CANCEL_S)

    def cancel(self) -> bool:
        """Cancel it if it is a coroutine, once. Whether it can still come back."""
        task = self.task
        if task is None:
            return True

        def cancel() -> None:  # in its own thread: there it cannot come back meanwhile
            if not self.here.is_set() and not self.cancelled:
                self.cancelled = True
                task.cancel()

        try:
            task.get_loop().call_soon_threadsafe(cancel)
        except RuntimeError:
            return False  # its loop is closed, and it with it
        return True
