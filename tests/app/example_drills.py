"""Drilling the programs in examples/app: what their tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from drill.experiments import only_slow
from helpers import wait_until
from lastcall.drill.experiment import drill
from lastcall.drill.history import Kind
from lastcall.drill.judge import Fate, fate
from lastcall.drill.plan import Plan
from lastcall.drill.scenario import Newcomers, Request, Scenario, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lastcall.drill.experiment import Drilled

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "app"
_TRIES = 8
_SOON_S = 0.2


def server(module: str, *words: str) -> tuple[str, ...]:
    """The command of a server that is a module of Python."""
    return (sys.executable, "-u", "-m", module, *words)


def short(slow: str, fast: str) -> Scenario:
    """A few requests in the handler, newcomers, and requests on connections that were idle.

    Args:
        slow: a path that takes a moment.
        fast: one that answers at once.
    """
    states = (
        State(Kind.IN_HANDLER, Request(slow), 3),
        State(Kind.IDLE_THEN_REQUEST, Request(fast), 2, _SOON_S),
    )
    return Scenario(states, Newcomers(Request(fast), 20.0))


def sound(
    command: tuple[str, ...],
    scenario: Scenario,
    env: Callable[[Path], dict[str, str]] = lambda _: {},
    check: Callable[[Drilled, Path], None] = lambda *_: None,
) -> Drilled:
    """One drill in a fresh folder; again when this machine was too slow for it.

    Args:
        command: starts the server, in the folder of the examples; `{port}` is filled in.
        scenario: the traffic.
        env: more variables for it, by its folder.
        check: looks at the folder while it is there.
    """
    plan = Plan(command, scenario=scenario, cwd=str(EXAMPLES), patience_s=20.0)
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory(prefix="lastcall-example-") as name:
            folder = Path(name)
            given = {"LASTCALL_STATE_DIR": str(folder / "state")} | env(folder)
            drilled = asyncio.run(drill(replace(plan, env=tuple(given.items()))))
            unreached = drilled.result.keeps_its_word and drilled.result.judgement.not_reached
            if only_slow(drilled.result) or unreached:
                continue
            check(drilled, folder)
        break
    return drilled


def acknowledged(drilled: Drilled, *kinds: Kind) -> Iterator[str]:
    """The keys of what was acknowledged, of some kinds."""
    for attempt in drilled.attempts:
        if attempt.kind in kinds and attempt.key and fate(attempt) is Fate.ACKNOWLEDGED:
            yield attempt.key


@contextlib.contextmanager
def served(
    module: str, app: str, env: dict[str, str], cwd: Path = EXAMPLES, stdout: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """An ASGI server with uvicorn's command line, serving, and its port; gone in the end."""
    port = free_port()
    child = subprocess.Popen(
        server(module, app, "--port", str(port)), cwd=cwd, env=os.environ | env, stdout=stdout
    )
    try:
        wait_until(lambda: answers(port), "the server to listen")
        yield child, port
    finally:
        child.kill()
        child.communicate()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
