"""WSGI middleware: counts requests until their answer is sent, tells readiness.

    app = lifecycle.wsgi(app, ready="/readyz", live="/livez")

WSGI forbids an application to set `Connection: close` (PEP 3333, "hop-by-hop"): that is the
servers' part, see `lastcall.app.servers`.
"""

from __future__ import annotations

from lastcall.app.http import health
from lastcall.app.http.serving import Serving, serving_of
from lastcall.app.work import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lastcall.app.lifecycle import Lifecycle


class Middleware:
    """See `Lifecycle.wsgi`.

    Args:
        app: the application.
        lifecycle: of this process.
        ready: a path that answers whether new work is welcome: 200 or 503; empty: none.
        live: a path that answers 200 as long as the process runs; empty: none.
        guest: whether the server knows nothing of us.
    """

    def __init__(
        self,
        app: WSGIApplication,
        lifecycle: Lifecycle,
        *,
        ready: str = "",
        live: str = "",
        guest: bool = True,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._gate = lifecycle.house.gate
        self._health = health.paths(ready, live)
        house = lifecycle.house
        hosted = house.main.inside or Serving.hosted
        if guest and not hosted and lifecycle.install():
            # Loaded in the main thread of a worker: its server's handlers stand already.
            house.guest = True
            serving_of(lifecycle, ends=False, late=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass on one request."""
        path = environ.get("PATH_INFO", "")
        if self._health and path in self._health:
            return self._tell_health(self._health[path], start_response)
        flight = Request(self._gate, environ, accepted=True)
        flight.__enter__()
        try:
            answer = self._app(environ, start_response)
        except BaseException:
            flight.__exit__()
            raise
        if isinstance(answer, list | tuple):
            return Whole(answer, flight.__exit__)
        return Answer(answer, flight.__exit__)

    def _tell_health(self, name: str, start_response: StartResponse) -> Iterable[bytes]:
        good, body = health.answer(self._lifecycle, name)
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        headers += [] if good else [("Retry-After", "1")]
        start_response("200 OK" if good else "503 Service Unavailable", headers)
        return [body]


class Answer:
    """An answer's pieces; the request is over when the server closes it (PEP 3333, close()).

    Args:
        pieces: of the application.
        ended: called once.
    """

    def __init__(self, pieces: Iterable[bytes], ended: Callable[[], object]) -> None:
        self._pieces = pieces
        self._ended: Callable[[], object] | None = ended

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        """The answer is sent, or broken off."""
        ended, self._ended = self._ended, None
        try:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
        finally:
            if ended is not None:
                ended()

    def __del__(self) -> None:
        # A server that forgets close() must not hold the end for ever.
        if self._ended is not None:
            self.close()


class Whole(Answer):
    """An answer in one piece: servers look at its length to set Content-Length."""

    def __len__(self) -> int:
        return len(self._pieces)  # type: ignore[arg-type]
