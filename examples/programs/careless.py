"""A worker that knows no SIGTERM: whatever it has in hand is lost when it is stopped."""

import time

print("ready", flush=True)
while True:
    payment_taken = time.time()
    time.sleep(0.5)  # the money is taken, the order is not yet made
    order_made = payment_taken
