"""Following a stop that another lastcall drives, to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lastcall.errors import OwnerUnreachable
from lastcall.model import Finding, Finished, Started, Warned
from lastcall.stop import ownership
from lastcall.stop.news import News, Subject
from lastcall.stop.state import State, evolve, forces

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.clock import Clock

# How long an owner may say nothing after its deadline, beyond the longest wait of a force.
SILENCE_S = 30.0


async def listen(
    folder: str,
    owner: str,
    request: dict[str, object],
    clock: Clock,
    subject: Subject,
    show: Callable[[News], None],
) -> Finished | None:
    """Show what the owner tells, until the ending. None: it let go of the stop, or died.

    Args:
        folder: the state folder.
        owner: who drives it.
        request: what to ask of it; see `ownership`.
        clock: tells the time.
        subject: whom the stop is about.
        show: is told everything.

    Raises:
        OwnerUnreachable: it does not answer, refuses, or has fallen silent.
    """
    stop, pid = int(str(request["stop"])), owner.split("/")[1]
    joined = Finding("joined", f"lastcall pid {pid} stops this already: joined")
    state = State()
    events = ownership.follow(folder, owner, request)
    while True:
        left_s = max(state.deadline_s - clock.now_s(), 0.0)
        force_s = max((rung.wait_s or 0.0 for rung in state.ladder if forces(rung)), default=0.0)
        try:
            async with asyncio.timeout(left_s + force_s + SILENCE_S):
                at_s, event = await anext(events)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise OwnerUnreachable(
                f"lastcall pid {pid} drives this stop and has fallen silent",
                f"it may be stopped itself: lastcall check pid:{pid}",
            ) from None
        state = evolve(state, event, at_s)
        show(News(stop, subject, at_s, event))
        if isinstance(event, Started):
            show(News(stop, subject, clock.now_s(), Warned(joined)))
        if isinstance(event, Finished):
            return event
