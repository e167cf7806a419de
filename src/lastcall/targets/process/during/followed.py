"""The lifecycles of a target, followed while its stop is on: stages as they come, pleas for time.

A stage is told when it has lasted a moment: most stops are over before there is anything to tell.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from lastcall.model import Progressed, Reached, Stage
from lastcall.targets.process.during import lifecycle
from lastcall.targets.process.during.lifecyclewords import so_far

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lastcall.kernel.identity import ProcessIdentity
    from lastcall.targets.base import TargetEvent
    from lastcall.targets.process.during.lifecycle import Follower, Snapshot

_MOMENT_S = 0.2
_GAP_S = 0.5
_MOST_LINES = 200
_MOST_FOLLOWED = 32
_WORST = {"failed": "failed", "cut off": "was cut off", "loop gone": "lost its event loop"}


class Followed:
    """See the module.

    Args:
        root: the process that is meant; others are told with their pid.
        notify: is told what happens.
    """

    def __init__(self, root: ProcessIdentity, notify: Callable[[TargetEvent], None]) -> None:
        self._root = root
        self._notify = notify
        self._followers: dict[ProcessIdentity, Follower] = {}
        self._pleas: dict[ProcessIdentity, int] = {}
        self._stopping: set[ProcessIdentity] = set()
        self._silent: set[ProcessIdentity] = set()
        self._all_told = asyncio.Event()
        self._heard: dict[ProcessIdentity, list[str]] = {}
        self._gone_bad: set[tuple[int, str, str]] = set()
        self._next: Reached | None = None
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None
        self._lines = 0

    @property
    def tells(self) -> bool:
        """Whether some lifecycle tells by itself how far its stop is."""
        return bool(self._stopping)

    def stops(self, identity: ProcessIdentity) -> bool:
        """Whether this one has told that it is stopping; for one that has ended, too."""
        if identity in self._followers:
            self._followers[identity].drain()
        return identity in self._stopping

    def take_in(self, identities: Iterable[ProcessIdentity]) -> None:
        """Follow those that have a status socket."""
        for identity in identities:
            known = self._followers.get(identity)
            if (known is not None and not known.closed) or len(self._followers) >= _MOST_FOLLOWED:
                continue
            link = lifecycle.connect(identity)
            if link is not None:
                heed = partial(self._heed, identity)
                self._followers[identity] = lifecycle.Follower(link, heed)
                self._silent.add(identity)

    async def settle(self) -> None:
        """Wait a moment for the first word of those that were taken in."""
        if self._silent:
            self._all_told.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOMENT_S):
                    await self._all_told.wait()
            self._silent.clear()  # it has had its moment

    def _has_told(self, identity: ProcessIdentity) -> None:
        self._silent.discard(identity)
        if not self._silent:
            self._all_told.set()

    def _heed(self, identity: ProcessIdentity, now: Snapshot) -> None:
        self._has_told(identity)
        who = "" if identity == self._root else f"pid {identity.pid}: "
        if now.state == "running":
            heard = [f"{hook!r}: {why}" for hook, why, off in now.objections if off]
            # What was called off before we came is not our stop.
            if heard and heard != self._heard.setdefault(identity, heard):
                self._stopping.discard(identity)
                self._heard[identity] = heard
                self._tell(Stage.TAKEN, f"{who}the stop was called off by {heard[-1]}")
            self._heard.setdefault(identity, heard)
            return
        self._stopping.add(identity)
        for plea in now.pleas:
            if plea.number > self._pleas.get(identity, 0):
                self._pleas[identity] = plea.number
                # Its whole deadline, not the hook's: other hooks come after this one.
                more_s = now.left_s or plea.left_s
                asks = f"hook {plea.hook!r} asks for {plea.asked_s:.3g} s"
                if more_s > 0:
                    self._notify(Progressed(more_s, f"{who}{asks}: {plea.reason}"))
        for hook in now.hooks:
            key = (identity.pid, hook.phase, hook.name)
            if hook.outcome in _WORST and not hook.inner and key not in self._gone_bad:
                self._gone_bad.add(key)
                after = f"after {hook.took_s:.1f} s"
                detail = f": {hook.detail}" if hook.detail else ""
                self._tell(
                    Stage.DRAINING,
                    f"{who}hook {hook.name!r} {_WORST[hook.outcome]} {after}{detail}",
                )
        if now.state == "stopping" and now.phase:
            stage = Stage.TAKEN if now.phase == "announce" else Stage.DRAINING
            self._tell_soon(Reached(stage, f"{who}{so_far(now)}"))
        elif self._timer is not None:
            self._timer.cancel()  # it has ended: what it was about to tell is over
            self._timer = None

    def _tell_soon(self, reached: Reached) -> None:
        self._next = reached
        if self._timer is None and reached.detail != self._told:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._tell_next)

    def _tell_next(self) -> None:
        self._timer = None
        if self._next is not None and self._next.detail != self._told:
            self._told = self._next.detail
            self._tell(self._next.stage, self._next.detail)
            self._timer = asyncio.get_running_loop().call_later(_GAP_S, self._tell_next)

    def _tell(self, stage: Stage, detail: str) -> None:
        self._lines += 1
        if self._lines <= _MOST_LINES:
            self._notify(Reached(stage, detail))

    def finish(self) -> None:
        """They have ended: tell their last words, and follow nobody any more."""
        for follower in self._followers.values():
            follower.drain()
        self.close()

    def close(self) -> None:
        """Follow nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for follower in self._followers.values():
            follower.close()
