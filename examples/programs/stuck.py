"""A program that wants to end and cannot: its shutdown waits for a thread that waits for a lock."""

import signal
import threading

stock, ledger = threading.Lock(), threading.Lock()
both_hold_one = threading.Barrier(2)


def move(first: threading.Lock, second: threading.Lock) -> None:
    """Take two locks, as the other thread does in the other order."""
    with first:
        both_hold_one.wait()
        with second:
            pass


last_call = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: last_call.set())
threading.Thread(target=move, args=(stock, ledger), name="ship-order").start()
threading.Thread(target=move, args=(ledger, stock), name="book-order").start()
print("ready", flush=True)
last_call.wait()
