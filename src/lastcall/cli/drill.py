"""`lastcall drill`: stop a server under real work, count what is lost, and say why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lastcall.errors import UsageError

if TYPE_CHECKING:
    import argparse

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
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
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


def need_extra() -> None:
    """The protocols of a drill are libraries.

    Raises:
        MissingExtra: they are not installed.
    """
    from importlib.util import find_spec

    from lastcall.errors import MissingExtra

    missing = [name for name in ("h11", "h2", "httptools", "wsproto") if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"a drill needs {', '.join(missing)}", "pip install 'lastcall[drill]', then try again"
        )


def write_private(path: str, text: str) -> None:
    """Write a report that only its owner may read (0600), replacing an older one.

    Raises:
        UsageError: it cannot be written there.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", "name a file in a folder of your own"
        ) from error
