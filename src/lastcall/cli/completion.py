"""`lastcall completion SHELL`: print the completion script that ships with the package."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lastcall.errors import ExitCode

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh")
EPILOG = """\
bash: lastcall completion bash > ~/.local/share/bash-completion/completions/lastcall
zsh:  lastcall completion zsh > "${fpath[1]}/_lastcall"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `completion`."""
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from importlib.resources import files

    script = files("lastcall.cli").joinpath("completions", f"lastcall.{arguments.shell}")
    sys.stdout.write(script.read_text(encoding="utf-8"))
    return ExitCode.ORDERLY
