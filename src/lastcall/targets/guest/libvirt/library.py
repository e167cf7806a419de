"""libvirt's own library: loaded once, quiet, with one thread for its events.

libvirt's default event loop in a thread, not `libvirtaio`: an implementation is registered once
for the whole process and for ever, so that of `libvirtaio` would be bound to the first asyncio
loop; and what libvirt does in it takes locks that a hung call may hold, which would stop our loop.

Source: libvirt 9.0, include/libvirt/libvirt-event.h (virEventRegisterImpl).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from lastcall.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# What libvirt-python gives has no types.
Library: TypeAlias = Any
Connection: TypeAlias = Any
LibvirtDomain: TypeAlias = Any

_lock = threading.Lock()
_loaded: list[tuple[Library, Library]] = []


def load() -> tuple[Library, Library]:
    """`libvirt` and `libvirt_qemu`, with the event thread running.

    Raises:
        MissingExtra: libvirt-python is not installed, or does not fit the library.
    """
    with _lock:
        if not _loaded:
            try:
                import libvirt
                import libvirt_qemu
            except ImportError as error:
                raise MissingExtra(
                    f"stopping guests of libvirt needs libvirt-python ({error})",
                    "pip install 'lastcall[libvirt]'",
                ) from error
            libvirt.registerErrorHandler(_quiet, None)
            libvirt.virEventRegisterDefaultImpl()  # before the first connection
            threading.Thread(
                target=_run_events, args=(libvirt,), daemon=True, name="lastcall-libvirt-events"
            ).start()
            _loaded.append((libvirt, libvirt_qemu))
        return _loaded[0]


def _quiet(_context: object, _error: object) -> None:
    """Every error comes as an exception; libvirt would print it as well."""


def _run_events(libvirt: Library) -> None:
    pause = threading.Event()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            pause.wait(0.1)  # does not happen; if it did, this would be a busy loop


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run something that may block for ever on a thread that nobody waits for.

    A thread of its own, not one of a pool: a pool's are joined at exit, and a hung one stays in it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)
            future.exception()  # whoever waited may have given up: no word of it at the end

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (handed on to who waits)
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, daemon=True, name="lastcall-libvirt").start()
    return future


def apart(function: Callable[[], object]) -> None:
    """Do something that may block for ever, and that nobody needs the end of."""
    threading.Thread(target=function, daemon=True, name="lastcall-libvirt-close").start()
