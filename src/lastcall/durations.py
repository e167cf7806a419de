"""Lengths of time as people write them."""

from __future__ import annotations

import re

from lastcall.errors import BadPolicy

LONGEST_S = 7 * 24 * 3600.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


def parse_duration(text: str) -> float:
    """Read a length of time: `30`, `30s`, `1.5m`, `200ms`, `2h`. Returns seconds.

    Raises:
        BadPolicy: it is not a length of time.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadPolicy(f"{text!r} is not a length of time", "write it as 30s, 1.5m, 200ms or 2h")
    return float(match[1]) * _UNITS[match[2]]
