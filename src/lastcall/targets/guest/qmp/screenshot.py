"""A picture of the guest's screen, through a file in memory that QEMU is handed.

QEMU writes where its own user may write, which is nowhere in common with ours; a descriptor passed
to it needs no place at all. QEMU empties it first, so it cannot be given its size and sealed
beforehand: it is watched instead, and sealed as soon as it is larger than any picture should be.

Source: QEMU 7.2 `qapi/ui.json` (screendump), `qapi/misc.json` (add-fd), `monitor/misc.c` (a
descriptor serves only the access mode that it was opened with); memfd_create(2), fcntl(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import SCREEN_LIMIT_BYTES

if TYPE_CHECKING:
    from lastcall.targets.guest.qmp.session import Session

SCREEN_S = 5.0
_PNG_SINCE = (7, 1)
_WATCH_S = 0.02


async def take(session: Session) -> bytes:
    """The screen as PNG, or as PPM where this QEMU cannot make one.

    Raises:
        Trouble: UNSUPPORTED (there is no screen, or no file can be passed), HUNG, BROKEN.
    """
    if session.version >= _PNG_SINCE:
        try:
            return await _take(session, {"format": "png"})
        except Trouble as trouble:
            # QEMU may have been built without libpng: then a PPM will do.
            if trouble.fault is not Fault.REFUSED or "PNG" not in trouble.what.upper():
                raise _no_screen(trouble) from trouble
    try:
        return await _take(session, {})
    except Trouble as trouble:
        raise _no_screen(trouble) from trouble


def _no_screen(trouble: Trouble) -> Trouble:
    if trouble.fault is Fault.REFUSED and "no console" in trouble.what:
        return Trouble(Fault.UNSUPPORTED, "the guest has no screen", evidence=(trouble.what,))
    return trouble


def _no_file(error: OSError) -> Trouble:
    why, advice = error.strerror or str(error), ""
    if error.errno == errno.EMFILE:
        why = "this program has too many files open"
        advice = "raise the limit on open files (ulimit -n), or name fewer targets at once"
    return Trouble(Fault.BROKEN, f"no picture of the screen could be taken: {why}", advice)


async def _take(session: Session, how: dict[str, object]) -> bytes:
    memory = written = -1
    try:
        memory = os.memfd_create("lastcall-screen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        written = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        number = await _pass(session, written)
        watcher = asyncio.get_running_loop().create_task(_keep_small(memory))
        try:
            arguments = {"filename": f"/dev/fdset/{number}", **how}
            await session.execute("screendump", arguments, SCREEN_S)
        finally:
            watcher.cancel()
            await _forget(session, number)
        _check_size(memory)
        if picture := os.pread(memory, SCREEN_LIMIT_BYTES, 0):
            return picture
        raise Trouble(Fault.BROKEN, "QEMU made no picture of the screen")
    except OSError as error:
        raise _no_file(error) from error
    finally:
        for fd in (memory, written):
            if fd >= 0:
                os.close(fd)


async def _keep_small(memory: int) -> None:
    """Let the file grow no more once it is too large."""
    while os.fstat(memory).st_size <= SCREEN_LIMIT_BYTES:  # noqa: ASYNC110 (no event tells its size)
        await asyncio.sleep(_WATCH_S)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)


def _check_size(memory: int) -> None:
    if os.fstat(memory).st_size > SCREEN_LIMIT_BYTES:
        raise Trouble(Fault.BROKEN, "QEMU's picture of the screen has more than 64 MiB")


async def _pass(session: Session, fd: int) -> int:
    session.send_fd(fd)
    try:
        answer = await session.execute("add-fd")
    except Trouble as trouble:
        if trouble.fault is not Fault.REFUSED:
            raise
        raise Trouble(
            Fault.UNSUPPORTED,
            "QEMU was not handed the file for the picture",
            "name the socket that QEMU itself listens on",
            (trouble.what,),
        ) from trouble
    number = answer.get("fdset-id") if isinstance(answer, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise Trouble(Fault.BROKEN, "QEMU's answer to add-fd makes no sense")
    return number


async def _forget(session: Session, number: int) -> None:
    """Take the file back from QEMU, if it will."""
    with contextlib.suppress(Trouble):
        await session.execute("remove-fd", {"fdset-id": number})
