"""Log lines, said from a thread of their own: a log handler that hangs must not hold the stop."""

from __future__ import annotations

import sys
import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40


class Voice:
    """Says things in order, without the speaker waiting for it."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str, Mapping[str, object] | None]] = deque()
        self._some = threading.Event()
        self._lock = threading.Lock()
        self._busy = False
        self._thread: threading.Thread | None = None

    def say(self, level: int, text: str, data: Mapping[str, object] | None = None) -> None:
        """Log a line.

        Args:
            level: as in `logging`.
            text: the line.
            data: put on the log record as `lastcall`, for structured logs.
        """
        self._lines.append((level, text, data))
        with self._lock:
            if self._busy:
                return
            self._busy = True
        try:
            threading.Thread(target=self._speak, name="lastcall-voice", daemon=True).start()
        except RuntimeError:
            self._speak()  # no thread to be had any more

    def _speak(self) -> None:
        while True:
            with self._lock:
                if not self._lines:
                    self._busy = False
                    self._some.set()
                    return
                self._some.clear()
                level, text, data = self._lines.popleft()
            _log(level, text, data)

    def renew(self) -> None:
        """After a fork, in the child: whoever was speaking is its parent's."""
        self._lines.clear()
        self._some = threading.Event()
        self._lock = threading.Lock()
        self._busy = False

    def finish(self, limit_s: float) -> bool:
        """Wait until all is said. Whether it was, within the limit in seconds."""
        with self._lock:
            if not self._busy:
                return True
        return self._some.wait(limit_s)


def _log(level: int, text: str, data: Mapping[str, object] | None) -> None:
    try:
        # Not imported here: then nobody has set it up, and it would be late for that.
        logging = sys.modules.get("logging")
        # Its last name: another thread may be in the middle of importing it.
        ready = hasattr(logging, "captureWarnings")
        logger = logging.getLogger("lastcall") if logging is not None and ready else None
        if logger is not None and level < logger.level:
            return
        if logger is not None and logger.hasHandlers():
            logger.log(level, "%s", text, extra=None if data is None else {"lastcall": data})
        elif level < INFO or sys.stderr is None:
            return
        elif logger is None or logger.isEnabledFor(WARNING):
            # Nobody has set up logging: what happens at the end is still to be seen.
            sys.stderr.write(f"lastcall: {text}\n")
            sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 (a log that fails must not stop the stop)
        pass


voice: Voice = Voice()


def complain(text: str) -> None:
    """Say what is wrong, with the exception that is being handled."""
    error = sys.exc_info()[1]
    try:
        said = "" if error is None else f": {type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 (its own `__str__`)
        said = f": {type(error).__name__}"
    voice.say(ERROR, f"{text}{said}")
