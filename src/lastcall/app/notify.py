"""Telling the service manager (systemd, or whoever set NOTIFY_SOCKET) how far the end is.

Datagrams without waiting: who does not take them in time misses them, and the stop goes on.
READY=1 is sent when the program says that it is (`Lifecycle.notify_ready`): only it knows when its
servers listen. STOPPING=1 cannot be taken back, so where hooks may object it goes out with the
draining. EXTEND_TIMEOUT_USEC is sent with the beginning of the stop and with each extension: what
is left by then and a moment to leave, so that the manager does not cut off what our own deadline
still allows.

Children of a service have its NOTIFY_SOCKET too. A forked worker, or a child of multiprocessing,
says nothing: its end is not the end of the service.

Source: sd_notify(3); systemd `src/core/service.c`, service_notify_message.
"""

from __future__ import annotations

import os
import sys

from lastcall.app.hooks import Outcome
from lastcall.app.leave import MARGIN_S
from lastcall.app.phases import DRAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Self

    from lastcall.app.house import House
    from lastcall.app.snapshot import Look

_STATUS_CHARS = 300
_SHOWN = 3
_USEC = 1_000_000


class Notifier:
    """Tells one service manager. Made by `Notifier.of`.

    Args:
        house: what is told of.
        link: a datagram socket.
        address: where to.
    """

    def __init__(self, house: House, link: socket.socket, address: str | bytes) -> None:
        self._house = house
        self._link = link
        self._address = address
        self._stopping = False

    @classmethod
    def of(cls, house: House, environ: Mapping[str, str]) -> Self | None:
        """The one that the environment names.

        Args:
            house: what is told of.
            environ: the environment variables.

        Returns:
            None: there is no manager, its address is of another kind (vsock:), or this process is
            a child that the service itself started.
        """
        name = environ.get("NOTIFY_SOCKET", "")
        if name[:1] not in {"/", "@"} or len(name) < len("/x") or _is_child():
            return None
        try:
            import socket

            link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except (OSError, AttributeError, ImportError):
            return None
        link.setblocking(False)
        address = b"\0" + os.fsencode(name[1:]) if name[0] == "@" else os.fsencode(name)
        return cls(house, link, address)

    def send(self, *fields: str) -> bool:
        """Send some fields `NAME=value`. Whether that could be done; it never waits."""
        try:
            # A zero byte or a line feed would end a field early.
            text = "\n".join(field.replace("\n", " ").replace("\0", " ") for field in fields)
            self._link.sendto(text.encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """The start is over; see `Lifecycle.notify_ready`."""
        fields = ["READY=1", f"MAINPID={os.getpid()}"]
        return self.send(*fields, *([_said(status)] if status else []))

    def heed(self, what: str, words: Mapping[str, object]) -> None:
        """A change; see `Lifecycle.listen`."""
        house, phase = self._house, self._house.coordinator.phase
        begun = phase is not None and phase.name == DRAIN
        if (what == "stopping" and not house.vetoes) or (what == "phase" and begun):
            self._begin()
        if what == "extended":
            self.send(self._left(), _said(f"needs more time: {words.get('reason')}"))
        elif what == "called-off":
            self.send(_said(f"the stop was called off: {words.get('reason')}"))
        elif what in {"phase", "hook", "hurried"} and phase is not None:
            self.send(_said(self._words()))
        elif what == "ended" and house.coordinator.report is not None:
            self.send(_said(str(house.coordinator.report)))

    def _begin(self) -> None:
        if not self._stopping:
            self._stopping = True
            report = self._house.coordinator.report
            reason = "" if report is None else report.reason
            self.send("STOPPING=1", self._left(), _said(f"stopping: {reason}"))

    def _left(self) -> str:
        left_s = self._house.coordinator.rest_s() + MARGIN_S
        return f"EXTEND_TIMEOUT_USEC={int(left_s * _USEC)}"

    def _words(self) -> str:
        desk = self._house.coordinator
        name = desk.phase.name if desk.phase is not None else ""
        runs = [run for run in desk.runs if not run.over and not run.hook.inner]
        shown = [run.name for run in runs[:_SHOWN]]
        if len(runs) > _SHOWN:
            shown.append(f"{len(runs) - _SHOWN} more")
        flights = self._house.gate.count()
        if flights:
            shown.append(f"{flights} in flight")
        failed = [run.name for run in desk.runs if run.outcome is Outcome.FAILED]
        said = f"{name}: {', '.join(shown)}" if shown else name
        return f"{said} (failed: {', '.join(failed[:_SHOWN])})" if failed else said

    def tell_stuck(self, look: Look) -> None:
        """What was found stuck: the first of it in words."""
        if not look.stuck:
            return
        one, where = look.stuck[0]
        at = f" ({where})" if where else ""
        since = "" if one.since_s is None else f" for {one.since_s:.0f} s"
        waits = f", waits for {one.waiting_for}" if one.waiting_for else ""
        more = f"; and {len(look.stuck) - 1} more" if len(look.stuck) > 1 else ""
        ring = f"; a deadlock: {look.deadlocks[0]}" if look.deadlocks else ""
        self.send(_said(f"waits for {one.what}{at}{since}{waits}{more}{ring}"))

    def close(self) -> None:
        """Say no more."""
        self._link.close()


def _said(text: str) -> str:
    return "STATUS=" + (text if len(text) <= _STATUS_CHARS else text[: _STATUS_CHARS - 1] + "…")


def _is_child() -> bool:
    """Whether multiprocessing started this process."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = getattr(multiprocessing, "parent_process", None)
    return parent is not None and parent() is not None
