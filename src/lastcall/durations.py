"""Lengths of time as people write them."""

from __future__ import annotations

import re

from lastcall.errors import BadPolicy

LONGEST_S = 7 * 24 * 3600.0
_MINUTE_S = 60

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|)")
_DURATION = re.compile(rf"(?:{_PART.pattern})|(?:\d+(?:\.\d+)?(?:ms|s|min|m|h)){{2,4}}")


def parse_duration(text: str) -> float:
    """Read a length of time: `30`, `30s`, `1.5min` (or `1.5m`), `200ms`, `1h30m`. Returns seconds.

    Raises:
        BadPolicy: it is not a length of time.
    """
    if _DURATION.fullmatch(text.strip()) is None:
        raise BadPolicy(
            f"{text!r} is not a length of time", "write it as 30s, 1.5min, 200ms or 1h30min"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def in_words(length_s: float) -> str:
    """A length of time for people: `0.3 s`, `45 s`, `2 min`, `2 min 30 s`, `1 h 30 min`.

    Args:
        length_s: in seconds; below zero it is nothing.
    """
    if length_s < _MINUTE_S:
        return f"{max(length_s, 0.0):.3g} s"
    whole_s = round(length_s)
    parts = ((whole_s // 3600, "h"), (whole_s % 3600 // 60, "min"), (whole_s % 60, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
