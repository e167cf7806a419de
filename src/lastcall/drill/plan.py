"""What a drill is to do, all of it, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.how import How
from lastcall.drill.scenario import Scenario
from lastcall.record import record

if TYPE_CHECKING:
    from lastcall.drill.place import Place
    from lastcall.proc.ready import Ready


@record
class Plan:
    """One drill.

    Args:
        command: starts the server; `{port}` in it (or in a value of `env`) becomes a free port.
            Empty: it runs already.
        place: where the server is; None: found out from what the command listens on.
        pid: the main process of a server that runs already; None: it is not known.
        scenario: the traffic.
        how: how it is stopped.
        ready: when it is ready; None: once it answers any request.
        ready_within_s: how long it may take to get ready, in seconds.
        lead_s: how long newcomers and load run alone first, so that it is seen that it serves.
        settle_s: how long the connections may take to get into their states, in seconds.
        moment_s: when the stop comes, in seconds after the states were begun; None: as soon as
            every connection is in its state.
        patience_s: how long after the stop anything may take, in seconds.
        linger_s: how long newcomers go on being tried once the server has ended, in seconds.
        pid1: run the command as PID 1 of a pid namespace of its own.
        cwd: where the command runs; empty: here.
        env: more variables for the command.
        ledger: the file in which the server writes down what it executes; empty: none.
        again: the command line that repeats the drill.
    """

    command: tuple[str, ...] = ()
    place: Place | None = None
    pid: int | None = None
    scenario: Scenario = Scenario()
    how: How = How()
    ready: Ready | None = None
    ready_within_s: float = 30.0
    lead_s: float = 0.3
    settle_s: float = 2.0
    moment_s: float | None = None
    patience_s: float = 30.0
    linger_s: float = 1.0
    pid1: bool = False
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    ledger: str = ""
    again: str = ""
