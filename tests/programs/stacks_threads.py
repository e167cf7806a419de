# Threads that keep a Python process from ending, one mode for each way.
#   last   the main thread ends; a user thread waits for work that never comes, a daemon sleeps
#   join   the main thread joins a thread that never ends
#   locks  two threads each want the lock that the other one holds; the main thread sleeps
#   spin   the main thread computes without end
import os
import sys
import threading
import time
from collections.abc import Callable


def order_worker() -> None:
    threading.Event().wait()


def take(mine: threading.Lock, other: threading.Lock, both: threading.Barrier) -> None:
    with mine:
        both.wait()
        other.acquire()


def start(
    name: str, work: Callable[..., object], *words: object, daemon: bool = False
) -> threading.Thread:
    thread = threading.Thread(target=work, args=words, name=name, daemon=daemon)
    thread.start()
    return thread


def main() -> None:
    mode = sys.argv[1]
    if mode == "last":
        start("order-worker", order_worker)
        start("helper", time.sleep, 600, daemon=True)
    elif mode == "join":
        worker = start("order-worker", order_worker)
        ready()
        worker.join()
    elif mode == "locks":
        first, second, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
        start("orders", take, first, second, both)
        start("payments", take, second, first, both)
        ready()
        time.sleep(600)
    elif mode == "spin":
        ready()
        while True:
            sum(range(1000))
    ready()


def ready() -> None:
    print(f"ready (pid: {os.getpid()})", flush=True)


main()
