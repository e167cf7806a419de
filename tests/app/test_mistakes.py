"""Mistakes that people make: what they are told, or that nothing comes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.stage import played, stage
from helpers import wait_until
from lastcall import Lifecycle
from lastcall.errors import BadPolicy

if TYPE_CHECKING:
    from collections.abc import Callable


class Thing:
    """Something with a method."""

    def stop(self) -> None:
        """Stop it."""


def _two(_first: object, _second: object) -> None:
    """Want more than there is."""


@pytest.mark.parametrize(("hook", "said"), [(Thing.stop, "self"), (_two, "_first, _second")])
def test_a_hook_that_could_never_be_called(hook: Callable[..., object], said: str) -> None:
    """It is refused when it is registered, with the arguments that nobody would give it."""
    with pytest.raises(BadPolicy, match=said):
        Lifecycle(signals=()).add_hook("close", hook)
    Lifecycle(signals=()).add_hook("close", Thing().stop)


def test_a_decorator_without_its_phase() -> None:
    """`@lifecycle.on` without brackets does not lose the hook in silence."""
    with pytest.raises(BadPolicy, match="no phase"):
        Lifecycle(signals=()).on(lambda: None)  # type: ignore[arg-type]


def test_a_plain_with_in_a_coroutine() -> None:
    """It would block the loop: the error names what to write instead."""

    async def main() -> None:
        with Lifecycle(signals=()):
            pass

    with pytest.raises(BadPolicy, match="async with"):
        asyncio.run(main())


PLAIN = """
lifecycle = Lifecycle(exit_with="zero")
def main():
    while True:
        with lifecycle.work("a piece"):
            pass
        if not lifecycle.stopping:
            stop()
        time.sleep(0.001)
lifecycle.run(main)
"""
LATER = """
import asyncio
lifecycle = Lifecycle(exit_with="zero")
async def main():
    await asyncio.sleep(0)
    stop()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        with lifecycle.work("a piece"):
            pass
lifecycle.run(main)
"""


@pytest.mark.parametrize("program", [PLAIN, LATER])
def test_refused_work_ends_the_main_code_in_order(program: str) -> None:
    """`while True: with lifecycle.work(..)` is a loop that ends when there is no more work."""
    status, _, errors = played(program)
    assert status == 0, errors
    assert "Traceback" not in errors


def test_exit_inside_its_own_work_does_not_wait_for_itself() -> None:
    """The work ends with it, and the code is the one that was asked for."""
    status, said, _ = played("""
        lifecycle = Lifecycle(grace_s=60)
        @lifecycle.on("close")
        def close():
            say("closed")
        with lifecycle:
            with lifecycle.work("an order"):
                lifecycle.exit(3)
        """)
    assert (status, said) == (3, "closed")


def test_a_main_code_that_never_asks_is_named() -> None:
    """It is told what is waited for and how to end it, also by the second signal."""
    with stage("""
        lifecycle = Lifecycle(exit_with="zero")
        with lifecycle:
            say("ready")
            while True:
                time.sleep(0.01)
        """) as one:
        one.until("ready")
        one.kill()
        wait_until(lambda: "waiting for the main code: it is to come back" in one.err, "it says so")
        one.kill()
        status, _ = one.end()
        assert "Cut off: the main code" in one.err
        assert "let it end once lifecycle.draining is set" in one.err
        assert status == 143


@pytest.mark.parametrize(("level", "told"), [("WARNING", False), ("INFO", True)])
def test_the_loggers_own_level_counts(level: str, told: bool) -> None:  # noqa: FBT001 (a parameter)
    """Who wants no lines of the library sets its logger's level, with logging set up or not."""
    _, _, errors = played(f"""
        import logging
        logging.getLogger("lastcall").setLevel(logging.{level})
        with Lifecycle(exit_with="zero"):
            stop()
            time.sleep(0.05)
        """)
    assert ("SIGTERM: stopping" in errors) is told
