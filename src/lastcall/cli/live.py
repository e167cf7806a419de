"""The live view of a terminal: a line a stage as it is reached, and a clock that runs below them.

Needs `rich` (the extra `cli`). Steps that are over scroll up as plain lines; only what is under way
is redrawn.
"""

from __future__ import annotations

import io
import sys
import time
from typing import TYPE_CHECKING, cast

from lastcall.cli.describe import early, telling
from lastcall.cli.views import PlainView
from lastcall.durations import in_words
from lastcall.model import (
    Asked,
    Finished,
    Looked,
    Reached,
    Released,
    Started,
)
from lastcall.stop.state import State, evolve

if TYPE_CHECKING:
    from typing import IO

    from rich.console import Console
    from rich.text import Text

    from lastcall.cli.views import View
    from lastcall.model import Event
    from lastcall.stop.news import News, Result

_BAR = 24
_PER_S = 8


def live_view(targets: int) -> View | None:
    """The live view of so many targets; None without `rich` or on too simple a terminal."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    console = Console(file=sys.stdout, highlight=False, markup=False)
    return (
        LiveView(console, targets) if console.is_terminal and not console.is_dumb_terminal else None
    )


class LiveView:
    """See the module.

    Args:
        console: where to.
        targets: how many there are.
    """

    def __init__(self, console: Console, targets: int) -> None:
        from rich.live import Live

        self._plain = PlainView(cast("IO[str]", _Above(console)), targets)
        self._under_way: dict[int, _Clock] = {}
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_PER_S,
            transient=True,
        )
        self._live.start()

    def _render(self) -> Text:
        from rich.text import Text

        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Text("\n", no_wrap=True, overflow="ellipsis").join(
            clock.line(now_s) for clock in self._under_way.values()
        )

    def news(self, news: News) -> None:
        """Scroll up what is over, and redraw what is under way."""
        event = news.event
        if isinstance(event, Started):
            name = str(news.subject.address)
            self._under_way[news.stop] = _Clock(name)
        clock = self._under_way.get(news.stop)
        if clock is not None:
            clock.heed(event, news.at_s)
        if isinstance(event, Finished | Released):
            self._under_way.pop(news.stop, None)
        self._plain.news(news)

    def result(self, result: Result) -> None:
        """The result, above what is still under way."""
        if not self._under_way:
            self._live.stop()
        self._plain.result(result)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


class _Above(io.TextIOBase):
    """Prints above the lines that are redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        from rich.text import Text

        self._console.print(Text.from_ansi(text.removesuffix("\n")), soft_wrap=True)
        return len(text)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._console.file.fileno()


class _Clock:
    """What is under way with one stop: the stage, and how much of the grace is used up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = State()
        self._stage = "asking"

    def heed(self, event: Event, at_s: float) -> None:
        self._state = evolve(self._state, event, at_s)
        if isinstance(event, Reached):
            self._stage = (
                f"{event.stage.value}: {event.detail}" if event.detail else event.stage.value
            )
        elif isinstance(event, Asked):
            self._stage = "asked"
        elif isinstance(event, Looked) and (shown := telling(event.findings)) and not early(shown):
            self._stage = f"waits: {shown[0].title}"

    def line(self, now_s: float) -> Text:
        from rich.text import Text

        grace_s = max(self._state.deadline_s - self._state.started_s, 0.001)
        used_s = now_s - self._state.started_s
        filled = min(int(_BAR * used_s / grace_s), _BAR)
        style = "green" if used_s < grace_s * 0.6 else "yellow" if used_s < grace_s else "red"
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{used_s:7.1f} s  ", "bold")
        line.append("━" * filled, style)
        line.append("━" * (_BAR - filled), "bright_black")
        line.append(f" {in_words(grace_s)}  ", "dim")
        line.append(f"{self._name}  ", "bold")
        line.append(self._stage, "cyan")
        return line
