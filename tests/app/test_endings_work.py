"""The order of hooks, work in flight, and who is stuck: programs with a Lifecycle to their end."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from app.stage import played

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

STOPS = """
    with lifecycle:
        stop()
        lifecycle.draining.wait()
    """


# -- order


def test_hooks_run_in_the_order_that_was_asked_for() -> None:
    """Own phases, `depends_on`, and the last registered first; both together as well."""
    program = """
    lifecycle = Lifecycle(exit_with="zero")
    lifecycle.phase("sell", before="close")
    lifecycle.phase("count", after="flush", reverse=True)
    lifecycle.in_reverse("close")
    def add(phase, name, *needs):
        lifecycle.add_hook(phase, lambda: say(name), name=name, depends_on=needs)
    add("count", "one"); add("count", "two")
    add("close", "pool"); add("close", "client"); add("close", "last", "pool")
    add("work", "second", "first"); add("work", "first")
    add("sell", "sold"); add("flush", "log")
    """
    said = "first | second | sold | client | pool | last | log | two | one"
    assert played(program + STOPS)[:2] == (0, said)


def test_hooks_and_phases_that_come_too_late_are_refused() -> None:
    """A hook may join the phase that is on and those to come; what is over is over."""
    program = """
    from lastcall.errors import TooLate
    lifecycle = Lifecycle(exit_with="zero")
    def late(what, *words, **more):
        try: what(*words, **more)
        except TooLate as error: say(error)
    @lifecycle.on("work")
    def register():
        lifecycle.add_hook("work", lambda: say("joined"), name="now")
        lifecycle.add_hook("close", lambda: say("later"), name="later")
        late(lifecycle.add_hook, "drain", print)
        late(lifecycle.phase, "own", after="flush")
    """
    status, lines, err = played(program + STOPS)
    assert status == 0, err
    said = lines.split(" | ")
    assert sorted(said[:3]) == [
        "joined",
        "phase 'drain' is over: no hook can join it",
        "the stop is on: phase 'own' cannot join it",
    ]
    assert said[3:] == ["later"]


# -- work in flight


def test_new_work_is_refused_and_what_belongs_to_accepted_work_is_not() -> None:
    """Also not to a task that has outlived the work that it was made in."""
    program = """
    import asyncio
    from lastcall import Draining
    lifecycle = Lifecycle(exit_with="zero")
    def begin(name):
        try:
            with lifecycle.work(name): say(name, "begun")
        except Draining as error: say(error)
    async def outlives(over):
        await over.wait()
        begin("of a task left behind")
    async def main():
        over = asyncio.Event()
        with lifecycle.work("request"):
            task = asyncio.create_task(outlives(over))
            lifecycle.request_stop()
            await lifecycle.draining
            begin("part")
            await asyncio.create_task(asyncio.to_thread(begin, "part in a thread"))
            threading.Thread(target=begin, args=("new",)).start()
            await asyncio.sleep(0.1)
        over.set()
        await task
    lifecycle.run(main)
    """
    said = (
        "part begun | part in a thread begun | new is refused: the application is ending"
        " | of a task left behind is refused: the application is ending"
    )
    assert played(program)[:2] == (0, said)


def test_iterators_end_when_it_drains_and_the_announcement_still_takes_work() -> None:
    """For threads and for tasks; while announcing, readiness is off and work is welcome."""
    program = """
    import asyncio, itertools
    lifecycle = Lifecycle(announce_s=0.5, exit_with="zero")
    async def ticks():
        try:
            for n in itertools.count():
                yield n
                await asyncio.sleep(0 if n < 3 else 600)
        finally:
            say("source closed")
    async def main():
        async for n in lifecycle.until_draining_async(ticks()):
            if n == 3: say("async", n)
    def turn():
        for n in lifecycle.until_draining(itertools.count()):
            time.sleep(0.01)
        say("sync", n > 0)
    with lifecycle:
        thread = threading.Thread(target=turn); thread.start()
        stop()
        lifecycle.announced.wait()
        with lifecycle.work("late"): say(lifecycle.ready(), lifecycle.draining.is_set())
        asyncio.run(main())
        thread.join()
    """
    status, lines, err = played(program)
    assert status == 0, err
    assert lines.startswith("False False | async 3 | ")
    assert {"source closed", "sync True"} == set(lines.split(" | ")[2:])


# -- who is stuck


def test_a_deadlock_of_two_hooks_is_told_with_both_and_the_lock(tmp_path: Path) -> None:
    """Names, places, both stacks, the lock; the process leaves with 22."""
    report = tmp_path / "report.json"
    program = f"""
    limits = {{"drain": 0.5, "work": 0.5, "close": 1, "flush": 5}}
    lifecycle = Lifecycle(grace_s=8, limits=limits, report={str(report)!r})
    pool_lock, cache_lock, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
    @lifecycle.on("close")
    def close_pool():
        with pool_lock:
            both.wait()
            with cache_lock: pass
    @lifecycle.on("close")
    def flush_cache():
        with cache_lock:
            both.wait()
            with pool_lock: pass
    lifecycle.on("flush")(lambda: say("flushed"))
    {STOPS}"""
    status, lines, err = played(program)
    assert (status, lines) == (22, "flushed")
    [ring] = json.loads(report.read_text())["deadlocks"]
    for said in (err, ring):
        assert "hook 'close_pool' waits for" in said
        assert "hook 'flush_cache' waits for" in said
        assert "pool_lock" in said
        assert "cache_lock" in said
    assert "in close_pool: with cache_lock" in err
    assert "in flush_cache: with pool_lock" in err
    assert err.count("(registered at ") == 2
