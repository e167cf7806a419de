"""A small reader of ELF files: which sections and notes there are, and whether one holds a text.

The file may be anything, also hostile: every offset, count and size in it is bounded before it is
used, and whatever makes no sense reads as "not there".

Source: elf(5).
"""

from __future__ import annotations

import os
import struct

from lastcall.record import record

_HEAD_BYTES = 64
_MOST_SECTIONS = 2048
_MOST_SEGMENTS = 256
_NAMES_LIMIT_BYTES = 64 * 1024
_NOTE_LIMIT_BYTES = 16 * 1024
_CHUNK_BYTES = 1 << 20
_PT_NOTE = 4
_SHT_NOBITS = 8


@record
class Section:
    """A part of the file."""

    offset_bytes: int
    size_bytes: int


@record
class _Layout:
    """Where the fields of the headers stand, for 32 or 64 bit and either byte order."""

    order: str
    wide: bool

    def unpack(self, narrow: str, wide: str, raw: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self.order + (wide if self.wide else narrow), raw)


class Elf:
    """The headers of one file that is open for reading. Reads nothing more until asked.

    Args:
        fd: the file's descriptor; it stays the caller's.

    Raises:
        ValueError: it is no ELF file, or a broken one.
        OSError: it cannot be read.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        head = os.pread(fd, _HEAD_BYTES, 0)
        if len(head) < _HEAD_BYTES or head[:4] != b"\x7fELF" or not {head[4], head[5]} <= {1, 2}:
            raise ValueError("not an ELF file")
        self._layout = _Layout("<" if head[5] == 1 else ">", wide=head[4] != 1)
        fields = self._layout.unpack("IIIIHHHHHH", "QQQIHHHHHH", head[24:])
        self._segments_at, self._sections_at = fields[1], fields[2]
        self._segment_size, self._segment_count = fields[5], fields[6]
        self._section_size, self._section_count, self._names_index = fields[7], fields[8], fields[9]

    def _read(self, offset_bytes: int, size_bytes: int) -> bytes:
        if not 0 <= offset_bytes < 1 << 62:
            return b""
        return os.pread(self._fd, max(0, size_bytes), offset_bytes)

    def sections(self) -> dict[str, Section]:
        """The sections that have a name and a place in the file; empty when stripped of them."""
        least = 64 if self._layout.wide else 40
        if self._section_size < least or not 0 < self._section_count <= _MOST_SECTIONS:
            return {}
        size = self._section_size
        if size > 4 * least:
            return {}
        raw = self._read(self._sections_at, size * self._section_count)
        rows = [
            self._layout.unpack("IIIIII", "IIQQQQ", raw[at : at + least])
            for at in range(0, len(raw) - least + 1, size)
        ]
        if self._names_index >= len(rows):
            return {}
        names_row = rows[self._names_index]
        names = self._read(names_row[4], min(names_row[5], _NAMES_LIMIT_BYTES))
        found: dict[str, Section] = {}
        for row in rows:
            name = names[row[0] : row[0] + 64].partition(b"\0")[0].decode(errors="replace")
            if name and row[1] != _SHT_NOBITS:
                found.setdefault(name, Section(row[4], row[5]))
        return found

    def note_owners(self) -> set[bytes]:
        """Who left notes in it (`Go`, `GNU`, ...), from the program headers, which strip keeps."""
        least = 56 if self._layout.wide else 32
        if not least <= self._segment_size <= 4 * least or self._segment_count > _MOST_SEGMENTS:
            return set()
        owners: set[bytes] = set()
        raw = self._read(self._segments_at, self._segment_size * self._segment_count)
        for at in range(0, len(raw) - least + 1, self._segment_size):
            row = self._layout.unpack("IIIII", "IIQQQQ", raw[at : at + least])
            if row[0] == _PT_NOTE:
                offset, size = (row[2], row[5]) if self._layout.wide else (row[1], row[4])
                owners |= self._owners(self._read(offset, min(size, _NOTE_LIMIT_BYTES)))
        return owners

    def _owners(self, raw: bytes) -> set[bytes]:
        owners, at = set(), 0
        while at + 12 <= len(raw):
            name_size, data_size, _ = struct.unpack_from(self._layout.order + "III", raw, at)
            owners.add(raw[at + 12 : at + 12 + min(name_size, 16)].rstrip(b"\0"))
            at += 12 + -(-name_size // 4) * 4 + -(-data_size // 4) * 4
        return owners

    def holds(self, section: Section, text: bytes, limit_bytes: int) -> bool | None:
        """Whether the section holds this text; None when that is not known: too large to search."""
        if section.size_bytes > limit_bytes:
            return None
        tail, at, end = b"", section.offset_bytes, section.offset_bytes + section.size_bytes
        while at < end and (chunk := self._read(at, min(_CHUNK_BYTES, end - at))):
            if text in tail + chunk:
                return True
            tail, at = chunk[-len(text) :], at + len(chunk)
        return False if at >= end else None
