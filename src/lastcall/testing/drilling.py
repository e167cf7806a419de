"""A pytest fixture that drills your own application inside your own test suite.

    from lastcall.testing import drill  # noqa: F401 (a fixture)

    def test_a_stop_loses_nothing(drill):
        result = drill(["uvicorn", "--port", "{port}", "shop:app"], slow_path="/report")
        assert result.keeps_its_word

It needs pytest and the extra `lastcall[drill]`.
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
from typing import TYPE_CHECKING

import pytest

from lastcall.drill.extra import need_extra
from lastcall.drill.wellformed import path_fault
from lastcall.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lastcall.drill.experiment import Drilled
    from lastcall.drill.history import Attempt
    from lastcall.drill.result import Result
    from lastcall.drill.scenario import Scenario

__all__ = ["Drill", "Outcome", "drill"]


class Outcome:
    """What a drill came to; shown in a failed assertion with its reasons.

    Args:
        drilled: the drill.
        html: where its report stands.
    """

    def __init__(self, drilled: Drilled, html: Path) -> None:
        self.result: Result = drilled.result
        self.attempts: tuple[Attempt, ...] = drilled.attempts
        self.html = html

    @property
    def keeps_its_word(self) -> bool:
        """Whether nothing was lost, and that was proved: an inconclusive drill is no pass."""
        return self.result.keeps_its_word

    @property
    def lost(self) -> int:
        """How many requests were lost."""
        return self.result.lost

    def __repr__(self) -> str:
        judgement = self.result.judgement
        lines = [f"<drill: {judgement.verdict}", *(f"  {reason}" for reason in judgement.reasons)]
        lines += [
            f"  {found.severity}: {found.title}{f': {found.advice}' if found.advice else ''}"
            for found in self.result.findings
        ]
        return "\n".join([*lines, f"  report: {self.html}>"])


class Drill:
    """Drills a server. The fixture `drill` is one.

    Args:
        folder: where the reports go.
        tell: takes each outcome, as (title, text).
    """

    def __init__(self, folder: Path, tell: Callable[[str, str], None] = lambda *_: None) -> None:
        self._folder = folder
        self._tell = tell
        self._numbers = itertools.count(1)

    def __call__(  # noqa: PLR0913 (one word for each thing that can be said)
        self,
        command: Sequence[str] | str,
        *,
        path: str = "/",
        slow_path: str = "",
        upload_path: str = "",
        websocket_path: str = "",
        count: int = 5,
        scenario: Scenario | None = None,
        probe: bool = False,
        ready: str = "",
        how: str = "TERM",
        to: str = "main",
        patience_s: float = 30.0,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
    ) -> Outcome:
        """Start a server, stop it under work, and judge.

        Args:
            command: starts the server; `{port}` in it becomes a free port.
            path: answers at once.
            slow_path: takes a while: what is in flight when the stop comes; empty: `path`.
            upload_path: takes a body by POST; empty: uploads are not tested.
            websocket_path: echoes over a WebSocket; empty: not tested.
            count: how many requests are in flight.
            scenario: all the traffic; None: what the paths allow.
            probe: whether it runs lastcall's probe application.
            ready: a path, a URL, `port:N`, `line:TEXT` or `notify`; empty: once it answers.
            how: the signal, or `rolling:COMMAND`.
            to: `main`, `group` or `tree`.
            patience_s: how long the stop may take, in seconds.
            env: more variables for the server.
            cwd: where it runs; empty: here.

        Raises:
            MissingExtra: the extra `lastcall[drill]` is not installed.
            UsageError: the words make no sense, or an event loop runs already.
            LastcallError: the experiment could not be made. A server that never got ready, or
                ended before the stop, is an inconclusive outcome and no error.
        """
        _refuse_running_loop()
        need_extra()
        from lastcall.drill import presets
        from lastcall.drill.experiment import drill as run
        from lastcall.drill.how import How, To
        from lastcall.drill.plan import Plan
        from lastcall.drill.report.html import render
        from lastcall.proc.ready import Ready

        number = next(self._numbers)
        said = {"path": path, "slow-path": slow_path, "upload-path": upload_path}
        said["websocket-path"] = websocket_path
        _refuse_strange(said)
        paths = presets.Paths(path, slow_path, upload_path, websocket=websocket_path)
        ledger = str(self._folder / f"ledger-{number}") if probe else ""
        words = _words(command)
        options = {} if scenario or probe else said
        options |= {"count": str(count), "how": how, "to": to if to != "main" else ""}
        plan = Plan(
            words,
            scenario=scenario or presets.scenario(presets.probe_paths() if probe else paths, count),
            how=How.parse(how, To(to)),
            ready=Ready.parse(ready) if ready else None,
            patience_s=patience_s,
            env=(*(env or {}).items(), *((("LASTCALL_LEDGER", ledger),) if ledger else ())),
            cwd=cwd,
            ledger=ledger,
            again=_again(words, options, probe=probe),
        )
        outcome = Outcome(asyncio.run(run(plan)), self._folder / f"drill-{number}.html")
        outcome.html.write_text(render(outcome.result), encoding="utf-8")
        self._tell(f"drill {number}", repr(outcome))
        return outcome


def _refuse_running_loop() -> None:
    """A drill runs an event loop of its own: inside of another one there can be none.

    Raises:
        UsageError: there is one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "drill() was called inside of an event loop, and has one of its own",
        "make the test a plain `def`, or write: await asyncio.to_thread(drill, ...)",
    )


def _refuse_strange(paths: Mapping[str, str]) -> None:
    for name, path in paths.items():
        if path and (fault := path_fault(path)):
            raise UsageError(f"{name.replace('-', '_')}: {fault[0]}", fault[1])


def _words(command: Sequence[str] | str) -> tuple[str, ...]:
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise UsageError(f"{command!r} is not a command: {error}", "check its quotes") from error
    if not words:
        raise UsageError("there is no command that starts the server", 'such as ["my-server"]')
    return tuple(map(str, words))


def _again(words: Sequence[str], options: Mapping[str, str], *, probe: bool) -> str:
    """The command line that comes nearest to this drill."""
    said = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    marks = ["--probe"] if probe else []
    return shlex.join(["lastcall", "drill", "http", *marks, *said, "--", *words])


@pytest.fixture
def drill(tmp_path: Path, request: pytest.FixtureRequest) -> Drill:
    """Stops a server under real work and says what was lost; see `Drill`."""

    def tell(title: str, text: str) -> None:
        # An assertion shows only the beginning of what it compares; a failed test shows this whole.
        request.node.add_report_section("call", title, text)

    return Drill(tmp_path, tell)
