"""A worker that ends well: on SIGTERM it takes no new order, finishes the one in hand, and goes."""

import signal
import threading
import time

last_call = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: last_call.set())
print("ready", flush=True)
order = 0
while not last_call.is_set():
    order += 1
    time.sleep(0.8)  # the order in hand: a signal does not cut it short
print(f"order {order} is finished, and no new one was taken", flush=True)
