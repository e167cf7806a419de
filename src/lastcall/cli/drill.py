"""`lastcall drill`: stop a server under real work, count what is lost, and say why."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

from lastcall.errors import ExitCode, LastcallError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Sequence

T = TypeVar("T")

# name: (module, what it does); each loads only when it is used.
_KINDS = {
    "http": ("drill_http", "drill one HTTP server"),
    "compare": ("drill_compare", "the same drill over every server that is found here"),
}
_FILES = 8192
_EPILOG = """\
  lastcall drill http --slow-path /report -- uvicorn shop:app     what does a stop lose?
  lastcall drill http --target port:8080 --slow-path /report      one that runs already
  lastcall drill compare                                          every server found here
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall drill` takes."""
    import argparse
    from importlib import import_module

    parser.epilog = _EPILOG
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT")
    for name, (module, summary) in _KINDS.items():
        sub = kinds.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        import_module(f"lastcall.cli.{module}").add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    """Run the drill that was chosen."""
    from importlib import import_module

    from lastcall.drill.extra import need_extra

    if args.kind is None:
        raise UsageError("what is to be drilled?", "lastcall drill http, or lastcall drill compare")
    need_extra()
    _many_files()
    return int(import_module(f"lastcall.cli.{_KINDS[args.kind][0]}").run(args))


def _many_files() -> None:
    """Every connection takes a file. The server inherits the limit, so that it is raised little."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Interrupted(LastcallError):
    """Somebody ended lastcall in the middle of a drill."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED


class CannotWrite(LastcallError):
    """A report could not be written, though it had looked as if it could."""

    code = "cannot-write"


def carry_out(work: Coroutine[Any, Any, T], advice: Callable[[], str]) -> T:
    """Run a drill to its end, or until a signal ends it; what was started here is gone then.

    Args:
        work: the drill, or several.
        advice: what to tell when it is interrupted.

    Raises:
        LastcallError: as the drill does.
        Interrupted: SIGINT, SIGTERM or SIGHUP came.
    """
    import asyncio

    return asyncio.run(_until_signalled(work, advice))


async def _until_signalled(work: Coroutine[Any, Any, T], advice: Callable[[], str]) -> T:
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    came: list[signal.Signals] = []

    def interrupted(signum: signal.Signals) -> None:
        if came:
            os._exit(128 + signum)  # whoever keeps the server sees it, and clears up
        came.append(signum)
        task.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            continue  # as `nohup` wants it, or a script that put us in the background
        loop.add_signal_handler(signum, interrupted, signum)
    try:
        done = await task
    except asyncio.CancelledError:
        if not came:
            raise
    if came:
        raise Interrupted(
            f"interrupted by {came[0].name}: a drill that was not finished proves nothing", advice()
        )
    return done


def refuse_empty(args: argparse.Namespace) -> None:
    """An option that is there and empty is a variable that was never set, not a wish.

    Raises:
        UsageError: there is one.
    """
    for name, value in vars(args).items():
        several = isinstance(value, list) and name not in {"server", "servers"}
        if value == "" or (several and "" in value):
            raise UsageError(f"--{name.replace('_', '-')} is empty", "give it a value, or leave it")


def length_of(option: str, text: str, *, zero: bool = True) -> float:
    """A length of time that an option gives, in seconds.

    Args:
        option: its name, for the error.
        text: what was given.
        zero: whether it may be nothing at all.

    Raises:
        UsageError: it is none, or longer than a week.
    """
    from lastcall.durations import LONGEST_S, parse_duration

    try:
        length_s = parse_duration(text)
    except LastcallError as error:
        raise UsageError(f"{option}: {error.what[:200]}", error.advice) from error
    if length_s > LONGEST_S or (length_s <= 0 and not zero):
        least = "" if zero else "more than nothing and "
        raise UsageError(f"{option} {text}: has to be {least}at most a week", "such as 30s")
    return length_s


def refuse_unwritable(paths: Sequence[str]) -> None:
    """See before the drill whether its reports can be written.

    Raises:
        UsageError: one cannot: there is no such folder, or something else has that name.
    """
    import tempfile

    seen: set[str] = set()
    for path in paths:
        folder, real = os.path.dirname(path) or ".", os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{path} is named for two reports", "give each a file of its own")
        seen.add(real)
        if not os.path.isdir(folder):
            raise UsageError(f"{path} cannot be written: there is no folder {folder}", "create it")
        try:
            with tempfile.TemporaryFile(dir=folder):  # more than rights can be in the way
                pass
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: folder {folder}: {error.strerror}", _OWN
            ) from error
        _refuse_strange(path)


_OWN = "name a file in a folder of your own"


def _refuse_strange(path: str) -> None:
    """Only a file of one's own is replaced: no link, no device, nobody else's."""
    import stat

    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", _OWN) from error
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is there already, and is no file of its own", _OWN)
    if found.st_uid != os.geteuid():
        raise UsageError(f"{path} belongs to another user (uid {found.st_uid})", _OWN)


def write_private(path: str, text: str) -> None:
    """Write a report that only its owner may read (0600), replacing an older one as a whole.

    Raises:
        CannotWrite: it cannot be written there.
    """
    import tempfile

    temporary = ""
    try:
        # It is made with 0600, and a link of the final name is replaced, not followed.
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".lastcall-")
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise CannotWrite(f"{path} cannot be written: {error.strerror}", _OWN) from error
        raise
