"""Files that concern nobody else."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def write_private(path: str, data: Mapping[str, object]) -> str:
    """Write JSON into a file that only this user can read (0600), whole or not at all.

    Args:
        path: where to.
        data: what.

    Returns:
        What went wrong; empty: nothing.
    """
    import json

    partial = f"{path}.{os.getpid()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(partial, flags, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, default=str)
            file.write("\n")
        os.replace(partial, path)
    except OSError as error:
        return f"the report could not be written: {error}"
    return ""
