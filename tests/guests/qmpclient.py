"""A small synchronous QMP client: the test's own eyes on a guest, beside what is tested.

Source: QEMU 7.2 docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

# A word of memory or a port, as the human monitor shows it.
_HEX = re.compile(r"0x([0-9a-f]+)\b")


class Refused(Exception):
    """QEMU answered a command with an error.

    Args:
        kind: QEMU's class of error, such as "CommandNotFound".
        what: QEMU's own words.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


class Closed(Exception):
    """QEMU closed the connection: it has ended, or ends."""


class Side:
    """One QMP connection. It keeps every event from when it connected.

    Args:
        path: of QEMU's Unix socket; waited for until QEMU listens on it.
        alive: whether QEMU may still come to listen; None: not known.

    Raises:
        AssertionError: nobody listens in time.
        Closed: QEMU has ended.
    """

    def __init__(self, path: Path, alive: Callable[[], bool] | None = None) -> None:
        self._alive = alive
        self._socket = socket.socket(socket.AF_UNIX)
        self._pending = b""
        self._heard: list[dict[str, Any]] = []
        self._told = 0
        self._count = 0
        try:
            wait_until(lambda: self._connects(path), f"a QMP server at {path}")
            self._read(time.monotonic() + PATIENCE_S)
            self.command("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connects(self, path: Path) -> bool:
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            if self._alive is not None and not self._alive():
                raise Closed from None
            return False
        return True

    def _read(self, end_s: float) -> dict[str, Any]:
        """The next message.

        Raises:
            Closed: there will be none.
            TimeoutError: there was none until `end_s`.
        """
        while b"\n" not in self._pending:
            # A limit of 0 would mean "do not block", and say so with another error.
            self._socket.settimeout(max(end_s - time.monotonic(), 0.000_001))
            try:
                piece = self._socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self._heard.append(message)
        return message

    def command(self, name: str, **arguments: object) -> Any:
        """Run a command and give what it returns. Underscores of argument names stand for hyphens.

        Raises:
            Refused: QEMU answered with an error.
            Closed: QEMU went away first.
            TimeoutError: it did not answer in time.
        """
        self._count += 1
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = {"execute": name, "arguments": given, "id": self._count}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None
        end_s = time.monotonic() + PATIENCE_S
        while (answer := self._read(end_s)).get("id") != self._count:
            pass
        if "error" in answer:
            raise Refused(answer["error"]["class"], answer["error"]["desc"])
        return answer["return"]

    def events(self) -> list[dict[str, Any]]:
        """Every event so far, as QEMU sent it, oldest first. Does not wait."""
        try:
            while True:
                self._read(0.0)
        except (TimeoutError, Closed):
            return list(self._heard)

    def names(self) -> list[str]:
        """The names of all events so far."""
        return [event["event"] for event in self.events()]

    def wait_event(self, name: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next event of this name that was not waited for before; those in between are passed.

        Raises:
            AssertionError: it did not come in time, or QEMU went away.
        """
        end_s = time.monotonic() + patience_s
        while True:
            while self._told < len(self._heard):
                self._told += 1
                if self._heard[self._told - 1]["event"] == name:
                    return self._heard[self._told - 1]
            try:
                self._read(end_s)
            except (TimeoutError, Closed) as error:
                heard = [event["event"] for event in self._heard]
                raise AssertionError(f"no event {name} ({error!r}), only {heard}") from error

    def hmp(self, line: str) -> str:
        """What the human monitor answers to a line."""
        return str(self.command("human-monitor-command", command_line=line))

    def port(self, number: int) -> int:
        """The 16 bits at an I/O port. Reading the PM1 registers changes nothing."""
        return int(_HEX.findall(self.hmp(f"i /hx {number:#x}"))[-1], 16)

    def status(self) -> str:
        """QEMU's run state, such as "running"."""
        return str(self.command("query-status")["status"])

    def press(self) -> None:
        """Press the power button."""
        self.command("system_powerdown")

    def text(self) -> str:
        """The text on the screen (of a text mode, 80 by 25), lines without the blanks at the end.

        Source: VGA: characters and colours in turn from 0xB8000 on.
        """
        shown = [line.partition(":")[2] for line in self.hmp("xp /4000bx 0xb8000").splitlines()]
        cells = [int(cell, 16) for cell in _HEX.findall(" ".join(shown))][::2]
        characters = "".join(chr(cell) if 32 <= cell < 127 else " " for cell in cells)
        rows = [characters[start : start + 80].rstrip() for start in range(0, 2000, 80)]
        return "\n".join(rows).strip("\n")

    def written_bytes(self) -> int:
        """How much the guest has written to its disks so far."""
        disks = self.command("query-blockstats")
        return sum(int(disk["stats"]["wr_bytes"]) for disk in disks)

    def close(self) -> None:
        """Hang up. Harmless to repeat."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
