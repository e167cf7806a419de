"""The fake target keeps the contract too, so that what is tested with it holds for real ones."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lastcall.errors import NotRunning
from lastcall.model import Cause, Ended, Finding
from lastcall.testing.contract import Open, TargetContract
from lastcall.testing.fake import FakeTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.targets.base import Target, TargetEvent

DEAF = Finding("deaf", "it cannot hear")


class _DyingTarget(FakeTarget):
    """Ends when it is told to, whether or not anybody watches yet."""

    died = False

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        super().watch(notify)
        if self.died:
            notify(Ended(Cause.BY_ITSELF, "ended by itself"))


class TestFake(TargetContract):
    """In memory."""

    @contextlib.contextmanager
    def answering(self) -> Iterator[Open]:
        """Ends when asked."""
        yield lambda: FakeTarget(ends={"ask": Cause.BY_ITSELF})

    @contextlib.contextmanager
    def refusing(self) -> Iterator[Open]:
        """Ends only when the plug is pulled."""
        yield lambda: FakeTarget(ends={"pull": Cause.TAKEN_AWAY})

    @contextlib.contextmanager
    def hanging(self) -> Iterator[Open]:
        """The same, and a look tells that it is deaf."""
        yield lambda: FakeTarget(ends={"pull": Cause.TAKEN_AWAY}, findings=(DEAF,))

    @contextlib.contextmanager
    def dying(self) -> Iterator[tuple[Open, Callable[[], None]]]:
        """Ends before it is asked."""
        target = _DyingTarget()

        def die() -> None:
            target.died = True

        yield lambda: target, die

    @contextlib.contextmanager
    def gone(self) -> Iterator[Open]:
        """Not there."""
        yield _nobody

    @contextlib.contextmanager
    def reused(self) -> Iterator[tuple[Open, Callable[[], bool]]]:
        """Another of the same name: opening the same one fails."""
        yield _nobody, lambda: True


def _nobody() -> Target:
    raise NotRunning("nobody is there")
