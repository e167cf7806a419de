"""The `lastcall` command: finds the subcommand, runs it, turns errors into messages and codes."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from lastcall import __version__
from lastcall.errors import ExitCode, LastcallError, UsageError

if TYPE_CHECKING:
    import argparse

# name: (module, what it does). A module loads only when its command is used.
COMMANDS = {
    "stop": ("stop", "ask running things to end, and see them end"),
    "check": ("check", "tell beforehand what would happen"),
    "drill": ("drill", "stop a server under work, count what is lost, and say why"),
    "log": ("log", "what was stopped, and how it ended"),
    "resume": ("resume", "go on with a stop that was left or cut off"),
    "signals": ("signals", "what each signal means for a stop"),
    "completion": ("completion", "print a completion script for your shell"),
}

# After how many new objects to look for garbage: rarely, but memory stays bounded.
_GARBAGE = 50_000

DESCRIPTION = """\
Stops running things without losing their work, and says why one will not stop.

  lastcall stop port:8080           ask whoever listens there to end; wait; explain
  lastcall stop pid:4242 --force    the same, and take it away if the grace runs out
  lastcall stop qmp:run/vm.sock     the same for a virtual machine (or libvirt:NAME)
  lastcall check name:nginx         will it stop? what would be lost?
  lastcall log                      what was stopped, and how it ended
"""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line's grammar.

    Args:
        command: only this one, with its options; None: all of them with their options (for
            completion); anything else: all of them without.
    """
    import argparse
    from importlib import import_module

    class Parser(argparse.ArgumentParser):
        """Tells mistakes as every other error is told."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(message, _advice(message, self.prog, command))

    top = Parser(
        prog="lastcall",
        description=DESCRIPTION,
        epilog="Exit codes: `lastcall stop --help`, or docs/exit-codes.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"lastcall {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        if command in COMMANDS and command != name:
            continue  # each costs time at every start, and this one was chosen
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command in {None, name}:
            import_module(f"lastcall.cli.{module}").add_arguments(sub)
    return top


def _advice(message: str, prog: str, command: str | None) -> str:
    """What to do about words that argparse does not know."""
    import difflib
    import re

    if command == "drill" and message.startswith("unrecognized"):
        return "a server's own command stands after `--`; see: lastcall drill http --help"
    said = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
    known = re.findall(r"[\w-]+", said[2]) if said else []
    if said and (near := difflib.get_close_matches(said[1], known, 1, 0.5)):
        return f"did you mean {near[0]} ? see: {prog} --help"
    return f"see: {prog} --help"


def run(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        words: the arguments; None means those of this process.
    """
    words = sys.argv[1:] if words is None else words
    if words in (["--version"], ["-V"]):
        print(f"lastcall {__version__}")
        return ExitCode.ORDERLY
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except LastcallError as error:
        _complain(error, as_json="--json" in words)
        return error.exit_code
    except BrokenPipeError:
        discard_output()  # whoever read it went away, as `head` does
        return ExitCode.FAILED
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO}:
            raise
        discard_output()
        with contextlib.suppress(OSError):
            print(f"lastcall: the output cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return code


def discard_output() -> None:
    """From here on nobody gets our output; what has not got out is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_files() -> None:
    """Whoever starts us without standard files gets none of ours in their place.

    Otherwise the first file that we open would be the standard output: the journal, say.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 (as Python opens them)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that knows only ASCII may have to name all
            stream.reconfigure(errors="backslashreplace")


def _dispatch(words: list[str]) -> int:
    from importlib import import_module

    if not words:
        parser("").print_help()
        return ExitCode.USAGE
    # Until the first word that is no option, an unknown command must still list all of them.
    command = words[0] if words and words[0] in COMMANDS else ""
    arguments = parser(command).parse_args(words)
    module = import_module(f"lastcall.cli.{COMMANDS[arguments.command][0]}")
    return int(module.run(arguments))


def _complain(error: LastcallError, *, as_json: bool) -> None:
    from lastcall.cli.show import error_lines

    if as_json:
        import json

        print(json.dumps({"event": "error", **error.as_data()}))
        return
    for line in error_lines(error):
        print(line, file=sys.stderr)


def main() -> NoReturn:
    """The command itself: as `run`, and then the process ends at once.

    All that a stop leaves behind is written and closed when `run` returns (journal, socket,
    terminal), so nothing is lost by `os._exit` but the ten milliseconds that Python takes to
    clear up its memory, which whoever waits for a stop would have to wait for, too. Nothing in
    lastcall may rely on `atexit`.
    """
    # A command makes little garbage that goes in circles, and lives too briefly to look for it.
    gc.set_threshold(_GARBAGE)
    _open_standard_files()
    code = run()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
