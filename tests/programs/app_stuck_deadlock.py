# Deadlocks of every kind, one a run: `app_stuck_deadlock.py KIND`. It says what
# lastcall.app.stuck sees, a report's lines each, then `end`; the test ends it.
import asyncio
import sys
import threading
import time
from collections.abc import Callable

from lastcall.app import stuck


class Pool:
    def __init__(self) -> None:
        self.pool_lock = threading.Lock()
        self.cache_lock = threading.Lock()
        self.again = threading.RLock()


pool = Pool()
both = threading.Barrier(2)


def close_pool() -> None:
    with pool.pool_lock:
        both.wait()
        with pool.cache_lock:
            print("never")


def flush_cache() -> None:
    with pool.cache_lock:
        both.wait()
        pool.pool_lock.acquire()


def close_pool_again() -> None:
    with pool.again:
        both.wait()
        with pool.cache_lock:
            print("never")


def flush_cache_again() -> None:
    with pool.cache_lock:
        both.wait()
        with pool.again:
            print("never")


def twice() -> None:
    both.wait()
    with pool.pool_lock, pool.pool_lock:
        print("never")


def by_hand() -> None:
    pool.pool_lock.acquire()
    try:
        both.wait()
        pool.cache_lock.acquire()
    finally:
        pool.pool_lock.release()


async def tasks() -> None:
    first, second = asyncio.Lock(), asyncio.Lock()

    async def one() -> None:
        async with first:
            await asyncio.sleep(0.01)
            async with second:
                print("never")

    async def other() -> None:
        async with second:
            await asyncio.sleep(0.01)
            await first.acquire()

    pair = [asyncio.create_task(one(), name="one"), asyncio.create_task(other(), name="other")]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(tell, [lambda task=task: stuck.of_task(task) for task in pair])


async def across() -> None:
    # A thread waits for a lock that a suspended task holds, which waits for that thread.
    def in_thread() -> None:
        with pool.pool_lock:
            print("never")

    async def holds() -> None:
        with pool.pool_lock:
            await asyncio.to_thread(in_thread)

    task = asyncio.create_task(holds(), name="holds")
    await asyncio.sleep(0.1)
    thread = threading.Thread(target=tell, args=([lambda: stuck.of_task(task)],), daemon=True)
    thread.start()
    await asyncio.sleep(100)


async def own_loop() -> None:
    # A coroutine waits, blocking, for another one of its own loop.
    task = asyncio.current_task()
    looks = [lambda: stuck.of_task(task)]
    threading.Thread(target=tell, args=(looks,), daemon=True).start()
    loop = asyncio.get_running_loop()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()


def tell(looks: list[Callable[[], stuck.Stuck]]) -> None:
    # Until they all stand where they end up: the test reads the last word.
    for _ in range(600):
        seen = [look() for look in looks]
        rings = stuck.deadlocks(seen)
        if rings:
            break
        time.sleep(0.05)
    for one in seen:
        print(stuck.render(one))
    for ring in rings:
        print("ring:", ring)
    print("end", flush=True)
    time.sleep(100)


THREADS = {
    "locks": (close_pool, flush_cache),
    "reentrant": (close_pool_again, flush_cache_again),
    "twice": (twice, both.wait),
    "by_hand": (by_hand, flush_cache),
}


def main(kind: str) -> None:
    stuck.prepare()
    if kind not in THREADS:
        asyncio.run({"tasks": tasks, "across": across, "own_loop": own_loop}[kind]())
    threads = [threading.Thread(target=f, name=f.__name__, daemon=True) for f in THREADS[kind]]
    for thread in threads:
        thread.start()
    names = [f"hook {thread.name!r}" for thread in threads]
    tell(
        [
            lambda i=thread.ident, name=name: stuck.of_thread(i, name, since_s=5)
            for thread, name in zip(threads, names, strict=True)
        ]
    )


print("ready", flush=True)
main(sys.argv[1])
