"""Write the completion scripts anew from the command line's grammar, or check that they are."""

from __future__ import annotations

import sys
from pathlib import Path

import shtab

from lastcall.cli.completion import SHELLS
from lastcall.cli.main import parser

FOLDER = Path(__file__).parent.parent / "src/lastcall/cli/completions"


def main() -> int:
    """Write, or with --check compare; returns the exit code."""
    check = sys.argv[1:] == ["--check"]
    stale = []
    for shell in SHELLS:
        script = shtab.complete(parser(), shell)
        path = FOLDER / f"lastcall.{shell}"
        if not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(script, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != script:
            stale.append(path.name)
    if stale:
        print(f"stale: {', '.join(stale)}: run python scripts/completions.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
