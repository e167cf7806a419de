"""From the target's end to the command's return: lastcall against those that wait for an end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from typing import TYPE_CHECKING

from lastcall.clock import SystemClock
from lastcall.model import Address, Ended
from lastcall.stop.operation import Operation
from lastcall.stop.policy import Policy
from lastcall.targets.open import Wish, open_target
from measure import Effort, Row, Series, in_turns
from stage import LASTCALL, PYTHON, Ran, Stage, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.stop.news import News

# Of this run alone: pkill takes whoever is called so.
NAME = f"lc-{os.getpid()}"
BARE = "a bare Python program that does nothing but wait (pidfd, poll)"
LASTCALL_NAME = "lastcall stop"
# Long enough that every command has started and waits by then; of varying length, so that those
# that look at intervals are not always met at the same point.
SHORTEST_MS, LONGEST_MS = 400, 600

WATCHER = """\
import os, select, signal, sys
fd = os.pidfd_open(int(sys.argv[1]))
signal.pidfd_send_signal(fd, signal.SIGTERM)
poller = select.poll()
poller.register(fd, select.POLLIN)
poller.poll()
"""
KILL_LOOP = 'kill "$1"; while kill -0 "$1" 2>/dev/null; do sleep 0.1; done'
PKILL = 'pkill --signal TERM -x "$1" && pidwait -x "$1"'

SUPERVISED = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
[program:victim]
command={helper} victim lc-supervised 500 {fifo}
autostart=false
autorestart=false
startsecs=0
stopwaitsecs=30
"""


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about returning."""
    with _supervisord(stage) as stop_supervised:
        taken = in_turns(
            effort, "ms", {**_contenders(stage), "supervisorctl stop": stop_supervised}
        )
    ours, bare = taken.pop(LASTCALL_NAME), taken[BARE]
    lines = [
        Row(
            "from the target's end to the command's return",
            ours,
            name,
            theirs,
            "" if name == BARE else "not later, or not later than a bare Python program",
            None if name == BARE else ours.median <= max(theirs.median, bare.median),
        )
        for name, theirs in taken.items()
    ]
    inside = Series("ms", asyncio.run(_wake_ups(stage, effort)))
    return [
        *lines,
        Row(
            "from the target's end to the event in the library",
            inside,
            aim="median below 2 ms",
            reached=inside.median < 2,
        ),
    ]


def _contenders(stage: Stage) -> dict[str, Callable[[], float]]:
    def on_victim(*command: str) -> Callable[[], float]:
        return lambda: _return_ms(stage, *command)

    daemon = (program("start-stop-daemon"), "--stop", "--retry", "30", "--pid", "PID")
    for name in ("pkill", "pidwait"):
        program(name)
    return {
        LASTCALL_NAME: on_victim(LASTCALL, "stop", "pid:PID"),
        "timeout": lambda: _timeout_ms(stage),
        "start-stop-daemon --stop --retry": on_victim(*daemon),
        "pkill --signal TERM, then pidwait": on_victim("sh", "-c", PKILL, "sh", NAME),
        "kill, then kill -0 every 0.1 s": on_victim("sh", "-c", KILL_LOOP, "sh", "PID"),
        BARE: on_victim(PYTHON, "-c", WATCHER, "PID"),
    }


def _delay_ms() -> int:
    return random.randint(SHORTEST_MS, LONGEST_MS)  # noqa: S311 (no secret)


def _return_ms(stage: Stage, *command: str) -> float:
    """How long after its victim's end this command came back."""
    with stage.orphan(_delay_ms(), NAME) as pid:
        words = [word.replace("PID", str(pid)) for word in command]
        running = stage.start(*words)
        _, ended_ns = stage.record()
        ran = stage.expected(running.finish(), words)
    return _late_ms(ran, ended_ns)


def _late_ms(ran: Ran, ended_ns: int) -> float:
    if ran.returned_ns < ended_ns:
        raise RuntimeError("a command came back before its target's end: what did it wait for?")
    return (ran.returned_ns - ended_ns) / 1e6


def _timeout_ms(stage: Stage) -> float:
    """The same for timeout, which starts its victim itself."""
    command = (program("timeout"), "0.1", stage.helper, "victim", NAME, str(_delay_ms()))
    running = stage.start(*command, stage.fifo)
    stage.record()
    _, ended_ns = stage.record()
    ran = stage.expected(running.finish(), command, expect=(124,))
    return _late_ms(ran, ended_ns)


@contextlib.contextmanager
def _supervisord(stage: Stage) -> Iterator[Callable[[], float]]:
    """A supervisord of our own meanwhile; gives what stops its program once."""
    control = (program("supervisorctl"), "-c", os.path.join(stage.folder, "supervisord.conf"))
    with open(control[-1], "w") as file:
        file.write(SUPERVISED.format(folder=stage.folder, helper=stage.helper, fifo=stage.fifo))

    def sample() -> float:
        stage.run(*control, "start", "victim")
        stage.record()
        running = stage.start(*control, "stop", "victim")
        _, ended_ns = stage.record()
        return _late_ms(stage.expected(running.finish(), control), ended_ns)

    daemon = stage.start(program("supervisord"), "-c", control[-1])
    try:
        give_up_s = time.monotonic() + 30
        # 3: it answers, and the program is not running.
        while stage.start(*control, "status", "victim").finish().status not in {0, 3}:
            if time.monotonic() > give_up_s:
                raise RuntimeError("supervisord does not answer")
            time.sleep(0.1)
        yield sample
    finally:
        if stage.start(*control, "shutdown").finish().status == 0:
            daemon.finish()


async def _wake_ups(stage: Stage, effort: Effort) -> tuple[float, ...]:
    """In this process, with a journal as always: when the library knows of the end."""
    samples = []
    for number in range(effort.warm_up + effort.rounds):
        seen_ns: list[int] = []

        def hear(news: News, seen: list[int] = seen_ns) -> None:
            if isinstance(news.event, Ended):
                seen.append(time.monotonic_ns())

        with stage.orphan(50) as pid:
            target = open_target(Address("pid", str(pid)), Wish())
            await Operation(stage.state, Policy(), SystemClock(), hear).stop([target])
            _, ended_ns = stage.record()
        if number >= effort.warm_up:
            samples.append((seen_ns[0] - ended_ns) / 1e6)
    return tuple(samples)
