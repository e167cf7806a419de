"""A server as it is often written, which loses its work when it is stopped.

    python -m lastcall.drill.probe.careless 8000

Nothing here is wrong to look at, and it serves well. But nobody told it what to do on SIGTERM, so
the kernel ends it at once: payments are taken whose orders are never made.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot

_CHUNK_BYTES = 65536


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        path, _, query = self.path.partition("?")
        taken = self._read_body()
        try:
            asked = paths.understand(path, query)
        except paths.BadAsk as error:
            self._answer(400, f"{error}\n".encode())
            return
        if asked is None or asked.path == paths.WEBSOCKET:
            self._answer(404, b"no such path\n")
        elif asked.path in paths.STREAMS and self.command != "HEAD":
            self._stream(asked)
        else:
            pay(asked.key)
            time.sleep(asked.wait_s)
            order(asked.key)
            self._answer(200, b"%d\n" % taken if asked.path == paths.UPLOAD else asked.text)

    do_HEAD = do_GET  # noqa: N815 (the names that http.server looks for)
    do_POST = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815

    def _read_body(self) -> int:
        left = length = int(self.headers.get("Content-Length", "0"))
        while left:
            chunk = self.rfile.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ConnectionResetError("the client left in the middle of its request")
            left -= len(chunk)
        return length

    def _answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _stream(self, asked: paths.Asked) -> None:
        pay(asked.key)
        self.send_response(200)
        self.send_header("Content-Type", asked.content_type)
        if asked.length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(asked.length))
        self.end_headers()
        for piece in asked.stream():
            time.sleep(asked.pause_s)
            self._piece(asked, piece)
        order(asked.key)
        self._piece(asked, asked.last)
        if asked.length is None:
            self.wfile.write(b"0\r\n\r\n")

    def _piece(self, asked: paths.Asked, piece: bytes) -> None:
        self.wfile.write(
            piece if asked.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
        )

    def log_message(self, *_words: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    """Serve on the port that the command line names."""
    slow_boot()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"ready (pid: {os.getpid()})", flush=True)  # noqa: T201 (a program's own word)
    server.serve_forever()


if __name__ == "__main__":
    main()
