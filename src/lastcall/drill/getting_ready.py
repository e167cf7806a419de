"""From the start of a server until it is ready: where it listens, and which process is its main."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.how import open_related
from lastcall.drill.listening import acceptors, at_port, place_of, strangers_at
from lastcall.errors import NotRunning
from lastcall.proc.asking import Asking, Site
from lastcall.proc.ready import NotReady, Ready, last_words, wait_ready

if TYPE_CHECKING:
    from lastcall.drill.place import Place
    from lastcall.drill.plan import Plan
    from lastcall.kernel.identity import Handle
    from lastcall.proc.program import Program

_PORT_EVERY_S = 0.02
_NOBODY_S = 3.0
# As libc says it, Node and Go, Java and .NET.
_PORT_TAKEN = ("address already in use", "eaddrinuse", "address in use")


async def get_ready(program: Program, port: int, plan: Plan) -> tuple[Place, Handle]:
    """Wait until a server that was started here is ready. Returns where, and its main process.

    Args:
        program: the server.
        port: the one that it was told; 0: none.
        plan: the drill.

    Raises:
        NotReady: it did not get ready in time.
        UsageError: it listens at several places, or not alone.
    """
    try:
        place = plan.place or await _place(program, port, plan.ready_within_s)
        main = await _main_ready(program, place, plan)
    except NotReady as error:
        if not any(word in text.lower() for _, text in program.lines for word in _PORT_TAKEN):
            raise
        raise NotReady(
            f"{error.what}; it says that its port is taken",
            "write {port} in the command for a free one, or stop who listens there",
            error.evidence,
            error.ended,
        ) from error
    handle = open_related(main, program.owns)
    if handle is None:
        raise NotReady("the server ended as soon as it was ready", evidence=last_words(program))
    return place, handle


async def wait_found(place: Place, plan: Plan) -> None:
    """Wait until a server that runs already is ready.

    Raises:
        NotRunning: nobody listens there.
        NotReady: it does not answer in time.
    """
    asking = Asking([Site(place.host, place.port, place.unix)])
    try:
        async with asyncio.timeout(min(_NOBODY_S, plan.ready_within_s)):
            await asking.answered()
    except TimeoutError:
        raise NotRunning(
            f"nobody listens on {place}; nothing was started",
            "start the server first, or give the command that starts it after `--`",
            (asking.seen,),
        ) from None
    await _wait(None, place, plan)


async def _main_ready(program: Program, place: Place, plan: Plan) -> int:
    """Wait until it is ready. Returns the process to stop.

    Raises:
        NotReady: it did not get ready in time.
    """
    main = _main(program, place)
    try:
        await _wait(program if main == program.pid else None, place, plan)
    except NotReady as died:
        # A daemon's starter ends at its own time, maybe just now.
        asked = plan.ready is None or plan.ready.kind in {"port", "url"}
        if died.ended is None or died.ended.status or not program.left() or not asked:
            raise
        await _wait(None, place, plan)
        main = _main(program, place)
        if main == program.pid:
            raise
    return main


def _main(program: Program, place: Place) -> int:
    """The process to stop: the command's own, or the daemon that it left behind when it ended."""
    left = program.left()
    if program.ended is None or not left:
        return program.pid
    _, holders = acceptors(place.port, left)
    return min(holders, default=program.pid)


async def _wait(program: Program | None, place: Place, plan: Plan) -> None:
    ready = plan.ready or Ready.parse(plan.scenario.newcomers.request.path)
    await wait_ready(program, ready, plan.ready_within_s, place)


async def _place(program: Program, port: int, limit_s: float) -> Place:
    """Where a program listens.

    Args:
        program: the server.
        port: the one that it was told; 0: none.
        limit_s: when to give up, in seconds.

    Raises:
        NotReady: nowhere in time.
        UsageError: at several places, or not alone.
    """
    until = monotonic() + limit_s
    while monotonic() < until:
        ended = program.ended  # asked first: what it left behind may listen a moment later
        place = at_port(port, program) if port else place_of(program.left())
        if place is not None:
            return place
        if ended is not None and not program.left():
            raise NotReady(
                f"the server ended before it listened anywhere: {ended}",
                "run the command by itself and mend it first; its last words stand above",
                last_words(program),
                ended,
            )
        await asyncio.sleep(_PORT_EVERY_S)
    others = strangers_at(port, program) if port else ()
    raise NotReady(
        f"the server does not listen {f'on port {port}' if port else 'anywhere'} "
        f"after {limit_s:g} s{', but another program does' if others else ''}",
        "if that one serves for it (a container), drill it as it runs: name its --url"
        if others
        else "give it more time with --ready-within, or name its --url",
        (*others, *last_words(program)),
    )
