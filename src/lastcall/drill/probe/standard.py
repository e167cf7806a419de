"""The standard library's servers: `... probe.standard wsgiref|threading PORT [lastcall]`.

As they come, without a handler for any signal; with the word `lastcall`, the same server run by
`lastcall.app.servers.stdlib`. wsgiref serves one request at a time.
"""

from __future__ import annotations

import sys
from http.server import HTTPServer, ThreadingHTTPServer
from wsgiref.simple_server import WSGIRequestHandler, make_server

from lastcall.drill.probe.careless import Handler
from lastcall.drill.probe.ledger import slow_boot


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Say nothing of each request."""


def _server(kind: str, port: int) -> HTTPServer:
    if kind == "wsgiref":
        from lastcall.drill.probe import wsgi  # takes its time by itself, when told to

        return make_server("127.0.0.1", port, wsgi.app, handler_class=_Quiet)
    if kind == "threading":
        slow_boot()
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    raise SystemExit(f"{kind} is not a server of the standard library: wsgiref or threading")


def main() -> None:
    """Serve as the command line says."""
    _, kind, port, *more = sys.argv
    server = _server(kind, int(port))
    if more == ["lastcall"]:
        from lastcall.app.servers.stdlib import serve

        serve(server)
    else:
        server.serve_forever()


if __name__ == "__main__":
    main()
