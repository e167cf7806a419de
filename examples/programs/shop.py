"""A small web shop with slow answers; on SIGTERM it closes the door and serves who is in."""

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Order(BaseHTTPRequestHandler):
    """Each answer takes as many seconds as the path says."""

    def do_GET(self) -> None:
        """Take the order, work on it, answer."""
        time.sleep(float(self.path.strip("/") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"your order is made\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Shop(ThreadingHTTPServer):
    """Waits for its threads when it closes."""

    daemon_threads = False


shop = Shop(("127.0.0.1", int(sys.argv[1])), Order)
door = threading.Thread(target=shop.serve_forever, args=(0.05,))
last_call = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: last_call.set())
door.start()
print("ready", flush=True)
last_call.wait()
shop.shutdown()
shop.socket.close()
shop.server_close()
