"""The format of a run record.

    0       a page: head and text, `key=value` lines       8 KiB
    8192    the other page: they are written in turn       8 KiB
    16384   256 slots of work in flight (0: the overflow)  32 KiB
    49152   what faulthandler writes when C code crashes   8 KiB, and more if it needs

A page counts when its CRC is right; the newer of two is read. A slot counts when the tag of the run
stands behind it: that is written last. So a kill at any byte leaves the old or the new. Both pages
are of the present run before any work is taken: an older run cannot be read in its place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = b"lastcall"
VERSION = 1
PAGE = 8192
HEAD = 32
SLOTS_AT = 2 * PAGE
SLOT = 128
SLOTS = 256
NAME_BYTES = SLOT - 13
TIME_AT = SLOT - 12  # of a slot: when it was last taken or given back, and then the run's tag
CRASH_AT = SLOTS_AT + SLOT * SLOTS
SIZE = CRASH_AT + 8192


def plain(text: str, limit_bytes: int) -> str:
    """One printable line of at most so many bytes of UTF-8."""
    line = "".join(char if char.isprintable() else "?" for char in text[:limit_bytes])
    raw = line.encode()
    if len(raw) <= limit_bytes:
        return line
    return raw[: limit_bytes - 3].decode("utf-8", "ignore") + "…"


# -- the pages


def page_bytes(number: int, tag: int, fields: Mapping[str, str]) -> bytes:
    """A page: `number` tells which of two is newer, `tag` whose slots count."""
    import struct
    import zlib

    text = "".join(f"{key}={value}\n" for key, value in fields.items()).encode()[: PAGE - HEAD]
    rest = struct.pack("<QII", number, tag, len(text)) + text
    return MAGIC + struct.pack("<II", VERSION, zlib.crc32(rest)) + rest


class Page:
    """A page that was read."""

    __slots__ = ("fields", "number", "tag")

    def __init__(self, number: int, tag: int, fields: dict[str, str]) -> None:
        self.number: int = number
        self.tag: int = tag
        self.fields: dict[str, str] = fields

    def number_of(self, key: str) -> float | None:
        """A number among the fields; None when it is not there or makes no sense."""
        try:
            found = float(self.fields[key])
        except (KeyError, ValueError):
            return None
        return found if abs(found) < 1e15 else None  # noqa: PLR2004 (neither NaN nor infinite)


def _page(raw: bytes) -> Page | None:
    import struct
    import zlib

    if len(raw) < HEAD or not raw.startswith(MAGIC):
        return None
    version, crc = struct.unpack_from("<II", raw, 8)
    number, tag, length = struct.unpack_from("<QII", raw, 16)
    if version != VERSION or length > len(raw) - HEAD:
        return None
    if zlib.crc32(raw[16 : HEAD + length]) != crc:
        return None
    lines = raw[HEAD : HEAD + length].decode("utf-8", "replace").split("\n")
    return Page(number, tag, {key: value for key, _, value in (x.partition("=") for x in lines)})


def read_pages(raw: bytes) -> tuple[Page | None, bool]:
    """The newer page that is whole, and whether both are."""
    pages = [_page(raw[at : at + PAGE]) for at in (0, PAGE)]
    whole = [page for page in pages if page is not None]
    return max(whole, key=lambda page: page.number, default=None), len(whole) == len(pages)


def written_by_newer(raw: bytes) -> bool:
    """Whether a later version of lastcall wrote it."""
    heads = [raw[at : at + 12] for at in (0, PAGE) if raw[at : at + 8] == MAGIC]
    return any(int.from_bytes(head[8:], "little") > VERSION for head in heads)


def is_ours(raw: bytes) -> bool:
    """Whether it may be written over: a record, or nothing yet."""
    return MAGIC in {raw[:8], raw[PAGE : PAGE + 8]} or not any(raw[:SIZE])


# -- the slots


def read_slots(raw: bytes, tag: int) -> tuple[list[tuple[str, float]], int, float]:
    """(name, begun) of the work in flight, how much more there was, and the last sign of life.

    Times are seconds since boot.
    """
    import struct

    found: list[tuple[str, float]] = []
    beyond, last_s = 0, 0.0
    for slot in range(SLOTS):
        at = SLOTS_AT + slot * SLOT
        if len(raw) < at + SLOT:
            break
        time_s, mark = struct.unpack_from("<dI", raw, at + TIME_AT)
        if not 0 <= time_s < 1e12:  # noqa: PLR2004 (damaged: also NaN)
            continue
        last_s = max(last_s, time_s)
        if mark != tag:
            continue
        if slot == 0:
            beyond = int.from_bytes(raw[at : at + 4], "little")
            continue
        name = raw[at + 1 : at + 1 + min(raw[at], NAME_BYTES)]
        found.append((plain(name.decode("utf-8", "ignore"), SLOT), time_s))
    return sorted(found, key=lambda work: work[1]), beyond, last_s
