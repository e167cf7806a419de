"""The count of one server in a small file, so that many stops may be spread over many days.

One JSON object, private (0600), replaced as a whole after each stop: whoever is interrupted loses
the stop that was under way and nothing else. It says what was counted; stops of another version of
the server, of lastcall, of the probe application or of the drill's traffic are never added to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lastcall.drill.files import read_named
from lastcall.drill.history import Kind
from lastcall.drill.judge import Fate
from lastcall.drill.tally import Detail, Tally
from lastcall.errors import UsageError
from lastcall.journal.place import make_private
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.installed import Found
    from lastcall.drill.scenario import Scenario

FORMAT = 1
_FILE_BYTES = 4 * 1024 * 1024
_WORDS = {
    "server": "the server",
    "python": "Python",
    "lastcall": "lastcall's source",
    "probe": "the probe application",
    "drill": "the traffic, or how it is stopped",
}


class CannotKeep(UsageError):
    """The folder in which the counts are kept cannot be used."""

    code = "cannot-keep"


@record
class Kept:
    """What was found of an earlier count.

    Args:
        tally: to go on with.
        anew: why an earlier one does not count; empty: it does, or there was none.
    """

    tally: Tally
    anew: str = ""


def identity(found: Found, scenario: Scenario, how: str) -> dict[str, str]:
    """What a count is about: whatever of it is another begins a count of its own.

    Args:
        found: the server.
        scenario: the traffic, without what varies from stop to stop.
        how: how it is stopped, and how long that may take.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    traffic = repr((found.server.command, found.server.env, scenario, how))
    return {
        "server": found.version,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "lastcall": source_digest(os.path.join(package, "app")) if found.server.beside else "",
        "probe": source_digest(os.path.join(package, "drill", "probe")),
        "drill": _digest([traffic.encode()]),
    }


def source_digest(folder: str) -> str:
    """A digest of every Python source below a folder; the same for the same text."""
    texts = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(name for name in names if name.endswith(".py")):
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                texts += [os.path.relpath(path, folder).encode(), file.read()]
    return _digest(texts)


def _digest(texts: list[bytes]) -> str:
    whole = hashlib.sha256()
    for text in texts:
        whole.update(b"%d:" % len(text) + text)
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def kept_in(folder: str) -> Iterator[None]:
    """Make the folder, and keep it to ourselves: two that count there would undo each other.

    Raises:
        CannotKeep: it cannot be made, or another lastcall is counting there.
    """
    try:
        make_private(os.path.abspath(folder))
        lock = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotKeep(
            f"{folder} cannot be used: {error.strerror}", "name a folder of your own"
        ) from error
    try:
        _lock(lock, folder)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, folder: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CannotKeep(
            f"another lastcall is counting in {folder}", "wait for it, or name another folder"
        ) from error


def path_of(folder: str, key: str) -> str:
    """Where the count of a server is kept."""
    return os.path.join(folder, f"{key}.json")


def load(path: str, about: dict[str, str]) -> Kept:
    """The count so far.

    Args:
        path: of the file.
        about: what is to be counted now, from `identity`.

    Raises:
        CannotKeep: something is there that cannot be read.
    """
    if not os.path.exists(path):
        return Kept(Tally())
    try:
        row = json.loads(read_named(path, _FILE_BYTES, CannotKeep))
        if not isinstance(row, dict) or row.get("format") != FORMAT:
            return Kept(Tally(), "the kept count is of another format, or none")
        other = [word for name, word in _WORDS.items() if row["about"].get(name) != about[name]]
        if other:
            return Kept(Tally(), f"not the same any more: {', '.join(other)}")
        return Kept(from_plain(row["tally"]))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        return Kept(Tally(), f"the kept count cannot be read ({type(error).__name__})")


def save(path: str, about: dict[str, str], tally: Tally) -> None:
    """Keep the count, in place of the one before.

    Raises:
        CannotKeep: the file cannot be written.
    """
    row = {"format": FORMAT, "about": about, "tally": to_plain(tally)}
    temporary = ""
    try:
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".tally-")
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(row, file, indent=1)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise CannotKeep(
                f"{path} cannot be written: {error.strerror}", "make room, or name another folder"
            ) from error
        raise


def to_plain(tally: Tally) -> dict[str, Any]:
    """As `json` takes it."""
    row = {each.name: getattr(tally, each.name) for each in fields(Tally)}
    names = [each.name for each in fields(Detail)]
    row["details"] = [{name: getattr(d, name) for name in names} for d in tally.details]
    return row


def from_plain(row: dict[str, Any]) -> Tally:
    """As it was before `to_plain`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it never was a count.
    """
    changed = {
        "fates": {Kind[_name(key)].key: _fates(each) for key, each in row["fates"].items()},
        "missed": _counts(row["missed"]),
        "reasons": _counts(row["reasons"]),
        "causes": {str(code): (str(a), str(b)) for code, (a, b) in row["causes"].items()},
        "ends": _counts(row["ends"]),
        "ended_s": tuple(map(float, row["ended_s"])),
        "details": tuple(_detail(**each) for each in row["details"]),
    }
    made = Tally(**{**row, **changed})
    if not 0 <= made.losing <= made.stops or made.unsaid < 0:
        raise ValueError("more stops lost work than there were")
    return made


def _name(key: str) -> str:
    return key.upper().replace("-", "_")


def _fates(row: dict[str, Any]) -> dict[str, int]:
    return {Fate(word).value: int(number) for word, number in row.items()}


def _counts(row: dict[str, Any]) -> dict[str, int]:
    return {str(key): int(number) for key, number in row.items()}


def _detail(
    number: int, verdict: str, reasons: list[str], causes: list[str], output: list[str]
) -> Detail:
    return Detail(int(number), str(verdict), tuple(reasons), tuple(causes), tuple(output))
