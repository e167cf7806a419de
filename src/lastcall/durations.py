"""Lengths of time as people write them."""

from __future__ import annotations

import re

from lastcall.errors import BadPolicy

LONGEST_S = 7 * 24 * 3600.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_DURATION = re.compile(rf"(?:{_PART.pattern})|(?:\d+(?:\.\d+)?(?:ms|s|m|h)){{2,4}}")


def parse_duration(text: str) -> float:
    """Read a length of time: `30`, `30s`, `1.5m`, `200ms`, `1h30m`. Returns seconds.

    Raises:
        BadPolicy: it is not a length of time.
    """
    if _DURATION.fullmatch(text.strip()) is None:
        raise BadPolicy(
            f"{text!r} is not a length of time", "write it as 30s, 1.5m, 200ms or 1h30m"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
