"""Scenarios that need no file: for the probe application, and for any server with a path or two."""

from __future__ import annotations

from dataclasses import replace

from lastcall.drill.history import Kind
from lastcall.drill.scenario import Newcomers, Request, Scenario, State
from lastcall.record import record

IN_HANDLER_COUNT = 20
_FEW = 2
_BACKLOG_COUNT = 5
# A client that finds an open connection uses it within moments.
_SOON_S = 0.2
_WEBSOCKET_S = 10.0
_BODY = b"lastcall " * 2000
_STREAMS = (
    (Kind.STREAMING_CHUNKED, "/stream"),
    (Kind.STREAMING_LENGTH, "/length"),
    (Kind.EVENTS, "/events"),
)


@record
class Paths:
    """What an application offers. Empty: it has none such, or it is not known.

    Args:
        path: answers at once.
        slow: takes a while.
        upload: takes a body by POST.
        stream: streams its answer in chunks.
        length: streams its answer with a Content-Length.
        events: server-sent events.
        poll: a long poll.
        websocket: echoes what a WebSocket sends.
        websocket_slow: the same, after a while.
        optional: whether a server that speaks no WebSocket is let off.
    """

    path: str = "/"
    slow: str = ""
    upload: str = ""
    stream: str = ""
    length: str = ""
    events: str = ""
    poll: str = ""
    websocket: str = ""
    websocket_slow: str = ""
    optional: bool = False


def probe_paths(slow_s: float = 3.0) -> Paths:
    """The paths of the probe application.

    Args:
        slow_s: how long its slow answers take, in seconds.
    """
    slow = f"key={{key}}&s={slow_s:g}"
    return Paths(
        "/fast?key={key}",
        f"/slow?{slow}",
        "/upload?key={key}",
        f"/stream?{slow}&n=30",
        f"/length?{slow}&n=30",
        f"/events?{slow}&n=30",
        f"/poll?{slow}",
        "/ws",
        f"/ws?s={slow_s:g}&key={{key}}",
        optional=True,
    )


def scenario(
    paths: Paths, count: int = IN_HANDLER_COUNT, newcomers: Newcomers | None = None
) -> Scenario:
    """Traffic in every state that an application with these paths can be brought to.

    Args:
        paths: of the application.
        count: how many requests are to be in a handler.
        newcomers: None: as usual, on its fast path.
    """
    fast = Request(paths.path)
    slow = Request(paths.slow or paths.path)
    states = [
        # It needs a whole answer first, and so a worker that is free.
        State(Kind.IDLE_THEN_REQUEST, fast, _FEW, _SOON_S),
        State(Kind.IN_HANDLER, slow, count),
        State(Kind.SILENT, fast, _FEW),
        State(Kind.HALF_LINE, fast, _FEW),
        State(Kind.HALF_HEADERS, fast, _FEW),
        State(Kind.PIPELINED, slow, _FEW, second=fast),
        State(Kind.BACKLOG, fast, _BACKLOG_COUNT),
        State(Kind.TLS_HALF, fast, _FEW, optional=True),
        State(Kind.HTTP2_STREAM, slow, _FEW, optional=True),
    ]
    if paths.upload:
        upload = Request(paths.upload, "POST", (), _BODY)
        states += [State(Kind.HALF_BODY, upload, _FEW), State(Kind.EXPECT_CONTINUE, upload, _FEW)]
    named = {"/stream": paths.stream, "/length": paths.length, "/events": paths.events}
    states += [State(kind, Request(named[n]), _FEW) for kind, n in _STREAMS if named[n]]
    if paths.poll:
        states.append(State(Kind.LONG_POLL, Request(paths.poll), _FEW))
    if paths.websocket:
        idle = State(Kind.WEBSOCKET_IDLE, Request(paths.websocket), _FEW, _WEBSOCKET_S)
        states.append(replace(idle, optional=paths.optional))
    if paths.websocket_slow or paths.websocket:
        path = paths.websocket_slow or paths.websocket
        states.append(State(Kind.WEBSOCKET_ECHO, Request(path), _FEW, optional=paths.optional))
    return Scenario(tuple(states), newcomers or Newcomers(fast))


def uneven(whole: Scenario) -> Scenario:
    """The same with one single request in flight, so that one worker of several has work.

    Even load hides servers that end the other workers as soon as an idle one has ended.
    """
    states = [replace(s, count=1) for s in whole.states if s.kind is Kind.IN_HANDLER]
    return replace(whole, states=tuple(states[:1]))
