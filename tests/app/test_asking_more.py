"""Tasks of a lifecycle, a queue that drains, settings of the environment, a second beginning."""

from __future__ import annotations

import asyncio

import pytest

from app.stage import played
from lastcall import Lifecycle
from lastcall.errors import BadPolicy

TASK = """
import asyncio
from lastcall import Lifecycle
lifecycle = Lifecycle(exit_with="zero", signals=())
async def tick():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        print("the task's last word")
@lifecycle.on("close")
def close():
    print("closed")
async def main():
    lifecycle.task(tick(), name="tick")
    await asyncio.sleep(0)
    lifecycle.request_stop("test")
    await asyncio.Event().wait()
lifecycle.run(main)
"""

QUEUE = """
import asyncio
from lastcall import Lifecycle
lifecycle = Lifecycle(exit_with="nothing", signals=())
async def main():
    queue = asyncio.Queue()
    for number in range(3):
        queue.put_nowait(number)
    async for item in lifecycle.until_draining_async(queue.get):
        print("item", item)
        if item == 2:
            lifecycle.request_stop("test")
    await asyncio.sleep(0.05)
    print("the loop has ended")
lifecycle.run(main)
"""

HEEDING = """
import asyncio
from lastcall import Lifecycle
lifecycle = Lifecycle(exit_with="nothing", signals=(), grace_s=2.0)
async def waiter(name, then_s):
    try:
        await lifecycle.draining
        await asyncio.sleep(then_s)
        print(name, "has ended by itself")
    finally:
        print(name, "is over")
async def main():
    lifecycle.task(waiter("slow", 60), name="slow")
    lifecycle.task(waiter("quick", 0.05))
    asyncio.get_running_loop().call_soon(lifecycle.request_stop, "test")
    await waiter("main", 60)
lifecycle.run(main)
print(lifecycle.report.clean, *(name for name, _ in lifecycle.report.left))
"""


def test_a_task_is_cancelled_and_waited_for_before_close() -> None:
    """A task started by the lifecycle has its `finally` behind it when hooks close things."""
    status, said, _ = played(TASK)
    assert said == "the task's last word | closed"
    assert status == 0


def test_a_queue_is_read_until_the_end_is_announced() -> None:
    """`until_draining_async(queue.get)` ends while it waits for an item that never comes."""
    _, said, _ = played(QUEUE)
    assert said == "item 0 | item 1 | item 2 | the loop has ended"


def test_who_waits_for_draining_is_cancelled_only_at_the_limit() -> None:
    """A task that knows of the end has time to commit; who has not is named, and nothing clean."""
    _, said, errors = played(HEEDING)
    lines = said.split(" | ")
    assert lines[:2] == ["quick has ended by itself", "quick is over"]
    assert sorted(lines[2:4]) == ["main is over", "slow is over"]
    assert lines[4] in {"False task slow the main code", "False the main code task slow"}
    assert "cancelled at its limit: task slow" in errors


def test_the_environment_says_what_the_program_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """LASTCALL_GRACE_S counts unless the program names a grace period of its own."""
    monkeypatch.setenv("LASTCALL_GRACE_S", "7")
    monkeypatch.setenv("LASTCALL_EXIT_WITH", "zero")
    assert Lifecycle(signals=()).house.plan.grace_s == 7
    assert Lifecycle(signals=()).house.exit_with == "zero"
    assert Lifecycle(signals=(), grace_s=9, exit_with="code").house.plan.grace_s == 9


def test_nonsense_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot be read is an error with its name and value."""
    monkeypatch.setenv("LASTCALL_GRACE_S", "soon")
    with pytest.raises(BadPolicy, match="LASTCALL_GRACE_S is 'soon'"):
        Lifecycle()
    monkeypatch.setenv("LASTCALL_GRACE_S", "5")
    monkeypatch.setenv("LASTCALL_SHUTDOWN", "softly")
    with pytest.raises(BadPolicy, match="LASTCALL_SHUTDOWN is 'softly'"):
        Lifecycle()


def test_an_application_begins_again_after_its_end() -> None:
    """A test client that runs the lifespan twice finds a ready application both times."""
    lifecycle = Lifecycle(signals=(), exit_with="nothing")
    ends: list[str] = []
    lifecycle.add_hook("close", lambda: ends.append("closed"), name="close")

    async def inner(scope: object, receive: object, send: object) -> None:
        del scope
        while True:
            message = await receive()  # type: ignore[operator]
            await send({"type": f"{message['type']}.complete"})  # type: ignore[operator]
            if message["type"] == "lifespan.shutdown":
                return

    app = lifecycle.asgi(inner)

    async def once() -> None:
        words = asyncio.Queue[dict[str, str]]()
        begun = asyncio.Event()

        async def send(_message: object) -> None:
            begun.set()

        words.put_nowait({"type": "lifespan.startup"})
        running = asyncio.create_task(app({"type": "lifespan"}, words.get, send))
        await asyncio.wait_for(begun.wait(), 10)
        assert lifecycle.ready()
        words.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(running, 10)

    asyncio.run(once())
    assert not lifecycle.ready()
    asyncio.run(once())
    assert ends == ["closed", "closed"]
    lifecycle.house.dismiss()
